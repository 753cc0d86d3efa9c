"""How long Python takes to import the package, and the command to show its help, as jobs (see `pairs`)."""

import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path


def bare_python() -> Callable[[], object]:
    return partial(subprocess.run, [sys.executable, "-c", "pass"], check=True)


def import_package() -> Callable[[], object]:
    return partial(subprocess.run, [sys.executable, "-c", "import featurestore"], check=True)


def command_help() -> Callable[[], object]:
    program = Path(sys.executable).with_name("featurestore")
    return partial(subprocess.run, [str(program), "--help"], check=True, stdout=subprocess.DEVNULL)

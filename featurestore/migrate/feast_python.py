"""Starts the reader under the Python in which Feast is installed, which need not be ours: Feast does not agree with our pandas."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from featurestore.errors import ConfigError

READER = Path(__file__).with_name("feast_reader")

SECONDS = 1800
"""How long a repository may take to load, and Feast to answer."""

YAML = "feature_store.yaml"


def feast_python(said: Path | None) -> Path:
    """The Python of Feast: the one that is said, that of the command `feast`, or this one; ConfigError where there is none."""
    if said is not None:
        if not said.exists():
            raise ConfigError(f"--feast-python: there is no {said}")
        return said / "bin" / "python" if said.is_dir() else said
    command = shutil.which("feast")
    if command is not None:
        found = _of_script(Path(command))
        if found is not None:
            return found
    if importlib.util.find_spec("feast") is not None:
        return Path(sys.executable)
    raise ConfigError(
        "Feast is found neither as the command 'feast' nor beside featurestore. Name the Python in which it is installed: "
        "--feast-python PATH, such as .venv/bin/python"
    )


def _of_script(script: Path) -> Path | None:
    """The Python that a script names in its first line, or that lies beside it."""
    try:
        first = script.read_bytes()[:4096].split(b"\n", 1)[0].decode("utf-8", "replace")
    except OSError:
        return None
    named = re.match(r"#!\s*(\S+)", first)
    beside = script.resolve().parent / "python"
    candidates = [Path(named[1])] if named is not None and "python" in Path(named[1]).name else []
    return next((path for path in (*candidates, beside) if path.exists()), None)


def feast_folder(repo: Path) -> Path:
    """The folder of feature_store.yaml: the repository itself, or the one below it that has one; ConfigError otherwise."""
    if not repo.is_dir():
        raise ConfigError(f"{repo} is no folder; name that of {YAML}")
    if (repo / YAML).is_file():
        return repo
    skipped = {"site-packages", "node_modules"}
    found = sorted(
        path.parent
        for path in repo.rglob(YAML)
        if not any(part in skipped or part.startswith(".") for part in path.relative_to(repo).parts)
    )
    if len(found) == 1:
        return found[0]
    if not found:
        raise ConfigError(f"{repo} has no {YAML}, nor has a folder below it; name the folder of one")
    listed = ", ".join(str(path) for path in found)
    raise ConfigError(f"Several folders below {repo} have a {YAML}; name one of them: {listed}")


def ask_feast(python: Path, request: Mapping[str, Any]) -> dict[str, Any]:
    """What the reader answers; ConfigError where it ends without an answer, with the last that it said."""
    with tempfile.TemporaryDirectory() as folder:
        asked, answered = Path(folder) / "request.json", Path(folder) / "answer.json"
        asked.write_text(json.dumps(request), encoding="utf-8")
        command = [str(python), str(READER), str(asked), str(answered)]
        environment = {**os.environ, "FEAST_USAGE": "False", "PYTHONWARNINGS": "ignore", "PYTHONDONTWRITEBYTECODE": "1"}
        try:
            done = subprocess.run(
                command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=SECONDS, check=False
            )
        except subprocess.TimeoutExpired as error:
            last = _last(error.stderr or b"")
            raise ConfigError(
                f"{python} has not read {request['repo']} within {SECONDS} s; the last that it said: {last}. A file that waits "
                "or serves when it is imported goes into .feastignore"
            ) from None
        except OSError as error:
            raise ConfigError(f"{python} cannot be started: {error.strerror}") from None
        if not answered.is_file():  # a library that dies while Python ends changes nothing in an answer that is there
            raise ConfigError(f"{python} cannot read {request['repo']}: {_last(done.stderr)}")
        answer: dict[str, Any] = json.loads(answered.read_text(encoding="utf-8"))
        if "error" in answer:
            raise ConfigError(f"{python} cannot read {request['repo']}: {answer['error']}")
        return answer


def _last(said: bytes) -> str:
    lines = [line for line in said.decode("utf-8", "replace").splitlines() if line.strip()]
    return lines[-1].strip() if lines else "nothing"

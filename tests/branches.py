"""Run as a program: of the branches of the folders that hold the rules, how many plain tests take, and whether fewer than before.

python -m tests.branches [--missed]

The folders, their floors and the tests are in `branches.toml` beside this file. Tests that draw their examples at random run nowhere
here: they take further branches, but not the same ones each time. --missed: print each line from which a branch was never taken.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
SETTINGS = Path(__file__).with_name("branches.toml")
MUCH = 0.5
"""Per cent by which a floor may lie below what is reached before one is asked to raise it."""


def measured(folders: Sequence[str], tests: Sequence[str]) -> dict[str, Any]:
    """What coverage.py reports of each file of the folders after the tests have run."""
    with tempfile.TemporaryDirectory() as scratch:
        environment = {**os.environ, "COVERAGE_FILE": str(Path(scratch, "data"))}
        measure = [sys.executable, "-m", "coverage"]
        source = ",".join(f"featurestore/{folder}" for folder in folders)
        chosen = ["-n", "0", "-q", "-m", "not hypothesis", "-p", "no:cacheprovider", *tests]
        subprocess.run(
            [*measure, "run", "--branch", f"--source={source}", "-m", "pytest", *chosen],
            cwd=ROOT, env=environment, check=True,
        )  # fmt: skip
        report = Path(scratch, "report.json")
        subprocess.run([*measure, "json", "-q", "-o", str(report)], cwd=ROOT, env=environment, check=True)
        files: dict[str, Any] = json.loads(report.read_text())["files"]
    return files


def reached(files: Mapping[str, Any], folder: str) -> float:
    """Per cent of the branches of a folder that were taken, down to two digits."""
    inside = [
        told["summary"] for path, told in files.items() if Path(path).is_relative_to(Path("featurestore", folder))
    ]
    taken, branches = (sum(each[name] for each in inside) for name in ("covered_branches", "num_branches"))
    if not branches:
        raise SystemExit(
            f"featurestore/{folder} has no branches: is it called something else by now? See {SETTINGS.name}"
        )
    return 10_000 * taken // branches / 100


def judged(found: Mapping[str, float], floors: Mapping[str, float]) -> list[str]:
    """What is wrong: the folders of which fewer branches are taken than before."""
    return [
        f"{folder}: {found[folder]:.2f} % of its branches are taken, and it was {floor:.2f} %. Test the branches that are new "
        "(--missed lists those that nothing takes)"
        for folder, floor in floors.items() if found[folder] < floor
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.branches")
    parser.add_argument("--missed", action="store_true")
    missed: bool = parser.parse_args().missed
    said = tomllib.loads(SETTINGS.read_text())
    floors: dict[str, float] = said["floors"]
    files = measured(list(floors), said["tests"]["paths"])
    if missed:
        for path, told in files.items():
            for line, to in told["missing_branches"]:
                print(f"{path}:{line} never goes to {'its end' if to < 0 else to}")
    found = {folder: reached(files, folder) for folder in floors}
    for folder, floor in floors.items():
        advice = f": raise the floor to {found[folder]:.2f}" if found[folder] > floor + MUCH else ""
        print(f"{folder:12}{found[folder]:7.2f} %   floor {floor:.2f}{advice}")
    if wrong := judged(found, floors):
        raise SystemExit("\n".join(wrong))


if __name__ == "__main__":
    main()

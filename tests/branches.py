"""Run as a program: of the branches of the folders that hold the rules, how many plain tests take, and whether fewer than before.

python -m tests.branches [--missed] [--beside-long]

The folders, their floors and the tests are in `branches.toml` beside this file. Tests that draw their examples at random do not count: they take
further branches, but not the same ones each time. --missed: print each line from which a branch was never taken.
--beside-long: run all that `make test` does but for what `make test-long` does at greater length, and measure while those tests run that count.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import pkgutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
SETTINGS = Path(__file__).with_name("branches.toml")
MUCH = 0.5
"""Per cent by which a floor may lie below what is reached before one is asked to raise it."""

PLACE = "BRANCHES_PLACE"
"""The variable of the environment that says in which folder a process of tests leaves what it measured."""


class Measuring:
    """As a plugin of pytest: measures while modules are imported, and while plain tests of the files run that count.

    Two runs take the same branches, whichever process runs a file and whatever it ran before: functions that remember what they
    answered forget it before each file.
    """

    def __init__(self, place: Path) -> None:
        import coverage

        said = tomllib.loads(SETTINGS.read_text())
        self._counted = {ROOT / path for path in said["tests"]["paths"]}
        self._folders = [f"featurestore.{folder}" for folder in said["floors"]]
        source = [str(ROOT / "featurestore" / folder) for folder in said["floors"]]
        self._coverage = coverage.Coverage(
            str(place / "data"), data_suffix=True, branch=True, source=source, config_file=False
        )
        expected = ["already-imported", "no-data-collected"]  # as all is when it goes on; by whom only starts others
        self._coverage.set_option("run:disable_warnings", expected)
        self._on = False
        self._last: Path | None = None
        self._measure(True)

    def pytest_collection_finish(self) -> None:
        for folder in self._folders:
            import_whole(folder)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        if item.path != self._last:
            self._last = item.path
            forget(self._folders)
            self._measure(not self._counted.isdisjoint({item.path, *item.path.parents}))
        return (yield)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Iterator[None]:
        counts, is_drawn = self._on, item.get_closest_marker("hypothesis") is not None
        self._measure(counts and not is_drawn)
        try:
            return (yield)
        finally:
            self._measure(counts)

    def pytest_sessionfinish(self) -> None:
        self._measure(False)
        self._coverage.save()

    def _measure(self, on: bool) -> None:
        if on != self._on:
            (self._coverage.start if on else self._coverage.stop)()
            self._on = on


def measuring() -> Measuring | None:
    """What is to count branches in this process from now on, if anything is."""
    place = os.environ.get(PLACE)
    return Measuring(Path(place)) if place else None


def import_whole(package: str) -> None:
    """Import each module of a package, so that what one does as it is imported is measured, whichever test needs it first."""
    for module in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}."):
        importlib.import_module(module.name)


def forget(packages: Sequence[str]) -> None:
    """Empty what functions of packages remember of their answers."""
    for name, module in list(sys.modules.items()):
        if name.startswith(tuple(packages)):
            for value in list(vars(module).values()):
                if hasattr(value, "cache_clear"):
                    value.cache_clear()


def measured(words: Sequence[str], place: Path) -> dict[str, Any]:
    """What coverage.py reports of each file of the folders, after pytest has run with words; place: an empty folder."""
    import coverage

    ran = subprocess.run(
        [sys.executable, "-m", "pytest", *words], cwd=ROOT, env={**os.environ, PLACE: str(place)}, check=False
    )
    if ran.returncode:
        raise SystemExit(ran.returncode)
    found = coverage.Coverage(str(place / "data"), branch=True, config_file=False)
    found.combine([str(place)])
    report = place / "report.json"
    found.json_report(outfile=str(report))
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
    parser.add_argument("--beside-long", action="store_true")
    asked = parser.parse_args()
    said = tomllib.loads(SETTINGS.read_text())
    floors: dict[str, float] = said["floors"]
    words = ["-m", "not at_length"] if asked.beside_long else ["-m", "not hypothesis", *said["tests"]["paths"]]
    with tempfile.TemporaryDirectory() as place:
        files = measured(words, Path(place))
    if asked.missed:
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

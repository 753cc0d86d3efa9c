"""Make mutants, and tell which of them the tests do not notice: `make mutants`."""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from cosmic_ray.testing import run_tests
from cosmic_ray.work_item import TestOutcome

from tests.mutants.made import Mutant, mutants_of
from tests.mutants.table import PACKAGE, ROOT, Equivalent, equivalents, held_by, modules

LEFT_OUT = shutil.ignore_patterns(".git", ".venv", ".hypothesis", ".*_cache", "build", "dist")

SLOWER, SPARE_S = 5, 30
"""A mutant may take so many times what its tests take without it, and so many seconds; then it counts as noticed."""


def main(arguments: Sequence[str]) -> int:
    """1 where a mutant survived, 2 where there is nothing to ask."""
    asked = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    asked.add_argument("only", nargs="*", help="semantics/time.py, semantics/ or semantics/time.py:Timing.as_of")
    asked.add_argument("--sample", type=int, default=10, help="so many of each module, drawn by chance; 0: all of them")
    asked.add_argument("--seed", type=int, default=0, help="of the drawing")
    asked.add_argument("--list", action="store_true", help="show the mutants, and run nothing")
    given = asked.parse_args(arguments)
    wanted = [name.partition(":") for name in given.only]
    chosen = modules([path for path, _, _ in wanted])
    if not chosen:
        print("No module of tests/mutants/table.toml begins so")
        return 2
    functions = [function for _, _, function in wanted if function]
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        trial = Trial(Path(folder) / ROOT.name)
        total: Counter[str] = Counter()
        for module in chosen:
            total += _module(trial, module, functions, given)
    print(_line("all", total))
    return 2 if total["broken"] else 1 if total["survived"] else 0


class Trial:
    """A copy of the whole tree, in which one module at a time is a mutant: nothing is ever written into the tree itself."""

    def __init__(self, tree: Path) -> None:
        shutil.copytree(ROOT, tree, ignore=LEFT_OUT)
        self._tree = tree
        self._took: dict[tuple[str, ...], float] = {}
        os.environ["PYTHONPATH"] = str(tree)
        os.chdir(tree)

    def path(self, module: str) -> Path:
        """Where a module lies in the copy."""
        return self._tree / PACKAGE.name / module

    def seconds(self, tests: tuple[str, ...]) -> float | None:
        """How long tests take on the code as it is; None where they fail."""
        if tests not in self._took:
            start = time.monotonic()
            outcome, said = run_tests(_command(tests), 1800)
            if outcome is not TestOutcome.SURVIVED:
                print(said)
                return None
            self._took[tests] = time.monotonic() - start
        return self._took[tests]

    def outcome(self, module: str, mutant: Mutant, tests: tuple[str, ...]) -> str:
        """What becomes of a mutant."""
        path = self.path(module)
        whole = path.read_text()
        path.write_text(mutant.code)
        try:
            outcome, said = run_tests(_command(tests), SLOWER * self._took[tests] + SPARE_S)
        finally:
            path.write_text(whole)
        if outcome is TestOutcome.SURVIVED:
            return "survived"
        return "timed out" if said == "timeout" else "killed"


def _module(trial: Trial, module: str, functions: Sequence[str], given: argparse.Namespace) -> Counter[str]:
    """Try the mutants of one module, and print those that survive."""
    made = [each for each in mutants_of(trial.path(module)) if not functions or each.function in functions]
    same = {entry[:4] for entry in equivalents()}
    tried = [each for each in made if _identity(module, each) not in same]
    count = Counter(made=len(made), equivalent=len(made) - len(tried))
    if not functions:
        _tell_gone(module, made)
    if given.sample and given.sample < len(tried):
        number = {each.code: place for place, each in enumerate(tried)}
        drawn = random.Random(f"{given.seed} {module}").sample(tried, given.sample)
        tried = sorted(drawn, key=lambda each: number[each.code])
    if given.list:
        print(*[each.diff(module) for each in tried], sep="\n")
        return count
    tests = held_by(module)
    if tried and trial.seconds(tests) is None:
        print(f"{module}: its tests fail without any fault")
        return count + Counter(broken=1)
    for mutant in tried:
        outcome = trial.outcome(module, mutant, tests)
        count += Counter({"tried": 1, outcome: 1})
        if outcome != "killed":
            print(f"{outcome}: {mutant.diff(module)}", flush=True)
    print(_line(module, count), flush=True)
    return count


def _tell_gone(module: str, made: Sequence[Mutant]) -> None:
    """Entries of the list of equivalent mutants that are none of the module's any more."""
    known = {_identity(module, each) for each in made}
    gone: list[Equivalent] = [each for each in equivalents() if each.module == module and each[:4] not in known]
    for each in gone:
        print(
            f"listed as equivalent, and no mutant any more: {module} {each.function}\n    - {each.was}\n    + {each.now}"
        )


def _identity(module: str, mutant: Mutant) -> tuple[str, str, str, str]:
    return module, mutant.function, mutant.was, mutant.now


def _command(tests: Sequence[str]) -> str:
    options = "-n 0 -x -q --no-header --tb=line -p no:cacheprovider -p tests.mutants.noticing"
    return f"{sys.executable} -m pytest {options} {' '.join(tests)}"


def _line(name: str, count: Counter[str]) -> str:
    kinds = ("made", "equivalent", "tried", "killed", "timed out", "survived")
    return f"{name}: " + ", ".join(f"{count[kind]} {kind}" for kind in kinds)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Run as a program: make and restore backups in children of this process, each killed at another step of the file system.

killed REPO BACKUP [TARGET]

REPO is a project, BACKUP the path of a backup to be made, TARGET a folder to restore it into; a line is printed for each child that
was killed. An exit code that is not 0 says that something was left half.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from featurestore.backup.archive import Archive
from featurestore.backup.make import make_backup
from featurestore.backup.restore import restore_backup
from featurestore.catalog import Catalog
from featurestore.config import load_config
from featurestore.durable import temporary
from featurestore.errors import BackupError, ConfigError
from featurestore.project import Project

STEPS = {"os.rename", "os.mkdir", "os.link", "os.remove", "os.rmdir", "os.chmod", "open"}
SPREAD = 2
"""Children that are killed at steps that lie evenly over all that there are; others are at each rename and at the step after it."""


def in_child(work: Callable[[], object], die_at: int | None) -> tuple[int, list[int]]:
    """Do it in a child that is killed at a step, and how it ended; how many steps there were, and which were renames."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        count, renames = 0, []

        def step(event: str, args: tuple[Any, ...]) -> None:
            nonlocal count
            if event in STEPS and (event != "open" or (isinstance(args[2], int) and args[2] & os.O_CREAT)):
                count += 1
                if event == "os.rename":
                    renames.append(count)
                if count == die_at:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(step)
        try:
            work()
            os.write(write, " ".join(map(str, [count, *renames])).encode())
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    os.close(write)
    _, status = os.waitpid(child, 0)
    steps = [int(number) for number in os.read(read, 10_000).split()]
    os.close(read)
    return os.waitstatus_to_exitcode(status), steps


def steps_of(work: Callable[[], object]) -> list[int]:
    """The steps at which children are to be killed."""
    code, (steps, *renames) = in_child(work, None)
    assert code == 0
    spread = {1 + steps * number // SPREAD for number in range(SPREAD)}
    return sorted(spread | {step for rename in renames for step in (rename, rename + 1) if step <= steps})


def backups(repo: Path, to: Path) -> None:
    def make() -> None:
        make_backup(load_config(repo), to)

    def clear() -> None:
        shutil.rmtree(to) if to.is_dir() else to.unlink()

    chosen = steps_of(make)
    clear()
    for step in chosen:
        code, _ = in_child(make, step)
        assert code == -signal.SIGKILL, (step, code)
        if to.exists():
            Archive(to).check()  # whole
            clear()
        print(f"backup killed at step {step}", flush=True)
    temporary._swept.clear()
    make()
    assert sorted(path.name for path in to.parent.iterdir()) == [to.name], "what killed ones left is cleared"


def restores(backup: Path, target: Path, whole: list[str]) -> None:
    def restore() -> None:
        restore_backup(backup, target)

    chosen = steps_of(restore)
    found = [str(path.relative_to(target)) for path in sorted(target.rglob("*")) if "online" not in str(path)]
    shutil.rmtree(target)
    for step in chosen:
        code, _ = in_child(restore, step)
        assert code == -signal.SIGKILL, (step, code)
        state = looked_at(target, whole)
        assert state in {"nothing", "refused", "whole"}
        if state != "whole":
            temporary._swept.clear()
            restore()
            assert looked_at(target, whole) == "whole", step
        there = [str(path.relative_to(target)) for path in sorted(target.rglob("*")) if "online" not in str(path)]
        assert [path for path in there if "featurestore-of-" not in path] == found
        if state != "whole":
            assert there == found
        print(f"restore killed at step {step}: {state}", flush=True)
        shutil.rmtree(target)


def looked_at(target: Path, whole: list[str]) -> str:
    """What a project finds there: "nothing", "refused", or "whole"."""
    if not (target / "featurestore.toml").exists():
        return "nothing"
    try:
        project = Project(load_config(target), Catalog(), None)
    except ConfigError as error:
        return "refused" if "run featurestore restore again" in str(error) else str(error)
    if project.registry.generation() == 0:
        assert not project.config.logs.exists() or not any(project.config.logs.iterdir())
        return "nothing"
    source: Any = project.registry.current().catalog.sources["carts"]
    assert project.offline.log(source).read()["cart"].to_pylist() == whole
    project.close()
    return "whole"


def main() -> None:
    repo, backup, *targets = map(Path, sys.argv[1:])
    project = Project(load_config(repo), Catalog(), None)
    source: Any = project.registry.current().catalog.sources["carts"]
    whole = project.offline.log(source).read()["cart"].to_pylist()
    project.close()
    backups(repo, backup)
    for target in targets:
        restores(backup, target, whole)
    try:
        make_backup(load_config(repo), backup)
    except BackupError:
        return
    raise AssertionError("a backup was written over")


if __name__ == "__main__":
    main()

"""The reader as a program. Its modules are found without the rest of this product, which need not be importable here."""

from __future__ import annotations

import importlib
import json
import os
import sys
import types
from pathlib import Path
from typing import Any

PACKAGE = "featurestore.migrate.feast_reader"


def main(request_file: str, answer_file: str) -> None:
    """Do what a request says."""
    modules = reader_modules()
    request = json.loads(Path(request_file).read_text(encoding="utf-8"))
    try:
        modules["versions"].check()
    except modules["failures"].UnreadableRepositoryError as error:
        write_answer({"error": str(error)}, Path(answer_file))
        return
    importlib.import_module("feast")  # before the repository can have a module of that name
    os.dup2(2, 1)  # what a repository prints is no answer
    repo = Path(request["repo"])
    os.chdir(repo)
    project = modules["write_guard"].project_folder(Path(request["root"]))
    sys.path[0] = str(repo)
    sys.path.append(str(project))
    sys.dont_write_bytecode = True
    modules["write_guard"].refuse_writes(project)
    sys.meta_path.append(modules["stand_ins"].StandInFinder(project))
    try:
        answer = (
            modules["training_frames"].frames(request) if "asks" in request else modules["repository"].read(request)
        )
    except Exception as error:  # noqa: BLE001 - the calling process tells it
        answer = {"error": modules["failures"].told(error)}
    write_answer(answer, Path(answer_file))


def write_answer(answer: dict[str, Any], path: Path) -> None:
    """Whole or not at all: what lies there counts, however this process ends."""
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_text(json.dumps(answer), encoding="utf-8")
    unfinished.replace(path)


def reader_modules() -> dict[str, Any]:
    """The reader's modules by name. Their package, and those that it lies in, are known while they are imported and not after: a
    repository may have a folder of one of these names."""
    names = PACKAGE.split(".")
    for end in range(1, len(names)):
        folder = types.ModuleType(".".join(names[:end]))
        folder.__path__ = [str(Path(__file__).resolve().parents[len(names) - end])]
        sys.modules[folder.__name__] = folder
    wanted = ("failures", "versions", "write_guard", "stand_ins", "repository", "training_frames")
    found = {name: importlib.import_module(f"{PACKAGE}.{name}") for name in wanted}
    for name in [name for name in sys.modules if name.partition(".")[0] == names[0]]:
        del sys.modules[name]
    return found


if __name__ == "__main__":
    main(*sys.argv[1:])

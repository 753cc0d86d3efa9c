"""A copy of the serving log, taken beside those who write it and look after it."""

from __future__ import annotations

import shutil
from pathlib import Path

from featurestore.serving.log.process_counts import ENDED, PROCESSES, as_ended
from featurestore.serving.log.segments import listed


def copy_serving_log(folder: Path, place: Path) -> None:
    """Write what is in the log by now into a folder that is to be made; every row once.

    What waits in the memory of a process is lost to the copy, and counted so. Files that are replaced or deleted meanwhile are
    looked for again, until all that there are have been copied.
    """
    counts = as_ended(folder)
    if counts is not None:
        (place / PROCESSES).mkdir(parents=True)
        (place / PROCESSES / ENDED).write_bytes(counts)
    for path in folder.iterdir():  # whose it is, and when it was audited: files that are replaced as a whole
        if path.is_file() and path.suffix == ".json":
            place.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, place / path.name)
    while True:
        there = {file.path for version in folder.glob("*/*/") for file in listed(version)}
        copies = {path: place / path.relative_to(folder) for path in there}
        for path, copy in copies.items():
            if not copy.exists():
                copy.parent.mkdir(parents=True, exist_ok=True)
                try:
                    shutil.copyfile(path, copy)
                except FileNotFoundError:  # it was merged into another, or was too old
                    break
        else:
            break
    kept = set(copies.values())
    for version in place.glob("*/*/"):
        for file in listed(version):
            if file.path not in kept:  # what replaces it is here by now
                file.path.unlink()

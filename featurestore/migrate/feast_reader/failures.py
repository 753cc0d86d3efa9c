"""Why something could not be read, in one line."""

from __future__ import annotations

import traceback
from pathlib import Path

from featurestore.migrate.feast_reader import UnreadableRepositoryError
from featurestore.migrate.feast_reader.write_guard import UsedError

LONGEST = 500
"""Characters of what an error says."""


def told(error: BaseException) -> str:
    """What an error says, with its kind; where it says nothing, the line of code that raised it."""
    if isinstance(error, (UnreadableRepositoryError, UsedError)):
        return " ".join(str(error).split())
    frames = traceback.extract_tb(error.__traceback__)
    last = frames[-1] if frames else None
    if isinstance(error, KeyError) and last is not None and Path(last.filename).name in {"os.py", "<frozen os>"}:
        return f"it reads the variable {error.args[0]} of the environment, which is not set; set it, and import again"
    says = " ".join(str(error).split())
    if not says and last is not None:
        says = f"{last.line} ({Path(last.filename).name}:{last.lineno})"
    return f"{type(error).__name__}: {says}"[:LONGEST]

"""Files with a secret in them: readable by their owner alone, from their first byte on."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from featurestore.durable.disk import sync, sync_folder, write_all


@contextmanager
def secret_file(path: Path) -> Iterator[Callable[[str], None]]:
    """What writes the text of a file, in the place of one that was there; the file has its name at the end, and only where a
    text was written. That it can be written is known before: OSError."""
    partial = path.with_name(f".{path.name}.partial")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    written = False

    def write(text: str) -> None:
        nonlocal written
        write_all(descriptor, text.encode(), 0)
        sync(descriptor)
        written = True

    try:
        os.fchmod(descriptor, 0o600)  # of one that a killed process left, or whatever the umask says
        yield write
        if written:
            partial.rename(path)
            sync_folder(path.parent)
    finally:
        os.close(descriptor)
        partial.unlink(missing_ok=True)

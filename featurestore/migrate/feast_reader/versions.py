"""Which versions of Feast can be asked."""

from __future__ import annotations

import importlib.metadata
import re

from featurestore.migrate.feast_reader import OLDEST, UnreadableRepositoryError


def installed() -> str:
    """The version of Feast beside this Python; UnreadableRepositoryError where there is none."""
    try:
        return importlib.metadata.version("feast")
    except importlib.metadata.PackageNotFoundError:
        raise UnreadableRepositoryError(
            "Feast is not installed in it; name the Python in which it is: --feast-python"
        ) from None


def check() -> None:
    """Raise UnreadableRepositoryError where there is no Feast, or one that nobody has tried as it is too old."""
    version = installed()
    numbers = tuple(int(one) for one in re.findall(r"\d+", version)[:2])
    if numbers < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        raise UnreadableRepositoryError(
            f"Feast {version} is older than {oldest}, the oldest that can be asked. Install a newer one in an environment of its "
            f"own (pip install 'feast>={oldest}'), and name its Python: definitions in older words are read too"
        )

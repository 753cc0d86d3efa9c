"""Rows that a framework hands over: a pandas frame as it is, everything else as an Arrow table, since streams can be read once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from featurestore.declare.frames import is_pandas, table_of
from featurestore.errors import RequestError, SpineError
from featurestore.lazy import pd


def taken(rows: Any, what: str) -> Any:
    """A frame of any library. what: the rows, as a message calls them. Raises RequestError."""
    if is_pandas(rows):
        return rows
    try:
        return table_of(rows)
    except (TypeError, ValueError) as error:
        raise RequestError(f"{what} is no frame with the columns of the keys: {error}") from None


def names_of(rows: Any) -> list[Any]:
    """The columns of what `taken` gave."""
    return list(rows.columns) if is_pandas(rows) else list(rows.column_names)


def pandas_of(rows: Any, what: str) -> pd.DataFrame:
    """The same as a pandas frame."""
    found = taken(rows, what)
    frame: pd.DataFrame = found if is_pandas(found) else found.to_pandas(types_mapper=pd.ArrowDtype)
    return frame


@contextmanager
def called(what: str) -> Iterator[None]:
    """Errors of the store about rows, by the name that a framework has for them: the store calls them a spine, or a frame."""
    try:
        yield
    except (RequestError, SpineError) as error:
        raise error.saying(f"{what}: {error}") from error

"""The columns of a source as its files, table or frame have them, and which of them can be read."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from featurestore.compile.rows import own_columns
from featurestore.declare.push import PushSource
from featurestore.declare.sources import Source
from featurestore.errors import SourceError
from featurestore.semantics.columns import RawColumns
from featurestore.stores.pointers import folded

__all__ = ["columns_of_file", "pushed_types", "readable"]


def pushed_types(source: PushSource) -> dict[str, str]:
    """The columns that pushed rows have, by name, with their DuckDB types."""
    return {name: of.duckdb for name, of in source.columns.items()}


def columns_of_file(source: Source, path: str) -> pa.Schema:
    """The columns of a Parquet file, in their order; SourceError where it has none that can be read."""
    try:
        return pq.read_schema(path)
    except (pa.ArrowException, OSError) as error:
        raise SourceError(f"{source.title} cannot be read: {path}: {error} ({source.origin})") from error


def readable(source: Source, columns: Sequence[tuple[str, str]]) -> RawColumns:
    """The columns, in their order with their DuckDB types, that SQL can name; of each other why it cannot."""
    own = {folded(name) for name in own_columns(source)}
    alike: dict[str, list[str]] = {}
    for name, _ in columns:
        alike.setdefault(folded(name), []).append(name)
    faults: dict[str, str] = {}
    for name, _ in columns:
        others = alike[folded(name)]
        if not name:
            faults[name] = "has no name; give it one in the data"
        elif len(others) > 1 and len(set(others)) == 1:
            faults[name] = "is there twice; rename one of the two in the data"
        elif len(others) > 1:
            shown = " and ".join(f"'{other}'" for other in dict.fromkeys(others))
            faults[name] = f"cannot be told apart in SQL: {shown} differ in case alone; rename one of them in the data"
        elif folded(name) in own:
            faults[name] = "has the name of a column of the store's own; rename it in the data"
    return RawColumns({name: of for name, of in columns if name not in faults}, faults=faults)

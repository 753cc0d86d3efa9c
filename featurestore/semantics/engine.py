"""The engine: where connections to it are made and kept, and what DuckDB's versions say differently, said in one way: no other module asks which is installed.

The engine looks for signals while it runs a query. Where Python's handler of one raises, it drops what that raised and raises a RuntimeError,
which whoever goes on after errors would take for one of the query: here it is a KeyboardInterrupt.

Why these versions: docs/decisions/2026-11-28-oldest-versions.md.
"""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Any, Self, cast
from weakref import WeakSet

from featurestore.lazy import duckdb, pa

Node = dict[str, Any]

PLACES = {"query_location", "query_location_length"}
NOWHERE = (1 << 64) - 1
"""The place of what the engine made up itself."""


INTERRUPTED = "Query interrupted"
"""What the engine says."""


def connect(database: str = ":memory:", config: Mapping[str, Any] | None = None) -> duckdb.DuckDBPyConnection:
    """A connection, by default to an instance of its own in memory, whose queries name no variables of Python, which would be those of this module.
    Raises what the engine raises; and in a query KeyboardInterrupt, where a handler of a signal raised meanwhile."""
    settings = {**(config or {}), "python_enable_replacements": False}
    return cast("duckdb.DuckDBPyConnection", _Interruptible(duckdb.connect(database, config=settings)))


class _Interruptible:
    """A connection of the engine's, or a relation of one. What its methods give is as they give it, but for more of these, which they
    take too."""

    __slots__ = ("_own",)

    def __init__(self, own: Any) -> None:
        self._own = own

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._own, name)
        return _noticing(value) if callable(value) else value

    def __enter__(self) -> Self:
        self._own.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._own.__exit__(kind, error, traceback)


def _bare(value: Any) -> Any:
    """What the engine takes in place of one of these."""
    return value._own if isinstance(value, _Interruptible) else value


def _noticing(method: Callable[..., Any]) -> Callable[..., Any]:
    """A method that raises KeyboardInterrupt where the engine says that a query was interrupted."""

    def call(*given: Any, **words: Any) -> Any:
        try:
            found = method(*map(_bare, given), **{name: _bare(value) for name, value in words.items()})
        except RuntimeError as error:
            if str(error) == INTERRUPTED:
                raise KeyboardInterrupt from error
            raise
        engine = sys.modules["duckdb"]  # a class that `lazy` kept would be alive when the engine looks for what leaked
        is_more = isinstance(found, (engine.DuckDBPyConnection, engine.DuckDBPyRelation))
        return _Interruptible(found) if is_more else found

    return call


class KeptInstance:
    """The first connection of an instance that is kept between operations, in the process that opened it: to open one takes some 15 ms of work,
    to use it again none. It ends with the interpreter, and never in a forked child."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection: duckdb.DuckDBPyConnection | None = connection
        self._process = os.getpid()
        _KEPT.add(self)

    def usable(self) -> duckdb.DuckDBPyConnection | None:
        """The connection; none in a forked child, and none when it was released."""
        return self._connection if self._process == os.getpid() else None

    def release(self) -> None:
        """Give the connection up, unless it is another process's."""
        if self._process == os.getpid():
            self._connection = None


_KEPT: WeakSet[KeptInstance] = WeakSet()
_OF_PARENT: list[KeptInstance] = []
"""What a forked child never gives up: threads stay behind in the parent, and to end their connections there crashes."""
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=lambda: _OF_PARENT.extend(_KEPT), after_in_parent=_OF_PARENT.clear)


@atexit.register
def _release() -> None:
    """Threads that nobody waits for, such as a server's, never give up what is theirs; the engine would call it leaked."""
    for kept in list(_KEPT):
        kept.release()


def settle_session(connection: duckdb.DuckDBPyConnection) -> None:
    """For connections that read a source or evaluates an expression: times are in UTC, an arrow (`->`) reads from JSON, and nothing is shown.

    An arrow could also be a lambda before version 2.
    """
    connection.execute("SET TimeZone = 'UTC'")
    (shows,) = connection.execute("SELECT current_setting('enable_progress_bar')").fetchall()[0]
    if shows:  # on standard output; in a notebook it is off, and cannot be set without ipywidgets
        connection.execute("SET enable_progress_bar = false")
    if duckdb.__version__.startswith("1."):
        connection.execute("SET lambda_syntax = 'DISABLE_SINGLE_ARROW'")


def hash_terms(value: str) -> str:
    """SQL: what `hash` is to be given of a value that is nested or a decimal, so that it tells apart what differs. Of what is nested the
    hash alone says neither an empty list from null nor 0.0 from -0.0; of decimals of more than 18 digits, which are whole numbers of 128
    bits, it says the halves in either order, and so not 0 from -1. Their text says all of it."""
    return f"{value}, {value}::VARCHAR"


def is_relation(value: object) -> bool:
    """Whether it is a relation of the engine's, without importing the engine for the question."""
    engine = sys.modules.get("duckdb")
    return engine is not None and isinstance(value, engine.DuckDBPyRelation)


def batches_of(relation: duckdb.DuckDBPyRelation, rows: int) -> pa.RecordBatchReader:
    """What a relation says, so many rows at a time."""
    read: Any = getattr(relation, "to_arrow_reader", None) or relation.fetch_record_batch  # its name before version 1.5
    return read(rows)


def stream(connection: duckdb.DuckDBPyConnection, sql: str, rows: int) -> Iterator[pa.RecordBatch]:
    """What a query says, so many rows at a time, before the engine has all of it. Raises what the engine raises, which Arrow
    would pass on as its own."""
    batches = batches_of(connection.sql(sql), rows)
    try:
        yield from batches
    except (pa.ArrowException, OSError) as error:
        raise duckdb.Error(str(error)) from error


def without_places(tree: Any) -> Any:
    """A tree as the engine gives it, without where in the text each node stands."""
    if isinstance(tree, list):
        return [without_places(item) for item in tree]
    if not isinstance(tree, dict):
        return tree
    found = {key: without_places(item) for key, item in tree.items() if key not in PLACES}
    if found.get("class") == "LAMBDA" and "syntax_type" not in found:
        # Before version 2 the tree does not say which it is. `lambda x: …` makes its left side up, an arrow finds it in the text.
        found["syntax_type"] = "LAMBDA_KEYWORD" if tree["lhs"]["query_location"] == NOWHERE else "SINGLE_ARROW"
    return found


def is_arrow(node: Node) -> bool:
    """Whether a node that the engine calls a lambda is `left -> right`, which reads from JSON."""
    return bool(node["syntax_type"] == "SINGLE_ARROW")


def arguments(call: Node) -> list[Node]:
    """What a function is called with. Since version 2 each argument is wrapped."""
    return call["children"] if "children" in call else [entry["expression"] for entry in call["arguments"]]


def text_of(constant: Node) -> str:
    """The text of a constant."""
    return str(constant["value"]["value"] if "value" in constant else constant["literal"]["text"])

"""From a message to rows of the source that it feeds: what its bytes say, and which field of that is which column."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import orjson

from featurestore import arrow_ipc
from featurestore.declare.push import PushSource
from featurestore.declare.streams import KEY, OFFSET, PARTITION, TIMESTAMP, Stream
from featurestore.errors import FeatureStoreError, PushError
from featurestore.lazy import pa, pc
from featurestore.push.rows import given_rows
from featurestore.streams.reader import Message
from featurestore.types import Timestamp, timestamp_of, to_json

Row = dict[str, Any]
Read = Callable[[bytes], Any]
"""From the bytes of a message to a mapping, or a table of many rows. PushError where they are not what they should be."""

ALL = "*"

MESSAGE_BYTES = 256 << 20
"""Bytes of memory that the rows of one message take at most."""


class DecodedRows(NamedTuple):
    """The rows of a message: those of a table from `begin` up to `end`. size: about how many bytes they have."""

    table: pa.Table
    begin: int
    end: int
    size: int

    @classmethod
    def of(cls, table: pa.Table) -> DecodedRows:
        """All of a table."""
        return cls(table, 0, table.num_rows, table.nbytes)

    @property
    def rows(self) -> int:
        """How many there are."""
        return self.end - self.begin


class Decoder:
    """Makes rows of the messages of a source's stream. read: what the bytes of a message say, by the stream's format."""

    def __init__(self, source: PushSource, stream: Stream, read: Read) -> None:
        self._source, self._read = source, read
        self._is_json = stream.format == "json"
        self._paths = {column: stream.fields.get(column, column).split(".") for column in source.columns}
        taken = {path[0] for path in self._paths.values()}
        self._ignored = frozenset({*stream.ignore, *(path[0] for path in self._paths.values() if len(path) > 1)})
        self._known = taken | self._ignored
        self._reads_key = KEY in taken
        self._reads_beside = any(name.startswith("$") for name in taken)

    def decoded(self, messages: Sequence[Message]) -> list[DecodedRows | PushError]:
        """Of each message its rows, as the source's columns, or what is wrong with it. Errors that are not a message's are raised."""
        found: list[Any] = [self._said(message) for message in messages]
        plain = [number for number, one in enumerate(found) if isinstance(one, dict)]
        try:
            together = given_rows(self._source, [found[number] for number in plain], json=self._is_json).table
        except Exception:  # noqa: BLE001 - whichever of them it is, the others go on
            for number in plain:
                found[number] = self._alone(found[number])
        else:
            size = together.nbytes // max(1, len(plain))
            for place, number in enumerate(plain):
                found[number] = DecodedRows(together, place, place + 1, size)
        return found

    @property
    def nothing(self) -> pa.Table:
        """No rows, as the source's columns."""
        return given_rows(self._source, []).table

    def together(self, parts: Sequence[DecodedRows]) -> pa.Table:
        """The rows of several messages."""
        runs: list[DecodedRows] = []  # rows that lie beside each other are cut out of their table together
        for part in parts:
            if runs and runs[-1].table is part.table and runs[-1].end == part.begin:
                runs[-1] = runs[-1]._replace(end=part.end)
            elif part.rows:
                runs.append(part)
        whole = [run.table.slice(run.begin, run.rows) for run in runs]
        return pa.concat_tables(whole).combine_chunks() if whole else self.nothing

    def _alone(self, row: Row) -> DecodedRows | PushError:
        try:
            return DecodedRows.of(given_rows(self._source, [row], json=self._is_json).table)
        except PushError as error:
            return PushError(str(error).replace(f"{self._source.title}: row 0", "the message", 1))
        except Exception as error:  # noqa: BLE001 - see _said
            return PushError(f"the message cannot be read: {type(error).__name__}: {error}")

    def _said(self, message: Message) -> Row | DecodedRows | PushError:
        """What a message says: a row, or many; or what is wrong with it."""
        try:
            if message.problem:
                raise PushError(message.problem)
            if message.value is None:
                return self._deletion(message)
            said = self._read(message.value)
            if isinstance(said, Mapping):
                return self._row(message, said)
            return DecodedRows.of(given_rows(self._source, self._columns(message, said)).table)
        except PushError as error:
            return error
        except FeatureStoreError:  # a schema registry that is away, say, which is no fault of the message's
            raise
        except Exception as error:  # noqa: BLE001 - whatever bytes of others make of a library, the other messages go on
            return PushError(f"the message cannot be read: {type(error).__name__}: {error}")

    def _row(self, message: Message, said: Mapping[str, Any]) -> Row:
        if ALL not in self._ignored:
            for name in said:
                if name not in self._known:
                    raise PushError(
                        f"the message has a field '{name}' that is no column: name it in the stream's fields= or ignore=, or "
                        "in the source's schema="
                    )
        beside = self._beside(message)
        return {column: _at(beside if path[0] in beside else said, path) for column, path in self._paths.items()}

    def _beside(self, message: Message) -> Row:
        """What a message is beside its value, in the forms that its value has; nothing where no column reads that."""
        if not self._reads_beside:
            return {}
        at = None if message.timestamp is None else timestamp_of(message.timestamp * 1000)
        beside: Row = {OFFSET: message.offset, PARTITION: message.partition, TIMESTAMP: at}
        for column, (first, *_) in self._paths.items():
            if first == OFFSET and self._source.columns[column].kind != "String":
                beside[OFFSET] = int(message.offset) if message.offset.isdigit() else message.offset
        if self._is_json and at is not None:
            beside[TIMESTAMP] = to_json(Timestamp, at)
        if self._reads_key:
            beside[KEY] = None if message.key is None else self._key(message.key)
        return beside

    def _key(self, key: bytes) -> Any:
        """What a key is: an object where fields of it are read, in the message's own format or JSON; else text, or bytes."""
        if any(path[0] == KEY and len(path) > 1 for path in self._paths.values()):
            return self._read(key) if not self._is_json and key[:1] == b"\0" else read_object(key)
        kinds = {self._source.columns[column].kind for column, path in self._paths.items() if path[0] == KEY}
        if kinds == {"Bytes"}:
            return base64.b64encode(key).decode() if self._is_json else key
        try:
            text = key.decode()
        except UnicodeDecodeError:
            raise PushError("the message's key is no UTF-8 text") from None
        if kinds & {"Int32", "Int64"} and text.lstrip("-").isdigit():
            return int(text)
        return text

    def _deletion(self, message: Message) -> Row:
        """The row of a message without a value: it deletes what its key names."""
        source = self._source
        if source.deleted is None:
            raise PushError(
                "the message has no value, and the source has no column `deleted` to say that something vanishes"
            )
        lacking = [column for column in source.identity if self._paths[column][0] != KEY]
        if lacking or message.key is None:
            what = "no key" if message.key is None else f"a key of which '{lacking[0]}' is not read"
            raise PushError(
                f"the message has no value and {what}: the stream's fields= must read each column of the identity of $key"
            )
        beside = self._beside(message)
        row = {column: _at(beside, path) for column, path in self._paths.items() if path[0] == KEY}
        return {**row, source.deleted: True}

    def _columns(self, message: Message, table: pa.Table) -> pa.Table:
        """A table of many rows, with the source's names."""
        if ALL not in self._ignored:
            for name in table.column_names:
                if name not in self._known:
                    raise PushError(
                        f"the message has a column '{name}' that the source has not: name it in fields= or ignore="
                    )
        beside, columns = self._beside(message), {}
        for column, (first, *within) in self._paths.items():
            if first in beside:
                value = _at(beside, self._paths[column])
                columns[column] = pa.array([value] * table.num_rows, self._source.columns[column].arrow)
            elif first in table.column_names:
                columns[column] = table[first] if not within else pc.struct_field(table[first], within)
        return pa.table(columns) if columns else table.select([])


def _at(said: Any, path: list[str]) -> Any:
    """What lies at a path of fields; None where nothing does."""
    for name in path:
        if not isinstance(said, Mapping):
            return None
        said = said.get(name)
    return said


def read_object(text: bytes) -> Any:
    """A JSON object; PushError where a text is none."""
    try:
        said = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise PushError(f"the message is no JSON: {error}") from None
    if not isinstance(said, dict):
        raise PushError(f"the message is a JSON {_NAMES[type(said)]}, and must be an object: {{column: value, …}}")
    # Each string has two quotes, and one for each that it holds. Where a name comes twice, those of the first are gone.
    if text.count(b'"') + text.count(b"\\u0022") != orjson.dumps(said).count(b'"'):
        json.loads(text, object_pairs_hook=_without_twice)
    return said


_NAMES = {list: "list", str: "text", int: "number", float: "number", bool: "true or false", type(None): "null"}


def _without_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise PushError(f"the message has the name '{name[:100]}' twice in one object")
        found[name] = value
    return found


def read_table(data: bytes) -> Any:
    """The rows of an Arrow IPC stream; PushError where bytes are none, or its rows take more than `MESSAGE_BYTES` of memory."""
    try:
        return arrow_ipc.from_sent_bytes(data, MESSAGE_BYTES)
    except ValueError as error:
        raise PushError(f"the message is no Arrow IPC stream that can be read: {error}") from None

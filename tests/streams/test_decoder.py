"""From messages to rows: which field is which column, what keys say, and what is refused with which words."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pytest

from featurestore import KafkaStream, PushSource, arrow_ipc
from featurestore.errors import DeclarationError, PushError
from featurestore.streams.decoder import MESSAGE_BYTES, Decoder, read_object, read_table
from featurestore.streams.reader import Message
from featurestore.types import Bool, Bytes, Float64, Int64, String, Timestamp

AT = 1_772_366_400_000  # ms
WHEN = "2026-03-01T12:00:00Z"


def decoder(schema: dict[str, Any], *, identity: Any = (), deleted: str | None = None, **said: Any) -> Decoder:
    stream = KafkaStream("swipes", broker="events", **said)
    source = PushSource(
        "swipes", schema={**schema, "at": Timestamp}, event_time="at", identity=identity, deleted=deleted, stream=stream
    )
    return Decoder(source, stream, read_table if stream.format == "arrow" else read_object)


def message(value: Any, *, key: bytes | None = None, offset: str = "17") -> Message:
    data = value if value is None or isinstance(value, bytes) else json.dumps(value).encode()
    return Message(3, offset, "18", key, data, AT)


def one(of: Decoder, *messages: Message) -> list[Any]:
    """The rows of each message, or what is wrong with it."""
    return [
        found if isinstance(found, PushError) else of.together([found]).to_pylist() for found in of.decoded(messages)
    ]


def test_fields_within_fields_and_what_a_message_is_beside() -> None:
    """Columns may be fields of fields, the key, the time, the partition and the offset; the other fields of the outer one do not matter."""
    fields = {"card": "card.number", "at": "$timestamp", "part": "$partition", "place": "$offset", "who": "$key"}
    of = decoder({"card": String, "part": Int64, "place": Int64, "who": String}, fields=fields)
    (rows,) = one(of, message({"card": {"number": "a", "kind": "x"}}, key=b"ann"))
    assert [(r["card"], r["part"], r["place"], r["who"], r["at"].isoformat()) for r in rows] == [
        ("a", 3, 17, "ann", "2026-03-01T12:00:00+00:00")
    ]
    (rows,) = one(of, message({"card": 5}))
    assert rows[0]["card"] is None


@pytest.mark.parametrize(
    ("kind", "key", "value"),
    [(String, b"7", "7"), (Int64, b"-7", -7), (Bytes, b"\xff", b"\xff"), (String, None, None)],
)
def test_a_key_is_what_its_column_is(kind: Any, key: bytes | None, value: Any) -> None:
    """Text, a number or bytes, by the type of the column that reads it."""
    of = decoder({"who": kind}, fields={"who": "$key"})
    (rows,) = one(of, message({"at": WHEN}, key=key))
    assert rows[0]["who"] == value


def test_fields_of_a_key() -> None:
    """A key that is a JSON object has fields, too; one that is none is refused."""
    of = decoder({"who": String}, fields={"who": "$key.id"})
    right, wrong = one(of, message({"at": WHEN}, key=b'{"id": "ann"}'), message({"at": WHEN}, key=b"ann"))
    assert right[0]["who"] == "ann"
    assert "no JSON" in str(wrong)


def test_a_message_without_a_value_is_a_deletion() -> None:
    """Where the source has `deleted`, and the key says of what; else it is refused, and the reason says what is missing."""
    schema = {"card": String, "gone": Bool}
    of = decoder(schema, identity="card", deleted="gone", fields={"card": "$key"})
    (rows,) = one(of, message(None, key=b"a"))
    assert rows == [{"card": "a", "gone": True, "at": None}]
    assert "no key" in str(one(of, message(None))[0])
    assert "of which 'card' is not read" in str(
        one(decoder(schema, identity="card", deleted="gone"), message(None, key=b"a"))[0]
    )
    assert "no column `deleted`" in str(one(decoder(schema), message(None, key=b"a"))[0])


def test_one_wrong_message_leaves_the_others_as_they_are() -> None:
    """Each message of a batch is judged alone, in the words of a push, without the number of a row."""
    of = decoder({"n": Int64, "x": Float64})
    found = one(
        of, message({"n": 1, "at": WHEN}), message({"n": "1", "at": WHEN}), message({"n": 2, "at": WHEN, "x": "NaN"})
    )
    assert [rows[0]["n"] for rows in (found[0], found[2])] == [1, 2]
    assert str(found[1]).startswith("the message, column 'n' must be Int64")


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (b"", "no JSON"),
        (b"\xff", "no JSON"),
        (b"null", "a JSON null, and must be an object"),
        (b"[]", "a JSON list"),
        (b"1", "a JSON number"),
        (b'{"n": 1, "n": 2}', "'n' twice"),
        (b'{"n": NaN}', "no JSON"),
        (b'{"n": 1, "other": {}}', "a field 'other' that is no column"),
        (b'{"n": 1}', "has no 'at', which is its event_time"),
    ],
)
def test_what_is_no_row_is_refused(value: bytes, says: str) -> None:
    """Each with a reason that says what is wrong."""
    (found,) = one(decoder({"n": Int64}), message(value))
    assert isinstance(found, PushError)
    assert says in str(found)


def test_what_is_ignored() -> None:
    """Named fields, or all that are no columns."""
    said = {"n": 1, "at": WHEN, "trace": "x", "more": 1}
    assert one(decoder({"n": Int64}, ignore="*"), message(said))[0][0]["n"] == 1
    assert one(decoder({"n": Int64}, ignore=["trace", "more"]), message(said))[0][0]["n"] == 1
    assert "'more'" in str(one(decoder({"n": Int64}, ignore="trace"), message(said))[0])


def test_arrow_has_many_rows() -> None:
    """A message of Arrow IPC is any number of rows, none included; columns may be fields of structs."""
    at = pa.array([AT * 1000] * 2, pa.timestamp("us", "UTC"))
    inner = pa.array([{"number": "a"}, None], pa.struct([("number", pa.string())]))
    of = decoder(
        {"n": Int64, "card": String, "place": String},
        format="arrow",
        fields={"card": "card.number", "place": "$offset"},
    )
    table = pa.table({"n": pa.array([1, 2], pa.int32()), "card": inner, "at": at})
    rows, empty = one(of, message(arrow_ipc.to_bytes(table)), message(arrow_ipc.to_bytes(table.slice(0, 0))))
    assert [(row["n"], row["card"], row["place"]) for row in rows] == [(1, "a", "17"), (2, None, "17")]
    assert empty == []
    for value, says in (
        (b"nonsense", "no Arrow"),
        (arrow_ipc.to_bytes(table)[:-30], "no Arrow"),
        (arrow_ipc.to_bytes(table.append_column("z", at)), "'z'"),
    ):
        (found,) = one(of, message(value))
        assert isinstance(found, PushError)
        assert says in str(found)


def test_a_message_says_of_no_more_rows_than_memory_has() -> None:
    """A few hundred bytes may say of a billion rows that all their values are null: the message is refused, and the next is read."""
    nulls = pa.Array.from_buffers(pa.null(), 1_000_000_000, [None])
    at = pa.array([AT * 1000], pa.timestamp("us", "UTC"))
    many, few = pa.table({"n": nulls}), pa.table({"n": [1], "at": at})
    assert len(arrow_ipc.to_bytes(many)) < 300
    refused, rows = one(
        decoder({"n": Int64}, format="arrow"), message(arrow_ipc.to_bytes(many)), message(arrow_ipc.to_bytes(few))
    )
    assert isinstance(refused, PushError)
    assert f"more than {MESSAGE_BYTES} bytes" in str(refused)
    assert [row["n"] for row in rows] == [1]


@pytest.mark.parametrize(
    ("said", "says"),
    [
        ({"fields": {"nn": "x"}}, "the schema has no column 'nn'. Did you mean 'n'"),
        ({"fields": {"n": "$ofset"}}, "nothing of a message"),
        ({"fields": {"n": "a..b"}}, "names no field"),
        ({"format": "xml"}, "format"),
        ({"start": "now"}, "start"),
    ],
)
def test_a_stream_that_is_declared_wrongly_is_refused(said: dict[str, Any], says: str) -> None:
    """Where it is declared, with the right words."""
    with pytest.raises(DeclarationError, match=says):
        decoder({"n": Int64}, **said)

"""The oracle is trusted because of this page: each case was worked out by hand from the sentence beside it."""

from __future__ import annotations

import ast
import math
import struct
import sys
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.histories import NAN_WITH_PAYLOAD, NAN_WITH_SIGN, History, answers_of, histories, seen
from tests.oracle import (
    ALWAYS,
    EXPIRED,
    MISSING,
    PRESENT,
    Answer,
    SourceSpec,
    ViewSpec,
    as_of,
    counts_from,
    event_time,
    identical,
    instant,
    instant_of_timestamp,
    invalid_counts,
    known_at,
    sort_key,
    training,
    value_at,
)

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
HOUR, DAY = 3_600_000_000, 86_400_000_000
TYPES = {
    "key": "String",
    "key2": "Int64",
    "e": "Timestamp",  # event_time
    "k": "Timestamp",  # known_at
    "x": "Float64",
    "s": "String",
    "id": "Int64",
    "id2": "String",
    "v": "Int64",
    "t": "Float64",  # tiebreak
    "t2": "Int64",
    "gone": "Bool",
    "end": "Timestamp",  # until
    "from": "Timestamp",  # valid_from
    "noise": "Int64",  # read by no view
}


def us(microseconds: int) -> datetime:
    return EPOCH + timedelta(microseconds=microseconds)


def utc(text: str) -> int:
    """The instant of a UTC time."""
    return (datetime.fromisoformat(text).replace(tzinfo=UTC) - EPOCH) // timedelta(microseconds=1)


def rows_of(*rows: dict[str, Any]) -> list[dict[str, Any]]:
    """Full rows: integers in time columns are microseconds, columns left out are null, the key is "a"."""
    filled = []
    for row in rows:
        full = dict.fromkeys(TYPES) | {"key": "a"} | row
        filled.append(
            {c: us(v) if TYPES[c] == "Timestamp" and isinstance(v, int) else v for c, v in full.items()},
        )
    return filled


@dataclass(frozen=True)
class Case:
    """The sentence, the world, the question, and what must come out."""

    says: str
    rows: list[dict[str, Any]]
    status: str
    x: Any = None
    at: int = 100
    known_by: int | None = None  # as_of, where not given
    key: tuple[Any, ...] = ("a",)
    source: SourceSpec = field(default_factory=lambda: SourceSpec(event_time="e"))
    view: ViewSpec = field(default_factory=lambda: ViewSpec(key={"card": "key"}, features={"x": "x"}))
    reasons: dict[int, str] | None = None
    conflict: bool = False
    types: dict[str, str] = field(default_factory=lambda: TYPES)


def of(*, ttl: int | None = None, **defaults: Any) -> ViewSpec:
    return ViewSpec(key={"card": "key"}, features={"x": "x"}, ttl_us=ttl, defaults=defaults)


LEARNED = SourceSpec(event_time="e", known_at="k")
VERSIONED = SourceSpec(event_time="e", known_at="k", identity=("id",))
DELETABLE = replace(VERSIONED, deleted="gone")
TIES = SourceSpec(event_time="e", known_at="k", tiebreak=("t", "t2"))
ENDING = SourceSpec(event_time="e", until="end")
BULK = SourceSpec(event_time="e", known_at="k", known_after_us=5, history_until=50)
BY_NUMBER = SourceSpec(event_time="e", known_at="k", identity=("id",), version="v")
BOTH = ViewSpec(key={"card": "key"}, features={"x": "x", "s": "s"})
TWO_KEYS = ViewSpec(key={"one": "key", "two": "key2"}, features={"x": "x"})
NO_KEY = ViewSpec(key={}, features={"x": "x"})

CASES = (
    # --- visible
    Case("the newest row wins", rows_of({"e": 10, "x": 1.0}, {"e": 20, "x": 2.0}), PRESENT, 2.0,
         reasons={0: "older", 1: "chosen"}),
    Case("a row that happens at as_of counts", rows_of({"e": 100, "x": 1.0}), PRESENT, 1.0),
    Case("a row one microsecond after as_of does not", rows_of({"e": 101, "x": 1.0}), MISSING,
         known_by=200, reasons={0: "too new"}),
    Case("a null in the newest row is a value: no older row fills it",
         rows_of({"e": 10, "x": 1.0}, {"e": 20}), PRESENT, None, reasons={0: "older", 1: "chosen"}),
    Case("rows of another key do not matter", rows_of({"e": 10, "x": 1.0}, {"key": "b", "e": 20, "x": 2.0}), PRESENT,
         1.0, reasons={0: "chosen"}),
    Case("without rows a key is unknown", [], MISSING),
    Case("a row before 1970 is as good as any", rows_of({"e": -5, "x": 1.0}, {"e": -6, "x": 2.0}), PRESENT, 1.0, at=-5),
    # --- known
    Case("a row learned at known_by counts", rows_of({"e": 10, "k": 100, "x": 1.0}), PRESENT, 1.0, source=LEARNED),
    Case("a row learned one microsecond later does not", rows_of({"e": 10, "k": 101, "x": 1.0}), MISSING,
         source=LEARNED, reasons={0: "not yet known"}),
    Case("settle: learned after as_of, by known_by", rows_of({"e": 10, "k": 105, "x": 1.0}), PRESENT, 1.0,
         known_by=105, source=LEARNED),
    Case("settle admits no row that happened after as_of", rows_of({"e": 101, "k": 101, "x": 1.0}), MISSING,
         known_by=105, source=LEARNED, reasons={0: "too new"}),
    Case("a row may be learned before it happens, and waits for its event_time",
         rows_of({"e": 10, "k": 10, "x": 1.0}, {"e": 110, "k": 5, "x": 2.0}), PRESENT, 1.0, source=LEARNED,
         reasons={0: "chosen", 1: "too new"}),
    Case("without known_at a row is known at event_time + known_after", rows_of({"e": 95, "x": 1.0}), PRESENT, 1.0,
         source=SourceSpec(event_time="e", known_after_us=5)),
    Case("and not a microsecond earlier", rows_of({"e": 96, "x": 1.0}), MISSING,
         source=SourceSpec(event_time="e", known_after_us=5), reasons={0: "not yet known"}),
    Case("a late old row does not replace a newer one",
         rows_of({"e": 20, "k": 20, "x": 2.0}, {"e": 10, "k": 90, "x": 1.0}), PRESENT, 2.0, source=LEARNED),
    # --- history_until
    Case("history: a row loaded later in bulk counts from event_time + known_after",
         rows_of({"e": 50, "k": 999, "x": 1.0}), PRESENT, 1.0, at=55, source=BULK),
    Case("history: not earlier than that", rows_of({"e": 50, "k": 999, "x": 1.0}), MISSING, at=54, source=BULK,
         reasons={0: "not yet known"}),
    Case("history: a row that happened after it counts from its known_at", rows_of({"e": 51, "k": 999, "x": 1.0}),
         MISSING, source=BULK, reasons={0: "not yet known"}),
    Case("history: known_at stays where it is the earlier one", rows_of({"e": 50, "k": 51, "x": 1.0}), PRESENT, 1.0,
         at=51, source=BULK),
    Case("history never changes the order: the true known_at decides between equal event times",
         rows_of({"e": 10, "k": 998, "x": 1.0}, {"e": 10, "k": 999, "x": 0.5}), PRESENT, 0.5, source=BULK,
         reasons={0: "older", 1: "chosen"}),
    Case("history never changes which version was learned last",
         rows_of({"id": 1, "e": 20, "k": 998, "x": 1.0}, {"id": 1, "e": 10, "k": 999, "x": 2.0}), PRESENT, 2.0,
         source=replace(BULK, identity=("id",)), reasons={0: "superseded", 1: "chosen"}),
    # --- superseding
    Case("a correction replaces the row, even by an older event_time",
         rows_of({"id": 1, "e": 20, "k": 20, "x": 1.0}, {"id": 1, "e": 10, "k": 30, "x": 2.0}), PRESENT, 2.0,
         source=VERSIONED, reasons={0: "superseded", 1: "chosen"}),
    Case("a correction that is not known yet replaces nothing",
         rows_of({"id": 1, "e": 20, "k": 20, "x": 1.0}, {"id": 1, "e": 20, "k": 101, "x": 2.0}), PRESENT, 1.0,
         source=VERSIONED, reasons={0: "chosen", 1: "not yet known"}),
    Case("a correction may move a row to another key: the old key loses it",
         rows_of({"id": 1, "e": 20, "k": 20, "x": 1.0}, {"key": "b", "id": 1, "e": 20, "k": 30, "x": 2.0}), MISSING,
         source=VERSIONED, reasons={0: "superseded"}),
    Case("and the new key has it",
         rows_of({"id": 1, "e": 20, "k": 20, "x": 1.0}, {"key": "b", "id": 1, "e": 20, "k": 30, "x": 2.0}), PRESENT,
         2.0, key=("b",), source=VERSIONED, reasons={1: "chosen"}),
    Case("superseding comes before visibility: a version moved past as_of hides the older one",
         rows_of({"id": 1, "e": 20, "k": 20, "x": 1.0}, {"id": 1, "e": 110, "k": 30, "x": 2.0}), MISSING,
         source=VERSIONED, reasons={0: "superseded", 1: "too new"}),
    Case("superseding comes before the ttl: a version moved out of it hides the older one",
         rows_of({"id": 1, "e": 95, "k": 95, "x": 1.0}, {"id": 1, "e": 20, "k": 96, "x": 2.0}), EXPIRED,
         source=VERSIONED, view=of(ttl=10), reasons={0: "superseded", 1: "expired"}),
    Case("a version that lost its key supersedes, then it is dropped",
         rows_of({"id": 1, "e": 20, "k": 20, "x": 1.0}, {"key": None, "id": 1, "e": 20, "k": 30, "x": 2.0}), MISSING,
         source=VERSIONED, reasons={0: "superseded"}),
    Case("a version that lost its event_time supersedes, then it is dropped",
         rows_of({"id": 1, "e": 20, "k": 20, "x": 1.0}, {"id": 1, "k": 30, "x": 2.0}), MISSING,
         source=VERSIONED, reasons={0: "superseded", 1: "invalid"}),
    Case("a version without known_at is dropped first and supersedes nothing",
         rows_of({"id": 1, "e": 20, "k": 20, "x": 1.0}, {"id": 1, "e": 30, "x": 2.0}), PRESENT, 1.0,
         source=VERSIONED, reasons={0: "chosen", 1: "invalid"}),
    Case("rows without identity are dropped first, and are no versions of each other",
         rows_of({"id": None, "e": 20, "k": 20, "x": 1.0}, {"id": None, "e": 30, "k": 30, "x": 2.0}), MISSING,
         source=VERSIONED, reasons={0: "invalid", 1: "invalid"}),
    Case("an identity of two columns needs both to be equal",
         rows_of({"id": 1, "id2": "a", "e": 20, "k": 20, "x": 1.0}, {"id": 1, "id2": "b", "e": 10, "k": 30, "x": 2.0}),
         PRESENT, 1.0, source=replace(VERSIONED, identity=("id", "id2")), reasons={0: "chosen", 1: "older"}),
    Case("without identity every row counts", rows_of({"e": 20, "k": 20, "x": 1.0}, {"e": 10, "k": 30, "x": 2.0}),
         PRESENT, 1.0, source=LEARNED, reasons={0: "chosen", 1: "older"}),
    Case("version decides before known_at",
         rows_of({"id": 1, "v": 2, "e": 20, "k": 20, "x": 1.0}, {"id": 1, "v": 1, "e": 20, "k": 30, "x": 2.0}),
         PRESENT, 1.0, source=BY_NUMBER, reasons={0: "chosen", 1: "superseded"}),
    Case("a null version is the least",
         rows_of({"id": 1, "v": -(2**63), "e": 20, "k": 20, "x": 1.0}, {"id": 1, "e": 20, "k": 30, "x": 2.0}),
         PRESENT, 1.0, source=BY_NUMBER, reasons={0: "chosen", 1: "superseded"}),
    Case("equal versions: known_at decides",
         rows_of({"id": 1, "v": 1, "e": 20, "k": 30, "x": 1.0}, {"id": 1, "v": 1, "e": 25, "k": 20, "x": 2.0}),
         PRESENT, 1.0, source=BY_NUMBER, reasons={0: "chosen", 1: "superseded"}),
    Case("equal version and known_at: event_time decides, null least",
         rows_of({"id": 1, "v": 1, "k": 30, "x": 2.0}, {"id": 1, "v": 1, "e": 25, "k": 30, "x": 1.0}),
         PRESENT, 1.0, source=BY_NUMBER, reasons={0: "superseded", 1: "chosen"}),
    Case("then the tiebreak", rows_of({"id": 1, "e": 25, "k": 30, "t": 2.0, "x": 1.0},
                                      {"id": 1, "e": 25, "k": 30, "t": 1.0, "x": 2.0}),
         PRESENT, 1.0, source=replace(VERSIONED, tiebreak=("t",)), reasons={0: "chosen", 1: "superseded"}),
    Case("then the bytes; versions that tie are no conflict",
         rows_of({"id": 1, "e": 25, "k": 30, "x": 2.0}, {"id": 1, "e": 25, "k": 30, "x": -3.0}),
         PRESENT, 2.0, source=VERSIONED, reasons={0: "chosen", 1: "superseded"}),
    Case("with version, known_at may be event_time + known_after",
         rows_of({"id": 1, "v": 1, "e": 20, "x": 1.0}, {"id": 1, "v": 2, "e": 95, "x": 2.0}), PRESENT, 1.0, at=99,
         source=SourceSpec(event_time="e", known_after_us=5, identity=("id",), version="v"),
         reasons={0: "chosen", 1: "not yet known"}),
    # --- deleted
    Case("a deletion makes the row vanish", rows_of({"id": 1, "e": 20, "k": 20, "x": 1.0},
                                                    {"id": 1, "e": 20, "k": 30, "gone": True}),
         MISSING, source=DELETABLE, reasons={0: "superseded", 1: "deleted"}),
    Case("a tombstone may leave key and event_time out",
         rows_of({"id": 1, "e": 20, "k": 20, "x": 1.0}, {"key": None, "id": 1, "k": 30, "gone": True}),
         MISSING, source=DELETABLE, reasons={0: "superseded"}),
    Case("a deletion uncovers the older row of another identity",
         rows_of({"id": 1, "e": 20, "k": 20, "x": 1.0}, {"id": 2, "e": 10, "k": 10, "x": 2.0},
                 {"key": None, "id": 1, "k": 30, "gone": True}), PRESENT, 2.0, source=DELETABLE),
    Case("a deletion learned after known_by has not happened",
         rows_of({"id": 1, "e": 20, "k": 20, "x": 1.0}, {"id": 1, "e": 20, "k": 101, "gone": True}), PRESENT, 1.0,
         source=DELETABLE, reasons={0: "chosen", 1: "not yet known"}),
    Case("a version learned after the deletion brings the row back",
         rows_of({"id": 1, "e": 20, "k": 30, "gone": True}, {"id": 1, "e": 20, "k": 40, "x": 1.0}), PRESENT, 1.0,
         source=DELETABLE, reasons={0: "superseded", 1: "chosen"}),
    Case("a null deleted is false", rows_of({"id": 1, "e": 20, "k": 20, "x": 1.0, "gone": None}), PRESENT, 1.0,
         source=DELETABLE),
    Case("a version that says it is not deleted is not", rows_of({"id": 1, "e": 20, "k": 20, "x": 1.0, "gone": False}),
         PRESENT, 1.0, source=DELETABLE),
    # --- order
    Case("equal event_time: the row learned later wins",
         rows_of({"e": 20, "k": 40, "x": 1.0}, {"e": 20, "k": 30, "x": 2.0}), PRESENT, 1.0, source=LEARNED),
    Case("event_time decides before known_at", rows_of({"e": 20, "k": 40, "x": 1.0}, {"e": 21, "k": 30, "x": 2.0}),
         PRESENT, 2.0, source=LEARNED),
    Case("then the tiebreak, the first column before the second",
         rows_of({"e": 20, "k": 30, "t": 1.0, "t2": 9, "x": 1.0}, {"e": 20, "k": 30, "t": 2.0, "t2": 0, "x": 2.0}),
         PRESENT, 2.0, source=TIES),
    Case("a null tiebreak is the least",
         rows_of({"e": 20, "k": 30, "t": None, "x": 1.0}, {"e": 20, "k": 30, "t": -math.inf, "x": 2.0}),
         PRESENT, 2.0, source=TIES),
    Case("-0.0 is less than 0.0, so it settles the tie without a conflict",
         rows_of({"e": 20, "k": 30, "t": 0.0, "x": 1.0}, {"e": 20, "k": 30, "t": -0.0, "x": 2.0}),
         PRESENT, 1.0, source=TIES),
    Case("NaN is greater than infinity",
         rows_of({"e": 20, "k": 30, "t": math.inf, "x": 1.0}, {"e": 20, "k": 30, "t": math.nan, "x": 2.0}),
         PRESENT, 2.0, source=TIES),
    Case("rows equal up to the bytes are a conflict; the greatest bytes win",
         rows_of({"e": 20, "x": 1.0}, {"e": 20, "x": 2.0}), PRESENT, 2.0, conflict=True,
         reasons={0: "older", 1: "chosen"}),
    Case("a null is less than any bytes", rows_of({"e": 20, "x": -math.inf}, {"e": 20, "x": None}),
         PRESENT, -math.inf, conflict=True),
    Case("duplicates are no conflict", rows_of({"e": 20, "x": 1.0, "noise": 1}, {"e": 20, "x": 1.0, "noise": 2}),
         PRESENT, 1.0),
    Case("all NaN are one value, so they are no conflict",
         rows_of({"e": 20, "x": NAN_WITH_SIGN}, {"e": 20, "x": NAN_WITH_PAYLOAD}), PRESENT, math.nan),
    Case("a null differs from NaN", rows_of({"e": 20, "x": None}, {"e": 20, "x": math.nan}), PRESENT, math.nan,
         conflict=True),
    Case("columns are compared by name, and one row wins as a whole",
         rows_of({"e": 20, "s": "b", "x": 1.0}, {"e": 20, "s": "a", "x": 2.0}), PRESENT, 1.0, view=BOTH, conflict=True),
    Case("a tie below the winner is no conflict",
         rows_of({"e": 20, "x": 1.0}, {"e": 20, "x": 2.0}, {"e": 30, "x": 3.0}), PRESENT, 3.0),
    Case("a row that lost to known_at is no conflict", rows_of({"e": 20, "k": 30, "x": 1.0}, {"e": 20, "k": 31, "x": 2.0}),
         PRESENT, 2.0, source=LEARNED),
    Case("columns that only a word of the source names are read too",
         rows_of({"e": 20, "end": 200, "x": 1.0}, {"e": 20, "end": None, "x": 2.0}), PRESENT, 1.0, source=ENDING,
         conflict=True, reasons={0: "chosen", 1: "older"}),
    Case("a column that only names the row settles a tie as bytes do",
         rows_of({"id": 2, "e": 20, "k": 20, "x": 1.0}, {"id": 1, "e": 20, "k": 20, "x": 2.0}), PRESENT, 1.0,
         source=VERSIONED, conflict=True),
    Case("columns that the view does not read never decide",
         rows_of({"e": 20, "x": 1.0, "noise": 9, "s": "z"}, {"e": 20, "x": 2.0, "noise": 1, "s": "a"}), PRESENT, 2.0,
         conflict=True),
    # --- ttl and status
    Case("a row exactly ttl old counts", rows_of({"e": 90, "x": 1.0}), PRESENT, 1.0, view=of(ttl=10)),
    Case("a row one microsecond older does not", rows_of({"e": 89, "x": 1.0}), EXPIRED, view=of(ttl=10),
         reasons={0: "expired"}),
    Case("the ttl is counted from as_of, not from known_by", rows_of({"e": 90, "x": 1.0}), PRESENT, 1.0, known_by=150,
         view=of(ttl=10)),
    Case("without ttl nothing is too old", rows_of({"e": -(10**15), "x": 1.0}), PRESENT, 1.0),
    Case("only rows after as_of: the key is unknown yet, whatever the ttl", rows_of({"e": 110, "x": 1.0}), MISSING,
         known_by=200, view=of(ttl=10)),
    Case("a row past the ttl and one not yet happened: known, EXPIRED",
         rows_of({"e": 20, "x": 1.0}, {"e": 110, "x": 2.0}), EXPIRED, known_by=200, view=of(ttl=10),
         reasons={0: "expired", 1: "too new"}),
    Case("only invalid rows: the key is unknown", rows_of({"x": 1.0}), MISSING, reasons={0: "invalid"}),
    # --- until
    Case("a row that ends at as_of has ended", rows_of({"e": 10, "end": 100, "x": 1.0}), EXPIRED, source=ENDING,
         reasons={0: "ended"}),
    Case("a row that ends one microsecond later has not", rows_of({"e": 10, "end": 101, "x": 1.0}), PRESENT, 1.0,
         source=ENDING),
    Case("no older row is tried when the chosen one has ended",
         rows_of({"e": 10, "x": 1.0}, {"e": 20, "end": 90, "x": 2.0}), EXPIRED, source=ENDING,
         reasons={0: "older", 1: "ended"}),
    Case("the end of an older row does not matter", rows_of({"e": 10, "end": 90, "x": 1.0}, {"e": 20, "x": 2.0}),
         PRESENT, 2.0, source=ENDING),
    Case("a null until is open", rows_of({"e": 10, "x": 1.0}), PRESENT, 1.0, source=ENDING),
    Case("an end before the beginning has always ended", rows_of({"e": 10, "end": 5, "x": 1.0}), EXPIRED, at=10,
         source=ENDING),
    # --- defaults
    Case("a default stands for MISSING", [], MISSING, 7.0, view=of(x=7.0)),
    Case("a default stands for EXPIRED by ttl", rows_of({"e": 10, "x": 1.0}), EXPIRED, 7.0, view=of(ttl=10, x=7.0)),
    Case("a default stands for EXPIRED by until", rows_of({"e": 10, "end": 20, "x": 1.0}), EXPIRED, 7.0, source=ENDING,
         view=of(x=7.0)),
    Case("a default never stands for a null in the newest row", rows_of({"e": 10}), PRESENT, None, view=of(x=7.0)),
    # --- keys
    Case("a null key is MISSING, and takes the default", rows_of({"e": 10, "x": 1.0}), MISSING, 7.0, key=(None,),
         view=of(x=7.0), reasons={}),
    Case("a row with a null key belongs to no key", rows_of({"key": None, "e": 10, "x": 1.0}), MISSING, key=(None,),
         reasons={}),
    Case("one null part makes the whole key null", rows_of({"key2": None, "e": 10, "x": 1.0}), MISSING,
         key=("a", None), view=TWO_KEYS, reasons={}),
    Case("(1, 23) never meets (12, 3)", rows_of({"key": "1", "key2": 23, "e": 10, "x": 1.0},
                                                {"key": "12", "key2": 3, "e": 20, "x": 2.0}),
         PRESENT, 1.0, key=("1", 23), view=TWO_KEYS, reasons={0: "chosen"}),
    Case("integer keys beyond 2^53 are told apart", rows_of({"key2": 2**53 + 1, "e": 10, "x": 1.0},
                                                            {"key2": 2**53, "e": 20, "x": 2.0}),
         PRESENT, 1.0, key=("a", 2**53 + 1), view=TWO_KEYS),
    Case("the empty string is a key", rows_of({"key": "", "e": 10, "x": 1.0}), PRESENT, 1.0, key=("",)),
    Case("an entity without key columns has one key, which no row misses",
         rows_of({"key": None, "e": 10, "x": 1.0}, {"e": 5, "x": 2.0}), PRESENT, 1.0, key=(), view=NO_KEY),
    # --- tables without time
    Case("rows of a table without time are always visible", rows_of({"x": 1.0}), PRESENT, 1.0, at=-(10**15),
         source=SourceSpec()),
    Case("several rows of one key in a table without time: the bytes decide, and it is a conflict",
         rows_of({"x": 1.0}, {"x": 2.0}), PRESENT, 2.0, source=SourceSpec(), conflict=True),
    Case("valid_from stands for event_time and known_at", rows_of({"from": 10, "x": 1.0}, {"from": 101, "x": 2.0}),
         PRESENT, 1.0, source=SourceSpec(valid_from="from"), reasons={0: "chosen", 1: "not yet known"}),
    Case("a row is valid from valid_from on, inclusive", rows_of({"from": 100, "x": 1.0}), PRESENT, 1.0,
         source=SourceSpec(valid_from="from")),
    Case("a row without valid_from is invalid", rows_of({"x": 1.0}), MISSING, source=SourceSpec(valid_from="from"),
         reasons={0: "invalid"}),
    Case("a table without time may say until", rows_of({"x": 1.0, "end": 100}), EXPIRED, source=SourceSpec(until="end"),
         reasons={0: "ended"}),
    Case("a table without time may have versions", rows_of({"id": 1, "v": 1, "x": 2.0}, {"id": 1, "v": 2, "x": 1.0}),
         PRESENT, 1.0, source=SourceSpec(identity=("id",), version="v"), reasons={0: "superseded", 1: "chosen"}),
    # --- dates and periods, through the whole path
    Case("a Date is visible from the next midnight on", rows_of({"e": date(2013, 1, 5), "x": 1.0}), PRESENT, 1.0,
         at=utc("2013-01-06T00:00:00"), types=TYPES | {"e": "Date"}),
    Case("and not a microsecond earlier", rows_of({"e": date(2013, 1, 5), "x": 1.0}), MISSING,
         at=utc("2013-01-05T23:59:59.999999"), types=TYPES | {"e": "Date"}, reasons={0: "not yet known"}),
    Case('date="start": from its own midnight on', rows_of({"e": date(2013, 1, 5), "x": 1.0}), PRESENT, 1.0,
         at=utc("2013-01-05T00:00:00"), types=TYPES | {"e": "Date"}, source=SourceSpec(event_time="e", date="start")),
    Case("a Date as until is valid to the end of that day", rows_of({"e": 10, "end": date(1970, 1, 1), "x": 1.0}),
         PRESENT, 1.0, at=DAY - 1, types=TYPES | {"end": "Date"}, source=ENDING),
    Case("and has ended at the midnight after it", rows_of({"e": 10, "end": date(1970, 1, 1), "x": 1.0}),
         EXPIRED, at=DAY, types=TYPES | {"end": "Date"}, source=ENDING),
    Case("a Date as known_at is known at the next midnight", rows_of({"e": 10, "k": date(1970, 1, 1), "x": 1.0}),
         MISSING, at=DAY - 1, types=TYPES | {"k": "Date"}, source=LEARNED, reasons={0: "not yet known"}),
    Case("what describes an hour counts from its end on", rows_of({"e": 0, "x": 1.0}), PRESENT, 1.0, at=HOUR,
         source=SourceSpec(event_time="e", period_us=HOUR)),
    Case("and not a microsecond earlier than its end", rows_of({"e": 0, "x": 1.0}), MISSING, at=HOUR - 1,
         source=SourceSpec(event_time="e", period_us=HOUR), reasons={0: "not yet known"}),
    Case("known_after counts from the end of the period", rows_of({"e": 0, "x": 1.0}), MISSING, at=HOUR + 4,
         source=SourceSpec(event_time="e", period_us=HOUR, known_after_us=5), reasons={0: "not yet known"}),
    Case("a period does not move known_at", rows_of({"e": 0, "k": HOUR, "x": 1.0}), PRESENT, 1.0, at=HOUR,
         source=SourceSpec(event_time="e", known_at="k", period_us=HOUR)),
)  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=[case.says for case in CASES])
def test_value(case: Case) -> None:
    known_by = case.at if case.known_by is None else case.known_by
    answer = value_at(case.source, case.view, case.rows, case.types, case.key, case.at, known_by)
    assert answer.status == case.status
    assert identical("Float64", answer.values["x"], case.x)
    assert answer.conflict == case.conflict
    if case.reasons is not None:
        assert answer.reasons == case.reasons


# --- Rule 0 ---------------------------------------------------------------------------------------------------------

REFRESHED = {"refresh_us": 10}
RULE_0 = (
    ("exactly at a refresh instant its values are served", REFRESHED, 20, (20, 20)),
    ("one microsecond earlier, those of the one before", REFRESHED, 19, (10, 10)),
    ("they stay to the end of the interval", REFRESHED, 29, (20, 20)),
    ("division floors before 1970", REFRESHED, -1, (-10, -10)),
    ("an instant before 1970 is its own", REFRESHED, -10, (-10, -10)),
    ("one microsecond before that", REFRESHED, -11, (-20, -20)),
    ("an offset moves the grid", REFRESHED | {"offset_us": 3}, 22, (13, 13)),
    ("an offset moves the grid: at it", REFRESHED | {"offset_us": 3}, 23, (23, 23)),
    ("an offset moves the grid before 1970", REFRESHED | {"offset_us": 3}, 2, (-7, -7)),
    ("settle delays serving when ready_after is not said", REFRESHED | {"settle_us": 4}, 23, (10, 14)),
    ("settle: rows learned until I + settle count", REFRESHED | {"settle_us": 4}, 24, (20, 24)),
    ("ready_after delays serving", REFRESHED | {"settle_us": 4, "ready_after_us": 6}, 25, (10, 14)),
    ("ready_after: at it", REFRESHED | {"settle_us": 4, "ready_after_us": 6}, 26, (20, 24)),
    ("ready_after of zero with no settle", REFRESHED | {"ready_after_us": 0}, 20, (20, 20)),
    ("ready_after may be longer than a refresh", REFRESHED | {"settle_us": 4, "ready_after_us": 14}, 33, (10, 14)),
    ("all together before 1970", REFRESHED | {"offset_us": 3, "settle_us": 1, "ready_after_us": 2}, -6, (-17, -16)),
    ("all together before 1970: at it", REFRESHED | {"offset_us": 3, "settle_us": 1, "ready_after_us": 2}, -5, (-7, -6)),
    ("a continuous view is as of now", {}, -7, (-7, -7)),
)  # fmt: skip


@pytest.mark.parametrize(("schedule", "t", "expected"), [row[1:] for row in RULE_0], ids=[row[0] for row in RULE_0])
def test_as_of(schedule: dict[str, Any], t: int, expected: tuple[int, int]) -> None:
    assert as_of(ViewSpec(key={}, features={}, **schedule), t) == expected


def test_a_refreshed_view_does_not_see_what_came_after_its_instant() -> None:
    """A daily batch is trained on as it is served: yesterday's values until today's are ready."""
    view = ViewSpec(key={"card": "key"}, features={"x": "x"}, refresh_us=100, settle_us=10, ready_after_us=20)
    rows = rows_of({"e": 90, "k": 110, "x": 1.0}, {"e": 95, "k": 111, "x": 2.0}, {"e": 101, "k": 102, "x": 3.0})
    asked = [119, 120, 219, 220]
    answers = training(LEARNED, view, rows, TYPES, [(("a",), t) for t in asked])
    assert [(answer.status, answer.values["x"]) for answer in answers] == [
        (MISSING, None),  # as of 0
        (PRESENT, 1.0),  # as of 100, known by 110: the second row was learned a microsecond too late
        (PRESENT, 1.0),
        (PRESENT, 3.0),  # as of 200
    ]


def test_training_answers_each_row_of_the_spine_in_its_order() -> None:
    """Duplicates, unknown keys and null keys all come back, where they were."""
    rows = rows_of({"e": 10, "x": 1.0}, {"e": 20, "x": 2.0})
    spine = [(("a",), 20), (("b",), 20), (("a",), 10), ((None,), 10), (("a",), 20), (("a",), 9)]
    answers = training(SourceSpec(event_time="e"), of(), rows, TYPES, spine)
    assert [answer.values["x"] for answer in answers] == [2.0, None, 1.0, None, 2.0, None]
    assert [answer.event_time for answer in answers] == [20, None, 10, None, 20, None]
    assert [answer.row_index for answer in answers] == [1, None, 0, None, 1, None]


def test_a_null_spine_time_is_an_error_that_names_the_row() -> None:
    with pytest.raises(ValueError, match="row 1 of the spine"):
        training(SourceSpec(), of(), [], TYPES, [(("a",), 1), (("a",), None)])  # type: ignore[list-item]  # the mistake


def test_an_answer_says_when_its_row_happened_not_when_it_was_learned() -> None:
    assert value_at(LEARNED, of(), rows_of({"e": 10, "k": 20}), TYPES, ("a",), 30, 30).event_time == 10


def test_an_ended_row_is_still_the_one_that_was_chosen() -> None:
    answer = value_at(ENDING, of(), rows_of({"e": 10, "end": 20, "x": 1.0}), TYPES, ("a",), 30, 30)
    assert answer == Answer(
        status=EXPIRED, values={"x": None}, event_time=10, row_index=0, conflict=False, reasons={0: "ended"}
    )


# --- Time -----------------------------------------------------------------------------------------------------------

NEW_YORK, SAO_PAULO, HAVANA = "America/New_York", "America/Sao_Paulo", "America/Havana"
INSTANTS = (
    ("a naive timestamp is UTC", datetime(2013, 1, 5, 12), {}, "2013-01-05T12:00:00"),
    ("unless the source says otherwise", datetime(2013, 1, 5, 12), {"timezone": NEW_YORK}, "2013-01-05T17:00:00"),
    ("an aware timestamp is what it is", datetime(2013, 1, 5, 12, tzinfo=timezone(timedelta(hours=2))),
     {"timezone": NEW_YORK}, "2013-01-05T10:00:00"),
    ("an ambiguous local time is the later instant", datetime(2013, 11, 3, 1, 30), {"timezone": NEW_YORK},
     "2013-11-03T06:30:00"),
    ("whatever its fold", datetime(2013, 11, 3, 1, 30, fold=1), {"timezone": NEW_YORK}, "2013-11-03T06:30:00"),
    ("just before the ambiguous hour", datetime(2013, 11, 3, 0, 59, 59, 999999), {"timezone": NEW_YORK},
     "2013-11-03T04:59:59.999999"),
    ("a skipped local time has the offset from before the gap", datetime(2013, 3, 10, 2, 30), {"timezone": NEW_YORK},
     "2013-03-10T07:30:00"),
    ("so it shares its instant with the time an hour later", datetime(2013, 3, 10, 3, 30), {"timezone": NEW_YORK},
     "2013-03-10T07:30:00"),
    ("a Date is the next midnight", date(2013, 1, 5), {}, "2013-01-06T00:00:00"),
    ("of the source's timezone", date(2013, 1, 5), {"timezone": NEW_YORK}, "2013-01-06T05:00:00"),
    ('date="start" is its own midnight', date(2013, 1, 5), {"date": "start"}, "2013-01-05T00:00:00"),
    ("a day may have 23 hours: its start", date(2013, 3, 10), {"timezone": NEW_YORK, "date": "start"},
     "2013-03-10T05:00:00"),
    ("a day may have 23 hours: its end", date(2013, 3, 10), {"timezone": NEW_YORK}, "2013-03-11T04:00:00"),
    ("a day may have 25 hours: its start", date(2013, 11, 3), {"timezone": NEW_YORK, "date": "start"},
     "2013-11-03T04:00:00"),
    ("a day may have 25 hours: its end", date(2013, 11, 3), {"timezone": NEW_YORK}, "2013-11-04T05:00:00"),
    ("a midnight that clocks skip is the first instant of the day", date(2013, 10, 19), {"timezone": SAO_PAULO},
     "2013-10-20T03:00:00"),
    ("a midnight that comes twice is the later one", date(2013, 11, 2), {"timezone": HAVANA}, "2013-11-03T05:00:00"),
    ("the last day of a year", date(2012, 12, 31), {}, "2013-01-01T00:00:00"),
    ("a leap day", date(2012, 2, 28), {}, "2012-02-29T00:00:00"),
    ("a day before 1970", date(1969, 12, 31), {}, "1970-01-01T00:00:00"),
    ("a microsecond before 1970", datetime(1969, 12, 31, 23, 59, 59, 999999), {}, "1969-12-31T23:59:59.999999"),
    ("date does not touch timestamps", datetime(2013, 1, 5), {"date": "start"}, "2013-01-05T00:00:00"),
)  # fmt: skip


@pytest.mark.parametrize(("value", "words", "expected"), [r[1:] for r in INSTANTS], ids=[r[0] for r in INSTANTS])
def test_instant(value: date, words: dict[str, Any], expected: str) -> None:
    assert instant(value, SourceSpec(event_time="e", **words)) == utc(expected)


def test_instants_are_whole_microseconds_at_any_distance() -> None:
    """No float comes near a timestamp."""
    assert instant(datetime(1, 1, 1, 0, 0, 0, 1), SourceSpec()) == -62135596800000000 + 1
    assert instant(datetime(9999, 12, 31, 23, 59, 59, 999999), SourceSpec()) == 253402300799999999


@pytest.mark.parametrize("zone", ["UTC", NEW_YORK, SAO_PAULO, HAVANA, "Europe/Berlin", "Australia/Lord_Howe"])
def test_local_times_are_read_as_the_engine_reads_them(zone: str) -> None:
    """Gaps and ambiguous hours included: every half hour of 2013."""
    times = [datetime(2013, 1, 1) + timedelta(minutes=30 * n) for n in range(48 * 365)]
    table = pa.table({"t": pa.array(times, pa.timestamp("us"))})
    with duckdb.connect() as connection:
        connection.register("local_times", table)
        query = "SELECT epoch_us(timezone($1, t)) FROM local_times ORDER BY t"
        engine = [value for (value,) in connection.execute(query, [zone]).fetchall()]
    assert [instant_of_timestamp(value, zone) for value in times] == engine


def test_period_and_known_after_and_history() -> None:
    """The three instants of a row: when it happened, when we learned of it, from when on it counts."""
    source = SourceSpec(event_time="e", known_at="k", period_us=10, known_after_us=3, history_until=20)
    for happened, learned, expected in ((10, 99, (20, 99, 23)), (11, 99, (21, 99, 99)), (10, 22, (20, 22, 22))):
        (row,) = rows_of({"e": happened, "k": learned})
        assert (event_time(source, row), known_at(source, row), counts_from(source, row)) == expected
    (row,) = rows_of({"e": date(1970, 1, 1), "k": 99})
    assert event_time(source, row) == DAY, "a Date is a day, whatever the period of timestamps"
    (row,) = rows_of({"k": 99})
    assert (event_time(source, row), known_at(source, row), counts_from(source, row)) == (None, 99, 99)
    (row,) = rows_of({"e": 10})
    assert (event_time(source, row), known_at(source, row), counts_from(source, row)) == (20, None, None)
    assert (event_time(SourceSpec(), row), known_at(SourceSpec(), row)) == (ALWAYS, ALWAYS)


# --- Bytes ----------------------------------------------------------------------------------------------------------

# Each line is in strictly ascending order; null is least everywhere, so it is not written.
ASCENDING: dict[str, list[Any]] = {
    "Bool": [False, True],
    "Int32": [-(2**31), -256, -1, 0, 1, 255, 256, 2**31 - 1],
    "Int64": [-(2**63), -(2**53) - 1, -(2**53), -1, 0, 1, 2**53, 2**53 + 1, 2**63 - 1],
    "Float32": [-math.inf, -1.5, -(2.0**-149), -0.0, 0.0, 2.0**-149, 0.10000000149011612, math.inf, math.nan],
    "Float64": [-math.inf, -1e308, -1.0, -5e-324, -0.0, 0.0, 5e-324, 0.1, 1.0, 2.0, math.inf, math.nan],
    "String": ["", " ", "A", "a", "a\x00", "a\x00b", "aa", "b", "é", "\uffff", "\U0001f6eb"],
    "Bytes": [b"", b"\x00", b"\x00\x00", b"\x01", b"a", b"\xff"],
    "Date": [date(1, 1, 1), date(1969, 12, 31), date(1970, 1, 1), date(9999, 12, 31)],
    "Timestamp": [us(-(10**15)), us(-1), us(0), datetime(1970, 1, 1, 0, 0, 0, 1), us(2), us(10**15)],
    "Decimal(10,2)": [Decimal(text) for text in ("-99999999.99", "-0.01", "0.00", "0.1", "1.10", "99999999.99")],
    "Decimal(38,0)": [Decimal(-(10**38) + 1), Decimal(-1), Decimal(0), Decimal(10**38 - 1)],
    "Array(Int64)": [[], [None], [None, 5], [-1, 5], [1], [1, None], [1, 2], [2]],
    "Array(Float64)": [[], [None], [-0.0], [0.0], [0.0, None], [0.0, -math.inf], [math.nan]],
    "Array(String)": [[], [""], ["", ""], ["a"], ["a", "z"], ["ab"]],
    "Array(Float32, 2)": [[-0.0, 1.0], [0.0, 0.0], [0.0, 1.0], [math.nan, 0.0]],
}


@pytest.mark.parametrize("type_", ASCENDING)
def test_canonical_bytes_order_as_values_do(type_: str) -> None:
    keys = [sort_key(type_, value) for value in [None, *ASCENDING[type_]]]
    assert all(a < b for a, b in pairwise(keys))


def test_canonical_bytes_are_these() -> None:
    """Written out, so that the order is not only right but right for the reason given."""
    assert sort_key("Int32", -1) == (1, bytes.fromhex("7fffffff"))
    assert sort_key("Int64", 1) == (1, bytes.fromhex("8000000000000001"))
    assert sort_key("Float64", 1.0) == (1, bytes.fromhex("bff0000000000000"))
    assert sort_key("Float64", -0.0) == (1, bytes.fromhex("7fffffffffffffff"))
    assert sort_key("Float64", 0.0) == (1, bytes.fromhex("8000000000000000"))
    assert sort_key("Float64", math.nan) == (1, bytes.fromhex("fff8000000000000"))
    assert sort_key("Float32", math.nan) == (1, bytes.fromhex("ffc00000"))
    assert sort_key("String", "é") == (1, bytes.fromhex("c3a9"))
    assert sort_key("Date", date(1969, 12, 31)) == (1, bytes.fromhex("7fffffff"))
    assert sort_key("Decimal(10,2)", Decimal("1.1")) == sort_key("Decimal(10,2)", Decimal("1.10"))
    assert sort_key("Decimal(10,2)", Decimal("1.1")) == (1, bytes.fromhex("80" + "00" * 14 + "6e"))
    assert sort_key("Timestamp", datetime(1970, 1, 1), NEW_YORK) == sort_key("Timestamp", us(5 * HOUR))


@pytest.mark.parametrize("nan", [math.nan, NAN_WITH_SIGN, NAN_WITH_PAYLOAD, -math.nan])
def test_there_is_one_nan(nan: float) -> None:
    assert identical("Float64", nan, math.nan)
    assert identical("Float32", nan, math.nan)
    assert not identical("Float64", nan, None)


def test_results_carry_one_nan_and_aware_timestamps() -> None:
    """A value is handed out in one form, however the source wrote it."""
    types = TYPES | {"x": "Array(Float64)"}
    view = ViewSpec(key={"card": "key"}, features={"x": "x", "when": "e"})
    rows = rows_of({"e": datetime(1970, 1, 1), "x": [NAN_WITH_SIGN, None, -0.0]})
    source = SourceSpec(event_time="e", timezone=NEW_YORK)
    values = value_at(source, view, rows, types, ("a",), DAY, DAY).values
    assert values["when"] == us(5 * HOUR)
    assert str(values["when"]) == "1970-01-01 05:00:00+00:00"
    assert str(values["x"]) == "[nan, None, -0.0]"
    assert struct.pack(">d", values["x"][0]).hex() == "7ff8000000000000"


# --- Independence ---------------------------------------------------------------------------------------------------


def test_the_oracle_imports_nothing_but_the_standard_library() -> None:
    """It judges the product, so it must not share a line with it."""
    tree = ast.parse((Path(__file__).parent / "oracle.py").read_text(encoding="utf-8"))
    modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    modules |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert {module.split(".")[0] for module in modules} <= sys.stdlib_module_names


# --- Counts and contradictions --------------------------------------------------------------------------------------


def test_invalid_rows_are_counted_once_each() -> None:
    rows = rows_of(
        {"id": 1, "e": 10, "k": 10},
        {"id": 1, "e": 10, "key": None},  # known_at
        {"id": None, "e": 10, "k": 10, "key": None},  # identity, before its key is looked at
        {"id": 2, "e": 10, "k": 10, "key": None},  # key
        {"id": 3, "k": 10},  # event_time
        {"id": 4, "k": 10, "key": None},  # both: counted as key
        {"id": 5, "k": 10, "key": None},  # superseded, so it does not count
        {"id": 5, "e": 10, "k": 11},
        {"id": 6, "k": 10, "key": None, "gone": True},  # a tombstone is not invalid
    )
    assert invalid_counts(DELETABLE, of(), rows, TYPES) == {"known_at": 1, "identity": 1, "key": 2, "event_time": 1}
    assert invalid_counts(DELETABLE, of(), rows, TYPES, known_by=10) == {
        "known_at": 1, "identity": 1, "key": 3, "event_time": 1,
    }  # fmt: skip


def test_without_known_at_a_null_event_time_is_what_is_counted() -> None:
    rows = rows_of({"x": 1.0}, {"x": 1.0, "key": None})
    counts = invalid_counts(SourceSpec(event_time="e"), of(), rows, TYPES)
    assert counts == {"known_at": 0, "identity": 0, "key": 0, "event_time": 2}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"event_time": "e", "deleted": "gone"}, "deleted needs identity"),
        ({"event_time": "e", "identity": ("id",)}, "identity needs known_at or version"),
        ({"event_time": "e", "version": "v"}, "version"),
        ({"event_time": "e", "valid_from": "from"}, "tables without time"),
        ({"known_at": "k"}, "without time"),
        ({"known_after_us": 1}, "without time"),
        ({"event_time": "e", "date": "noon"}, "'end' or 'start'"),
    ],
)
def test_a_source_that_contradicts_itself_is_refused(words: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SourceSpec(**words)


@pytest.mark.parametrize(
    "schedule",
    [
        {"refresh_us": 10, "settle_us": 4, "ready_after_us": 3},
        {"refresh_us": 10, "settle_us": 4, "ready_after_us": 15},
        {"refresh_us": 0},
        {"ttl_us": 0},
    ],
)
def test_a_view_that_contradicts_itself_is_refused(schedule: dict[str, Any]) -> None:
    """ready_after lies between settle and one refresh more."""
    with pytest.raises(ValueError, match="ready_after|positive"):
        ViewSpec(key={}, features={}, **schedule)


# --- Properties -----------------------------------------------------------------------------------------------------

quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)


@quick
@given(histories(), st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(history: History, shuffle: Any) -> None:
    rows = list(history.rows)
    shuffle.shuffle(rows)
    assert seen(history, answers_of(history, rows)) == seen(history, answers_of(history))


@quick
@given(histories())
def test_duplicate_rows_do_not_matter(history: History) -> None:
    assert seen(history, answers_of(history, history.rows * 2)) == seen(history, answers_of(history))


@quick
@given(histories())
def test_rows_that_count_later_change_nothing_before(history: History) -> None:
    """The answer of an instant is the same from the rows known by then alone."""
    for question, answer in zip(history.spine, answers_of(history), strict=True):
        key, t = question
        served, known_by = as_of(history.view, t)
        by_then = [row for row in history.rows
                   if (since := counts_from(history.source, row)) is not None and since <= known_by]  # fmt: skip
        alone = value_at(history.source, history.view, by_then, history.types, key, served, known_by)
        assert seen(history, [alone]) == seen(history, [answer])


@quick
@given(histories(), st.data())
def test_a_refreshed_view_is_constant_within_an_interval(history: History, data: st.DataObject) -> None:
    """From I + ready_after up to the microsecond before the next one."""
    view = history.view
    if view.refresh_us is None:
        return
    ready_after = view.settle_us if view.ready_after_us is None else view.ready_after_us
    for key, t in history.spine:
        first = as_of(view, t)[0] + ready_after
        last = first + view.refresh_us - 1
        assert first <= t <= last
        other = data.draw(st.integers(first, last))
        spine = [(key, first), (key, t), (key, other), (key, last)]
        answers = seen(history, training(history.source, view, history.rows, history.types, spine))
        assert answers == answers[:1] * 4
        assert as_of(view, first - 1)[0] == as_of(view, first)[0] - view.refresh_us
        assert as_of(view, last + 1)[0] == as_of(view, last)[0] + view.refresh_us


@quick
@given(histories())
def test_every_row_of_the_key_has_its_reason(history: History) -> None:
    """Each row of the key is chosen, or left out for one reason; and the reasons explain the status."""
    source, view, types = history.source, history.view, history.types
    columns = list(view.key.values())
    for (key, t), answer in zip(history.spine, answers_of(history), strict=True):
        key_bytes = [sort_key(types[column], part) for column, part in zip(columns, key, strict=True)]
        of_key = {i for i, row in enumerate(history.rows)
                  if None not in key and [sort_key(types[column], row[column]) for column in columns] == key_bytes}  # fmt: skip
        assert set(answer.reasons) == of_key

        reasons = list(answer.reasons.values())
        winners = [i for i, reason in answer.reasons.items() if reason in ("chosen", "ended")]
        assert winners == ([] if answer.row_index is None else [answer.row_index])
        assert (answer.status == PRESENT) == ("chosen" in reasons)
        assert (answer.status == EXPIRED) == ("ended" in reasons or ("expired" in reasons and "chosen" not in reasons))
        if answer.row_index is not None and answer.event_time is not None:
            assert answer.event_time == event_time(source, history.rows[answer.row_index])
            assert answer.event_time <= as_of(view, t)[0]

"""The answer to a lookup as JSON: what is the same for all answers of a service is written once, the rows by one call.

Statuses are few words, again and again: the text of a row of them is written once for each way in which they come together.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import chain
from typing import Any

import orjson

from featurestore.clock import to_datetime
from featurestore.plurals import plural
from featurestore.semantics.service import ResolvedService
from featurestore.server.problems import LimitError
from featurestore.serving.online_result import NAMES, Judged, OnlineResult
from featurestore.settings import ServerConfig
from featurestore.types import Timestamp, to_json

AS_THEY_ARE = {"Bool", "Int32", "Int64", "String"}
PIECE_VALUES = 20_000
"""Values that are written at once: the library that writes them keeps all other threads waiting."""

HELD = 1_000
"""Services, and of each the rows of statuses, whose texts are kept."""


def json_body(result: OnlineResult, most: int = ServerConfig().answer_bytes) -> list[bytes]:
    """The response as JSON, in pieces; LimitError where it has more than `most` bytes."""
    service = result.service
    form = _FORMS.get((service.name, service.fingerprint))
    if form is None:
        if len(_FORMS) >= HELD:
            _FORMS.clear()
        form = _FORMS[service.name, service.fingerprint] = _AnswerForm(service)
    rows = max(1, PIECE_VALUES // len(result.columns))
    if len(result) > rows:
        return within(form.pieces(result, rows), most)
    whole = form.whole(result)
    return [whole] if len(whole) <= most else within([whole], most)


def within(pieces: Iterable[bytes], most: int) -> list[bytes]:
    """The pieces, unless they have more than so many bytes."""
    taken, size = [], 0
    for piece in pieces:
        size += len(piece)
        if size > most:
            detail = f"The answer has more than {most} {plural(most, 'byte')}; ask for fewer rows or features at a time"
            raise LimitError("answer_bytes", detail)
        taken.append(piece)
    return taken


def types_of(service: ResolvedService) -> dict[str, str]:
    """The type of every input, and then of every column."""
    types = {**service.inputs, **{column.name: column.type for column in service.columns}}
    return {name: str(of) for name, of in types.items()}


class _AnswerForm:
    """How answers of one service version are written."""

    def __init__(self, service: ResolvedService) -> None:
        of_service = {
            "service": service.name,
            "fingerprint": service.fingerprint,
            "columns": [column.name for column in service.columns],
            "types": types_of(service),
        }
        self._head = orjson.dumps(of_service)[:-1] + b',"rows":'
        types = list(enumerate(column.type for column in service.columns))
        self._floats = [(place, of) for place, of in types if of.is_float]
        self._float_places = [place for place, _ in self._floats]
        self._converted = [(place, of) for place, of in types if not (of.is_float or of.kind in AS_THEY_ARE)]
        self._status_texts: dict[tuple[tuple[int, ...], bytes], bytes] = {}
        self._end: tuple[tuple[Any, ...], bytes] = ((), b"")

    def whole(self, result: OnlineResult) -> bytes:
        """An answer, written at once."""
        rows = list(zip(*self._json_columns(result), strict=True))
        statuses = b",".join(self._status_rows(result.judged))
        return b"".join((self._head, orjson.dumps(rows), b',"statuses":[', statuses, self._end_of(result)))

    def pieces(self, result: OnlineResult, count: int) -> Iterator[bytes]:
        """An answer, so many of its rows at once."""
        rows = list(zip(*self._json_columns(result), strict=True))
        statuses = self._status_rows(result.judged)
        yield self._head + b"["
        for at in range(0, len(rows), count):
            yield (b"," if at else b"") + orjson.dumps(rows[at : at + count])[1:-1]
        yield b'],"statuses":['
        for at in range(0, len(rows), count):
            yield (b"," if at else b"") + b",".join(statuses[at : at + count])
        yield self._end_of(result)

    def _json_columns(self, result: OnlineResult) -> list[Sequence[Any]]:
        """The columns in their JSON forms; nearly all of them are as they were."""
        columns, converted = list(result.columns.values()), self._converted
        if self._floats and not _are_finite(map(columns.__getitem__, self._float_places)):
            converted = [*converted, *self._floats]
        for place, of in converted:
            columns[place] = [to_json(of, value) for value in columns[place]]
        return columns

    def _status_rows(self, judged: Judged) -> Sequence[bytes]:
        """Each row's statuses."""
        lists, places = judged
        first = tuple([statuses[0] for statuses in lists])
        if len(lists[0]) == 1 or all(
            statuses.count(of) == len(statuses) for statuses, of in zip(lists, first, strict=True)
        ):
            return [self._status_text(places, bytes(first))] * len(lists[0])
        rows = list(map(bytes, zip(*lists, strict=True)))
        texts = {row: self._status_text(places, row) for row in {*rows}}
        return list(map(texts.__getitem__, rows))

    def _status_text(self, places: tuple[int, ...], row: bytes) -> bytes:
        """The text of a row that has these statuses, by their numbers, at these places."""
        text = self._status_texts.get((places, row))
        if text is None:
            if len(self._status_texts) >= HELD:
                self._status_texts.clear()
            text = self._status_texts[places, row] = orjson.dumps([NAMES[row[place]] for place in places])
        return text

    def _end_of(self, result: OnlineResult) -> bytes:
        """What follows the statuses: of a refreshed view, the same for an hour."""
        told = tuple([(name, as_of, stale) for name, (_, _, as_of, stale) in result.parts.items()])
        known, text = self._end
        if known != told:
            of_parts = {
                "as_of": {name: instant(as_of) for name, as_of, _ in told if as_of is not None},
                "stale": result.stale,
            }
            text = b"]," + orjson.dumps(of_parts)[1:]
            self._end = told, text
        return text


_FORMS: dict[tuple[str, str], _AnswerForm] = {}


def _are_finite(columns: Iterable[Sequence[float | None]]) -> bool:
    """Whether there is neither NaN nor an infinity among them; False also where their sum overflows."""
    return math.isfinite(sum(filter(None, chain.from_iterable(columns))))  # neither null nor zero; NaN is kept


@lru_cache(maxsize=256)
def instant(micros: int) -> str:
    """An instant (µs) as JSON has it."""
    text: str = to_json(Timestamp, to_datetime(micros))
    return text

"""Why served values of a view are not training's: each cause by asking training again with one thing different.

The causes are tried in the order of `Search.run`; the first that fits is the one. Most fit where training, asked with one thing
different, gives what was served, to the bit; `history rewritten` where a file was written anew since, or rows of a forgotten key
were erased, so that it cannot be asked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import numpy.typing as npt

from featurestore.clock import to_datetime
from featurestore.lazy import pa
from featurestore.reports.audit.bits import Bits, passage, same_bits
from featurestore.reports.audit.evidence import Ground
from featurestore.reports.audit.history import files_of
from featurestore.reports.audit.recompute import NEVER, Ints, Recomputed, ask_keys, neighbours
from featurestore.semantics.service import ServiceView
from featurestore.semantics.status import Status
from featurestore.semantics.values import scalars
from featurestore.sources.session import Session
from featurestore.types import FeatureType

TRIED_INSTANTS = 3
"""How many instants before the one that was served for, and after it, are tried."""

Texts = npt.NDArray[np.object_]

Detail = str | Callable[[int], str]


@dataclass(frozen=True)
class DifferingRows:
    """Logged rows of which some values of one view differ; everything row by row."""

    part: ServiceView
    """The view, in the version that the values are compared with."""
    inputs: dict[str, FeatureType]
    """The types of `keys`."""
    keys: pa.Table
    """The inputs as logged."""
    times: Ints
    as_of: Ints
    served: Recomputed
    """The view's columns and statuses as served."""
    trained: Recomputed
    """The same in training."""
    differs: Mapping[str, Bits]
    """Column → which rows differ."""
    trained_keys: pa.Table | None = None
    """The inputs that training was asked for, where they may be others."""
    served_part: ServiceView | None = None
    """The view in the version that was served, where that is another."""


class Search:
    """Finds the cause of each differing value, by column and row, and what is known of it; "" where there is none."""

    def __init__(self, ground: Ground, session: Session, question: DifferingRows) -> None:
        self.question = question
        self._ground, self._session = ground, session
        self._evidence = ground.evidence(question.part.view)
        self._runs = self._evidence.runs
        self._types = {question.part.column(f.name): f.type for f in question.part.features}
        self.causes: dict[str, Texts] = {}
        self.details: dict[str, Texts] = {}
        for name, differs in question.differs.items():
            self.causes[name] = np.full(len(differs), "", object)
            self.details[name] = np.full(len(differs), "", object)

    def run(self) -> None:
        """Try every cause, until all values have one."""
        steps = (
            self._version_served, self._request, self._files, self._quarantined, self._type, self._returns, self._erased, self._instants,
            self._other_versions,
        )  # fmt: skip
        with self._session.of_keys(self._keys()):
            for step in steps:
                if self._any_open.any():
                    step()
        for name in self.causes:
            served, trained = self.question.served.statuses[name], self.question.trained.statuses[name]
            expired = Status.EXPIRED.name
            self._settle(name, (served == expired) != (trained == expired), "expiry", "the one side says EXPIRED")
            self._settle(name, self._open(name), "unexplained")

    def _keys(self) -> pa.Table:
        """The keys of all rows, `(k…)`."""
        question = self.question
        return pa.table(
            {f"k{place}": question.keys[name] for place, name in enumerate(question.part.inputs)} or {"k0": []}
        )

    # --- what is settled --------------------------------------------------------------------

    def _open(self, name: str) -> Bits:
        """The rows of a column that differ and have no cause yet."""
        if name not in self.causes:
            return np.zeros(len(self.question.times), np.bool_)
        bare: Bits = self.question.differs[name] & (self.causes[name] == "")
        return bare

    @property
    def _any_open(self) -> Bits:
        """The rows of which any column has no cause yet."""
        rows: Bits = np.logical_or.reduce([self._open(name) for name in self.causes])
        return rows

    def _settle(self, name: str, rows: Bits, cause: str | Texts, detail: Detail = "") -> None:
        """Give the rows of a column that have no cause yet this one, or each the one that is its own."""
        rows = rows & self._open(name)
        self.causes[name][rows] = cause if isinstance(cause, str) else cause[rows]
        for row in np.flatnonzero(rows).tolist():
            self.details[name][row] = detail if isinstance(detail, str) else detail(row)

    def _settle_same(self, rows: Ints, said: Recomputed, cause: str | Texts, detail: Detail) -> None:
        """Give a cause to the values that were served as `said`, which speaks of these rows, in this order."""
        own = self.question.served
        for name, of in self._types.items():
            if name not in self.causes or name not in said.columns:
                continue
            if said.columns[name].type != own.columns[name].type:  # served in another type, by another version
                continue
            same = same_bits(own.columns[name].take(pa.array(rows)), said.columns[name], of)
            same &= own.statuses[name][rows] == said.statuses[name]
            where = np.zeros(len(self.causes[name]), np.bool_)
            where[rows[same]] = True
            self._settle(name, where, cause, detail)

    def _ask(self, rows: Ints, as_of: Ints, *, part: ServiceView | None = None, judged: Ints | None = None,
             session: Session | None = None) -> Recomputed:  # fmt: skip
        """What training says of the keys of some rows at other instants, of another part or in another session."""
        question = self.question
        keys = question.keys.take(pa.array(rows))
        return ask_keys(
            session or self._session, part or question.part, keys, as_of, inputs=question.inputs, judged=judged
        )

    # --- the causes -------------------------------------------------------------------------

    def _version_served(self) -> None:
        """The version that was served gives what was served, and it is not the one compared with."""
        question = self.question
        for name, column in question.served.columns.items():
            if column.type == pa.null():
                self._settle(name, self._open(name), "definition changed", "it was served in another type")
        if question.served_part is not None:
            rows = np.flatnonzero(self._any_open)
            said = self._ask(rows, question.as_of[rows], part=question.served_part)
            fingerprint = question.served_part.view.fingerprint
            self._settle_same(rows, said, "definition changed", f"served by version {fingerprint} of the view")

    def _request(self) -> None:
        """Training gives what was served, where it is asked for the keys that the request brought."""
        question = self.question
        if question.trained_keys is not None:
            rows = np.flatnonzero(self._any_open)
            said = self._ask(rows, question.as_of[rows])

            def detail(row: int) -> str:
                sides = {
                    name: [scalars(of[name].slice(row, 1))[0] for of in (question.keys, table)]
                    for name in question.part.inputs
                }
                return "; ".join(
                    f"{name} was {old!r} and is {new!r}" for name, (old, new) in sides.items() if old != new
                )

            table = question.trained_keys
            self._settle_same(rows, said, "request value differed", detail)

    def _files(self) -> None:
        """Files were written anew or removed after the value was computed, or had not been seen yet."""
        question = self.question
        files = files_of(question.part.view.source, self._evidence.stays, self._session)
        if files is None:
            return
        pairs = zip(question.as_of.tolist(), question.times.tolist(), strict=True)
        computed = np.array([self._runs.began(as_of, time) for as_of, time in pairs], np.int64)
        for instant in np.unique(computed[self._any_open]).tolist():
            rows = np.flatnonzero(self._any_open & (computed == instant))
            then = files.at(instant)
            if then.changed:
                where = np.zeros(len(computed), np.bool_)
                where[rows] = True
                for name in self.causes:
                    since = f"computed at {to_datetime(instant)}, since when a file was written anew or removed"
                    self._settle(name, where, "history rewritten", since)
            elif len(then.there) < len(files.now):
                late = [file.name or file.path for file in files.now if file not in then.there]
                shown = ", ".join(late[:TRIED_INSTANTS]) + (
                    f" and {len(late) - TRIED_INSTANTS} more" if len(late) > TRIED_INSTANTS else ""
                )
                as_of = question.as_of[rows] if then.there else np.full(len(rows), NEVER)
                with self._ground.session({files.source.name: then.there or files.now}) as earlier:
                    said = self._ask(rows, as_of, session=earlier)
                self._settle_same(
                    rows, said, "late data", f"computed at {to_datetime(instant)}, before {shown} was first seen"
                )

    def _quarantined(self) -> None:
        """Training gives what was served, where it counts the rows that do not meet what is expected."""
        part = self.question.part
        if part.view.expectations:
            rows = np.flatnonzero(self._any_open)
            counting = replace(part, view=replace(part.view, expectations=()))
            said = self._ask(rows, self.question.as_of[rows], part=counting)
            self._settle_same(rows, said, "quarantined", "rows were counted that do not meet what is expected")

    def _type(self) -> None:
        """The value was put through something narrower."""
        question = self.question
        for feature in question.part.features:
            name = question.part.column(feature.name)
            if not self._open(name).any():
                continue
            rows = np.flatnonzero(
                self._open(name) & (question.served.statuses[name] == question.trained.statuses[name])
            )  # fmt: skip
            sides = (scalars(side.columns[name].take(pa.array(rows))) for side in (question.served, question.trained))
            for row, served, trained in zip(rows.tolist(), *sides, strict=True):
                through = passage(served, trained, feature.type)
                if through is not None:
                    where = np.zeros(len(question.times), np.bool_)
                    where[row] = True
                    self._settle(name, where, "type or encoding", through)

    def _returns(self) -> None:
        """The value is that of the instant to which the online store went back, before that was found."""
        question = self.question
        for found in self._evidence.returns:
            within = (question.as_of > found.to) & (question.as_of <= found.noticed)
            rows = np.flatnonzero(self._any_open & within)
            said = self._ask(rows, np.full(len(rows), found.to), judged=question.as_of[rows])
            told = f"it went back to {to_datetime(found.to)}, which was found at {to_datetime(found.noticed)}"
            self._settle_same(rows, said, "online store went back", told)

    def _erased(self) -> None:
        """Rows of a key that was forgotten went out of the log after the value was served, so that it cannot be asked."""
        until = self._evidence.erased_until
        if until is not None:
            for name in self.causes:
                told = "served before rows of a forgotten key were erased from the log"
                self._settle(name, self.question.times <= until, "history rewritten", told)

    def _instants(self) -> None:
        """The value is that of another instant: of an earlier one where rows did not come through, or of a later one."""
        question = self.question
        rows = np.flatnonzero(self._any_open)
        said = self._ask(rows, np.full(len(rows), NEVER))
        self._settle_same(rows, said, "not materialized", "served as if the key were unknown")
        late = np.full(len(question.times), "not materialized", object)
        if question.part.view.timing.refresh is not None and self._runs.instants:
            late[~np.isin(question.as_of, self._runs.instants)] = "as_of untrue"  # no run completed that instant
        untrue = np.full(len(question.times), "as_of untrue", object)
        earlier, later = self._around(np.flatnonzero(self._any_open))
        for pair in zip(earlier, later, strict=True):
            for instants, cause in zip(pair, (late, untrue), strict=True):
                rows = np.flatnonzero(self._any_open & (instants != NEVER))
                said = self._ask(rows, instants[rows], judged=question.as_of[rows])
                self._settle_same(rows, said, cause, partial(_value_at, instants))

    def _around(self, rows: Ints) -> tuple[list[Ints], list[Ints]]:
        """The earlier and the later instants to try for some rows, nearest first; NEVER where a row has none."""
        question = self.question
        refresh, as_of = question.part.view.timing.refresh, question.as_of
        if refresh is not None:
            later = [as_of + refresh * step for step in range(1, TRIED_INSTANTS + 1)]
            if not self._runs.instants:
                return [as_of - refresh * step for step in range(1, TRIED_INSTANTS + 1)], later
            runs = np.array(self._runs.instants, np.int64)
            places = np.searchsorted(runs, as_of)
            return [
                np.where(places >= s, runs[np.maximum(places - s, 0)], NEVER) for s in range(1, TRIED_INSTANTS + 1)
            ], later
        self._ask(rows, as_of[rows])
        sides: tuple[list[Ints], list[Ints]] = ([], [])
        for side, found in zip(
            sides, neighbours(self._session, question.part, as_of[rows], TRIED_INSTANTS), strict=True
        ):
            for instants in found:
                side.append(np.full(len(as_of), NEVER))
                side[-1][rows] = instants
        return sides

    def _other_versions(self) -> None:
        """Another version of the view, that was applied once, gives what was served."""
        question = self.question
        part = question.part
        for other in self._evidence.others:
            types = {feature.name: feature.type for feature in part.features}
            shared = tuple(feature for feature in other.features if types.get(feature.name) == feature.type)
            rows = np.flatnonzero(self._any_open)
            if shared and len(rows):
                said = self._ask(rows, question.as_of[rows], part=replace(part, view=other, features=shared))
                self._settle_same(
                    rows, said, "definition changed", f"it is what version {other.fingerprint} of it gives"
                )


def _value_at(instants: Ints, row: int) -> str:
    return f"it is training's value at {to_datetime(int(instants[row])).isoformat()}"

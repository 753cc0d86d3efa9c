"""A training frame of what was served, where that was logged, and of the as-of query elsewhere.

A row of the serving log answers a row of the spine where

    the service    is the one that is asked for, in the same version (its fingerprint); for a list of features every version of a service that
                   gives all of them as they are defined here, by the same names and inputs
    the inputs     are the same to the bit: every key and every request value of what is asked for
    the instant    of the request is the row's, or before it by at most as much as is asked for; of several the last request, and of
                   several at once the one with the greatest id, and then the greatest number in it

and the online store could be reached. Its values and statuses are taken as a whole. All that is taken is compared with training as the audit
compares it, at the instants that were served: it is equal, or has one of the audit's causes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from featurestore.declare.services import ADHOC
from featurestore.errors import RequestError, SpineError
from featurestore.lazy import pa
from featurestore.plurals import plural
from featurestore.project import Project
from featurestore.report import plain
from featurestore.reports.audit.audit import compared_with_training
from featurestore.reports.audit.evidence import Ground
from featurestore.reports.audit.logged import CHUNK_ROWS, Logged, answered, chunks
from featurestore.reports.logged_versions import check_answered, gives
from featurestore.semantics.service import ResolvedService
from featurestore.semantics.values import canonical, scalars
from featurestore.serving.served_rows import MAX_READINGS, input_column, schema_of, status_columns
from featurestore.training.kernel import Options, status_name
from featurestore.training.spine import SpineChunk
from featurestore.training.spine_table import load_chunk
from featurestore.training.training_frame import Block, TrainingFrame, check_names
from featurestore.types import FeatureType

VALUES_FROM = "values_from"
"""The column that says of each row where its values come from: LOG or QUERY."""

LOG, QUERY = "log", "query"

EXAMPLES = 10
"""Values that differ that the manifest tells of, at most."""

MANIFEST = "from_log"
"""What the manifest calls what is told here."""

NOT_FOUND = -1

SERVED_BY = "\0service"
"""A column of the service whose log has a row; no other column's name has a zero byte."""

Ints = npt.NDArray[np.int64]


@dataclass
class _LogCounts:
    """What is told of all rows together."""

    rows: int = 0
    services: Counter[str] = field(default_factory=Counter)
    """Service → rows that are of its log."""
    compared: int = 0
    equal: int = 0
    differing: dict[str, Counter[str]] = field(default_factory=dict)
    """Column → cause → values."""
    other_instants: Counter[str] = field(default_factory=Counter)
    """View → rows that were served for another instant than rule 0 gives for the row of the spine."""
    examples: list[dict[str, Any]] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)

    def enter(self, manifest: dict[str, Any], within: int) -> None:
        """Put it into a manifest, with a notice where values differ or files are damaged."""
        differing = {name: dict(causes) for name, causes in self.differing.items()}
        manifest[MANIFEST] = {
            "within_us": within, "rows": self.rows, "services": dict(sorted(self.services.items())), "compared": self.compared,
            "equal": self.equal, "differing": differing, "served_for_another_instant": dict(self.other_instants),
            "examples": self.examples, "damaged": sorted(set(self.damaged)),
        }  # fmt: skip
        notices = [notice for notice in manifest["notices"] if not notice.startswith(NOTICE)]
        if differing:
            causes = Counter[str]()
            for of_column in self.differing.values():
                causes.update(of_column)
            told = ", ".join(f"{cause} {count}" for cause, count in causes.most_common())
            notices.append(
                f"{NOTICE} {self.compared - self.equal:,} of {self.compared:,} {plural(self.compared, 'value')} that were served {plural(self.compared - self.equal, 'differs', 'differ')} from training: {told}; manifest['from_log'] tells which"
            )
        if self.damaged:
            notices.append(f"{NOTICE} damaged files were left out: {', '.join(sorted(set(self.damaged)))}")
        manifest["notices"] = notices

    def add(self, told: Mapping[str, Any]) -> None:
        """What a manifest tells of other rows."""
        self.rows, self.compared, self.equal = (
            own + told[word]
            for own, word in zip((self.rows, self.compared, self.equal), ("rows", "compared", "equal"), strict=True)
        )
        self.services.update(told["services"])
        for name, causes in told["differing"].items():
            self.differing.setdefault(name, Counter()).update(causes)
        self.other_instants.update(told["served_for_another_instant"])
        self.examples += told["examples"][: EXAMPLES - len(self.examples)]
        self.damaged += told["damaged"]


NOTICE = "From the serving log:"


@dataclass(frozen=True)
class FromLog:
    """Puts what was served in place of what the query says, in frames of one service; see the module."""

    project: Project
    service: ResolvedService
    options: Options
    within: int
    """For how long before a row's instant a request may have been answered, µs."""

    columns = (VALUES_FROM,)
    """The columns that it adds to a frame."""

    def __post_init__(self) -> None:
        """Raises RequestError where no service gives all features of a list, or event times are asked for, which no log has; SpineError
        where a column has the name of the one that is added."""
        if self.options.with_event_time:
            raise RequestError("from_log and with_event_time exclude each other: the serving log has no event times")
        if self.within < 0:
            raise RequestError(
                "from_log is how long before a row's instant a request may have been answered: 0s or more"
            )
        if any(column.name == VALUES_FROM for column in self.service.columns):
            raise SpineError(f"from_log adds a column '{VALUES_FROM}', which is a feature too; rename the feature")
        if self.service.name == ADHOC:
            check_answered(self.project, self.service)

    @property
    def option(self) -> int:
        """What is asked for, as plain JSON: a frame with another one is another frame."""
        return self.within

    def frame(self, frame: TrainingFrame) -> TrainingFrame:
        """The frame with what was served, where it was logged."""
        self.project.serving_log.flush()

        def blocks() -> Iterator[Block]:
            counts = _LogCounts()
            for block in frame.read_blocks():
                check_names(block.spine.column_names, [*self.columns])
                found = _LoggedBlock(
                    self.project, self.service, self.options, block, self.within, frame.pandas is not None
                )
                yield found.answered(counts)
                counts.enter(frame.manifest, self.within)

        made = replace(frame, blocks=blocks, _whole=None)
        if frame.is_answered:
            len(made)
        return made

    def count(self, manifest: dict[str, Any], parts: Sequence[Mapping[str, Any]]) -> None:
        """Enter in the manifest of a frame in parts what those of its parts tell."""
        counts = _LogCounts()
        for part in parts:
            counts.add(part[MANIFEST])
        counts.enter(manifest, self.within)


@dataclass(frozen=True)
class _LoggedBlock:
    """Rows of a spine, and what the log has of them."""

    project: Project
    service: ResolvedService
    options: Options
    block: Block
    within: int
    from_pandas: bool

    def answered(self, counts: _LogCounts) -> Block:
        """The block with what was served."""
        logged, places = self._read(counts)
        there = np.flatnonzero(places != NOT_FOUND)
        values_from = np.where(places == NOT_FOUND, QUERY, LOG)
        features, extra = dict(self.block.features), dict(self.block.extra)
        if len(there):
            rows = Logged(self.service, None, logged.take(pa.array(places[there])))
            for column in self.service.columns:
                served = rows.column(column.name, column.type)
                if served is None:  # of a log that was written by hand
                    raise RequestError(f"The serving log of '{self.service.name}' has no {column.type} '{column.name}'")
                features[column.name] = _put(features[column.name], served, there)
            if self.options.with_status:
                self._statuses(rows, there, extra)
            self._compare(rows, there, counts)
            counts.services.update(rows.rows[SERVED_BY].to_pylist())
        counts.rows += len(there)
        extra[VALUES_FROM] = pa.array(values_from, pa.string())
        return replace(self.block, features=features, extra=extra)

    def _statuses(self, rows: Logged, there: Ints, extra: dict[str, pa.Array]) -> None:
        of_column = {
            name: own for part in self.service.parts for own, names in status_columns(part).items() for name in names
        }
        for column in self.service.columns:
            if column.part is not None:
                served = rows.rows[of_column[column.name]].combine_chunks()
                extra[status_name(column)] = _put(extra[status_name(column)], served, there)

    # --- which logged row answers which row of the spine ----------------------------------------

    def _read(self, counts: _LogCounts) -> tuple[pa.Table, Ints]:
        for _ in range(MAX_READINGS - 1):
            with suppress(FileNotFoundError):  # the log's retention took a file that was listed
                return self._matched(counts)
        return self._matched(counts)

    def _matched(self, counts: _LogCounts) -> tuple[pa.Table, Ints]:
        """Logged rows, and for each row of the spine the place of the one that answers it."""
        times = self.block.instants
        places = np.full(len(times), NOT_FOUND)
        if not len(times):
            return pa.table({}), places
        since, until = int(times.min()) - self.within, int(times.max()) + 1
        inputs, candidates = self._inputs(), []
        wanted = schema_of(self.service).names

        def damaged(path: Path) -> None:
            counts.damaged.append(str(path))

        for name, files in self._files(since, until):
            for rows, _ in chunks(files, since, until, damaged=damaged, columns=frozenset(wanted)):
                own = answered(rows.select([column for column in wanted if column in rows.column_names]))
                best = _last(inputs, times, own, self.service.inputs, self.within)
                told = own.take(pa.array(np.unique(best[best != NOT_FOUND])))
                candidates.append(told.append_column(SERVED_BY, pa.repeat(pa.scalar(name), told.num_rows)))
        if not candidates:
            return pa.table({}), places
        logged = pa.concat_tables(candidates, promote_options="default").combine_chunks()
        return logged, _last(inputs, times, logged, self.service.inputs, self.within)

    def _files(self, since: int, until: int) -> Iterator[tuple[str, list[Path]]]:
        """The services whose log answers, each version's with its files."""
        own = self.service
        one = None if own.name == ADHOC else own.name
        listed = self.project.serving_log.segments(service=one, since=since, until=until)
        for (name, fingerprint), files in listed.items():
            if one is None:
                version = self.project.registry.find_service(name, fingerprint)
                is_same = version is not None and gives(version.service(name), own)
            else:
                is_same = fingerprint == own.fingerprint
            if is_same:
                yield name, files

    def _inputs(self) -> dict[str, pa.Array]:
        """The spine's keys and request values, as lookups take them."""
        types = self.service.inputs
        with self.project.offline.session() as session:
            spine = load_chunk(
                session.connection, SpineChunk(self.block.spine, 0), timestamp=self.options.timestamp,
                timezone=self.options.zone, inputs=types, from_pandas=self.from_pandas,
            )  # fmt: skip
            found = spine.values(session.connection, list(types))
        return {name: canonical(column, types[name]) for name, column in found.items()}

    # --- what training says of the same --------------------------------------------------------

    def _compare(self, rows: Logged, there: Ints, counts: _LogCounts) -> None:
        for part in self.service.parts:
            as_of = rows.as_of(part)
            if as_of is not None:
                other = int(np.count_nonzero(as_of != part.view.timing.as_of(self.block.instants[there])))
                counts.other_instants.update({part.name: other} if other else {})
        ground = Ground.of(self.project)
        for first in range(0, len(there), CHUNK_ROWS):
            piece = replace(rows, rows=rows.rows.slice(first, CHUNK_ROWS))
            for name, compared in compared_with_training(ground, piece).items():
                if any(name == column.name for column in self.service.columns):
                    self._count(name, piece, compared, counts)

    def _count(self, name: str, piece: Logged, compared: Any, counts: _LogCounts) -> None:
        differing = np.flatnonzero(compared.causes != "")
        counts.compared += len(compared.causes)
        counts.equal += len(compared.causes) - len(differing)
        if not len(differing):
            return
        counts.differing.setdefault(name, Counter()).update(compared.causes[differing].tolist())
        for row in differing[: max(0, EXAMPLES - len(counts.examples))].tolist():
            served, trained = (scalars(side.slice(row, 1))[0] for side in (compared.served, compared.trained))
            counts.examples.append(
                plain({
                    "feature": name, "request": piece.rows["request"][row].as_py(), "row": piece.rows["row"][row].as_py(),
                    "served": served, "trained": trained, "cause": compared.causes[row], "detail": compared.details[row],
                })
            )  # fmt: skip


def _put(column: pa.Array, served: pa.Array, there: Ints) -> pa.Array:
    """A column with others in place of the values at some places."""
    places = np.arange(len(column))
    places[there] = len(column) + np.arange(len(there))
    return pa.concat_arrays([column, served.cast(column.type)]).take(pa.array(places))


def _last(
    inputs: dict[str, pa.Array], times: Ints, logged: pa.Table, types: dict[str, FeatureType], within: int
) -> Ints:
    """For each row of the spine the place of the last logged row with its inputs, up to its instant and not more than so many µs before."""
    if not logged.num_rows:
        return np.full(len(times), NOT_FOUND)
    served = np.asarray(logged["time"].cast(pa.int64()).to_numpy())
    groups = _groups([
        (inputs[name], canonical(logged[input_column(name)].combine_chunks(), of), of) for name, of in types.items()
    ], len(times), logged.num_rows)  # fmt: skip
    asked, answering = groups[: len(times)], groups[len(times) :]
    requests = logged["request"].combine_chunks().dictionary_encode()
    rank = np.argsort(np.argsort(np.array(requests.dictionary.to_pylist(), object)))[requests.indices.to_numpy()]
    order = np.lexsort((logged["row"].to_numpy(), rank, served, answering))
    instants = np.unique(np.concatenate([times, served]))
    wanted = asked * len(instants) + np.searchsorted(instants, times)
    there = (answering * len(instants) + np.searchsorted(instants, served))[order]
    place = np.searchsorted(there, wanted, side="right") - 1
    found = order[np.maximum(place, 0)]
    fits = (place >= 0) & (answering[found] == asked) & (served[found] >= times - within)
    result: Ints = np.where(fits, found, NOT_FOUND)
    return result


def _groups(columns: Sequence[tuple[pa.Array, pa.Array, FeatureType]], rows: int, logged: int) -> Ints:
    """A number for each row of the spine, and then for each logged one: equal where all inputs have the same bits."""
    numbers = np.zeros(rows + logged, np.int64)
    for one, other, of in columns:
        codes = _codes(pa.concat_arrays([one, other.cast(one.type)]), of)
        _, numbers = np.unique(numbers * (int(codes.max()) + 1) + codes, return_inverse=True)
    return numbers


def _codes(column: pa.Array, of: FeatureType) -> Ints:
    """A number for each value, null among them, in canonical form: equal for equal bits."""
    if of.element is not None or of.is_float:
        column = pa.array([repr(value) for value in scalars(column)], pa.string())
    encoded = column.dictionary_encode(null_encoding="encode")
    codes: Ints = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    return codes

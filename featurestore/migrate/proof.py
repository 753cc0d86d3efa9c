"""The proof of a move: training frames of both stores over one sample spine, and the cause of each value that differs.

A cause is tried, not guessed: what the move changed is taken back for this one view (its refresh, its known_at, its history, the
edge of its ttl), and where the value is Feast's then, that was the cause.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from featurestore.clock import to_datetime, wall_clock
from featurestore.config import load_config
from featurestore.declare.on_demand import OnDemand
from featurestore.declare.services import FeatureService
from featurestore.declare.views import FeatureView
from featurestore.errors import FeatureStoreError
from featurestore.lazy import duckdb, pa
from featurestore.loading.files import definition_files
from featurestore.loading.load import load
from featurestore.migrate.comparison import Comparison, Frame, SpineRow, read_by, tried
from featurestore.migrate.feast_python import ask_feast
from featurestore.migrate.feast_types import meant
from featurestore.migrate.frame_differences import UNEXPLAINED, FrameDifferences
from featurestore.migrate.move_changes import batch_source
from featurestore.migrate.move_result import MovedFunction, MovedView, MoveResult
from featurestore.migrate.sample_spine import sample_rows
from featurestore.plurals import plural
from featurestore.project import Project
from featurestore.semantics.sql import quote
from featurestore.sources.session import Session
from featurestore.sources.unreadable import engine_words
from featurestore.training.historical import get_historical_features
from featurestore.training.kernel import Options
from featurestore.types import FeatureType

MOST_ROWS = 5_000_000
"""Rows of a source beyond which Feast's file store is not asked: it joins in memory."""

WITHOUT_VIEWS = 12
"""Rows of the spine of a function that reads requests alone."""

SOME_INSTANT, HOUR = 1_700_000_000_000_000, 3_600_000_000


@dataclass(frozen=True)
class ProofOptions:
    """python: Feast's. repo, root: as of a move. registry: the file that Feast's objects were read from, if they were."""

    python: Path
    repo: Path
    root: Path
    registry: Path | None = None


def prove(out: Path, moved: MoveResult, options: ProofOptions) -> list[FrameDifferences]:
    """Compare all views whose rows are at hand, and the functions over them. out: the repository that was written."""
    with tempfile.TemporaryDirectory() as folder, _opened(out, Path(folder)) as project:
        return _Proof(project, moved, options, Path(folder)).done()


@contextmanager
def _opened(out: Path, folder: Path) -> Iterator[Project]:
    """The repository, of which everything that is written lies in another folder."""
    config = load_config(out)
    apart = {"registry": folder / "registry.db", "logs": folder / "logs", "online": f"lmdb://{folder}/online"}
    project = Project(config.model_copy(update=apart), load(definition_files(config), config.root), None)
    try:
        yield project
    finally:
        project.close()


class _Proof:
    def __init__(self, project: Project, moved: MoveResult, options: ProofOptions, folder: Path) -> None:
        self._project, self._moved, self._options, self._folder = project, moved, options, folder
        self._sampled: dict[str, Comparison] = {}
        self._asked = 0

    def done(self) -> list[FrameDifferences]:
        """All comparisons, views first."""
        views = [self._of_view(view) for view in self._moved.views.values() if view.has_data]
        functions = [self._of_function(one) for one in self._moved.functions.values()]
        every = [*views, *(one for one in functions if one is not None)]
        failed = self._compared([one for one in every if one.rows])
        again = []
        for one, why in failed:
            whole = one.whole_rows()
            if 0 < len(whole) < len(one.rows):
                one.only(whole, why)
                again.append(one)
            else:
                one.differences.problem = why
        for one, why in self._compared(again):
            one.differences.problem = why
        for one in every:
            self._complain(one)
        return [one.differences for one in every]

    @staticmethod
    def _complain(one: Comparison) -> None:
        """A function of ours that fails where Feast's does not is nothing that anybody expects."""
        problem = one.differences.problem or ""
        if problem.startswith("here "):
            one.differences.cells = one.differences.causes[UNEXPLAINED] = len(one.rows) * len(one.features)

    def _compared(self, comparisons: Sequence[Comparison]) -> list[tuple[Comparison, str]]:
        """Ask Feast for all of them at once, and compare; those that failed, and why."""
        failed: list[tuple[Comparison, str]] = []
        answers = self._ask(comparisons)
        with self._project.offline.session() as session:
            for one, (answer, problem) in zip(comparisons, answers, strict=True):
                if problem is not None:
                    failed.append((one, f"Feast cannot make its frame: {problem}"))
                    continue
                why = tried(partial(one.compare, answer, session), one.differences)
                if why is not None:
                    failed.append((one, f"here {why}"))
        return failed

    def _ask(self, comparisons: Sequence[Comparison]) -> list[tuple[Path, str | None]]:
        """For each the file of Feast's frame, or why there is none."""
        asks, files = [], []
        for one in comparisons:
            self._asked += 1
            spine, answer = (self._folder / f"{word}{self._asked}.parquet" for word in ("spine", "answer"))
            one.write_spine(spine)
            asks.append({"spine": str(spine), "answer": str(answer), "features": one.references, "views": one.views})
            files.append(answer)
        if not asks:
            return []
        options = self._options
        request = {
            "repo": str(options.repo), "root": str(options.root), "asks": asks,
            "registry": None if options.registry is None else str(options.registry),
        }  # fmt: skip
        told = ask_feast(options.python, request)["answers"]
        return [(file, answer["error"]) for file, answer in zip(files, told, strict=True)]

    def _trained(self, spine: pa.Table, features: Sequence[Any]) -> Frame:
        """Our frame, row by row."""
        service = self._project.service(FeatureService.asked(list(features)))
        options = Options(with_status=True, with_event_time=True)
        frame = get_historical_features(spine, service, self._project.offline, now=wall_clock(), options=options)
        rows: Frame = frame.to_arrow().to_pylist()
        return rows

    # --- views -----------------------------------------------------------------------------------

    def _of_view(self, view: MovedView) -> Comparison:
        declared = self._project.catalog.views[view.name]
        own = {f"{view.there}__{there}": f"{view.name}__{here}" for there, here in view.features.items()}
        shown = {f"{view.name}__{here}": f"{view.name}:{here}" for here in view.features.values()}
        references = [f"{view.there}:{name}" for name in view.features]
        found = Comparison(FrameDifferences(view.name), self._trained, [declared], own, shown, references, [view.there])
        if any(fold.window is not None for fold in declared.features.values()):
            found.differences.problem = "Feast's file store computes no aggregations"
            return found
        try:
            with self._project.offline.session() as session:
                self._sample(session, view, declared, found)
        except FeatureStoreError as error:
            found.differences.problem = f"no sample can be drawn: {error}"
        except duckdb.Error as error:
            found.differences.problem = f"no sample can be drawn: {engine_words(error)}"
        self._sampled[view.there] = found
        return found

    def _sample(self, session: Session, view: MovedView, declared: FeatureView, found: Comparison) -> None:
        """Give a comparison the rows of its spine."""
        source = batch_source(declared)
        assert source is not None
        relation = session.scan(source).relation
        (count,) = session.connection.execute(f"SELECT count(*) FROM {relation}").fetchall()[0]
        if count > MOST_ROWS:
            found.differences.problem = (
                f"its {count:,} {plural(count, 'row is', 'rows are')} more than Feast's file store is asked to join"
            )
            return
        there = {here: name for name, here in view.keys.items()}
        columns = {here: _files_column(declared, name, here) for here, name in there.items()}
        rows = sample_rows(session, declared, columns)
        found.rows = [
            SpineRow({there[key]: value for key, value in row.there.items()}, row.here, row.at) for row in rows
        ]
        read = ", ".join(quote(column) for column in columns.values()) or "1"
        nothing = session.connection.sql(f"SELECT {read} FROM {relation} LIMIT 0").to_arrow_table()
        found.there = {there[here]: nothing.schema.field(column).type for here, column in columns.items()}
        found.here = {name: of.arrow for name, of in declared.entity.key.items()}
        if not rows:
            found.differences.problem = "it has no rows"

    # --- functions -------------------------------------------------------------------------------

    def _of_function(self, function: MovedFunction) -> Comparison | None:
        """The comparison of an on-demand view; None where rows of a view that it reads are not at hand."""
        views = [self._sampled.get(there) for there in function.views]
        sampled = [one for one in views if one is not None]
        if len(sampled) < len(views):
            return None
        items = [self._project.catalog.on_demand[name] for name in function.features.values()]
        own = {f"{function.there}__{there}": here for there, here in function.features.items()}
        shown = {here: here for here in function.features.values()}
        references = [*(f"{function.there}:{name}" for name in function.features), *self._inputs(items)]
        found = Comparison(
            FrameDifferences(function.there),
            self._trained,
            items,
            own,
            shown,
            references,
            [function.there, *function.views],
        )
        if any(one.name != one.view.name for item in items for one in item.selections):
            found.differences.problem = "it reads an alias"
        elif any(not one.rows for one in sampled):
            found.differences.problem = "a view that it reads has no sample"
        else:
            self._combine(function, sampled, found)
        return found

    def _inputs(self, items: Sequence[OnDemand]) -> list[str]:
        """The features that functions read, by their names in Feast: where none is asked for, older versions join no view."""
        read = {one.view.name: one.features for one in read_by(items)}
        return [
            f"{there}:{name}"
            for there, view in self._moved.views.items()
            for name, here in view.features.items()
            if here in read.get(view.name, ())
        ]

    def _combine(self, function: MovedFunction, views: Sequence[Comparison], found: Comparison) -> None:
        """Give a comparison the rows of its first view's spine, with keys of the others' and values of requests."""
        types = {name: meant(of).of for name, (_, of) in function.requests.items()}
        arrow = {name: pa.string() if of is None else of.arrow for name, of in types.items()}
        renamed = {name: here for name, (here, _) in function.requests.items()}
        found.there = {**{name: of for one in views for name, of in one.there.items()}, **arrow}
        found.here = {
            **{name: of for one in views for name, of in one.here.items()},
            **{renamed[name]: of for name, of in arrow.items()},
        }
        rows = []
        for number in range(len(views[0].rows) if views else WITHOUT_VIEWS):
            own = [one.rows[number % len(one.rows)] for one in views]
            asked = {name: _request_value(of, number + place) for place, (name, of) in enumerate(types.items())}
            there = {name: value for row in reversed(own) for name, value in row.there.items()}
            here = {name: value for row in reversed(own) for name, value in row.here.items()}
            at = own[0].at if own else SOME_INSTANT + number * HOUR
            rows.append(SpineRow({**there, **asked}, {**here, **{renamed[k]: v for k, v in asked.items()}}, at))
        found.rows = rows


def _files_column(view: FeatureView, there: str, here: str) -> str:
    """The files' own column of a key, where the view reads one that SQL makes of it."""
    column, source = view.key_column(here), batch_source(view)
    return there if source is not None and column in source.derived else column


def _request_value(of: FeatureType | None, number: int) -> Any:
    """A value that a request may bring."""
    if of is not None and of.element is not None:
        return [_request_value(of.element, number)]
    some: dict[str | None, Any] = {
        "Bool": number % 2 == 0, "Int32": number % 7, "Int64": number % 7, "Float32": number % 7 / 2, "Float64": number % 7 / 2,
        "Bytes": b"x", "Timestamp": to_datetime(SOME_INSTANT + number * HOUR),
    }  # fmt: skip
    return some.get(None if of is None else of.kind, f"text{number % 7}")

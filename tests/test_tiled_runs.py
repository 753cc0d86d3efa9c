"""Tiles that stand for rows: an answer from them is the answer from the rows, to the bit, whatever files come, change and go."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from featurestore.durable.owner import OwnedFolder
from featurestore.query.answer import Answer, ask
from featurestore.query.windows.tile_protocol import Tiling
from featurestore.semantics.view import ResolvedView
from featurestore.sources.instances import Instances
from featurestore.sources.offline import Offline
from featurestore.sources.session import Session
from featurestore.tiles import file_tile_choice as tiling
from featurestore.tiles.file_tile_choice import can_be_tiled
from tests.draws import draws
from tests.folding import FoldSpec, fold_specs
from tests.histories import History, histories, to_arrow, write_parquet
from tests.test_windows import view_of
from tests.world import resolved

ADDING = ("Count", "Sum", "Mean", "Var", "StdDev", "Min", "Max")
SUMMABLE = ("Int32", "Int64", "Float32", "Float64", "Decimal(10,2)")
NUMBERED = ("Bool", "Int32", "Int64", "Float32", "Float64", "Date", "Timestamp")


@st.composite
def tileable(draw: st.DrawFn) -> tuple[History, list[FoldSpec], bool]:
    """A history of rows that none replaces, and folds of them that add up: some at random, and all of one column."""
    history = draw(histories(max_rows=30).filter(_can_be_tiled))
    drawn = draw(st.lists(fold_specs(history, timed=True), min_size=1, max_size=3))
    window: Any = draw(st.sampled_from((history.step, 2 * history.step, "lifetime")))
    windows = [FoldSpec("Count", None, window=window)]
    for column, of in history.types.items():
        if column.startswith("value_") and of in SUMMABLE:
            window, offset = (
                draw(st.sampled_from((1, 2, 3))) * history.step,
                draw(st.sampled_from((0, 0, history.step))),
            )
            windows += [FoldSpec(kind, column, window=window, offset=offset) for kind in ADDING]
            break
    specs = [spec for spec in (*drawn, *windows) if _adds_up(history, spec)]
    return history, specs, draw(st.booleans())


def _can_be_tiled(history: History) -> bool:
    asked = any(None not in key for key, _ in history.spine)
    return asked and history.source.event_time is not None and not history.source.identity and len(history.rows) > 8


def _adds_up(history: History, spec: FoldSpec) -> bool:
    of = history.types.get(spec.column or "", "")
    return spec.kind in ADDING and (spec.kind not in ("Min", "Max") or of in NUMBERED)


def asked(session: Session, view: ResolvedView, history: History, at: int, *, tiled: Tiling | None) -> Answer:
    """Every key of the spine at one instant."""
    keys = [key for key in dict.fromkeys(key for key, _ in history.spine) if None not in key]
    columns = {f"k{i}": pa.array([key[i] for key in keys], of.type.arrow) for i, of in enumerate(view.keys)}
    table = pa.table({"request_no": np.arange(len(keys)), **(columns or {"k0": np.zeros(len(keys), np.int32)})})
    session.connection.register("given_requests", table)
    session.connection.execute(
        f"CREATE OR REPLACE TEMP TABLE requests AS SELECT *, CAST({at} AS BIGINT) AS as_of FROM given_requests"
    )
    as_of = np.full(len(keys), at)
    return ask(session.connection, view, session.scan(view.source), requests="requests", as_of=as_of, tiling=tiled)


def shown(answer: Answer) -> list[object]:
    """All that an answer says of each request."""
    statuses = answer.statuses_of(answer.view.features)
    columns = answer.columns(answer.view.features, statuses)
    return [*(repr(column.to_pylist()) for column in columns), *(s.tolist() for s in statuses.values()),
            answer.event_times().to_pylist()]  # fmt: skip


@settings(max_examples=draws(25), deadline=None, suppress_health_check=list(HealthCheck))
@given(
    world=tileable(),
    files=st.integers(1, 4),
    seed=st.integers(0, 99),
    width=st.sampled_from((1, 2, 4, 8, 12)),
    by=st.sampled_from((0, 0, 0, 0, -1, 1)),
    many=st.sampled_from((2, 2, 8)),
    seen=st.lists(st.sampled_from(({0, 1, 2, 3}, {0, 1, 2, 3}, {0}, {1, 2}, {3})), min_size=1, max_size=4),
    asks=st.lists(st.tuples(st.integers(-4, 14), st.sampled_from((-1, 0, 0, 1))), min_size=3, max_size=5),
)
def test_tiles_change_no_answer(
    world: tuple[History, list[FoldSpec], bool], files: int, seed: int, width: int, by: int, many: int,
    seen: list[set[int]], asks: list[tuple[int, int]],
) -> None:  # fmt: skip
    """Tiles of any width, of any files, made at once or one after the other and joined, at any instant."""
    history, specs, plain = world
    with (
        contextlib.closing(Offline(Path(), instances=Instances(threads=2))) as offline,
        tempfile.TemporaryDirectory() as folder,
        pytest.MonkeyPatch.context() as patch,
    ):
        paths = write_parquet(to_arrow(history.rows, history.types), Path(folder), files=files, seed=seed)
        view = resolved(view_of(history, specs, plain=plain, paths=paths), offline).parts[0].view
        assert can_be_tiled(view)
        patch.setattr(tiling, "SIDE_BY_SIDE_PARTS", many)
        patch.setattr(tiling, "hop_for", lambda *_, **__: max(1, width * history.step // 8 + by))
        for number, (halves, nudge) in enumerate(sorted(asks)):
            at = int(view.timing.as_of(history.origin + halves * history.step // 2 + nudge))
            with offline.session() as session:
                there = session.files(view.source)
                found = [there[i] for i in seen[number % len(seen)] if i < len(there)]
                kept = OwnedFolder(Path(folder, "tiles"), None, what="folder of tiles", key="offline.tiles")
                tiles = tiling.tiles_for(view, offline, session, kept, instant=at, seen=found)
                tiled = None if tiles is None else tiles.tiling(session)
                assert shown(asked(session, view, history, at, tiled=tiled)) == shown(
                    asked(session, view, history, at, tiled=None)
                )

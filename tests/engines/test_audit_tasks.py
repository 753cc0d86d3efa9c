"""Audits by tasks, in this process: how files of the log are shared out, and what a spine of requests says of them."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featurestore import Request, on_demand
from featurestore.engines import audit_tasks
from featurestore.engines.audit_tasks import EngineAudit, groups_of
from featurestore.errors import SpineError
from featurestore.types import Float64
from tests.platforms.here_engine import HereVerbs
from tests.small import write
from tests.test_audit_causes import World, logged_rows


@pytest.mark.parametrize(
    ("rows", "most", "expected"),
    [
        ([], 4, []),
        ([1, 1, 1, 1], 4, [[0, 1, 2, 3]]),  # fewer rows than are compared at once
        ([10, 10, 10, 10], 4, [[0], [1], [2], [3]]),
        ([10, 10, 10, 10], 2, [[0, 1], [2, 3]]),
        ([10, 10, 10, 10], 0, [[0, 1, 2, 3]]),
        ([5, 5, 5, 5, 5], 9, [[0, 1], [2], [3, 4]]),
        ([40, 1, 1], 9, [[0], [1, 2]]),
        ([1, 1, 40], 9, [[0, 1], [2]]),
        ([0, 0], 9, [[0, 1]]),
    ],
)  # fmt: skip
def test_groups(
    rows: list[int], most: int, expected: list[list[int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each file is in one group, in their order, and a group has at least about the rows that are compared at once."""
    monkeypatch.setattr(audit_tasks, "CHUNK_ROWS", 10)
    files = [write(tmp_path / f"{n}.parquet", pa.table({"x": range(count)})) for n, count in enumerate(rows)]
    assert groups_of(files, most) == tuple(tuple(files[n] for n in group) for group in expected)


def test_files_that_cannot_be_read_are_in_a_group(tmp_path: Path) -> None:
    """Whose task says what is wrong with them."""
    (tmp_path / "torn.parquet").write_bytes(b"PAR1")
    files = [tmp_path / "torn.parquet", tmp_path / "gone.parquet"]
    assert groups_of(files, 3) == (tuple(files),)


def test_against_a_spine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each task matches its own rows; what none of them has was not logged. A spine that is too large to go along is for this process."""
    monkeypatch.setattr(audit_tasks, "CHUNK_ROWS", 5)
    with ExitStack() as stack:
        world = World(tmp_path, f"lmdb://{tmp_path}/online", stack)
        log = world.store._project.serving_log

        @on_demand(inputs=[world.view()["x"], Request("by", Float64)], output=Float64)
        def scaled(x, by):
            return None if x is None else x * by

        world.apply(scaled)
        for hour in range(3):
            world.run()
            world.ask(by=2.0 + hour)
            log.flush()
        logged = logged_rows(world)
        spine = logged.select(["request", "row"]).append_column("thing", logged["input:thing"])
        spine = spine.append_column("by", pa.array([3.0, *logged["input:by"].to_pylist()[1:]])).slice(0, 12)
        spine = pa.concat_tables(
            [spine, pa.table({**spine.slice(0, 1).to_pydict(), "request": ["nobody's"]}, spine.schema)]
        )
        expected, by_tasks = world.store.audit(spine=spine, keep=False), list[bool]()
        assert (expected.compared, expected.not_served, expected.not_trained) == (12 * 6, 1, 3)
        assert expected.causes == {"request value differed": 1}
        real = EngineAudit.compared

        def compared(self: EngineAudit, *given: Any) -> bool:
            by_tasks.append(real(self, *given))
            return by_tasks[-1]

        monkeypatch.setattr(EngineAudit, "compared", compared)
        verbs = HereVerbs(world.store)
        assert verbs.audit(spine=spine, keep=False).to_dict() == expected.to_dict()
        assert verbs.audit(spine=spine.to_pandas(), keep=False, send_bytes=100).to_dict() == expected.to_dict()
        assert by_tasks == [True, False]
        said = spine.set_column(2, "thing", pa.array(["x"] * len(spine)))
        for verb in (world.store.audit, verbs.audit):
            with pytest.raises(SpineError, match="The spine's column 'thing' is no Int64"):
                verb(spine=said, keep=False)
        assert pq.read_metadata(next(log.folder.rglob("*.parquet"))).num_rows == 5

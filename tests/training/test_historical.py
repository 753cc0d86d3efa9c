"""What training answers depends on rows and questions alone, not on how the work is dealt out."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featurestore import FeatureService
from featurestore.semantics.service import resolve_service
from featurestore.semantics.view import resolve
from featurestore.sources.instances import Instances
from featurestore.sources.offline import Offline
from featurestore.training.historical import get_historical_features
from featurestore.training.kernel import Options
from featurestore.training.training_frame import TrainingFrame
from tests.small import bits, view_of

ROWS, QUESTIONS = 200_000, 20_000


@pytest.fixture(scope="module")
def rows() -> pa.Table:
    """Few keys, few instants, few values: nearly every question has ties, many of them conflicts; -0.0 and NaN too."""
    when = "make_timestamp(1700000000000000 + CAST(hash(i + {}) % {} AS BIGINT) * 3600000000)"
    return duckdb.sql(
        f"SELECT CAST(hash(i + 1) % 50 AS BIGINT) AS thing, {when.format(2, 200)} AS at, {when.format(3, 240)} AS learned, "
        f"CAST(hash(i + 4) % 60000 AS BIGINT) AS id, CAST(hash(i + 5) % 3 AS INT) AS rank, "
        "[0.0, -0.0, 'nan'::DOUBLE, NULL, 0.1][CAST(hash(i + 6) % 5 AS INT) + 1] AS x, "
        f"['', 'a', NULL, 'ß'][CAST(hash(i + 7) % 4 AS INT) + 1] AS y FROM range({ROWS}) t(i)"
    ).to_arrow_table()


@pytest.fixture(scope="module")
def asked() -> pa.Table:
    return duckdb.sql(
        "SELECT CAST(hash(i + 8) % 52 AS BIGINT) AS thing, "
        "make_timestamp(1700000000000000 + CAST(hash(i + 9) % 15000 AS BIGINT) * 60000000) AS event_timestamp "
        f"FROM range({QUESTIONS}) t(i)"
    ).to_arrow_table()


def train(rows: pa.Table, asked: pa.Table, folder: Path, *, threads: int, files: int) -> TrainingFrame:
    """A plain view, one with corrections and one with a ttl over the rows in so many files, by so many threads."""
    size = -(-rows.num_rows // files)
    for n in range(files):
        pq.write_table(rows.slice(n * size, size), folder / f"{n}.parquet", row_group_size=7_000)
    paths = [str(folder / f"{n}.parquet") for n in range(files)]
    views = [
        view_of(paths, ["x", "y"], name="plain", refresh="1h"),
        view_of(paths, ["x", "y"], name="corrected", refresh="6h", settle="1h", known_at="learned", identity=["id"]),
        view_of(paths, ["x", "y"], name="ranked", ttl="5h", known_at="learned", tiebreak=["rank"]),
    ]
    offline = Offline(Path(), instances=Instances(threads=threads))
    try:
        resolved = {view.name: resolve(view, offline.raw_types(view.source)) for view in views}
        service = resolve_service(FeatureService("service", features=views), resolved)
        options = Options(with_status=True, with_event_time=True)
        return get_historical_features(asked, service, offline, now=0, options=options)
    finally:
        offline.close()


def seen(frame: TrainingFrame) -> dict[str, list]:
    table = frame.to_arrow()
    columns = {name: table[name].to_pylist() for name in table.column_names}
    return {
        name: bits(frame.types[name], column) if name in frame.types else column for name, column in columns.items()
    }


@pytest.fixture(scope="module")
def one_by_one(rows: pa.Table, asked: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> TrainingFrame:
    """One thread over one file."""
    return train(rows, asked, tmp_path_factory.mktemp("one"), threads=1, files=1)


@pytest.mark.parametrize(("threads", "files"), [(2, 1), (4, 1), (1, 5), (4, 5)])
def test_threads_files_and_order_change_nothing(
    rows: pa.Table, asked: pa.Table, one_by_one: TrainingFrame, tmp_path: Path, threads: int, files: int
) -> None:
    """Not a bit, a status, an event time or a count of conflicts, where ties are many and rows lie in another order."""
    assert all(0 < count < QUESTIONS for count in one_by_one.manifest["conflicts"].values())
    shuffled = duckdb.sql(f"FROM rows ORDER BY hash(id + {threads}), hash(learned), hash(x), hash(y)").to_arrow_table()
    again = train(shuffled, asked, tmp_path, threads=threads, files=files)
    assert again.manifest["conflicts"] == one_by_one.manifest["conflicts"]
    assert seen(again) == seen(one_by_one)


def test_order_of_the_questions_changes_nothing(
    rows: pa.Table, asked: pa.Table, one_by_one: TrainingFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked backwards and in chunks, every row gets the answer that it gets anyway."""
    monkeypatch.setattr("featurestore.training.spine.CHUNK_ROWS", 7_001)
    backwards = train(rows, asked.take(pa.array(range(QUESTIONS))[::-1]), tmp_path, threads=2, files=2)
    assert {name: column[::-1] for name, column in seen(backwards).items()} == seen(one_by_one)

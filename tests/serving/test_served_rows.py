"""What was served as rows of the log, whichever requests share a segment; and the rows of a request, found again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featurestore import Count, FeatureService, FeatureStore, Request, RequestTime, on_demand
from featurestore.serving import served_rows
from featurestore.serving.log.segments import appearing, is_sound
from featurestore.serving.online_result import OnlineResult
from featurestore.serving.served_rows import MAX_READINGS, ROW, SIZE, ServedRows, find_request, store_version
from featurestore.serving.store_version import METADATA, StoreVersion
from featurestore.types import String, Timestamp
from tests.small import NOON, TIME, hours, opened, table, view_of

THINGS = [1, 2, 3, 4]


@pytest.fixture(scope="module")
def store() -> Iterator[FeatureStore]:
    """Two views, of which one has statuses of its features' own; features of the log's own names; one that is only read."""
    rows = table(thing=THINGS, at=[hours(-3)] * 4, x=[10, 20, None, 40], y=[f"y{thing}" for thing in THINGS])
    view = view_of(rows, ["x", "y"], name="plain", refresh="1h")
    folded = view_of(rows, {"n": Count("x", window="4h"), "m": Count(window="1d")}, name="folded", refresh="2h")

    @on_demand(inputs=[RequestTime(), view["x"]], output=Timestamp)
    def time(request_time, x):
        return request_time

    @on_demand(inputs=[Request("word", String), folded["m"]], output=String)
    def request(word, m):
        return f"{word} {m}"

    service = FeatureService("service", features=[folded["n"], view["y"], time, request])
    with opened(view, folded, service) as (store, clock):
        store.materialize(progress=False)
        clock.set(hours(1))
        yield store


def looked_up(store: FeatureStore, *things: int) -> OnlineResult:
    return store.get_online_features([{"thing": thing, "word": f"w{thing}"} for thing in things], "service")


def expected(result: OnlineResult, name: str, rows: Sequence[int]) -> list[dict[str, Any]]:
    """The log's rows, written out."""
    logged = []
    for row in rows:
        own = {"request": name, "row": row, "time": hours(1)}
        own |= {f"input:{name}": values[row] for name, values in result.inputs.items()}
        for column, values in {**result.columns, **result.hidden}.items():
            own[f"feature:{column}" if column in {"time", "request"} else column] = values[row]
        for part, of in (("folded", ["folded__n", "folded__m"]), ("plain", None)):
            statuses = result.parts[part].statuses
            for column in of or ["plain__x"]:
                own[f"status:{column if of else part}"] = statuses[column][row].name
            own[f"as_of:{part}"] = result.as_of.get(part)
        logged.append(own)
    return logged


def test_what_was_served_is_logged_as_it_was(store: FeatureStore) -> None:
    """One row or several, all of a request's or some; of keys that are there and of others, also where a view was not there."""
    service = looked_up(store, 1).service
    form = ServedRows(service, StoreVersion.of(service, 1))
    asked = [
        ([1, 2, 3], [0, 1, 2]),
        ([4], [0]),
        ([4, 999, 3, 2], [1, 3]),
        ([999], [0]),
        ([2, 1], [1]),
        ([998, 1], [0, 1]),
    ]
    results = [looked_up(store, *things) for things, _ in asked]
    gone = looked_up(store, 1, 2)
    gone.parts = {name: part._replace(as_of=None) if name == "plain" else part for name, part in gone.parts.items()}
    results, asked = [*results, gone, looked_up(store, 4)], [*asked, ([1, 2], [0, 1]), ([4], [0])]
    served = [form.served(result, f"r{n}", asked[n][1]) for n, result in enumerate(results)]
    assert [each.rows for each in served] == [len(rows) for _, rows in asked]
    assert [(each.first, each.last) for each in served] == [(result.now, result.now) for result in results]
    small = [each.what for each in served if each.size is None]
    assert len(small) == 4
    segment = served[0].form.batches(
        [*(each.what for each in served if each.size is not None), served[0].form.gather(small)]
    )
    logged = pa.Table.from_batches(segment).to_pylist()
    wanted = [each for n, result in enumerate(results) for each in expected(result, f"r{n}", asked[n][1])]
    by_row = sorted(logged, key=lambda one: (one["request"], one["row"]))
    assert by_row == sorted(wanted, key=lambda one: (one["request"], one["row"]))
    assert [list(one) for one in logged] == [form.schema.names] * len(logged)
    assert {one["folded__n"] for one in logged} > {0, None}
    assert pa.Table.from_batches(served[0].form.batches([served[0].form.gather(small)])).num_rows == 4


def test_what_waits_says_how_much_memory_it_takes(store: FeatureStore) -> None:
    """What a request takes itself, and each of its rows beside the values; single rows are counted when they are gathered."""
    service = looked_up(store, 1).service
    form = ServedRows(service, StoreVersion.of(service, 1))
    result = looked_up(store, *([1] * 12))
    assert form.served(result, "r", [3]).size is None
    for rows in (2, 4, 12):
        served = form.served(result, "r", range(rows))
        values = [array for array in served.what if isinstance(array, pa.Array)]
        assert sum(map(len, values)) == rows * (2 + 4 + 2)
        assert served.size == SIZE + ROW * rows + sum(
            buffer.size for array in values for buffer in array.buffers() if buffer
        )


def test_a_segment_says_what_wrote_it_where_it_does() -> None:
    """Those of an earlier version have other metadata, or none."""
    version = StoreVersion("one", "f", 3, "1.0", "3.11", {"numpy": "2.0"})
    assert store_version({METADATA: version.packed(), b"other": b""}) == version
    assert [store_version(metadata) for metadata in (None, {}, {b"other": b""})] == [None] * 3


def file_of(folder: Path, name: str, rows: Sequence[tuple[str, int, int]]) -> Path:
    """A segment of (request, row, hour)."""
    columns = list(zip(*rows, strict=True))
    served = pa.table({"request": columns[0], "row": columns[1], "time": pa.array(map(hours, columns[2]), TIME)})
    with appearing(folder / f"{name}.parquet") as file:
        pq.write_table(served, file)
    (path,) = folder.glob(f"{name}.*.parquet")
    return path


@pytest.fixture
def listed(tmp_path: Path) -> dict[tuple[str, str], list[Path]]:
    """Segments of two versions of a service, and of another."""
    return {
        ("one", "old"): [
            file_of(tmp_path, "1-2-a", [("twice", 1, 2), ("twice", 0, 2), ("other", 0, 1)]),
            file_of(tmp_path, "1-3-b", [("twice", 0, 1), ("split", 3, 3)]),
        ],
        ("one", "new"): [file_of(tmp_path, "1-1-c", [("split", 1, 1), ("only", 0, 1)])],
        ("two", "new"): [file_of(tmp_path, "0-2-d", [("split", 2, 2)])],
    }


def found(listed: Mapping[tuple[str, str], Sequence[Path]], request: str) -> Any:
    """Which version answered, and its rows as (row, hour)."""
    logged = find_request(Path("nowhere"), request, listed=lambda: listed)
    if logged is None:
        return None
    at = [(time - NOON).total_seconds() / 3600 for time in logged.rows["time"].to_pylist()]
    assert logged.rows.column_names == ["request", "row", "time"]
    return logged.service, logged.fingerprint, [*zip(logged.rows["row"].to_pylist(), at, strict=True)]


@pytest.mark.parametrize(
    ("request_id", "expected"),
    [
        ("twice", ("one", "old", [(0, 1), (0, 2), (1, 2)])),  # by time and row, of every file
        ("split", ("one", "old", [(3, 3)])),  # by the version that used it last
        ("only", ("one", "new", [(0, 1)])),
        ("nobody's", None),
    ],
)
def test_the_rows_of_a_request_are_found(
    listed: dict[tuple[str, str], list[Path]], request_id: str, expected: Any
) -> None:
    assert found(listed, request_id) == expected


def test_of_damaged_files_nothing_is_found(listed: dict[tuple[str, str], list[Path]]) -> None:
    """Rows of the other files are; whether the damage shows when it is read or only by the checksum."""
    older = listed["one", "old"]
    data = older[1].read_bytes()
    other = pq.read_table(older[1])
    shifted = other.set_column(1, "row", pa.array([8, 9]))
    for damage in (lambda: older[1].write_bytes(data[:-4]), lambda: pq.write_table(shifted, older[1])):
        damage()
        assert found(listed, "twice") == ("one", "old", [(0, 2), (1, 2)])
        assert found(listed, "split") == ("two", "new", [(2, 2)])
    older[0].write_bytes(b"")
    assert found(listed, "twice") is None
    assert found(listed, "only") == ("one", "new", [(0, 1)])


def test_only_files_with_rows_of_the_request_are_looked_at_whole(
    listed: dict[tuple[str, str], list[Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the others nothing is read but what their statistics do not rule out."""
    whole: list[str] = []

    def sound(path: Path) -> bool:
        whole.append(path.name.partition(".")[0])
        return is_sound(path)

    monkeypatch.setattr(served_rows, "is_sound", sound)
    for request, names in [("twice", ["1-2-a", "1-3-b"]), ("split", ["0-2-d", "1-1-c", "1-3-b"]), ("nobody's", [])]:
        whole.clear()
        found(listed, request)
        assert sorted(whole) == names


def test_segments_that_go_while_they_are_read_are_listed_again(listed: dict[tuple[str, str], list[Path]]) -> None:
    """So often that the time of a segment may have come; a folder that is never whole is an error."""
    gone = {("one", "old"): [Path("gone.parquet")]}
    asked: list[int] = []

    def listing(times: int) -> Mapping[tuple[str, str], Sequence[Path]]:
        asked.append(times)
        return gone if len(asked) < times else listed

    logged = find_request(Path("nowhere"), "only", listed=lambda: listing(MAX_READINGS))
    assert logged is not None
    assert len(asked) == MAX_READINGS
    asked.clear()
    with pytest.raises(FileNotFoundError):
        find_request(Path("nowhere"), "only", listed=lambda: listing(MAX_READINGS + 1))
    assert len(asked) == MAX_READINGS

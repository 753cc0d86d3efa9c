"""Files of the serving log by their names: what they say, which count, and for which span of time."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featurestore.serving.log.segments import (
    HOUR_US,
    REPLACES,
    ServedSegment,
    appearing,
    is_sound,
    live,
    merged_name,
    replaced,
    rows_served,
    segment_name,
    segments,
    write_quickly,
)

ROWS = pa.table({"request": ["a", "b"], "time": [1, 2], "text": ["x", "x"], "value": [0.5, 1.5]})


def put(folder: Path, name: str, *, stands_for: list[str] | None = None) -> Path:
    """A file of two rows, as the log writes it."""
    table = ROWS if stands_for is None else ROWS.replace_schema_metadata({REPLACES: json.dumps(stands_for)})
    with appearing(folder / name) as into:
        write_quickly(table, into)
    (found,) = folder.glob(f"{Path(name).stem}.*")
    return found


@pytest.mark.parametrize(("first", "hour"), [(0, 0), (3_599_999_999, 0), (3_600_000_000, 1), (3 * HOUR_US + 7, 3)])
def test_a_name_says_when_its_rows_were_served(first: int, hour: int) -> None:
    plain = ServedSegment.of(Path("f") / segment_name(first, first + 5, "17-1"))
    merged = ServedSegment.of(Path("f") / merged_name(first, first + 5, "ab"))
    for segment in (plain, merged):
        assert (segment.first, segment.last, segment.hour) == (first, first + 5, hour)
    assert (plain.merged, merged.merged) == (False, True)


def test_files_that_are_called_otherwise_are_left_alone(tmp_path: Path) -> None:
    ours = put(tmp_path / "a" / "f", segment_name(10, 20, "1-0"))
    for name in ("2026-notes.parquet", "1.parquet", "7-x-y.parquet", "10-20.parquet"):
        (ours.parent / name).write_bytes(b"notes")
    assert segments(tmp_path) == {("a", "f"): [ours]}


def test_segments_are_those_with_rows_in_a_span_oldest_first(tmp_path: Path) -> None:
    """`since` is the first instant of it, and `until` the first after it."""
    late, early = (put(tmp_path / "a" / "f", segment_name(*times, "1-0")) for times in ((10, 20), (9, 12)))
    other = put(tmp_path / "a*" / "g", segment_name(15, 15, "1-0"))
    assert segments(tmp_path) == {("a", "f"): [early, late], ("a*", "g"): [other]}
    assert segments(tmp_path, service="a*") == {("a*", "g"): [other]}
    for since, found in ((20, [late]), (21, []), (12, [early, late]), (13, [late])):
        assert segments(tmp_path, service="a", since=since).get(("a", "f"), []) == found
    for until, found in ((9, []), (10, [early]), (11, [early, late])):
        assert segments(tmp_path, service="a", until=until).get(("a", "f"), []) == found


def test_a_file_is_sound_that_is_what_its_name_says(tmp_path: Path) -> None:
    """One of an earlier version has no checksum."""
    path = put(tmp_path, segment_name(1, 2, "1-0"))
    assert is_sound(path)
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert not is_sound(path)
    old = path.rename(tmp_path / segment_name(1, 2, "1-0"))
    assert is_sound(old)
    folder = tmp_path / "1-2-1-0.00000000.parquet"
    folder.mkdir()
    assert not is_sound(folder)
    with pytest.raises(FileNotFoundError):
        is_sound(path)


def test_a_file_that_is_not_written_whole_never_appears(tmp_path: Path) -> None:
    def half() -> None:
        with appearing(tmp_path / "f" / "1-2-1.parquet") as into:
            into.write(b"half of it")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        half()
    assert list((tmp_path / "f").iterdir()) == []


def test_what_a_merged_file_stands_for_does_not_count(tmp_path: Path) -> None:
    """Where it is damaged its parts count again; alone in its hour it is not looked into."""
    parts = [put(tmp_path, segment_name(n, n, "1-0")) for n in (1, 2)]
    alone = put(tmp_path, merged_name(HOUR_US, HOUR_US, "m"), stands_for=["gone"])
    merged = put(tmp_path, merged_name(1, 2, "m"), stands_for=[path.name for path in parts])
    assert [file.path for file in live(tmp_path)] == [merged, alone]
    files = [ServedSegment.of(path) for path in (*parts, merged, alone)]
    assert replaced(files) == {path.name for path in parts}
    assert replaced(files, lambda file: file.last == HOUR_US) == set()
    assert replaced([ServedSegment.of(alone)]) == set()
    merged.write_bytes(merged.read_bytes()[:-9])
    assert [file.path for file in live(tmp_path)] == [parts[0], merged, parts[1], alone]


def test_a_merged_file_stands_for_the_one_part_that_is_left(tmp_path: Path) -> None:
    """From 1970 on."""
    part = put(tmp_path, segment_name(0, 1, "1-0"))
    assert [file.path for file in live(tmp_path)] == [part]
    merged = put(tmp_path, merged_name(0, 2, "m"), stands_for=[part.name, "gone"])
    assert [file.path for file in live(tmp_path)] == [merged]


def test_rows_are_counted_to_a_segment_and_what_cannot_be_read_is_none(tmp_path: Path) -> None:
    for n in (1, 5, 9):
        put(tmp_path / "s" / "f", segment_name(n, n, "1-0"))
    put(tmp_path / "s" / "g", segment_name(9, 9, "1-0"))
    assert [rows_served(tmp_path, "s", "f", since=since) for since in (0, 5, 6, 10)] == [6, 4, 2, 0]
    (tmp_path / "s" / "f" / segment_name(9, 9, "broken")).write_bytes(b"no Parquet")
    assert rows_served(tmp_path, "s", "f", since=6) == 2


def test_a_segment_says_least_and_greatest_of_what_rows_are_looked_for_by(tmp_path: Path) -> None:
    """And texts have a dictionary: nothing else is computed on a processor that lookups share."""
    read = pq.read_metadata(put(tmp_path, segment_name(1, 2, "1-0")))
    assert read.num_row_groups == 1
    columns = {ROWS.column_names[n]: read.row_group(0).column(n) for n in range(4)}
    assert [name for name, column in columns.items() if column.is_stats_set] == ["request", "time"]
    assert [name for name, column in columns.items() if column.has_dictionary_page] == ["request", "text"]
    assert {column.compression for column in columns.values()} == {"SNAPPY"}

"""Records that an earlier version wrote are read, and written alike, by this one."""

from __future__ import annotations

import json

import pytest

from tests import golden_tiles

GOLDEN = json.loads(golden_tiles.RECORDS.read_text())


@pytest.mark.parametrize("name", sorted(golden_tiles.VIEWS))
def test_records_are_read_as_they_were_written(name: str) -> None:
    """One by one, and many at once."""
    records, said = GOLDEN[name]["records"], GOLDEN[name]["said"]
    assert [golden_tiles.said(name, [record]) for record in records] == [[each] for each in said]
    assert golden_tiles.said(name, records * 8) == said * 8


def test_rows_make_the_same_bytes() -> None:
    """A changed format must be seen in a diff, and have another number."""
    assert golden_tiles.made() == {name: of["records"] for name, of in GOLDEN.items()}

"""Rows that are alike, beside what looking at each pair would say."""

from __future__ import annotations

from itertools import product

import pytest

from featurestore.serving.repeated_keys import repeats_of


@pytest.mark.parametrize("columns", [1, 2])
def test_rows_are_alike_where_they_are_in_all_columns(columns: int) -> None:
    for rows in range(2, 5):
        for values in product(product("ab", repeat=rows), repeat=columns):
            alike = repeats_of(values, rows)
            each = list(zip(*values, strict=True))
            firsts = [row for row in range(rows) if each[row] not in each[:row]]
            if len(firsts) == rows:
                assert alike is None
                continue
            assert alike is not None
            assert (list(alike.firsts), alike.rows) == (firsts, rows)
            for column in values:
                assert alike.spread(alike.distinct(column)) == list(column)


def test_rows_of_no_columns_are_all_alike() -> None:
    alike = repeats_of([], 2)
    assert alike is not None
    assert (alike.firsts, alike.spread(["x"])) == ([0], ["x", "x"])

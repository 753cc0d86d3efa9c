"""Groups the rows of a request that have the same key, so that each key is read once."""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter
from typing import Any


class Repeats:
    """Rows of which some are alike. `firsts`: the rows that are unlike all before them."""

    __slots__ = ("_of_each", "firsts", "rows")

    def __init__(self, firsts: Sequence[int], numbers: Sequence[int]) -> None:
        """numbers: for each of the rows, two at least, which of `firsts` it is like."""
        self.firsts = firsts
        self.rows = len(numbers)
        self._of_each = itemgetter(*numbers) if len(firsts) > 1 else None

    def distinct(self, column: Sequence[Any]) -> list[Any]:
        """Of a column of all rows, the values of `firsts`."""
        return [column[row] for row in self.firsts]

    def spread(self, column: Sequence[Any]) -> list[Any]:
        """A column of all rows, from the values of `firsts`; rows that are alike share one object."""
        return [column[0]] * self.rows if self._of_each is None else list(self._of_each(column))


def repeats_of(columns: Sequence[Sequence[Any]], rows: int) -> Repeats | None:
    """Which of the rows are alike in all columns, whose values are alike where they are equal; None where no two rows are."""
    each: Sequence[Any] = columns[0] if len(columns) == 1 else list(zip(*columns, strict=True))
    one = not columns or (each[0] is each[-1] and each.count(each[0]) == rows)  # as where all rows are told one key
    unlike = 1 if one else len({*each})
    if unlike >= rows:
        return None
    if unlike == 1:
        return Repeats([0], [0] * rows)
    first = dict(zip(reversed(each), range(rows - 1, -1, -1), strict=True))  # the last that is put under a value stays
    numbers = {value: number for number, value in enumerate(dict.fromkeys(each))}
    return Repeats([first[value] for value in numbers], [numbers[value] for value in each])

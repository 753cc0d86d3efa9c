"""The map of an audit: every hour of every feature has its cell, with what the audit counted."""

from __future__ import annotations

from datetime import timedelta

from featurestore.console.heat_map import MOST_COLUMNS, MOST_ROWS, heat_map
from featurestore.reports.audit.report import Audit, FeatureAudit, HourAudit
from featurestore.serving.log.serving_log import Losses
from tests.small import hours


def feature(name: str, *counts: tuple[float, int, int, int], fingerprint: str = "a" * 32) -> FeatureAudit:
    """Hours after noon, and of each how many values were compared, rewritten and skewed."""
    found = FeatureAudit("model", fingerprint, name)
    for hour, compared, rewritten, skewed in counts:
        exact = compared - rewritten - skewed
        found.hours.append(HourAudit(hours(hour), compared=compared, exact=exact, rewritten=rewritten, skewed=skewed))
        found.compared, found.rewritten, found.skewed = (
            found.compared + compared,
            found.rewritten + rewritten,
            found.skewed + skewed,
        )
    return found


def audit(*features: FeatureAudit) -> Audit:
    return Audit(features, (), Losses(0, 0, 0, 0), {})


def test_a_cell_says_what_was_found_in_its_hour() -> None:
    """The worst of it first; an hour in which nothing was served is there, and empty."""
    drawn = heat_map(audit(feature("x", (0, 4, 0, 0), (1, 4, 1, 0), (3, 4, 2, 1)), feature("y", (1, 2, 0, 0))))
    assert [column.start for column in drawn.columns] == [hours(n) for n in range(4)]
    x, y = drawn.rows
    assert [cell.outcome for cell in x.cells] == ["exact", "rewritten", "nothing", "skewed"]
    assert [cell.differing for cell in x.cells] == [0, 1, 0, 3]
    assert [cell.outcome for cell in y.cells] == ["nothing", "exact", "nothing", "nothing"]
    assert x.cells[3].told == (
        "x, from 2024-05-01 15:00:00Z to 2024-05-01 16:00:00Z: 4 compared, 1 skewed, 2 rewritten"
    )


def test_many_hours_share_columns() -> None:
    """None is lost: the sums over the cells are those of the audit."""
    counted = feature("x", *((n, 3, 1, n % 2) for n in range(0, 200, 3)))
    drawn = heat_map(audit(counted))
    assert len(drawn.columns) <= MOST_COLUMNS
    assert {column.end - column.start for column in drawn.columns} == {timedelta(hours=5)}
    assert all(one.end == next_one.start for one, next_one in zip(drawn.columns, drawn.columns[1:], strict=False))
    cells = drawn.rows[0].cells
    assert sum(cell.compared for cell in cells) == counted.compared
    assert sum(cell.skewed for cell in cells) == counted.skewed


def test_the_worst_features_are_shown_and_the_others_counted() -> None:
    features = [feature(f"f{n:03}", (0, 10, n % 7, n // 50)) for n in range(150)]
    drawn = heat_map(audit(*features))
    assert (len(drawn.rows), drawn.left_out) == (MOST_ROWS, 150 - MOST_ROWS)
    assert drawn.rows[0].audit.feature == "f104"
    least = min((row.audit.skewed, row.audit.rewritten) for row in drawn.rows)
    shown = {row.audit.feature for row in drawn.rows}
    assert all((one.skewed, one.rewritten) <= least for one in features if one.feature not in shown)


def test_versions_are_told_apart() -> None:
    drawn = heat_map(audit(feature("x", (0, 1, 0, 0)), feature("x", (0, 1, 0, 1), fingerprint="b" * 32)))
    assert [row.title for row in drawn.rows] == ["model@bbbbbbbbbbbb", "model@aaaaaaaaaaaa"]


def test_an_audit_of_nothing_is_an_empty_map() -> None:
    drawn = heat_map(audit())
    assert (drawn.columns, drawn.rows, drawn.left_out) == ((), (), 0)

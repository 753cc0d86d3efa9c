"""The command `simulate`: a stretch of history replayed with faults, and the audit of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from featurestore.cli.application import FOUND, AsJson, opened
from featurestore.cli.auditing import print_example, print_lateness
from featurestore.cli.output import cell, print_json, print_table
from featurestore.cli.values import instant

if TYPE_CHECKING:
    from featurestore.reports.simulation import Faults, Simulation

__all__ = ["simulate"]

EXAMPLES = 5
"""Differences that are printed, each of another feature; --json has more."""


def simulate(  # noqa: PLR0913, PLR0917 - one option for each thing that can go wrong
    context: typer.Context,
    start: Annotated[str | None, typer.Option("--from", help="An instant; a day before the end by default.")] = None,
    end: Annotated[str | None, typer.Option("--to", help="An instant; where the data ends by default.")] = None,
    service: Annotated[list[str] | None, typer.Option(help="Only this service; may be given several times.")] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same report.")] = 0,
    late: Annotated[
        str | None, typer.Option(metavar="SHARE:DURATION", help="Rows later than their source says: 0.01:2h.")
    ] = None,
    disorder: Annotated[bool | None, typer.Option(help="Rows in another order than they were learned in.")] = None,
    duplicates: Annotated[float | None, typer.Option(help="The share of rows that come twice.")] = None,
    fail: Annotated[float | None, typer.Option(help="The share of runs that die in the middle.")] = None,
    skip: Annotated[float | None, typer.Option(help="The share of runs that do not take place.")] = None,
    restarts: Annotated[int | None, typer.Option(help="How often the serving process ends.")] = None,
    pause: Annotated[str | None, typer.Option(help="For how long nothing is pushed and no run takes place.")] = None,
    lookups: Annotated[float, typer.Option(metavar="PER_HOUR", help="Requests of each service an hour.")] = 30,
    rows: Annotated[
        list[str] | None, typer.Option(metavar="SOURCE=FILE", help="Parquet rows to push in place of a source's log.")
    ] = None,
    fail_on_skew: Annotated[bool, typer.Option("--fail-on-skew", help="Exit with 3 where a value differs.")] = False,
    as_json: AsJson = False,
) -> None:
    """Replay history through push, materialize and lookup with faults, and audit it; nothing of the project is written.

    Example: featurestore simulate --late 0.01:2h --seed 7
    """
    said = {"disorder": disorder, "duplicates": duplicates, "fail": fail, "skip": skip, "restarts": restarts,
            "pause": pause}  # fmt: skip
    faults = _faults(late, {name: value for name, value in said.items() if value is not None})
    given = dict(_frame(pair) for pair in rows or ())
    with opened(context) as store:
        found = store.simulate(
            None if start is None else instant(start), None if end is None else instant(end),
            services=service or None, faults=faults, seed=seed, lookups=lookups, rows=given,
        )  # fmt: skip
    if as_json:
        print_json(found.to_dict())
    else:
        _print(found)
    if fail_on_skew and found.skewed:
        raise typer.Exit(FOUND)


def _faults(late: str | None, said: dict[str, Any]) -> Faults:
    from featurestore.reports.simulation import Faults

    if late is None:
        return Faults(**said)
    share, _, by = late.partition(":")
    try:
        return Faults(**said, late=float(share), late_by=by)
    except ValueError as error:
        raise typer.BadParameter(f"--late {late!r} must be written SHARE:DURATION, such as 0.01:2h: {error}") from None


def _frame(pair: str) -> tuple[str, Any]:
    import pyarrow.parquet as pq

    source, separator, path = pair.partition("=")
    if not separator:
        raise typer.BadParameter(f"--rows {pair!r} must be written SOURCE=FILE")
    return source, pq.read_table(Path(path))


def _print(found: Simulation) -> None:
    from featurestore.clock import to_datetime
    from featurestore.declare.durations import show_duration

    audit = found.audit
    print_table(
        ("service", "feature", "compared", "exact", "differing", "causes"),
        [(f.service, f.feature, f.compared, f.exact, f.compared - f.exact, ", ".join(f"{n} {c}" for c, n in f.causes.items()))
         for f in audit.features],
    )  # fmt: skip
    print_lateness(audit)
    print_table(
        ("view", "runs", "died", "skipped", "in the pause", "refused"),
        [(r.view, r.completed, r.failed, r.skipped, r.paused, r.refused) for r in found.runs],
    )
    print_table(
        ("source", "before", "came", "late", "by at most", "twice", "kept aside"),
        [(name, s.history, s.rows, s.late, show_duration(s.late_by), s.duplicates, 0) for name, s in found.landed.items()]
        + [(name, s.history, s.rows, s.late, show_duration(s.late_by), s.unchanged, s.kept_aside)
           for name, s in found.pushed.items()],
    )  # fmt: skip
    examples = [(feature.feature, example) for feature in audit.features for example in feature.examples[:1]]
    for name, example in examples[:EXAMPLES]:
        print_example(name, example)
    for text in (*found.notes, *found.advice):
        typer.echo(text)
    typer.echo(
        f"{cell(to_datetime(found.start))} to {cell(to_datetime(found.end))}, seed {found.seed}: {found.compared} values of "
        f"{found.counts.get('lookups', 0)} lookups compared, {found.differing} differ, {found.early} rows early, "
        f"{found.stale} stale"
    )

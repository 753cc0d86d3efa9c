"""The command `simulate`: a stretch of history replayed with faults, and the audit of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from featurestore.cli.application import FOUND, AsJson, opened
from featurestore.cli.output import print_found
from featurestore.cli.values import instant
from featurestore.errors import SourceError
from featurestore.lazy import pa, pq

if TYPE_CHECKING:
    from featurestore.reports.simulation import Faults


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
    lookups: Annotated[float, typer.Option(metavar="PER_HOUR", min=0, help="Requests of each service an hour.")] = 30,
    rows: Annotated[
        list[str] | None, typer.Option(metavar="SOURCE=FILE", help="Parquet rows to push in place of a source's log.")
    ] = None,
    fail_on_skew: Annotated[
        bool, typer.Option("--fail-on-skew", help="Exit with 3 where a value differs, or nothing was compared.")
    ] = False,
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
            None if start is None else instant(start, "START"), None if end is None else instant(end, "END"),
            services=service or None, faults=faults, seed=seed, lookups=lookups, rows=given,
        )  # fmt: skip
    print_found(found, as_json=as_json)
    if fail_on_skew and not found.compared:
        typer.echo(
            "The simulation stops here: nothing was compared; --lookups, --from and --to say what is asked.", err=True
        )
    if fail_on_skew and (found.skewed or not found.compared):
        raise typer.Exit(FOUND)


def _faults(late: str | None, said: dict[str, Any]) -> Faults:
    from featurestore.errors import DeclarationError
    from featurestore.reports.simulation import Faults

    if late is not None:
        share, _, by = late.partition(":")
        try:
            said |= {"late": float(share), "late_by": by}
        except ValueError:
            raise typer.BadParameter(f"--late {late!r} must be written SHARE:DURATION, such as 0.01:2h") from None
    try:
        return Faults(**said)
    except DeclarationError as error:
        option, _, problem = error.problem.removeprefix("Faults: ").replace("late_by: ", "late: ").partition(": ")
        raise typer.BadParameter(problem, param_hint=f"--{option}") from None


def _frame(pair: str) -> tuple[str, Any]:
    from featurestore.sources.unreadable import no_parquet

    source, separator, path = pair.partition("=")
    if not separator:
        raise typer.BadParameter(f"--rows {pair!r} must be written SOURCE=FILE")
    if not Path(path).is_file():
        raise SourceError(f"{path} is a folder; give one file" if Path(path).is_dir() else f"There is no {path}")
    try:
        return source, pq.read_table(Path(path))
    except (pa.ArrowException, OSError) as error:
        raise SourceError(no_parquet(path, error)) from None

"""The command `import-feast`: a repository of another feature store, as one of ours."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from featurestore.cli.application import AsJson
from featurestore.cli.output import print_json, print_report
from featurestore.cli.values import instant
from featurestore.plurals import plural


def import_feast(  # noqa: PLR0913, PLR0917 - each is an option
    repo: Annotated[Path, typer.Argument(metavar="REPO", help="The folder of feature_store.yaml, or one above it.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="The folder to write, which must not be there.")],
    feast_python: Annotated[
        Path | None, typer.Option(metavar="PATH", help="The Python of Feast; by default that of the command feast.")
    ] = None,
    registry: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Read this registry file of Feast's, and not its Python files.")
    ] = None,
    refresh: Annotated[
        str | None,
        typer.Option(metavar="DURATION", help="How often materialize runs, such as 1h; by default the data says it."),
    ] = None,
    cutover: Annotated[
        str | None, typer.Option(metavar="T", help="Until when the files of push sources count, ISO 8601.")
    ] = None,
    prove: Annotated[
        bool | None,
        typer.Option(
            "--prove/--no-prove", help="Compare training frames of both stores; by default where rows are at hand."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write a repository of Feast's as one of ours, with every difference in meaning, and prove it on training frames.

    Example: featurestore import-feast feature_repo --out shop --feast-python .venv-feast/bin/python
    """
    from featurestore.declare.durations import asked_duration
    from featurestore.migrate.import_feast import ImportOptions
    from featurestore.migrate.import_feast import import_feast as imported

    at: datetime | None = None if cutover is None else instant(cutover, "--cutover")
    every = None if refresh is None else asked_duration(refresh, "--refresh")
    report = imported(ImportOptions(repo, out, feast_python, registry, every, at, prove))
    if as_json:
        print_json(report.to_dict())
    else:
        print_report(report.report())
        typer.echo(f"Wrote {', '.join(report.files)} into {out}.")
        if report.without_rows:
            typer.echo(
                f"First: rows of {', '.join(report.without_rows)}, of which none are at hand; see {out / 'README.md'}"
            )
        typer.echo(f"Next: featurestore --repo {out} plan")
    if report.unexplained:
        typer.echo(
            f"{report.unexplained} {plural(report.unexplained, 'value differs', 'values differ')} for no known cause; see {out / 'README.md'}",
            err=True,
        )
        raise typer.Exit(1)

"""The command `audit`: what was served, compared with what training says."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from featurestore.cli.application import FOUND, AsJson, At, opened
from featurestore.cli.output import print_found
from featurestore.cli.values import instant, since_of
from featurestore.durable.disk import write_file


def audit(  # noqa: PLR0913, PLR0917 - one parameter an option
    context: typer.Context,
    since: Annotated[
        str | None, typer.Option(help="How long ago, as 1d, or an instant; all of the log by default.")
    ] = None,
    until: Annotated[str | None, typer.Option(help="An instant; now by default.")] = None,
    service: Annotated[str | None, typer.Option(help="Only this service.")] = None,
    manifest: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Hold its service against the version that this training frame was made of."),
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Write the report as a page with plots to this file.")] = None,
    at: At = None,
    fail_on_skew: Annotated[
        bool,
        typer.Option(
            "--fail-on-skew",
            help="Exit with 3 where a service has more skew than its skew_budget, or too few values were compared.",
        ),
    ] = False,
    minimum_compared: Annotated[
        int | None, typer.Option(min=0, help="How many values --fail-on-skew wants compared: 1 by default, 0 none.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compare what was served and logged with what training says for it, bit by bit.

    Damaged files of the log are left out and named, and the command then exits with 3. With --fail-on-skew it is a gate, which says why it stops.

    Example: featurestore audit --since 1d
    """
    if minimum_compared is not None and not fail_on_skew:
        raise typer.BadParameter("it is a word of --fail-on-skew; give both", param_hint="--minimum-compared")
    if html is not None:  # what would fail when the work is done fails before it
        from featurestore.reports.audit.page import plotting

        plotting()
        if html.is_dir() or not html.parent.is_dir():
            missing = f"{html} is a folder" if html.is_dir() else f"there is no folder {html.parent}"
            raise typer.BadParameter(f"{missing}, and a file is to be written", param_hint="--html")
    with opened(context, at=at) as store:
        ended = None if until is None else instant(until, "--until")
        if ended is None and at is not None:
            ended = instant(at, "--at") + timedelta(microseconds=1)  # what was served then is over
        against = None if manifest is None else store.load_manifest(manifest)
        found = store.audit(since=since_of(since), until=ended, service=service, against=against)
    print_found(found, as_json=as_json)  # which is there where the page cannot be written
    if html is not None:
        write_file(html, found.to_html())
    reasons = found.reasons_to_stop(1 if minimum_compared is None else minimum_compared) if fail_on_skew else []
    for reason in reasons:
        typer.echo(f"The audit stops here: {reason}", err=True)
    if found.damaged or reasons:
        raise typer.Exit(FOUND)

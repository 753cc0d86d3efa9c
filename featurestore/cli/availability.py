"""The command `availability`: how late rows really became known and servable."""

from __future__ import annotations

from typing import Annotated

import typer

from featurestore.cli.application import FOUND, AsJson, At, opened
from featurestore.cli.output import print_found
from featurestore.cli.values import since_of


def availability(
    context: typer.Context,
    views: Annotated[list[str] | None, typer.Argument(help="Only these views; by default all.")] = None,
    since: Annotated[
        str | None, typer.Option(help="Rows that happened since: how long ago, as 7d, or an instant.")
    ] = None,
    at: At = None,
    fail_on_broken: Annotated[
        bool, typer.Option("--fail-on-broken", help="Exit with 3 where over 1 % break a declared promise.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Measure how late rows became known and servable, and say which declared words promise more than that.

    Example: featurestore availability --since 7d
    """
    with opened(context, at=at) as store:
        found = store.availability(views, since=since_of(since))
    print_found(found, as_json=as_json)
    if fail_on_broken and found.broken:
        raise typer.Exit(FOUND)

"""Command: optimize."""

from __future__ import annotations

from typing import Annotated

import typer

from featurestore.cli.application import AsJson, opened
from featurestore.cli.output import print_json


def optimize(
    context: typer.Context,
    sources: Annotated[list[str] | None, typer.Argument(help="Sources; by default those of all views.")] = None,
    remove: Annotated[bool, typer.Option("--remove", help="Delete the copies instead.")] = False,
    as_json: AsJson = False,
) -> None:
    """Keep copies of sources' rows sorted by key, so that training frames and audits of few keys read little.

    Run it again when files have come. What has no copy, or has changed since, is read where it lies: values are the same.

    Example: featurestore optimize
    Example: featurestore optimize --remove
    """
    with opened(context) as store:
        found = store.optimize(sources or None, remove=remove)
    if as_json:
        print_json([one.to_dict() for one in found])
        return
    for one in found:
        typer.echo(str(one))
    if not found:
        typer.echo("There are no sorted copies." if remove else "No view is declared or applied.")

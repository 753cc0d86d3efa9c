"""The command `lineage`: what something is made of, and where it goes."""

from __future__ import annotations

from typing import Annotated

import typer

from featurestore.cli.application import AsJson, opened
from featurestore.cli.output import print_json


def lineage(
    context: typer.Context,
    name: Annotated[
        str,
        typer.Argument(help="view:feature, source.column, or a view, an on-demand feature, a service or a source."),
    ],
    upstream: Annotated[bool, typer.Option("--upstream", help="Only what it is made of.")] = False,
    downstream: Annotated[bool, typer.Option("--downstream", help="Only what it goes into.")] = False,
    as_mermaid: Annotated[bool, typer.Option("--mermaid", help="Print a Mermaid flow chart.")] = False,
    as_json: AsJson = False,
) -> None:
    """What something is made of, from source columns on, and where it goes, up to training frames and serving.

    Example: featurestore lineage customer_orders:amount
    """
    both = upstream == downstream
    with opened(context) as store:
        found = store.lineage(name, direction="both" if both else "upstream" if upstream else "downstream")
    if as_json:
        print_json(found.to_dict())
    elif as_mermaid:
        typer.echo(found.to_mermaid())
    else:
        typer.echo(str(found))

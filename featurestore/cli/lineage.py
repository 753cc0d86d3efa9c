"""The command `lineage`: what something is made of, and where it goes."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from featurestore.cli.application import AsJson, opened
from featurestore.cli.output import print_json

if TYPE_CHECKING:
    from rich.tree import Tree

    from featurestore.reports.lineage.lineage import Lineage
    from featurestore.reports.lineage.text import Branch

__all__ = ["lineage"]


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
    elif sys.stdout.isatty():
        _show(found)
    else:
        typer.echo(str(found))


def _show(found: Lineage) -> None:
    from rich.console import Console
    from rich.text import Text
    from rich.tree import Tree

    from featurestore.reports.lineage.text import branches

    def grow(tree: Tree, branch: Branch) -> Tree:
        for below in branch.below:
            grow(tree.add(Text(below.text)), below)
        return tree

    console = Console(highlight=False)
    for branch in branches(found):
        console.print(grow(Tree(Text(branch.text, style="bold")), branch))

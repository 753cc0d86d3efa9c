"""What became of rows and messages that were kept aside, when they are pushed again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import typer

from featurestore.cli.application import FOUND
from featurestore.cli.output import print_json
from featurestore.errors import PushError
from featurestore.plurals import plural

if TYPE_CHECKING:
    from featurestore.push.pushed import Pushed


def print_replayed(
    done: Mapping[int, Pushed | PushError], *, thing: str, refused_as: tuple[str, str], as_json: bool
) -> None:
    """Print what became of each, by its id; exit code 3 where one was refused.

    thing: what one is called. refused_as: what is said of one that is refused, and of several.
    """
    refused = {number: str(one) for number, one in done.items() if isinstance(one, PushError)}
    if as_json:
        told = {
            str(number): {"refused": str(one)} if isinstance(one, PushError) else one.to_dict()
            for number, one in done.items()
        }
        print_json(told)
    else:
        taken = len(done) - len(refused)
        typer.echo(f"{taken} {plural(taken, thing)} pushed, {len(refused)} {plural(len(refused), *refused_as)}")
        for number, why in refused.items():
            typer.echo(f"{number}: {why}")
    if refused:
        raise typer.Exit(FOUND)

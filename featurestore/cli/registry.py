"""The command about the registry as a whole: registry copy."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from featurestore.cli.application import add_to, place_of
from featurestore.config import load_config, registry_place
from featurestore.plurals import plural


def copy(
    context: typer.Context,
    source: Annotated[str, typer.Argument(metavar="FROM", help="A path, or a postgresql:// URL.")],
    target: Annotated[str, typer.Argument(metavar="TO", help="The same; nothing may be there yet.")],
) -> None:
    """Copy a registry with all its versions, and its journal of arrivals, from one place to another.

    Stop what writes to it before, and say the new place in featurestore.toml afterwards.
    A URL may have variables, ${NAME}, so that no password is typed.

    Example: featurestore registry copy .featurestore/registry.db moved.db
    """
    from featurestore.registry.store import Registry
    from featurestore.sources.arrivals import Arrivals, beside

    asked = place_of(context)
    project = load_config(asked.repo, asked.env).project
    places = [registry_place(text, Path.cwd()) for text in (source, target)]
    old, new = (Registry(place, project=project) for place in places)
    before, after = (Arrivals(beside(place), project=project) for place in places)
    after.take_over(before)  # first, since it may be done again
    new.take_over(old)
    typer.echo(
        f"Copied {len(new.history())} {plural(len(new.history()), 'version')}, {len(new.api_keys())} {plural(len(new.api_keys()), 'key')} and all else to {new}"
    )
    typer.echo("Next: let `registry` in featurestore.toml name the new place")


registry = typer.Typer(
    name="registry",
    help="The registry as a whole: copy.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
add_to(registry, copy)

"""Commands for a browser: ui, and docs build."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Annotated

import typer

from featurestore.cli.application import AsJson, At, add_to, opened
from featurestore.cli.output import print_json
from featurestore.cli.streams import outlive_output
from featurestore.plurals import plural

PORT = 6571
"""Where the console is when nobody says it; the service has the port before it."""


def ui(
    context: typer.Context,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Where to listen; 0: any port that is free.")] = PORT,
    open_: Annotated[bool, typer.Option("--open", help="Show it in this machine's browser.")] = False,
    at: At = None,
) -> None:
    """Show the console to the users of this machine, until it is told to stop: pages of what exists, whether it is fresh and right, and why.

    Nothing can be changed there. On a server, the console is at /ui, for users with a key.

    Example: featurestore ui --open
    """
    outlive_output()
    looking = importlib.import_module("featurestore.server.looking")
    with opened(context, at=at) as store:
        looking.look(
            store, port=port, tell=lambda url: typer.echo(f"The console is at {url} (Ctrl+C ends it)"), opens=open_
        )


def build(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A new or an empty folder, or an earlier site.")],
    as_json: AsJson = False,
) -> None:
    """Write the catalog as a static site: each definition, what it means, how it came to be so, and its lineage.

    It needs no server, and loads nothing from elsewhere.

    Example: featurestore docs build site
    """
    from featurestore.console.static_site import build as written

    with opened(context) as store:
        pages = written(store, folder)
    if as_json:
        print_json({"folder": str(folder), "pages": pages})
    else:
        typer.echo(f"Wrote {pages} {plural(pages, 'page')}; the first one is {folder / 'index.html'}.")


docs = typer.Typer(
    name="docs",
    help="The catalog as a static site: build.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
add_to(docs, build)

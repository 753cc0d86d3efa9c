"""Commands for a browser: ui, and docs build."""

from __future__ import annotations

import importlib
from typing import Annotated

import typer

from featurestore.cli.application import At, opened
from featurestore.cli.streams import outlive_output

PORT = 6571
"""Where the console is when nobody says it; the service has the port before it."""


def ui(
    context: typer.Context,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Where to listen; 0: any port that is free.")] = PORT,
    open_: Annotated[bool, typer.Option("--open", help="Show it in this machine's browser.")] = False,
    at: At = None,
) -> None:
    """Show the console to whoever is on this machine, until it is told to stop: pages of what exists, whether it is fresh and right, and why.

    Nothing can be changed there. On a server, the console is at /ui, for whoever has a key.

    Example: featurestore ui --open
    """
    outlive_output()
    looking = importlib.import_module("featurestore.server.looking")
    with opened(context, at=at) as store:
        looking.look(
            store, port=port, tell=lambda url: typer.echo(f"The console is at {url} (Ctrl+C ends it)"), opens=open_
        )

"""The command `export-feast`: what is applied, for the client of another feature store."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from featurestore.cli.application import opened
from featurestore.durable.disk import write_file
from featurestore.errors import ConfigError


def export_feast(
    context: typer.Context,
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="The folder to write feature_store.yaml and features.py into.")
    ],
    url: Annotated[
        str, typer.Option(help="Where featurestore serve --compatible feast answers.")
    ] = "http://127.0.0.1:6570",
    force: Annotated[bool, typer.Option("--force", help="Write over files that are there.")] = False,
) -> None:
    """Write what is applied as definitions of Feast, so that its client can ask our server.

    Example: featurestore export-feast feast
    """
    from featurestore.reports.feast_definitions import feast_definitions, feast_settings

    with opened(context) as store:
        project = store.config.project
        texts = {
            "feature_store.yaml": feast_settings(project, url),
            "features.py": feast_definitions(project, store.registry.current()),
        }
    there = [name for name in texts if (folder / name).exists()]
    if there and not force:
        raise ConfigError(f"{folder / there[0]} exists already; --force writes over it")
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        write_file(folder / name, text)
    typer.echo(f"Wrote {' and '.join(texts)} into {folder}.")
    typer.echo(f"Next, where Feast is installed: feast --chdir {folder} apply")

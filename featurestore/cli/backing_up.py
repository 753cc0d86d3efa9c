"""Commands about backups: backup, restore."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from featurestore.cli.application import AsJson, next_step, place_of
from featurestore.cli.output import print_json
from featurestore.plurals import plural


def backup(
    context: typer.Context,
    to: Annotated[Path, typer.Argument(metavar="PATH", help="A folder, or a file that ends in .tar; not there yet.")],
    as_json: AsJson = False,
) -> None:
    """Copy registry, journals and logs, while everything runs, to where only you may read them.

    What is online is not in it: materialize makes it anew. Nor are your definitions and source files.

    Example: featurestore backup backups/2026-03-01.tar
    """
    from featurestore.backup.archive import plain
    from featurestore.backup.make import make_backup
    from featurestore.config import load_config

    place = place_of(context)
    manifest = make_backup(load_config(place.repo, place.env), to)
    if as_json:
        print_json({"path": str(to), **plain(manifest)})
        return
    said = plain(manifest)
    typer.echo(
        f"{manifest} is in {to}: {said['files']} {plural(said['files'], 'file')}, {said['bytes']:,} {plural(said['bytes'], 'byte')}."
    )
    if not manifest.has_registry:
        typer.echo("The registry and the journal of arrivals are in PostgreSQL: dump them now, by its own pg_dump.")


def restore(
    context: typer.Context,
    path: Annotated[Path, typer.Argument(metavar="BACKUP", help="What backup made.")],
    empty_online: Annotated[
        bool, typer.Option("--empty-online", help="Delete what the online store holds of the project.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Put a backup back, where there is nothing yet; its checksums are looked at first.

    Refused where the online store holds keys of the project: they may be those of the original.

    Example: featurestore --repo shop restore backups/2026-03-01.tar
    """
    from featurestore.backup.archive import plain
    from featurestore.backup.restore import restore_backup

    place = place_of(context)
    restored = restore_backup(path, place.repo, env=place.env, empty_online=empty_online)
    if as_json:
        print_json({**plain(restored.manifest), "settings": restored.settings, "emptied_keys": restored.emptied})
        return
    typer.echo(f"{restored.manifest} is restored.")
    if restored.settings:
        typer.echo("There was no featurestore.toml; the backup's is there now.")
    if restored.emptied:
        typer.echo(f"{restored.emptied} {plural(restored.emptied, 'key was', 'keys were')} deleted online.")
    next_step(context, "materialize")

"""The command that forgets a key."""

from __future__ import annotations

from typing import Annotated

import typer

from featurestore.cli.application import AsJson, opened
from featurestore.cli.asking import Yes, ask
from featurestore.cli.output import print_found
from featurestore.cli.values import json_row
from featurestore.errors import RequestError


def forget(
    context: typer.Context,
    entity: Annotated[str, typer.Argument(help="The entity that the key is of.")],
    key: Annotated[list[str], typer.Argument(metavar="NAME=VALUE...", help="A value for each of its key columns.")],
    yes: Yes = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would go; nothing is done.")] = False,
    as_json: AsJson = False,
) -> None:
    """Erase a key everywhere, for good: online, in push logs, in the serving log.

    Rows of it in your sources do not count any more; erase them there yourself.

    Example: featurestore forget customer customer=ann --dry-run
    Example: featurestore forget customer customer=ann --yes
    """
    from featurestore.forget.forget import entity_of
    from featurestore.types import from_json

    with opened(context) as store:
        types = entity_of(entity, store.catalog, store.history()).key
        asked = {}
        for name, value in json_row(key, types).items():
            try:
                asked[name] = from_json(types[name], value)
            except ValueError as error:
                raise RequestError(f"'{name}' must be {types[name]}: {error}") from None
        if not yes:
            print_found(store.forget(entity, asked, dry_run=True), as_json=as_json)
            if dry_run:
                return
            ask("Forget this key? Nothing brings it back.", otherwise="Nothing was forgotten")
        print_found(store.forget(entity, asked, dry_run=dry_run), as_json=as_json)

"""The command about the trail of activity."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from featurestore.cli.application import AsJson, opened
from featurestore.cli.output import print_json, print_table
from featurestore.clock import to_datetime


def activity(
    context: typer.Context,
    since: Annotated[str | None, typer.Option(metavar="1d", help="How long back; by default all.")] = None,
    what: Annotated[
        str | None, typer.Option(metavar="ACTION", help="Only this, such as apply, push or 'revoke key'.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="So many at most, the newest.")] = 100,
    as_json: AsJson = False,
) -> None:
    """Print who applied, retired, materialized, pushed and changed keys, and when, the newest first.

    Example: featurestore activity --since 1d
    """
    with opened(context) as store:
        found = store.activity(since=since, what=what, limit=limit)
    if as_json:
        print_json([{**vars(one), "at": to_datetime(one.at)} for one in found])
    elif found:
        rows = [(to_datetime(one.at), one.who, one.what, one.subject, _shown(one.detail)) for one in found]
        print_table(("at", "who", "what", "subject", "detail"), rows)
    else:
        typer.echo("Nothing was done yet.")


def _shown(detail: dict[str, Any]) -> str:
    """What else is known, short: long digests by their beginning, lists by their length."""
    words = []
    for name, value in detail.items():
        if name in {"digest", "fingerprint"}:
            words.append(f"{name} {str(value)[:12]}")
        elif name == "request_ids":
            words += [f"request {value[0]}" + (", …" if len(value) > 1 else "")] if value else []
        elif isinstance(value, list):
            words.append(f"{name} {' '.join(map(str, value))}")
        elif name.endswith("_at") and value is not None:
            words.append(f"{name} {to_datetime(value):%Y-%m-%dT%H:%M:%SZ}")
        elif value not in (None, ""):
            words.append(f"{name} {value}")
    return ", ".join(words)

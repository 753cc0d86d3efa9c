"""Asking before what nobody can take back."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Annotated

import typer

from featurestore.plurals import plural

Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do it, and do not ask.")]

MOST_ASKED = 1_000_000
"""Rows or messages that one answer may be about."""


def ask(question: str, *, otherwise: str) -> None:
    """Return where the user at the terminal says yes; else say that it was not done, and end with exit code 1.

    otherwise: what was not done, as a sentence. Where nobody sits at a terminal nobody is asked, and --yes says it.
    """
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        typer.echo(f"{otherwise}; say --yes.", err=True)
        raise typer.Exit(1)
    if not typer.confirm(question, err=True):
        typer.echo(f"{otherwise}.", err=True)
        raise typer.Exit(1)


def chosen_or_all(
    ids: Sequence[int] | None,
    all_ids: Callable[[], Sequence[int]],
    noun: str,
    verb: str,
    where: str,
    *,
    yes: bool,
    otherwise: str,
) -> Sequence[int] | None:
    """Those of several rows or messages that were named; where none was, `ask` about all that are there now, but with --yes: None.

    noun: what one is called; verb: what is done with them.
    """
    if ids or yes:
        return ids or None
    found = all_ids()
    if not found:
        return found
    count = len(found)
    which = f"the one {noun}" if count == 1 else f"all {count:,} {plural(count, noun)}"
    them = plural(count, "it", "them")
    ask(f"{verb} {which} {where}, without pushing {them}? Nothing brings {them} back.", otherwise=otherwise)
    return found

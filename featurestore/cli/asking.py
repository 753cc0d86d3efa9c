"""Asking before what nobody can take back."""

from __future__ import annotations

import sys
from collections.abc import Sequence
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


def ask_for_all(ids: Sequence[int], noun: str, verb: str, where: str, *, otherwise: str) -> None:
    """`ask` where nobody said which of several are meant. noun: what one is called; verb: what is done with them."""
    count = len(ids)
    which = f"the one {noun}" if count == 1 else f"all {count:,} {plural(count, noun)}"
    them = plural(count, "it", "them")
    ask(f"{verb} {which} {where}, without pushing {them}? Nothing brings {them} back.", otherwise=otherwise)

"""Commands about streams that feed push sources: consume, and what becomes of messages that cannot be taken: poison."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Annotated, Any

import typer

from featurestore.cli.application import AsJson, add_to, opened
from featurestore.cli.asking import MOST_ASKED, Yes, chosen_or_all
from featurestore.cli.following import until_terminated
from featurestore.cli.output import print_json, print_table
from featurestore.cli.replayed import print_replayed
from featurestore.clock import to_datetime
from featurestore.plurals import plural

if TYPE_CHECKING:
    from featurestore.streams.poison import PoisonMessage

SHOWN_BYTES = 60
"""Bytes of a message that a list shows."""

Source = Annotated[str, typer.Argument(help="A push source with a stream.")]
Ids = Annotated[
    list[int] | None, typer.Argument(metavar="[ID]...", help="Only these, as `list` names them; by default all.")
]


def consume(
    context: typer.Context,
    sources: Annotated[
        list[str] | None, typer.Argument(help="Only these push sources; by default all with a stream.")
    ] = None,
    until_end: Annotated[bool, typer.Option("--until-end", help="Stop when each partition was at its end.")] = False,
    skip_lost: Annotated[
        bool,
        typer.Option(
            "--skip-lost", help="Go on where the broker deleted messages before they were read; they are counted."
        ),
    ] = False,
    begin_again: Annotated[
        bool,
        typer.Option("--begin-again", help="Read from the first message, where a topic was deleted and made again."),
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Log warnings alone.")] = False,
    as_json: AsJson = False,
) -> None:
    """Push what the streams of push sources have, each message once, until it is told to stop (SIGTERM).

    Several processes share the partitions; where one ends, the others take over what it read.

    Example: featurestore consume --until-end
    """
    with until_terminated(context, quiet=quiet) as stop, opened(context) as store:
        done = store.consume(stop, sources=sources, until_end=until_end, skip_lost=skip_lost, begin_again=begin_again)
    if as_json:
        print_json({name: one._asdict() for name, one in done.items()})
    elif done:
        print_table(("source", *next(iter(done.values()))._fields), [(name, *one) for name, one in done.items()])
    else:
        typer.echo("No push source that is applied has a stream.")


poison = typer.Typer(
    name="poison",
    help="Messages of streams that cannot be taken, kept aside: list them, push them again, forget them.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


def _list(context: typer.Context, source: Source, as_json: AsJson = False) -> None:
    """The messages that are kept aside, the oldest first, and why.

    Example: featurestore poison list swipes
    """
    with opened(context) as store:
        found = store.poison(source)
    if as_json:
        print_json([_described(one) for one in found])
    elif found:
        rows = [
            (one.id, one.stream, one.message.partition, one.message.offset, _shown(one.message.value), one.reason)
            for one in found
        ]
        print_table(("id", "stream", "partition", "offset", "message", "reason"), rows)
    else:
        typer.echo(f"No message of {source} is kept aside.")


def _described(one: PoisonMessage) -> dict[str, Any]:
    key, value = (
        None if data is None else base64.b64encode(data).decode() for data in (one.message.key, one.message.value)
    )
    return {
        "id": one.id, "stream": one.stream, "partition": one.message.partition, "offset": one.message.offset, "key": key, "value": value,
        "timestamp_ms": one.message.timestamp, "reason": one.reason, "kept": to_datetime(one.kept).isoformat(),
    }  # fmt: skip


def _shown(value: bytes | None) -> str:
    """The beginning of a message, of which nothing is taken for a sign that a terminal obeys."""
    if value is None:
        return "(no value)"
    text = repr(value[:SHOWN_BYTES])[2:-1]
    return text + ("…" if len(value) > SHOWN_BYTES else "")


def _replay(context: typer.Context, source: Source, ids: Ids = None, as_json: AsJson = False) -> None:
    """Push messages that were kept aside again, after what was wrong was put right; exit code 3 where one is refused again.

    Example: featurestore poison replay swipes
    """
    with opened(context) as store:
        done = store.replay_poison(source, ids)
    print_replayed(done, thing="message", refused_as=("refused again", "refused again"), as_json=as_json)


def _discard(context: typer.Context, source: Source, ids: Ids = None, yes: Yes = False) -> None:
    """Forget messages that were kept aside, without pushing them; all of them only where a person or --yes says so.

    Example: featurestore poison discard swipes 3 4
    Example: featurestore poison discard swipes --yes
    """
    with opened(context) as store:
        chosen = chosen_or_all(
            ids, lambda: [message.id for message in store.poison(source, most=MOST_ASKED)],
            "message", "Forget", f"of {source} kept aside", yes=yes, otherwise="Nothing was forgotten",
        )  # fmt: skip
        count = store.discard_poison(source, chosen)
    typer.echo(f"{count} {plural(count, 'message')} forgotten")


for command in (_list, _replay, _discard):
    add_to(poison, command)

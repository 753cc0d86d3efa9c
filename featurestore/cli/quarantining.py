"""Commands about rows that do not meet what is expected of them: quarantine list, show, replay and discard."""

from __future__ import annotations

from typing import Annotated

import typer

from featurestore.cli.application import AsJson, add_to, opened
from featurestore.cli.asking import MOST_ASKED, Yes, chosen_or_all
from featurestore.cli.output import print_found, print_json, print_table
from featurestore.cli.replayed import print_replayed
from featurestore.plurals import plural

quarantine = typer.Typer(
    name="quarantine",
    help="Rows that do not meet what is expected of them: count them, look at them, push them again, forget them.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)

Source = Annotated[str, typer.Argument(help="A push source.")]
Ids = Annotated[
    list[int] | None, typer.Argument(metavar="[ID]...", help="Only these, as `show` names them; by default all.")
]


def _list(context: typer.Context, as_json: AsJson = False) -> None:
    """What is expected of the rows of each view and push source, and how many rows do not meet it.

    Example: featurestore quarantine list
    """
    with opened(context) as store:
        found = store.quarantine()
    print_found(found, as_json=as_json)


def _show(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="A view over files, or a push source.")],
    limit: Annotated[int, typer.Option(min=1, help="How many rows are shown.")] = 100,
    as_json: AsJson = False,
) -> None:
    """The rows that do not meet what is expected of them, where they lie, and what they do not meet.

    Example: featurestore quarantine show customer_orders
    """
    with opened(context) as store:
        found = store.quarantined_rows(name, most=limit)
    if as_json:
        print_json([row._asdict() for row in found])
    elif found:
        columns = list(found[0].values)
        rows = [
            (
                row.id,
                row.place,
                *(row.values[column] for column in columns),
                " and ".join(row.unmet) or "meets all by now",
            )
            for row in found
        ]
        print_table(("id", "where", *columns, "does not meet"), rows)
    else:
        typer.echo(f"Every row of {name} meets what is expected of it.")


def _replay(context: typer.Context, source: Source, ids: Ids = None, as_json: AsJson = False) -> None:
    """Push rows again that were kept aside, where they meet by now what is expected; exit code 3 where one does not.

    Example: featurestore quarantine replay swipes
    """
    with opened(context) as store:
        done = store.replay_quarantined(source, ids)
    print_replayed(done, thing="row", refused_as=("stays in quarantine", "stay in quarantine"), as_json=as_json)


def _discard(context: typer.Context, source: Source, ids: Ids = None, yes: Yes = False) -> None:
    """Erase rows that were kept aside, without pushing them; all of them only where a person or --yes says so.

    Example: featurestore quarantine discard swipes 1767225600000000
    Example: featurestore quarantine discard swipes --yes
    """
    with opened(context) as store:
        chosen = chosen_or_all(
            ids, lambda: [row.id for row in store.quarantined_rows(source, most=MOST_ASKED) if row.id is not None],
            "row", "Erase", f"of {source} in quarantine", yes=yes, otherwise="Nothing was erased",
        )  # fmt: skip
        count = store.discard_quarantined(source, chosen)
    typer.echo(f"{count} {plural(count, 'row')} erased")


for command in (_list, _show, _replay, _discard):
    add_to(quarantine, command)

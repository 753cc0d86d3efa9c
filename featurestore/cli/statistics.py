"""The command `statistics`: what the values of features were like."""

from __future__ import annotations

from typing import Annotated

import typer

from featurestore.cli.application import AsJson, opened
from featurestore.cli.output import print_found
from featurestore.cli.values import since_of


def statistics(  # noqa: PLR0913, PLR0917 - one parameter an option
    context: typer.Context,
    feature: Annotated[
        str | None, typer.Option(help="Only this feature: view:feature, or an on-demand feature's name.")
    ] = None,
    view: Annotated[str | None, typer.Option(help="Of the runs of this view.")] = None,
    service: Annotated[str | None, typer.Option(help="Of this service's training frames and served hours.")] = None,
    run: Annotated[int | None, typer.Option(metavar="N", help="Of the run of this number.")] = None,
    training_set: Annotated[
        str | None, typer.Option("--training-set", metavar="FILE", help="Of the training frame that was written there.")
    ] = None,
    since: Annotated[str | None, typer.Option(help="How long ago, as 1d, or an instant; all by default.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="So many at most, the newest.")] = 20,
    as_json: AsJson = False,
) -> None:
    """What values were like: of training frames, of each run of materialize, and of what was served hour by hour.

    How many, how many of them null, the least, the mean, the greatest, and the most frequent; with --json all that is kept.

    Example: featurestore statistics --view customer_orders --limit 1
    """
    with opened(context) as store:
        found = store.statistics(
            feature, view=view, service=service, run=run, training_set=training_set, since=since_of(since), limit=limit
        )
    print_found(found, as_json=as_json)

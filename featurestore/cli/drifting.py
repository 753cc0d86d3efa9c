"""The command `drift`: how far served values are from a baseline."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated

import typer

from featurestore.cli.application import FOUND, AsJson, At, opened
from featurestore.cli.output import print_found
from featurestore.cli.values import instant, since_of


def drift(  # noqa: PLR0913, PLR0917 - one parameter an option
    context: typer.Context,
    service: Annotated[str, typer.Argument(help="The service whose served values are compared.")],
    baseline: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="The Parquet file of a training frame to compare with, instead of what was served before.",
        ),
    ] = None,
    before: Annotated[
        str, typer.Option(help="Without --baseline: compare with what was served so long ahead of --since.")
    ] = "7d",
    since: Annotated[str, typer.Option(help="How long ago, as 1d, or an instant.")] = "1d",
    until: Annotated[str | None, typer.Option(help="An instant; now by default.")] = None,
    every: Annotated[str | None, typer.Option(help="Compare each period of that length too, as 1h.")] = None,
    at: At = None,
    fail_on_drift: Annotated[
        bool,
        typer.Option(
            "--fail-on-drift",
            help="Exit with 3 where a feature is beyond the drift_limits of its service, or one cannot be checked.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Compare the values that were served with those of training, or with those served before.

    Drift is no skew: the values may all be right, and others than they were. `audit` tells of skew.

    Damaged files of the log are left out and named, and the command then exits with 3.

    Example: featurestore drift delay_model --baseline training.parquet --since 1d
    """
    with opened(context, at=at) as store:
        ended = None if until is None else instant(until, "--until")
        if ended is None and at is not None:
            ended = instant(at, "--at") + timedelta(microseconds=1)  # what was served then is over
        began: datetime | str | None = since_of(since)
        assert began is not None
        found = store.drift(service, baseline=baseline, before=before, since=began, until=ended, every=every)
    print_found(found, as_json=as_json)
    if found.damaged or (fail_on_drift and (found.exceeded or found.unchecked)):
        raise typer.Exit(FOUND)

"""Commands that ask offline: historical, snapshot, explain."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from featurestore.cli.application import AsJson, At, Estimated, opened
from featurestore.cli.output import print_found, print_json, print_rows, rows_of_table
from featurestore.cli.values import instant, json_row, one_or_all
from featurestore.declare.sources import is_url
from featurestore.errors import RequestError, SpineError
from featurestore.plurals import plural
from featurestore.types import from_json

if TYPE_CHECKING:
    from featurestore.training.parts import WrittenParts

PartRows = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="Write a folder of files of so many rows each, which a run that was killed goes on with.",
    ),
]
SourcesAsIn = Annotated[
    str | None,
    typer.Option(
        "--sources-as-in",
        metavar="FILE",
        help="A training frame, or its manifest: read the files, and the versions of tables, that it was made of.",
    ),
]
WithStatus = Annotated[bool, typer.Option("--with-status", help="Add a column <feature>__status for each.")]


def historical(  # noqa: PLR0913, PLR0917 - each is an option
    context: typer.Context,
    spine: Annotated[
        str, typer.Argument(metavar="SPINE", help="A Parquet file of keys, request values and instants, or its URL.")
    ],
    features: Annotated[list[str], typer.Argument(help="A feature service, or views and view:feature.")],
    output: Annotated[
        str,
        typer.Option(
            "-o", "--output", metavar="FILE", help="The Parquet file to write, or its URL; a folder with --part-rows."
        ),
    ],
    part_rows: PartRows = None,
    timestamp: Annotated[str, typer.Option(help="The spine's column of instants.")] = "event_timestamp",
    timezone: Annotated[str | None, typer.Option(help="The zone of naive instants; by default UTC.")] = None,
    with_status: WithStatus = False,
    with_event_time: Annotated[
        bool, typer.Option("--with-event-time", help="Add a column <view>__event_time for each view.")
    ] = False,
    from_log: Annotated[
        str | None,
        typer.Option(
            "--from-log",
            metavar="DURATION",
            help="Take what was served at a row's instant, or up to so long before (0s: at it), where that is logged.",
        ),
    ] = None,
    sources_as_in: SourcesAsIn = None,
    estimate: Estimated = False,
    at: At = None,
    as_json: AsJson = False,
) -> None:
    """Write a training frame: the spine's rows with the values that a lookup at their instants would have been served.

    Example: featurestore historical data/spine.parquet order_model -o training.parquet
    Example: featurestore historical data/spine.parquet order_model -o training --part-rows 1000000
    Example: featurestore historical data/spine.parquet order_model -o again.parquet --sources-as-in training.parquet
    Example: featurestore historical data/spine.parquet order_model -o training.parquet --estimate
    """
    if not is_url(spine) and not Path(spine).exists():
        raise SpineError(f"There is no {spine}")
    _check_no_estimate(sources_as_in, estimate=estimate)
    asked = one_or_all(features)
    options: dict[str, Any] = {
        "timestamp": timestamp, "timezone": timezone, "with_status": with_status, "with_event_time": with_event_time,
    }  # fmt: skip
    with opened(context, at=at) as store:
        if estimate:
            found = store.estimate_historical_features(spine, asked, part_rows=part_rows, **options)
            print_found(found, as_json=as_json)
            return
        if part_rows is not None:
            written = store.historical_parts(
                output, spine, asked, part_rows=part_rows, from_log=from_log, sources_as_in=sources_as_in, **options
            )
            _print_parts(written, as_json=as_json)
            return
        frame = store.get_historical_features(spine, asked, from_log=from_log, sources_as_in=sources_as_in, **options)
        path = frame.to_parquet(output)
    _print_written(path, frame.manifest, as_json=as_json)


def _check_no_estimate(sources_as_in: str | None, *, estimate: bool) -> None:
    if sources_as_in is not None and estimate:
        raise typer.BadParameter(
            "it does not go with --estimate, which reads sources as they are now", param_hint="--sources-as-in"
        )


def _print_parts(written: WrittenParts, *, as_json: bool) -> None:
    _print_written(written.folder, written.manifest, as_json=as_json)
    if not as_json:
        parts = len(written.manifest["parts"])
        typer.echo(f"{parts} {plural(parts, 'part')}, of which {parts - written.made} were there already")


def _print_written(path: Path | str, manifest: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json({"path": str(path), "rows": manifest["rows"], "manifest": manifest})
    else:
        typer.echo(
            f"Wrote {manifest['rows']} {plural(manifest['rows'], 'row')} to {path}; service {manifest['service']}, fingerprint "
            f"{manifest['fingerprint']}"
        )
        if "from_log" in manifest:
            told = manifest["from_log"]
            typer.echo(
                f"{told['rows']} of the rows are what was served, from the serving log; of their values "
                f"{told['compared']} were compared with training, and {told['equal']} are equal"
            )
        for notice in manifest["notices"]:
            typer.echo(notice)


def snapshot(  # noqa: PLR0913, PLR0917 - each is an option
    context: typer.Context,
    features: Annotated[list[str], typer.Argument(help="A feature service, or views and view:feature.")],
    at: Annotated[
        list[str], typer.Option(metavar="T", help="An instant, ISO 8601; a naive one is UTC. May be repeated.")
    ],
    output: Annotated[
        str | None,
        typer.Option(
            "-o", "--output", metavar="FILE", help="A Parquet file to write, or its URL; a folder with --part-rows."
        ),
    ] = None,
    part_rows: PartRows = None,
    with_status: WithStatus = False,
    sources_as_in: SourcesAsIn = None,
    estimate: Estimated = False,
    as_json: AsJson = False,
) -> None:
    """The values of every key as a lookup at an instant, or at each of several, would have been served.

    It is computed from sources and push logs, whatever is online, so it is a lookup at any instant of the past.

    Example: featurestore snapshot customer_orders --at 2025-01-05T00:00:00Z
    """
    _check_no_estimate(sources_as_in, estimate=estimate)
    moments = [instant(text, "--at") for text in at]
    options: dict[str, Any] = {"at": moments, "with_status": with_status}
    if part_rows is not None and output is None and not estimate:
        raise typer.BadParameter("--part-rows needs --output, the folder")
    with opened(context) as store:
        if estimate:
            found = store.estimate_snapshot(one_or_all(features), part_rows=part_rows, **options)
            print_found(found, as_json=as_json)
            return
        if part_rows is not None and output is not None:
            options |= {"part_rows": part_rows, "sources_as_in": sources_as_in}
            written = store.snapshot_parts(output, one_or_all(features), **options)
            _print_parts(written, as_json=as_json)
            return
        frame = store.snapshot(one_or_all(features), sources_as_in=sources_as_in, **options)
        if output is not None:
            _print_written(frame.to_parquet(output), frame.manifest, as_json=as_json)
            return
        table = frame.to_arrow()
    if as_json:
        print_json(rows_of_table(table))
    else:
        print_rows(table)


def explain(  # noqa: PLR0913, PLR0917 - each is an option
    context: typer.Context,
    view: Annotated[str | None, typer.Argument(help="A view, or view:feature; none with --request.")] = None,
    key: Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE...", help="The entity's key.")] = None,
    at: Annotated[str | None, typer.Option(metavar="T", help="The instant, ISO 8601; by default now.")] = None,
    request: Annotated[
        str | None, typer.Option(metavar="ID", help="A request in the serving log, instead of a view and a key.")
    ] = None,
    row: Annotated[int, typer.Option(min=0, help="The row of the request, from 0.")] = 0,
    limit: Annotated[int, typer.Option(min=1, help="How many rows are shown.")] = 100,
    as_json: AsJson = False,
) -> None:
    """The value of one key at an instant, the rows that made it, and those left out and why.

    With --request, the same for each value that a logged request was served, beside the value.

    Example: featurestore explain customer_orders customer=ann --at 2025-01-04T12:00:00Z
    Example: featurestore explain customer_orders:amount customer=ann --at 2025-01-04T12:00:00Z
    """
    if (view is None) == (request is None) or (request is not None and at is not None):
        raise typer.BadParameter("say a view and a key (and --at), or --request ID (and --row)")
    if request is not None:
        with opened(context) as store:
            told = store.explain_request(request, row, limit=limit)
        print_found(told, as_json=as_json)
        return
    assert view is not None
    moment = None if at is None else instant(at, "--at")
    with opened(context) as store:
        name, _, _ = view.partition(":")
        types = store.catalog.view(name).entity.key
        given: dict[str, Any] = {}
        for name, value in json_row(key or [], types).items():
            try:
                given[name] = from_json(types[name], value)
            except ValueError as error:
                raise RequestError(f"'{name}' must be {types[name]}: {error}") from None
        explanation = store.explain(view, given, at=moment, limit=limit)
    print_found(explanation, as_json=as_json)

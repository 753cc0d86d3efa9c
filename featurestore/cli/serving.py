"""Commands about what is online: materialize, online, status, serve."""

from __future__ import annotations

import importlib
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from featurestore.cli.application import FOUND, AsJson, At, Estimated, next_step, opened, place_of
from featurestore.cli.following import until_terminated
from featurestore.cli.output import print_found, print_json, print_report
from featurestore.cli.streams import outlive_output
from featurestore.cli.values import json_row, one_or_all, past
from featurestore.elsewhere import BY_PLACE, elsewhere
from featurestore.errors import NotMaterializedError, OnlineStoreError, RequestError

if TYPE_CHECKING:
    from featurestore.serving.lookup import Lookup
    from featurestore.serving.online_result import OnlineResult
    from featurestore.serving.served_versions import ServiceBehind
    from featurestore.store import FeatureStore
    from featurestore.training.manifest import Manifest


def materialize(  # noqa: PLR0913, PLR0917 - each is an option
    context: typer.Context,
    views: Annotated[list[str] | None, typer.Argument(help="Only these views; by default all.")] = None,
    full: Annotated[
        bool, typer.Option("--full", help="Every key, not only those that may have changed; what is served again.")
    ] = False,
    follow: Annotated[
        bool, typer.Option("--follow", help="Go on with what becomes due, until it is told to stop (SIGTERM).")
    ] = False,
    every: Annotated[
        str | None, typer.Option(metavar="1m", help="With --follow: how often continuous views are looked after.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
    estimate: Estimated = False,
    at: At = None,
    as_json: AsJson = False,
) -> None:
    """Compute and publish what is due now of the applied views; what was served before stays until then.

    With --follow, of several processes one works, and another takes its place when it ends.

    Example: featurestore materialize
    Example: featurestore materialize --full --estimate
    """
    from featurestore.clock import instant_of, wall_clock
    from featurestore.materialize.materialize import describe
    from featurestore.reports.status import nothing_due

    for name in views or ():
        if name[:1].isdigit():  # no name of a view, and a time where another feature store takes two
            raise typer.BadParameter(f"'{name}': {elsewhere('featurestore materialize', BY_PLACE)}.")
    if follow:
        if full or as_json or estimate or at is not None:
            raise typer.BadParameter("--follow goes with neither --full nor --json nor --at nor --estimate")
        _follow(context, views, every=every or "1m", quiet=quiet)
        return
    if every is not None:
        raise typer.BadParameter("--every goes with --follow alone")
    if estimate:
        with opened(context, at=at) as store:
            print_found(store.estimate_materialize(views, full=full), as_json=as_json)
        return
    with opened(context, at=at) as store:
        runs = store.materialize(views, full=full, progress=not quiet)
        applied = store.registry.current()
        if not (runs or quiet or as_json) and not applied.document["views"]:
            typer.echo("Nothing is applied.")
            next_step(context, "apply" if store.catalog.views else "plan")
        elif not (runs or quiet or as_json):
            named = [view for view in store.status() if not views or view.view in views]
            typer.echo(nothing_due(named, wall_clock() if at is None else instant_of(past(at))))
    if as_json:
        print_json(describe(runs))
    elif (
        not quiet and any(run.full and not run.again for run in runs) and applied.document["services"]
    ):  # the first time
        service = next(iter(applied.document["services"]))
        next_step(context, f"online {service} {' '.join(f'{name}=…' for name in applied.service(service).inputs)}")


def _follow(context: typer.Context, views: list[str] | None, *, every: str, quiet: bool) -> None:
    """Materialize what becomes due until SIGTERM, and log that on stderr; a second SIGTERM ends it at once."""
    with until_terminated(context, quiet=quiet) as stop, opened(context) as store:
        store.follow(stop, views=views, every=every)


def verify(
    context: typer.Context,
    views: Annotated[list[str] | None, typer.Argument(help="Only these views; by default all.")] = None,
    repair: Annotated[bool, typer.Option("--repair", help="Write all of a view again where it is not right.")] = False,
    at: At = None,
    as_json: AsJson = False,
) -> None:
    """Compare every record online with what offline data say; exit code 3 where one is missing, extra or different.

    Example: featurestore verify --repair
    """
    with opened(context, at=at) as store:
        found = store.verify(views, repair=repair)
    print_found(found, as_json=as_json)
    if not found.ok:
        raise typer.Exit(FOUND)


def online(
    context: typer.Context,
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="FEATURES... NAME=VALUE...",
            help="A service, or views and view:feature; then keys and request values of one row.",
        ),
    ],
    json_rows: Annotated[
        str | None, typer.Option(metavar="ROWS", help="Rows instead, as a JSON list of objects.")
    ] = None,
    fingerprint: Annotated[str | None, typer.Option(help="What the model was trained on; else it is refused.")] = None,
    manifest: Annotated[
        str | None, typer.Option(metavar="FILE", help="The same, from the manifest of its training frame.")
    ] = None,
    at: At = None,
    as_json: AsJson = False,
) -> None:
    """Look features up as a model is served them, now, from what is online; at an instant of the past, use snapshot.

    With --at, as of the instant up to which materialize --at has filled it.

    Example: featurestore online order_model customer=ann amount=99.5
    Example: featurestore online order_model customer=ann amount=99.5 --manifest training.parquet
    Example: featurestore online customer_orders:amount customer=ann
    """
    rows = None if json_rows is None else _rows(json_rows)
    features, values = [word for word in words if "=" not in word], [word for word in words if "=" in word]
    if not features:
        raise typer.BadParameter("say what to look up: a service, a view or view:feature")
    if rows is not None and values:
        raise typer.BadParameter("give either NAME=VALUE or --json-rows")
    with opened(context, at=at) as store:
        lookup = store.lookup(*_version(store, one_or_all(features), fingerprint, manifest))
        asked = rows if rows is not None else [json_row(values, lookup.service.inputs)]
        result = lookup.get(asked, json=True) if at is None else _looked_up(lookup, asked, " ".join(features), at)
    if as_json:
        print_json(_plain(result))
    else:
        print_report(result.report())


def _looked_up(lookup: Lookup, rows: list[Any], features: str, at: str) -> OnlineResult:
    """A lookup at an instant of the past, where what is online is no later."""
    way = f"snapshot {features} --at {at}"
    service = lookup.service
    if service.request_inputs or any({*part.inputs} != {*service.key_inputs} for part in service.parts):  # no snapshot
        way = f"historical SPINE {features} -o FILE, with a spine of the row and its instant"
    asked = f"what a lookup at {at} would have been served is told by: featurestore {way}"
    try:
        result = lookup.get(rows, json=True)
    except NotMaterializedError as error:
        raise NotMaterializedError(f"{error}. That is what is online; {asked}") from None
    if any(instant > past(at) for instant in result.as_of.values()):
        raise RequestError(f"What is online holds rows that were learned after {at}; {asked}")
    return result


def _version(
    store: FeatureStore, features: str | list[str], fingerprint: str | None, path: str | None
) -> tuple[str | list[str] | Manifest, str | None]:
    if path is None:
        return features, fingerprint
    manifest = store.load_manifest(path)
    if manifest.service != features:
        if not isinstance(features, str) or features not in store.catalog.services:
            return features, fingerprint or manifest.fingerprint
        raise typer.BadParameter(f"{path} is of service '{manifest.service}', not '{features}'")
    return manifest, fingerprint


def _rows(text: str) -> list[Any]:
    import orjson

    try:
        rows = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise typer.BadParameter(f"--json-rows is no JSON: {error}") from None
    if not isinstance(rows, list):
        raise typer.BadParameter('--json-rows must be a list of objects, such as \'[{"customer": "ann"}]\'')
    return rows


def _plain(result: OnlineResult) -> dict[str, Any]:
    columns = result.to_dict()
    return {
        "service": result.service.name,
        "fingerprint": result.service.fingerprint,
        "rows": [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)],
        "statuses": result.statuses,
        "as_of": result.as_of,
        "stale": result.stale,
    }


def status(context: typer.Context, at: At = None, as_json: AsJson = False) -> None:
    """How far each applied view has come online, what lies in the logs of push sources, and what the serving log lost.

    Where the online store cannot be read, it tells the rest, says why, and ends with exit code 1.

    Example: featurestore status
    """
    from featurestore.reports.status import status_report

    behind: list[ServiceBehind] = []
    leader: str | None = None
    with opened(context, at=at) as store:
        views, losses, differs = store.status(), store.serving_log_losses(), store.differences()
        copies = store.sorted_copies()
        unread = next((OnlineStoreError(view.unavailable) for view in views if view.unavailable is not None), None)
        try:
            behind = store.behind()
            leader = store.leader() if unread is None else None
        except OnlineStoreError as error:
            unread = error
    if as_json:
        told = {"views": [view.to_dict() for view in views], "behind": behind, "serving_log": losses, "leader": leader}
        told["sorted_copies"] = [one.to_dict() for one in copies]
        print_json({**told, "differences": asdict(differs), "unavailable": None if unread is None else str(unread)})
    else:
        print_report(status_report(views, behind, losses, differs=differs, leader=leader, beside=map(str, copies)))
    if unread is not None:
        raise unread
    if as_json:
        return
    if not views:
        next_step(context, "apply")
    elif any(view.served is None for view in views):
        next_step(context, "materialize")


def manifest(
    context: typer.Context,
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="A training frame's Parquet file, or its manifest as JSON.")
    ],
    check: Annotated[bool, typer.Option("--check", help="Exit with 2 where it is not served.")] = False,
    as_json: AsJson = False,
) -> None:
    """Compare the manifest of a training frame with what is applied, at hand and served, and say what differs.

    Example: featurestore manifest training.parquet
    """
    with opened(context) as store:
        found = store.check_manifest(file)
    print_found(found, as_json=as_json)
    if check and not found.served:
        raise typer.Exit(2)


def serve(
    context: typer.Context,
    host: Annotated[str | None, typer.Option(help="Where to listen; by default as configured.")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="By default as configured.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; by default as configured.")] = None,
    manifest: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Serve a service in exactly the version of a training frame; repeatable."),
    ] = None,
    compatible: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Answer another platform's clients too: databricks, feast, sagemaker, vertex; repeatable.",
        ),
    ] = None,
    no_authentication: Annotated[
        bool, typer.Option("--no-authentication", help="Let everybody on this machine in; loopback hosts only.")
    ] = False,
) -> None:
    """Answer lookups over HTTP until it is told to stop.

    A request must bring a key (featurestore keys create) or a token.

    Example: featurestore serve --port 6570
    Example: featurestore serve --port 6570 --no-authentication --manifest training.parquet
    """
    from featurestore.config import load_config

    outlive_output()
    place = place_of(context)
    configured = load_config(place.repo, place.env).server
    server = importlib.import_module("featurestore.server")
    server.serve(
        repo=place.repo,
        env=place.env,
        host=configured.host if host is None else host,
        port=configured.port if port is None else port,
        workers=configured.workers if workers is None else workers,
        manifests=manifest or [],
        authentication=not no_authentication,
        compatible=compatible or None,
    )

"""Commands about definitions: plan, apply, show, history, teardown."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from featurestore.cli.application import AsJson, At, next_step, opened
from featurestore.cli.asking import Yes, ask
from featurestore.cli.output import print_found, print_json, print_report, print_table
from featurestore.plurals import plural

if TYPE_CHECKING:
    from featurestore.registry.apply import AppliedVersion
    from featurestore.registry.steps import Plan
    from featurestore.store import FeatureStore

Keep = Annotated[
    bool,
    typer.Option("--keep", help="Serve the versions that are replaced on, to clients that name their fingerprint."),
]
Retire = Annotated[
    list[str] | None,
    typer.Option(metavar="SERVICE@FINGERPRINT", help="End a version that is kept, or 'all'; repeatable."),
]

AcceptTypes = Annotated[
    bool, typer.Option("--accept-types", help="Take a changed type of a source's column as a change of its views.")
]


def plan(  # noqa: PLR0913, PLR0917 - each is an option
    context: typer.Context,
    check: Annotated[bool, typer.Option("--check", help="Exit with 2 where there is something to apply.")] = False,
    keep: Keep = False,
    retire: Retire = None,
    accept_types: AcceptTypes = False,
    estimate: Annotated[
        bool,
        typer.Option(
            "--estimate", help="Say, too, what rows, bytes, time and memory it takes to fill what is to be refilled."
        ),
    ] = False,
    at: At = None,
    as_json: AsJson = False,
) -> None:
    """Print what apply would do, and what its rules cost; nothing is written.

    Example: featurestore plan
    Example: featurestore plan --retire all
    Example: featurestore plan --estimate
    """
    with opened(context, at=at) as store:
        made = store.plan(accept_types=accept_types, keep=keep, retire=retire or ())
        filling = store.estimate_plan(made) if estimate else None
        if filling is None:
            print_found(made, as_json=as_json)
        elif as_json:
            print_json({**made.to_dict(), "estimate": filling.to_dict()})
        else:
            print_report(made.report())
            typer.echo("")
            print_report(filling.report())
        if not as_json:
            _say_what_follows(context, store, made)
    if check and not made.is_empty:
        raise typer.Exit(2)


def _say_what_follows(context: typer.Context, store: FeatureStore, made: Plan) -> None:
    if not made.is_empty:
        next_step(context, "apply")
    else:
        _say_where_to_declare(store)


def _say_where_to_declare(store: FeatureStore) -> None:
    """Where nothing is declared or applied at all."""
    from featurestore.catalog import Catalog
    from featurestore.loading.files import where_to_declare

    if store.catalog == Catalog():
        typer.echo(where_to_declare(store.config))


def apply(
    context: typer.Context,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask on a terminal.")] = False,
    note: Annotated[str, typer.Option(help="A note that history shows.")] = "",
    keep: Keep = False,
    retire: Retire = None,
    accept_types: AcceptTypes = False,
    as_json: AsJson = False,
) -> None:
    """Print the plan and carry out exactly that; on a terminal, ask before.

    Example: featurestore apply --yes
    Example: featurestore apply --keep --yes
    """
    with opened(context) as store:
        made = store.plan(accept_types=accept_types, keep=keep, retire=retire or ())
        if not as_json:
            typer.echo(str(made))
        asks = not yes and not made.is_empty and sys.stdin.isatty() and sys.stdout.isatty()
        if asks and not typer.confirm("Apply this plan?", err=True):
            typer.echo("Nothing was applied.", err=True)
            raise typer.Exit(1)
        applied = store.apply(made, note=note)
        if as_json:
            print_json({"plan": made.to_dict(), "applied": asdict(applied)})
        else:
            _print_applied(applied)
            if applied.refill:
                next_step(context, "materialize")
            else:
                _say_where_to_declare(store)


def _print_applied(applied: AppliedVersion) -> None:
    if applied.changed:
        typer.echo(f"Applied as version {applied.number}.")
    for kept in applied.kept:
        typer.echo(f"Kept {kept.version}.")
    for retired in applied.retired:
        typer.echo(f"Retired {retired.version}.")
    for view, fingerprint, keys in applied.freed:
        typer.echo(f"Freed {view} {fingerprint[:8]}: {keys} online {plural(keys, 'key')}.")


def show(
    context: typer.Context,
    name: Annotated[
        str | None, typer.Argument(help="A definition, or a feature as view:feature; by default all are listed.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Print the definitions, or all that one of them means: those of the repository over those that were applied.

    Example: featurestore show
    Example: featurestore show customer_carts
    Example: featurestore show customer_carts:amount_1d
    """
    from featurestore.registry.documents import KINDS

    with opened(context) as store:
        if name is None and not as_json:
            catalog = store.catalog
            listed = [(KINDS[kind], item) for kind in KINDS for item in getattr(catalog, kind).values()]
            if listed:
                print_table(("kind", "name", "what it is"), [(kind, item.name, _brief(item)) for kind, item in listed])
                next_step(context, f"show {listed[-1][1].name}")
            else:
                _say_where_to_declare(store)
            return
        found = store.describe(name)
    if as_json:
        print_json(found)
        return
    for one in found:
        print_report(one.report())


def _brief(item: Any) -> str:
    """What the list says of a definition: its own description, or else what it is made of."""
    made_of = (getattr(item, word, None) for word in ("description", "output", "columns", "features", "key", "path"))
    found = next((value for value in made_of if value), "")
    return ", ".join(map(str, found)) if isinstance(found, (dict, tuple)) else str(found)


def history(context: typer.Context, as_json: AsJson = False) -> None:
    """Print every applied version, newest first.

    Example: featurestore history
    """
    from featurestore.clock import to_datetime
    from featurestore.registry.documents import KINDS

    with opened(context) as store:
        versions = sorted(store.history(), key=lambda version: version.number, reverse=True)
    rows = [
        {
            "version": version.number,
            "applied_at": to_datetime(version.applied_at),
            "digest": version.digest,
            "definitions": sum(len(version.document[kind]) for kind in KINDS),
            "note": version.note,
        }
        for version in versions
    ]
    if as_json:
        print_json(rows)
    elif rows:
        print_table(list(rows[0]), [list(row.values()) for row in rows])
    else:
        typer.echo("Nothing was applied yet.")


def teardown(
    context: typer.Context,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Free everything of the project online and remove all definitions from the registry; sources stay as they are.

    Example: featurestore teardown --yes
    """
    with opened(context) as store:
        if not yes:
            project = store.config.project
            ask(
                f"Remove all of project '{project}' online, and all definitions from the registry?",
                otherwise=f"Nothing of project '{project}' was removed",
            )
        freed = store.teardown()
    if as_json:
        print_json({"freed": freed})
    else:
        typer.echo(f"Freed {freed} online {plural(freed, 'key')}; nothing is applied any more.")

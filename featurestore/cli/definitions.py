"""Commands about definitions: plan, apply, show, history, teardown."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from featurestore.cli.application import AsJson, next_step, opened
from featurestore.cli.output import print_found, print_json, print_table
from featurestore.errors import NotFoundError, did_you_mean
from featurestore.report import cell

if TYPE_CHECKING:
    from featurestore.registry.apply import AppliedVersion

__all__ = ["apply", "history", "plan", "show", "teardown"]

Keep = Annotated[
    bool, typer.Option("--keep", help="Serve the versions that are replaced on, to whoever names their fingerprint.")
]
Retire = Annotated[
    list[str] | None,
    typer.Option(metavar="SERVICE@FINGERPRINT", help="End a version that is kept, or 'all'; repeatable."),
]


def plan(
    context: typer.Context,
    check: Annotated[bool, typer.Option("--check", help="Exit with 2 where there is something to apply.")] = False,
    keep: Keep = False,
    retire: Retire = None,
    as_json: AsJson = False,
) -> None:
    """Print what apply would do, and what its rules cost; nothing is written.

    Example: featurestore plan
    Example: featurestore plan --retire all
    """
    with opened(context) as store:
        made = store.plan(keep=keep, retire=retire or ())
        print_found(made, as_json=as_json)
    if not made.is_empty and not as_json:
        next_step(context, "apply")
    if check and not made.is_empty:
        raise typer.Exit(2)


def apply(
    context: typer.Context,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask on a terminal.")] = False,
    note: Annotated[str, typer.Option(help="A note that history shows.")] = "",
    keep: Keep = False,
    retire: Retire = None,
    as_json: AsJson = False,
) -> None:
    """Print the plan and carry out exactly that; on a terminal, ask before.

    Example: featurestore apply --yes
    Example: featurestore apply --keep --yes
    """
    with opened(context) as store:
        made = store.plan(keep=keep, retire=retire or ())
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


def _print_applied(applied: AppliedVersion) -> None:
    if applied.changed:
        typer.echo(f"Applied as version {applied.number}.")
    for kept in applied.kept:
        typer.echo(f"Kept {kept.version}.")
    for retired in applied.retired:
        typer.echo(f"Retired {retired.version}.")
    for view, fingerprint, keys in applied.freed:
        typer.echo(f"Freed {view} {fingerprint[:8]}: {keys} online keys.")


def show(
    context: typer.Context,
    name: Annotated[str | None, typer.Argument(help="A definition; by default all are listed.")] = None,
    as_json: AsJson = False,
) -> None:
    """Print the definitions: those of the repository over those that were applied.

    Example: featurestore show
    """
    from featurestore.registry.documents import KINDS

    with opened(context) as store:
        catalog = store.catalog
    found = [(kind, item) for kind in KINDS for item in getattr(catalog, kind).values()]
    names = [item.name for _, item in found]
    if name is not None:
        found = [(kind, item) for kind, item in found if item.name == name]
        if not found:
            raise NotFoundError(f"There is no definition '{name}'.{did_you_mean(name, names)}")
    described = [{"kind": KINDS[kind], **_described(item)} for kind, item in found]
    if as_json:
        print_json(described)
    elif name is None:
        rows = [(item["kind"], item["name"], _brief(item)) for item in described]
        print_table(("kind", "name", "what it is"), rows)
    else:
        for item in described:
            print_table(("field", "value"), [(word, _text(value)) for word, value in item.items()])


def _described(item: Any) -> dict[str, Any]:
    """A definition as plain JSON without what it does not say; other definitions in it by their names."""
    from featurestore.declare.on_demand import OnDemand
    from featurestore.declare.services import FeatureService
    from featurestore.declare.views import FeatureView

    fields = item.model_dump(mode="json", exclude={"entity", "source", "features", "inputs"})
    if isinstance(item, FeatureView):
        features = {name: str(fold.type or "the column's") for name, fold in item.features.items()}
        fields |= {"entity": item.entity.name, "source": item.source.name, "features": features}
    elif isinstance(item, FeatureService):
        fields["columns"] = list(item.columns)
    elif isinstance(item, OnDemand):
        fields |= {"inputs": [_input(value) for value in item.inputs], "source": item.source}
    elif not hasattr(item, "key"):
        fields["type"] = type(item).__name__
    return {
        **{word: value for word, value in fields.items() if value not in (None, "", {}, [])},
        "declared": item.origin,
    }


def _input(value: Any) -> str:
    from featurestore.declare.on_demand import Request
    from featurestore.declare.views import Selection

    if isinstance(value, Selection):
        return value.columns[0]
    return f"{value.name}: {value.type}" if isinstance(value, Request) else "the request's time"


def _brief(item: dict[str, Any]) -> str:
    """What the list says of a definition: its own description, or else what it is made of."""
    made_of = item.get("features") or item.get("columns") or item.get("key") or item.get("output") or item.get("path")
    return str(item.get("description") or _text(made_of))


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name}: {_text(item)}" for name, item in value.items())
    if isinstance(value, list):
        return ", ".join(map(_text, value))
    return cell(value)


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
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do it; without it, nothing is done.")] = False,
    as_json: AsJson = False,
) -> None:
    """Free everything of the project online and remove all definitions from the registry; sources stay as they are.

    Example: featurestore teardown --yes
    """
    with opened(context) as store:
        if not yes:
            typer.echo(f"This removes all of project '{store.config.project}' online; say --yes.", err=True)
            raise typer.Exit(1)
        freed = store.teardown()
    if as_json:
        print_json({"freed": freed})
    else:
        typer.echo(f"Freed {freed} online keys; nothing is applied any more.")

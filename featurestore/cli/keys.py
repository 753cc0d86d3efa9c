"""Commands about API keys of the service: keys create, list, rotate, revoke."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from featurestore.cli.application import AsJson, add_to, place_of
from featurestore.cli.output import print_json, print_table
from featurestore.clock import to_datetime, wall_clock
from featurestore.config import load_config
from featurestore.declare.durations import parse_duration
from featurestore.durable.secret_file import secret_file
from featurestore.errors import ConfigError, DeclarationError

if TYPE_CHECKING:
    from featurestore.access.api_keys import NewKey
    from featurestore.registry.keys import ApiKey
    from featurestore.registry.store import Registry

Which = Annotated[str, typer.Argument(metavar="NAME", help="The key's name, or its id where only one secret is meant.")]

Output = Annotated[
    Path | None,
    typer.Option(
        "--output", "-o", metavar="FILE", help="Write the key there, for its owner's eyes only, and print it not."
    ),
]


def create(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="What the key is called: who has it, or what for.")],
    scope: Annotated[list[str], typer.Option("--scope", help="read, push, materialize, metrics or admin; repeatable.")],
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="KIND:NAME", help="Only this service:NAME, view:NAME or source:NAME; repeatable."),
    ] = None,
    expires: Annotated[
        str | None, typer.Option(metavar="90d", help="How long it lasts; by default until revoked.")
    ] = None,
    output: Output = None,
    as_json: AsJson = False,
) -> None:
    """Make a key, and print it, this once.

    The registry keeps a hash of it.
    With --output, where the file holds a live key of this name already, nothing is done.

    Example: featurestore keys create web --scope read
    Example: featurestore keys create collector --scope push --only source:carts --expires 90d
    """
    from featurestore.access.api_keys import create_key

    for one in scope:
        if "," in one:
            each = " ".join(f"--scope {name.strip()}" for name in one.split(","))
            raise typer.BadParameter(f"'{one}': repeat --scope, as {each}")
    registry = _registry(context)
    if output is not None and _is_there(registry, name, output):
        typer.echo(f"{output} holds a live key '{name}'; nothing was done")
        return
    with _written(output) as write:
        made = create_key(
            registry, name, scope, only_on=only or None, lasts_us=None if expires is None else _duration(expires)
        )
        write(made, as_json)
    for limit in _unapplied(registry, only or ()):
        typer.echo(
            f"No {limit.replace(':', ' ', 1)} is applied now; the key counts for it once there is one.", err=True
        )


def rotate(
    context: typer.Context,
    name: Which,
    overlap: Annotated[str, typer.Option(metavar="1d", help="How long the old secret goes on being valid.")] = "1d",
    output: Output = None,
    as_json: AsJson = False,
) -> None:
    """Make a new secret, and print it, this once.

    The old one is valid for a while yet.

    Example: featurestore keys rotate web --overlap 2h
    """
    from featurestore.access.api_keys import named_keys, rotate_key

    registry = _registry(context)
    if output is not None:
        _is_there(registry, named_keys(registry.api_keys(), name)[-1].name, output)
    with _written(output) as write:
        write(rotate_key(registry, name, overlap_us=_duration(overlap)), as_json)


def revoke(context: typer.Context, name: Which, as_json: AsJson = False) -> None:
    """End a key, with all of its secrets.

    Running servers refuse it within two seconds.

    Example: featurestore keys revoke web
    """
    from featurestore.access.api_keys import PREFIX, revoke_key

    ended = revoke_key(_registry(context), name)
    if as_json:
        print_json([_told(key) for key in ended])
    elif ended:
        typer.echo(f"revoked: {', '.join(PREFIX + key.id for key in ended)}")
    else:
        typer.echo(f"'{name}' was revoked before.")


def list_(context: typer.Context, as_json: AsJson = False) -> None:
    """List the keys, and no secret.

    The oldest first; when each was last used is true to ten minutes.

    Example: featurestore keys list
    """
    found = [_told(key) for key in _registry(context).api_keys()]
    if as_json:
        print_json(found)
    elif found:
        columns = ("id", "name", "scopes", "only_on", "state", "created_at", "expires_at", "used_at")
        rows = [[_shown(key[column]) for column in columns] for key in found]
        print_table([column.replace("_", " ") for column in columns], rows)
    else:
        typer.echo("There is no key. featurestore keys create NAME --scope read makes one.")


def _shown(value: Any) -> Any:
    """A cell of the list."""
    if value is None:
        return "-"
    if isinstance(value, tuple):
        return " ".join(value)
    return value


def _registry(context: typer.Context) -> Registry:
    """The registry of the repository; its definitions are not run."""
    from featurestore.registry.store import Registry

    place = place_of(context)
    config = load_config(place.repo, place.env)
    return Registry(config.registry, project=config.project)


def _told(key: ApiKey) -> dict[str, Any]:
    from featurestore.access.api_keys import PREFIX

    times = {name: getattr(key, name) for name in ("created_at", "expires_at", "revoked_at", "used_at")}
    return {
        "id": PREFIX + key.id,
        "name": key.name,
        "scopes": key.scopes,
        "only_on": key.only_on,
        "state": key.state(wall_clock()),
        **{name: None if at is None else to_datetime(at) for name, at in times.items()},
    }


def _duration(text: str) -> int:
    try:
        return parse_duration(text)
    except DeclarationError as error:
        raise typer.BadParameter(str(error)) from None


def _is_there(registry: Registry, name: str, output: Path) -> bool:
    """Whether a file holds a live key of this name. ConfigError where it holds what must not be written over: no key, a live key
    of another name, or one that this registry does not know."""
    from featurestore.access.api_keys import is_secret_of, key_id

    if not output.exists():
        return False
    try:
        text = output.read_text(errors="replace").strip()
    except OSError as error:
        raise ConfigError(f"{output} cannot be read: {error.strerror}; name another file") from None
    number = key_id(text)
    if number is None:
        raise ConfigError(f"{output} is there, and holds no key; name another file, or remove it")
    held = next((key for key in registry.api_keys() if key.id == number and is_secret_of(text, key)), None)
    if held is None:
        raise ConfigError(
            f"{output} holds a key that this registry does not have, and nobody can tell it again; name another file, or remove it"
        )
    if not held.is_live(wall_clock()):
        return False
    if held.name != name:
        raise ConfigError(
            f"{output} holds the live key '{held.name}', and nobody can tell it again; name another file for '{name}'"
        )
    return True


def _unapplied(registry: Registry, limits: Iterable[str]) -> list[str]:
    """Those of the limits that name nothing which is applied."""
    document = registry.current().document
    there = {
        "service": document["services"], "view": {**document["views"], **document["on_demand"]},
        "source": document["sources"],
    }  # fmt: skip
    split = [(limit, *limit.split(":", 1)) for limit in limits]
    return [limit for limit, kind, name in split if name not in there[kind]]


@contextmanager
def _written(output: Path | None) -> Iterator[Callable[[NewKey, bool], None]]:
    """What prints a new key, or puts it into the file, which is known to be writable before the key is made."""
    if output is not None and not output.parent.is_dir():
        raise ConfigError(f"{output} cannot be written: there is no folder {output.parent}")
    with ExitStack() as stack:
        put = None if output is None else stack.enter_context(secret_file(output))

        def write(made: NewKey, as_json: bool) -> None:
            told = _told(made.key)
            if put is not None:
                put(f"{made.secret}\n")
                told["file"] = str(output)
            else:
                told["secret"] = made.secret
            if as_json:
                print_json(told)
            elif output is not None:
                typer.echo(f"The key '{made.key.name}' is in {output}, which only you may read.")
            else:
                typer.echo(f"The key '{made.key.name}', which is shown this once:\n\n  {made.secret}\n")

        yield write


keys = typer.Typer(
    name="keys",
    help="API keys of the service: create, list, rotate, revoke.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
for one in (create, list_, rotate, revoke):
    add_to(keys, one)

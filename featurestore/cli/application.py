"""The application: its global options, the store that commands open, and how errors end them."""

from __future__ import annotations

import inspect
import os
import re
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from featurestore.cli.streams import INTERRUPTED, end_quietly, was_interrupted
from featurestore.cli.values import past
from featurestore.elsewhere import elsewhere
from featurestore.errors import ConfigError, FeatureStoreError

if TYPE_CHECKING:
    from featurestore.store import FeatureStore

FOUND = 3
"""The exit code of commands that were told to fail on what they find (`--fail-on-…`), and found it."""

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]

Estimated = Annotated[
    bool,
    typer.Option("--estimate", help="Only say how many rows and bytes, and what time and memory, it would take."),
]

At = Annotated[
    str | None,
    typer.Option("--at", metavar="T", help="The instant to take for now, ISO 8601, where the data ended long ago."),
]

GLOBAL = ("--repo", "--env")

GROUPS: dict[str, list[str]] = {}
"""What `--help` shows: a title and the names of its commands."""

LONGEST_SENTENCE = 10_000
"""Characters of a command's first sentence that `--help` shows."""


class Commands(TyperGroup):
    """Takes --repo and --env before a command and after it, and ends with a message where the product refuses."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Move the global options to the front, wherever they stand."""
        found, rest = _hoisted(args)
        return super().parse_args(ctx, found + rest)

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002 - as it is called
        """The commands in their groups, each with its whole first sentence."""
        for title, names in GROUPS.items():
            with formatter.section(title):
                formatter.write_dl([(name, self.commands[name].get_short_help_str(LONGEST_SENTENCE)) for name in names])

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that is asked for; what another feature store calls one is answered with its name here."""
        instead = None if args[0] in self.commands else elsewhere("the command line", args[0])
        if instead is not None:
            ctx.fail(f"No such command '{args[0]}': {instead}.")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run the command; an error of the product, or of the file system, is a line on stderr and exit code 1."""
        try:
            return self._uninterrupted(ctx)
        except BrokenPipeError:
            end_quietly()
        except typer.BadParameter as error:  # of a number, whose library has words of its own
            error.message = _plain(error.message)
            raise
        except FeatureStoreError as error:
            typer.echo(f"{type(error).__name__}: {error}", err=True)
            raise typer.Exit(1) from None
        except OSError as error:
            from featurestore.durable.disk import told

            typer.echo(f"{type(error).__name__}: {told(error)}", err=True)
            raise typer.Exit(1) from None

    def _uninterrupted(self, ctx: Any) -> Any:
        """Run the command; whatever an interruption breaks off ends it alike."""
        try:
            return super().invoke(ctx)
        except BaseException:
            if was_interrupted():
                raise SystemExit(INTERRUPTED) from None
            raise


def _plain(message: str) -> str:
    """What is wrong with a number, as the rest of the product says it."""
    for theirs, ours in NUMBERS:
        message = re.sub(theirs, ours, message)
    return message


NUMBERS = (
    (r"^Input should be a valid integer.*", "must be a whole number"),
    (r"^Input should be a valid number.*", "must be a number"),
    (r"^Input should be less than or equal to (\S+)$", r"must be at most \1"),
    (r"^Input should be greater than or equal to (\S+)$", r"must be at least \1"),
    (r"^Input should be (less|greater) than (\S+)$", r"must be \1 than \2"),
)
"""How numbers are refused where the command line is read, and in which words we do."""


def _hoisted(args: list[str]) -> tuple[list[str], list[str]]:
    found: list[str] = []
    rest: list[str] = []
    left = iter(args)
    for item in left:
        if item == "--":
            rest += [item, *left]
        elif item in GLOBAL:
            found += [item, *([value] if (value := next(left, None)) is not None else [])]
        elif item.startswith(tuple(f"{name}=" for name in GLOBAL)):
            found.append(item)
        else:
            rest.append(item)
    return found, rest


@dataclass(frozen=True)
class Repository:
    """Which repository a command is about, and which of its environments."""

    repo: Path
    env: str | None


app = typer.Typer(
    name="featurestore",
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


def _tell_version(asked: bool) -> None:
    if asked:
        typer.echo(f"featurestore {version('featurestore')}")
        raise typer.Exit


@app.callback()
def settings(
    context: typer.Context,
    repo: Annotated[Path, typer.Option(help="The folder of featurestore.toml, or the file itself.")] = Path(),
    env: Annotated[
        str | None, typer.Option(metavar="NAME", help="The [env.NAME] to use; by default $FEATURESTORE_ENV, or none.")
    ] = None,
    _: Annotated[
        bool, typer.Option("--version", help="Print the version, and end.", callback=_tell_version, is_eager=True)
    ] = False,
) -> None:
    """A feature store in which the value a model is served has the bits that training says it has.

    --repo and --env may stand before the command or after it.
    """
    context.obj = Repository(repo, env if env is not None else os.environ.get("FEATURESTORE_ENV") or None)


def add(title: str, *commands: Callable[..., None] | typer.Typer) -> None:
    """Make each function a command of a group, and each application a command that has commands of its own."""
    GROUPS[title] = []
    for command in commands:
        if isinstance(command, typer.Typer):
            GROUPS[title].append(str(command.info.name))
            app.add_typer(command)
        else:
            GROUPS[title].append(add_to(app, command))


def add_to(of: typer.Typer, function: Callable[..., None]) -> str:
    """Make a function a command, and say its name; the example at the end of its help stays on a line of its own, however long."""
    name = function.__name__.strip("_").replace("_", "-")
    text = inspect.getdoc(function) or ""
    of.command(name, help=text.replace("\n\nExample:", "\n\n\b\nExample:"))(function)
    return name


def place_of(context: typer.Context) -> Repository:
    """What --repo and --env say."""
    place = context.obj
    assert isinstance(place, Repository)
    return place


def next_step(context: typer.Context, command: str) -> None:
    """Say which command comes next, for the same repository and environment."""
    said = context.find_root().params
    where = "" if said["repo"] == Path() else f" --repo {shlex.quote(str(said['repo']))}"
    env = "" if said["env"] is None else f" --env {shlex.quote(said['env'])}"
    typer.echo(f"Next: featurestore{where}{env} {command}")


@contextmanager
def opened(context: typer.Context, *, at: str | None = None) -> Iterator[FeatureStore]:
    """The store of the repository, closed when the command is done. at: an instant that its clock stands at."""
    from featurestore.clock import PastClock
    from featurestore.store import FeatureStore

    clock = None if at is None else PastClock(past(at))

    place = place_of(context)
    if not place.repo.exists():
        raise ConfigError(f"There is no {place.repo}; `featurestore init {place.repo}` makes a repository")
    with _stdout_apart():
        store = FeatureStore(place.repo, env=place.env, clock=clock)
    with store:
        yield store


@contextmanager
def _stdout_apart() -> Iterator[None]:
    """Send to stderr what programs print that definitions start, which Python's own redirection does not reach."""
    try:
        os.fstat(2)
        out = os.dup(1)
    except OSError:  # one of them is closed, so there is nothing to keep apart
        yield
        return
    try:
        os.dup2(2, 1)
        yield
    finally:
        os.dup2(out, 1)
        os.close(out)

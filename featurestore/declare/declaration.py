"""What every definition has in common: it is frozen, checked once, and knows where it was declared."""

from __future__ import annotations

import functools
import inspect
import os
import re
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, ClassVar, Concatenate, ParamSpec, TypeVar, cast, get_args, get_type_hints

import pydantic
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    PlainSerializer,
    PlainValidator,
    PrivateAttr,
    ValidationError,
)

from featurestore.declare.problems import problems, shown
from featurestore.elsewhere import elsewhere
from featurestore.errors import DeclarationError, did_you_mean
from featurestore.types import FeatureType, parse_type

OURS = tuple(f"{Path(file).parent}{os.sep}" for file in (Path(__file__).parent, pydantic.__file__))
"""The folders of this product and of the library that checks its fields; a user's may begin or go on like them."""

WAYS_IN = tuple(f"{Path(__file__).parents[1] / folder}{os.sep}" for folder in ("cli", "server"))
"""The folders of what calls this product in no file of the user's."""

TYPES = (
    "Bool", "Int32", "Int64", "Float32", "Float64", "String", "Bytes", "Date", "Timestamp", "Decimal(p, s)", "Array(T)",
)  # fmt: skip
"""The types as they are written, for messages."""

P = ParamSpec("P")
S = TypeVar("S", bound="Declaration")
T = TypeVar("T")


class Origin(str):
    """ "file.py:12", for messages; equal to any other, because where a thing stands is no part of what it is."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Origin)

    def __ne__(self, other: object) -> bool:
        return not isinstance(other, Origin)

    def __hash__(self) -> int:
        return 0


NOWHERE = Origin("")
"""Where a thing stands that no file of the user's declares."""


def caller() -> Origin:
    """The file and line of the user's code that is running; NOWHERE where the command line or a server is what calls."""
    frame = users_frame()
    if frame is None:
        return Origin("<unknown>")
    file = frame.f_code.co_filename
    return NOWHERE if file.startswith(WAYS_IN) else Origin(f"{_short(file)}:{frame.f_lineno}")


def users_frame() -> FrameType | None:
    """The innermost frame of the user's, or of the command line or the server; None where there is none."""
    frame = inspect.currentframe()
    while frame is not None and not _calls(frame.f_code.co_filename):
        frame = frame.f_back
    return frame


def _calls(file: str) -> bool:
    return file.startswith(WAYS_IN) or not file.startswith(OURS)


def _short(file: str) -> str:
    if "ipykernel" in file or file.startswith("<ipython"):
        return "notebook"
    try:
        return str(Path(file).relative_to(Path.cwd()))
    except ValueError:
        return file


def column_name(value: str) -> str:
    """The name of a feature or a column of ours, which it is; ValueError otherwise."""
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", value):
        raise ValueError(f"'{value}' is no name: letters, digits and underscores, beginning with a letter")
    return value


def stored_name(value: str) -> str:
    """The name of a column as others have written it, which may have any signs; ValueError where it is none."""
    if not value or "\0" in value:
        raise ValueError(f"{value!r} is no name of a column")
    return value


def definition_name(value: str) -> str:
    """The name of a definition, which it is; ValueError otherwise."""
    column_name(value)
    if "__" in value or value.endswith("_"):
        raise ValueError(f"'{value}' is no name: '__' separates a view from its feature in column names")
    return value


def type_of(value: Any) -> FeatureType:
    """The type that is meant, itself or as it is written; ValueError where it is none."""
    if isinstance(value, FeatureType):
        return value
    try:
        return parse_type(value if isinstance(value, str) else "")
    except ValueError:
        meant = [name for name in TYPES if isinstance(value, str) and name.lower() == value.strip().lower()]
        near = meant or get_close_matches(str(value), TYPES, n=1, cutoff=0.7)
        hint = f". Did you mean {near[0]}?" if near else f"; types are {', '.join(TYPES)} from featurestore.types"
        raise ValueError(f"{value if isinstance(value, type) else shown(value)} is no type{hint}") from None


Name = Annotated[str, AfterValidator(definition_name)]
ColumnName = Annotated[str, AfterValidator(column_name)]
StoredName = Annotated[str, AfterValidator(stored_name)]
TypeField = Annotated[FeatureType, PlainValidator(type_of), PlainSerializer(str, return_type=str)]


class Declaration(BaseModel):
    """A frozen definition; `str(origin)` is where the user's code declared it."""

    SAID_AS: ClassVar[Mapping[str, str]] = {}  # field → the option by which callers say it, where that is another

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True, ignored_types=(Origin,))

    _origin: Origin = PrivateAttr(default=Origin("<unknown>"))

    def fill(self, **fields: Any) -> None:
        """Validate and set all fields; for the `__init__` of a definition."""
        BaseModel.__init__(self, **fields)

    @property
    def origin(self) -> str:
        """Where it was declared: "file.py:12"."""
        return str.__str__(self._origin)

    @property
    def title(self) -> str:
        """Its kind and name, for messages."""
        return f"{type(self).__name__} '{getattr(self, 'name', '')}'"

    @classmethod
    def titled(cls, args: tuple[Any, ...], said: Mapping[str, Any]) -> str:
        """The title of what these arguments declare, for messages about them: there is no definition yet."""
        first = args[0] if args else said.get("name")
        named = said.get("name", first if isinstance(first, str) else getattr(first, "__name__", None))
        return f"{cls.__name__} '{named}'" if isinstance(named, str) else cls.__name__

    @classmethod
    def examples(cls) -> dict[str, str]:
        """Field → how its value may look, for messages."""
        return {name: str(field.examples[0]) for name, field in cls.model_fields.items() if field.examples}

    def error(self, problem: str) -> DeclarationError:
        """An error about this definition that says where it stands."""
        return DeclarationError(f"{self.title}: {problem}", self.origin)


def declares(init: Callable[Concatenate[S, P], None]) -> Callable[Concatenate[S, P], None]:
    """Make an `__init__` record where it was called, and turn its mistakes into DeclarationErrors with a hint.

    It takes its own parameters and those of `**options: Unpack[…]`; a field that is none of these is not for callers to set.
    """
    parameters = _parameters(init)
    in_place = _parameters(init, in_place=True)

    @functools.wraps(init)
    def checked(self: S, *args: P.args, **kwargs: P.kwargs) -> None:
        origin = caller()
        place = str.__str__(origin)
        known = [*parameters, *options_of(init)]
        if len(args) > len(in_place):
            raise DeclarationError(f"{self.titled(args, kwargs)}: {_by_name(in_place, known)}", place)
        for name in kwargs:
            if name not in known:
                instead = _instead(type(self), name, known)
                raise DeclarationError(f"{self.titled(args, kwargs)} has no argument '{name}'{instead}", place)
        try:
            init(self, *args, **kwargs)
        except ValueError as error:  # pydantic's own among them
            said = str(error)
            if isinstance(error, ValidationError):
                said = problems(error, self.SAID_AS, self.examples())
            raise DeclarationError(f"{self.titled(args, kwargs)}: {said.removesuffix(f' ({place})')}", place) from None
        except TypeError as error:
            if not re.search(r"argument|keywords", str(error)):
                raise
            raise DeclarationError(f"{self.titled(args, kwargs)}: {_missing(error)}", place) from None
        self._origin = origin

    return cast("Callable[Concatenate[S, P], None]", checked)


@functools.cache
def options_of(function: Callable[..., object]) -> tuple[str, ...]:
    """The keywords that `**options: Unpack[…]` of a function stands for; none where it has no such."""
    hints = get_type_hints(function)
    tables = [table for hint in hints.values() for table in get_args(hint) if hasattr(table, "__total__")]
    return tuple(option for table in tables for option in table.__annotations__)


def takes_words(method: Callable[Concatenate[S, P], T]) -> Callable[Concatenate[S, P], T]:
    """Make a method of a definition refuse the options that it does not have, as a definition does."""
    parameters = _parameters(method)

    @functools.wraps(method)
    def checked(self: S, *args: P.args, **kwargs: P.kwargs) -> T:
        for name in kwargs:
            if name not in parameters:
                instead = _instead(method.__name__, name, parameters)
                raise DeclarationError(
                    f"{self.title}: {method.__name__} has no argument '{name}'{instead}", str.__str__(caller())
                )
        return method(self, *args, **kwargs)

    return cast("Callable[Concatenate[S, P], T]", checked)


def _parameters(function: Callable[..., object], *, in_place: bool = False) -> list[str]:
    every = list(inspect.signature(function).parameters.values())[1:]
    return [p.name for p in every if p.kind is not p.VAR_KEYWORD and not (in_place and p.kind is p.KEYWORD_ONLY)]


def _by_name(in_place: list[str], known: list[str]) -> str:
    """What to write instead where more is given without names than there are places."""
    others = [name for name in known if name not in in_place]
    told = f"all but {' and '.join(in_place)} is" if in_place else "all is"
    return f"{told} said by name: {', '.join(f'{name}=…' for name in others)}"


def _missing(error: TypeError) -> str:
    """What was left out, of a call that lacks something; Python's own words otherwise."""
    text = str(error).split("__init__() ")[-1]
    left_out = re.findall(r"'(\w+)'", text) if text.startswith("missing") else []
    return f"{' and '.join(f'{name}=…' for name in left_out)} must be given" if left_out else text


def _instead(kind: type | str, option: str, known: list[str]) -> str:
    """The end of the message about an option that a declaration does not have."""
    advice = elsewhere(kind, option)
    return f".{did_you_mean(option, known, noun='It takes')}" if advice is None else f": {advice}"

"""What every definition has in common: it is frozen, checked once, and knows where it was declared."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Concatenate, ParamSpec, TypeVar, cast

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    PlainSerializer,
    PlainValidator,
    PrivateAttr,
    ValidationError,
)

from featurestore.declare.words import elsewhere, words_of
from featurestore.errors import DeclarationError, did_you_mean
from featurestore.types import FeatureType, parse_type

__all__ = ["ColumnName", "Declaration", "Name", "Origin", "TypeField", "declares", "problems", "takes_words", "type_of"]

PACKAGE = str(Path(__file__).parents[1])

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


def caller() -> Origin:
    """The file and line of the user's code that is running."""
    frame = inspect.currentframe()
    while frame is not None:
        file = frame.f_code.co_filename
        if not file.startswith(PACKAGE) and "pydantic" not in file:
            return Origin(f"{_short(file)}:{frame.f_lineno}")
        frame = frame.f_back
    return Origin("<unknown>")


def _short(file: str) -> str:
    if "ipykernel" in file or file.startswith("<ipython"):
        return "notebook"
    try:
        return str(Path(file).relative_to(Path.cwd()))
    except ValueError:
        return file


def _column(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", value):
        raise ValueError(f"'{value}' is no name: letters, digits and underscores, beginning with a letter")
    return value


def _identifier(value: str) -> str:
    _column(value)
    if "__" in value or value.endswith("_"):
        raise ValueError(f"'{value}' is no name: '__' separates a view from its feature in column names")
    return value


def type_of(value: Any) -> FeatureType:
    """The type that is meant, itself or as it is written; ValueError where it is none."""
    if isinstance(value, FeatureType):
        return value
    if isinstance(value, str):
        return parse_type(value)
    raise ValueError(f"{value!r} is no type; types are Bool, Int64, Float64, String, … from featurestore.types")


Name = Annotated[str, AfterValidator(_identifier)]
ColumnName = Annotated[str, AfterValidator(_column)]
TypeField = Annotated[FeatureType, PlainValidator(type_of), PlainSerializer(str, return_type=str)]


class Declaration(BaseModel):
    """A frozen definition; `str(origin)` is where the user's code declared it."""

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

    def error(self, problem: str) -> DeclarationError:
        """An error about this definition that says where it stands."""
        return DeclarationError(f"{self.title}: {problem} ({self.origin})")


def declares(init: Callable[Concatenate[S, P], None]) -> Callable[Concatenate[S, P], None]:
    """Make an `__init__` record where it was called, and turn its mistakes into DeclarationErrors with a hint.

    It takes its own parameters and those of `**words: Unpack[…]`; a field that is none of these is not for callers to set.
    """
    parameters = _parameters(init)

    @functools.wraps(init)
    def checked(self: S, *args: P.args, **kwargs: P.kwargs) -> None:
        origin = caller()
        kind = type(self).__name__
        named = args[0] if args and isinstance(args[0], str) else getattr(args[0] if args else None, "__name__", None)
        title = kind if named is None else f"{kind} '{named}'"
        known = [*parameters, *words_of(init)]
        for name in kwargs:
            if name not in known:
                raise DeclarationError(
                    f"{title} has no argument '{name}'{_instead(type(self), name, known)} ({origin})"
                )
        try:
            init(self, *args, **kwargs)
        except ValueError as error:  # pydantic's own among them
            said = problems(error) if isinstance(error, ValidationError) else str(error)
            raise DeclarationError(f"{title}: {said} ({origin})") from None
        except TypeError as error:
            if "argument" not in str(error):
                raise
            raise DeclarationError(f"{title}: {str(error).split('__init__() ')[-1]} ({origin})") from None
        self._origin = origin

    return cast("Callable[Concatenate[S, P], None]", checked)


def takes_words(method: Callable[Concatenate[S, P], T]) -> Callable[Concatenate[S, P], T]:
    """Make a method of a definition refuse the words that it does not have, as a definition does."""
    parameters = _parameters(method)

    @functools.wraps(method)
    def checked(self: S, *args: P.args, **kwargs: P.kwargs) -> T:
        for name in kwargs:
            if name not in parameters:
                instead = _instead(method.__name__, name, parameters)
                raise DeclarationError(
                    f"{self.title}: {method.__name__} has no argument '{name}'{instead} ({caller()})"
                )
        return method(self, *args, **kwargs)

    return cast("Callable[Concatenate[S, P], T]", checked)


def _parameters(function: Callable[..., object]) -> list[str]:
    every = list(inspect.signature(function).parameters.values())[1:]
    return [p.name for p in every if p.kind is not p.VAR_KEYWORD]


def _instead(kind: type | str, word: str, known: list[str]) -> str:
    """The end of the message about a word that a declaration does not have."""
    advice = elsewhere(kind, word)
    return f".{did_you_mean(word, known, noun='It takes')}" if advice is None else f": {advice}"


def problems(error: ValidationError) -> str:
    """What pydantic found wrong, each with the field's name, in one line."""
    texts = []
    for item in error.errors():
        where = ".".join(str(part) for part in item["loc"] if not str(part).startswith("function-"))
        text = item["msg"].removeprefix("Value error, ")
        if item["type"] == "missing":
            text = "must be given"
        texts.append(f"{where}: {text}" if where else text)
    return "; ".join(dict.fromkeys(texts))

"""What callers give to a verb, told by the name of the argument where it is of another kind than the signature says."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from threading import Event
from typing import Any, Literal, NamedTuple, TypeVar, cast, get_args, get_origin

from featurestore.declare.problems import shown
from featurestore.elsewhere import BY_PLACE, elsewhere
from featurestore.errors import RequestError

V = TypeVar("V", bound=Callable[..., Any])
TYPES_HELD = 1_000
"""Types of what is given to one verb that are remembered."""


class _Kind(NamedTuple):
    """said: what an argument of this kind is, {} being its name. fits: whether a value is one. types: those of which every value is
    one, so that it is not asked."""

    said: str
    fits: Callable[[Any], bool]
    types: frozenset[type] = frozenset()


def checked(verb: V) -> V:
    """A method that refuses arguments of other kinds than its signature says, with a RequestError, before it does anything.

    Flags, numbers, text, lists of names and choices are looked at; what may be of many kinds is for the verb to judge. A
    single name stands for a list of one. An argument that it does not have, and another store's verb has, is a TypeError
    that says what it is here; any other is Python's own.
    """
    parameters = list(inspect.signature(verb).parameters.values())[1:]
    return _held(verb, {one.name: kind for one in parameters if (kind := _kind(one.annotation, verb)) is not None})


def named(verb: V) -> V:
    """A method that judges the values of its arguments itself: of these only the names are looked at, as in `checked`."""
    return _held(verb, {})


def _held(verb: V, kinds: Mapping[str, _Kind]) -> V:
    parameters = list(inspect.signature(verb).parameters.values())[1:]
    names = {one.name for one in parameters}
    places = [one.name for one in parameters if one.kind is one.POSITIONAL_OR_KEYWORD]

    looked_at = [(place, name, kinds[name]) for place, name in enumerate(places) if name in kinds]
    unsure: dict[tuple[Any, ...], list[str]] = {}
    """By the names that are said and the types of what is said, the names whose values must be looked at."""

    def given(args: tuple[Any, ...], said: dict[str, Any]) -> Sequence[Any]:
        types = (*said, *map(type, said.values()))
        left = unsure.get(types)
        if left is None:
            for name in said.keys() - names:
                _refuse(verb, name)
            left = _keep(unsure, types, _unsure(kinds, said))
        if len(args) > len(places):
            _refuse(verb, BY_PLACE)
        own: Sequence[Any] = args
        if looked_at and args:
            own = list(args)
            for place, name, kind in looked_at:
                if place < len(own):
                    own[place] = _checked(name, own[place], kind)
        for name in left:
            said[name] = _checked(name, said[name], kinds[name])
        return own

    if inspect.iscoroutinefunction(verb):

        @functools.wraps(verb)
        async def call_async(self: Any, *args: Any, **said: Any) -> Any:
            return await verb(self, *given(args, said), **said)

        return cast("V", call_async)

    @functools.wraps(verb)
    def call(self: Any, *args: Any, **said: Any) -> Any:
        return verb(self, *given(args, said), **said)

    return cast("V", call)


def _unsure(kinds: Mapping[str, _Kind], said: Mapping[str, Any]) -> list[str]:
    """The names of what is said whose values must be looked at, as their types do not tell."""
    return [name for name, kind in kinds.items() if name in said and type(said[name]) not in kind.types]


def _keep(held: dict[tuple[Any, ...], list[str]], types: tuple[Any, ...], found: list[str]) -> list[str]:
    if len(held) >= TYPES_HELD:
        held.clear()
    held[types] = found
    return found


def _refuse(verb: Callable[..., Any], word: str) -> None:
    """TypeError where an argument that a verb does not have is known from elsewhere; nothing where Python refuses it."""
    title = verb.__qualname__
    instead = elsewhere(title, word)
    if instead is not None:
        said = "takes fewer arguments by place" if word == BY_PLACE else f"has no argument '{word}'"
        raise TypeError(f"{title.removesuffix('.__init__')} {said}: {instead}")


def _checked(name: str, value: Any, kind: _Kind) -> Any:
    if isinstance(value, str) and (kind is NAMES or kind is SOME_NAMES):
        value = [value]
    if not kind.fits(value):
        raise RequestError(f"{name} is {kind.said.format(name)}, and not {shown(value)}")
    return value


def _kind(annotation: Any, verb: Callable[..., Any]) -> _Kind | None:
    """The kind that an annotation says; None where it is none of those that are looked at."""
    try:
        of = eval(annotation, verb.__globals__)  # noqa: S307 - the source of this package
    except NameError:  # which is imported for annotations alone
        return None
    if get_origin(of) is Literal:
        allowed = get_args(of)
        return _Kind(" or ".join(map(repr, allowed)), lambda value: isinstance(value, str) and value in allowed)
    return next((kind for annotated, kind in KINDS if annotated == of), None)


def _is_flag(value: Any) -> bool:
    return _is_bool(value) or (_is_whole(value) and value in {0, 1})


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool) or getattr(getattr(value, "dtype", None), "kind", "") == "b"


def _is_whole(value: Any) -> bool:
    return hasattr(value, "__index__") and not _is_bool(value) and getattr(value, "ndim", 0) == 0


def _is_number(value: Any) -> bool:
    if type(value) is float:
        return not math.isnan(value)
    if _is_bool(value) or not hasattr(value, "__float__") or getattr(value, "ndim", 0) != 0:
        return False
    return not math.isnan(value)


def _are_names(value: Any) -> bool:
    is_list = isinstance(value, Iterable) and not isinstance(value, (str, bytes, Mapping, AbstractSet))
    return is_list and all(isinstance(name, str) for name in value)


NOTHING = type(None)
TEXT = _Kind("text", lambda value: isinstance(value, str), frozenset({str}))
NAMES = _Kind("a list of names of {}", _are_names)
SOME_NAMES = _Kind("a list of names of {}", lambda value: value is None or _are_names(value))

KINDS: list[tuple[Any, _Kind]] = [
    (bool, _Kind("True or False", _is_flag, frozenset({bool}))),
    (int, _Kind("a whole number", _is_whole, frozenset({int}))),
    (float, _Kind("a number", _is_number, frozenset({int}))),
    (
        float | None,
        _Kind("a number, or None", lambda value: value is None or _is_number(value), frozenset({int, NOTHING})),
    ),
    (str, TEXT),
    (
        str | None,
        _Kind("text, or None", lambda value: value is None or isinstance(value, str), frozenset({str, NOTHING})),
    ),
    (Event, _Kind("a threading.Event", lambda value: isinstance(value, Event), frozenset({Event}))),
    (
        Event | None,
        _Kind("a threading.Event", lambda value: isinstance(value, Event | None), frozenset({Event, NOTHING})),
    ),
    (Sequence[str] | None, SOME_NAMES),
    (str | Sequence[str], _Kind("text, or a list of texts", lambda value: isinstance(value, str) or _are_names(value))),
]
"""By annotation, what is looked at."""

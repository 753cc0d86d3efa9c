"""On-demand features: one pure Python function of features and request values, run by the same code in both paths."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypedDict, Unpack, overload

from pydantic import Field, PrivateAttr

from featurestore.declare.code import FunctionCode, changed_since, code_of
from featurestore.declare.declaration import ColumnName, Declaration, TypeField, caller, declares
from featurestore.declare.problems import shown
from featurestore.declare.views import Selection
from featurestore.types import FeatureType, Timestamp


class Request(Declaration):
    """A value that the request (in training: the spine) brings along: `Request("sched_minutes", Int64)`."""

    name: ColumnName
    """The column of the request, and of the spine, that holds it."""
    type: TypeField
    """The type of its values; others are refused."""

    @declares
    def __init__(self, name: str, type: FeatureType) -> None:  # noqa: A002 - the field's word
        self.fill(name=name, type=type)


class RequestTime(Declaration):
    """The instant of the request: the spine's timestamp in training, the moment of the lookup in serving."""

    @property
    def type(self) -> FeatureType:
        """Always Timestamp."""
        return Timestamp

    @declares
    def __init__(self) -> None:
        self.fill()


Input = Selection | Request | RequestTime


class OnDemandOptions(TypedDict, total=False):
    """What an on-demand feature may say beside what it computes."""

    owner: str
    description: str
    tags: dict[str, str]


class OnDemand(Declaration):
    """A feature computed by a function when it is asked for; made by `on_demand`.

    mode "row": the function takes one row's values as Python scalars (None for null) and returns one. mode "columns":
    it takes pandas Series with Arrow-backed dtypes and returns a Series or array of the same length. function: a copy of
    the one that was declared, which keeps the code and the values that its fingerprint is of. libraries: the
    top-level modules that its code names; known where the function is, as is `function`.
    """

    name: ColumnName
    inputs: tuple[Input, ...]
    output: TypeField
    mode: Literal["row", "columns"]
    code: str
    source: str = Field(repr=False)
    owner: str = ""
    description: str = ""
    tags: dict[str, str] = {}
    function: Any = Field(default=None, exclude=True, repr=False)
    libraries: tuple[str, ...] = Field(default=(), exclude=True, repr=False)

    _declared: tuple[FunctionCode, Any] | None = PrivateAttr(
        default=None
    )  # the function itself, and its code as it was

    @declares
    def __init__(
        self,
        /,
        function: Callable[..., Any],
        *,
        name: str | None = None,
        inputs: Sequence[Any],
        output: FeatureType,
        mode: str = "row",
        **options: Unpack[OnDemandOptions],
    ) -> None:
        if not isinstance(inputs, (list, tuple)):
            raise ValueError(f"inputs: must be a list of features and request values, and is {shown(inputs)}")
        if not callable(function):
            raise ValueError(f"function: must be a function, and is {shown(function)}")
        for item in inputs:
            if not isinstance(item, (Selection, Request, RequestTime)):
                raise ValueError(
                    f"inputs: each is view['name'], Request('x', type) or RequestTime(), and not {shown(item)}"
                )
        where = _where(function)
        title = getattr(function, "__name__", str(function))
        code: FunctionCode = code_of(function, where=where)
        parameters = list(inspect.signature(function).parameters)
        if len(parameters) != len(inputs):
            raise ValueError(
                f"inputs lists {len(inputs)}, and its function takes {len(parameters)}: {', '.join(parameters) or 'none'}"
            )
        for item in inputs:
            if isinstance(item, Selection) and len(item.features) != 1:
                raise ValueError(f"inputs: each is one feature, view['name'], and not several of '{item.name}'")
        self.fill(
            function=code.functions[0],
            libraries=code.libraries,
            name=name or title,
            inputs=tuple(inputs),
            output=output,
            mode=mode,
            code=code.fingerprint,
            source=code.source,
            description=options.pop("description", inspect.getdoc(function) or ""),
            **options,
        )
        self._declared = code, function

    def changed(self) -> tuple[str, ...]:
        """The names of the functions in it that have other code now than when it was declared, as after a reload of their
        module. What it computes does not change by that."""
        return () if self._declared is None else changed_since(*self._declared, where=self.origin)

    def with_function_of(self, own: OnDemand) -> OnDemand:
        """The same feature with the function of one of equal code, and the place where that is declared."""
        item = self.model_copy(update={"function": own.function, "libraries": own.libraries})
        item._origin, item._declared = own._origin, own._declared
        return item

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function as it was declared, as in a test of one's own."""
        return self.function(*args, **kwargs)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, OnDemand) and self.model_dump() == other.model_dump()

    def __hash__(self) -> int:
        return hash((self.name, self.code))

    @property
    def columns(self) -> tuple[str, ...]:
        """The name that it has as a column: its own."""
        return (self.name,)

    @property
    def selections(self) -> tuple[Selection, ...]:
        """The features that it reads."""
        return tuple(item for item in self.inputs if isinstance(item, Selection))

    @property
    def requests(self) -> tuple[Request, ...]:
        """The request values that it reads."""
        return tuple(item for item in self.inputs if isinstance(item, Request))


def _where(function: Any) -> str:
    code = getattr(function, "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno}" if code else str.__str__(caller())


@overload
def on_demand(
    *, inputs: Sequence[Any], output: FeatureType, **options: Any
) -> Callable[[Callable[..., Any]], OnDemand]: ...
@overload
def on_demand(
    function: Callable[..., Any], *, inputs: Sequence[Any], output: FeatureType, **options: Any
) -> OnDemand: ...
def on_demand(function: Any = None, **options: Any) -> Any:
    """Declare a feature by a pure function: `@on_demand(inputs=[view["x"], Request("y", Int64)], output=Float64)`.

    inputs: features, Request values and RequestTime(), given to the function's parameters in order. output: its type,
    enforced on every value. mode: "row" (default) or "columns". The function may use no clock and no I/O.
    """
    if function is None:
        return functools.partial(OnDemand, **options)
    return OnDemand(function, **options)

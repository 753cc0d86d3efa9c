"""Folds, as users write them: how a feature's value is made of the visible rows.

What each one means stands in `featurestore.semantics.folds`, a row a fold. Options that every fold takes:

    window   how far back rows count, as "7d", or "lifetime"; Latest, LastN and LastDistinctN may leave it out
    windows  several of them: `Sum("x", windows=["1h", "1d"])` named total is total_1h and total_1d
    offset   the window ends that long ago: `window="7d", offset="7d"` is the week before
    hop      continuous views: the steps in which a window's far end moves (default by the window's length)
    where    an SQL condition over the source's columns; a row counts where it is true
    default  replaces the null of a key that is MISSING or EXPIRED, never a fold's own null
    type     states the feature's type, where the fold allows another than its own
"""

from __future__ import annotations

import copy
import linecache
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Annotated, Any, ClassVar, Literal, Self, TypedDict, Unpack

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from featurestore.declare.declaration import Declaration, TypeField, declares, users_frame
from featurestore.declare.durations import Duration, PositiveDuration, show_duration
from featurestore.declare.syntax import kept_within

Window = Literal["lifetime"] | PositiveDuration


class FoldOptions(TypedDict, total=False):
    """What every fold may say; see the module."""

    window: Any
    windows: Sequence[Any]
    offset: Any
    hop: Any
    where: str | None
    default: Any
    type: TypeField | None


def _condition(value: str) -> str:
    if not value.strip():
        raise ValueError("a condition is SQL such as \"status = 'failed'\"")
    return value


Condition = Annotated[str, AfterValidator(_condition)]
EXAMPLE: Any = Field(examples=["\"status = 'failed'\""])
"""How a condition may look, for messages."""


class Fold(Declaration):
    """How one feature is made of a view's visible rows; `kind` names the row of the table of folds."""

    takes: ClassVar[tuple[str, ...]] = ()
    """The fold's own parameters."""
    needs_window: ClassVar[bool] = True

    kind: str
    """The name of its row of the table of folds."""
    column: str | None
    """The source column whose values it takes. None: it takes rows."""
    window: Window | None = None
    """How far back rows count (µs), or "lifetime". None: as far as the view's ttl."""
    windows: tuple[Window, ...] = ()
    """Several windows, each of which becomes a feature of its own; empty once the view is declared."""
    offset: Duration = 0
    """How long ago the window ends (µs); 0: at the instant itself."""
    hop: PositiveDuration | None = None
    """The steps in which the window's far end moves in a continuous view (µs). None: by the window's length."""
    where: Annotated[Condition | None, EXAMPLE] = None
    """An SQL condition over the source's columns; a row counts where it is true. None: every row."""
    default: Annotated[Any, BeforeValidator(copy.deepcopy)] = None
    """Replaces the null of a key that is MISSING or EXPIRED. None: it stays null."""
    type: TypeField | None = None
    """The feature's type. None: the fold's own."""

    @classmethod
    def titled(cls, args: tuple[Any, ...], said: Mapping[str, Any]) -> str:
        """With the view and the feature that it is written for, where it is written in the view: there is none yet."""
        own, frame = super().titled(args, said), users_frame()
        if frame is None:
            return own
        line, _, column, _ = next(islice(frame.f_code.co_positions(), frame.f_lasti // 2, None))
        text = "".join(linecache.getlines(frame.f_code.co_filename, frame.f_globals))
        within = kept_within(text, line or 0, column or 0, "FeatureView")
        return own if within is None else f"FeatureView '{within[0]}', feature '{within[1]}': {own}"

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.windows and self.window is not None:
            raise ValueError("window and windows are both given; say one")
        if self.needs_window and self.window is None and not self.windows:
            raise ValueError("window must be said: how far back rows count, such as '7d', or 'lifetime'")
        timed = [window for window in (*self.windows, self.window) if isinstance(window, int)]
        if self.window is None and not self.windows and (self.offset or self.hop):
            raise ValueError("offset and hop are for windows")
        if self.offset and len(timed) < (len(self.windows) or 1):
            raise ValueError("offset is for windows of a duration, not for 'lifetime'")
        if len(set(self.windows)) < len(self.windows):
            twice = next(window for place, window in enumerate(self.windows) if window in self.windows[:place])
            raise ValueError(f"windows: {shown(twice)!r} is listed twice")
        return self

    @property
    def title(self) -> str:
        """Its kind, column and window, for messages."""
        inside = [] if self.column is None else [repr(self.column)]
        inside += [f"{name}={getattr(self, name)!r}" for name in self.takes]
        if self.window is not None:
            inside.append(f"window={shown(self.window)!r}")
        return f"{type(self).__name__}({', '.join(inside)})"

    @property
    def parameters(self) -> dict[str, Any]:
        """The fold's own parameters, for its row of the table."""
        return {name: getattr(self, name) for name in self.takes}


def shown(window: int | str) -> str:
    """A window as it is written: "7d" or "lifetime"."""
    return window if isinstance(window, str) else show_duration(window)


def expanded(features: Mapping[str, Any]) -> dict[str, Any]:
    """The features with each fold of several windows as one of each, named after its window."""
    found: dict[str, Any] = {}
    for name, fold in features.items():
        if not isinstance(fold, Fold) or not fold.windows:
            _put(found, name, fold)
            continue
        for window in fold.windows:
            one = fold.model_copy(update={"window": window, "windows": ()})
            _put(found, f"{name}_{shown(window)}", one)
    return found


def _put(found: dict[str, Any], name: str, fold: Any) -> None:
    if name in found:
        raise ValueError(f"feature '{name}' is declared twice")
    found[name] = fold


class Latest(Fold):
    """The column's value in the newest visible row, null included."""

    needs_window = False
    kind: Literal["Latest"] = "Latest"
    """The name of the fold, as records and fingerprints have it."""
    column: str
    """The source column whose values it takes."""

    @declares
    def __init__(self, column: str, **options: Unpack[FoldOptions]) -> None:
        self.fill(column=column, **options)


class First(Fold):
    """The column's value in the oldest visible row, null included."""

    kind: Literal["First"] = "First"
    """The name of the fold, as records and fingerprints have it."""
    column: str
    """The source column whose values it takes."""

    @declares
    def __init__(self, column: str, **options: Unpack[FoldOptions]) -> None:
        self.fill(column=column, **options)


class Count(Fold):
    """How many rows are visible; with a column, those in which it is not null. Int64, 0 when there is none."""

    kind: Literal["Count"] = "Count"
    """The name of the fold, as records and fingerprints have it."""

    @declares
    def __init__(self, column: str | None = None, **options: Unpack[FoldOptions]) -> None:
        self.fill(column=column, **options)


class Sum(Fold):
    """The exact sum, rounded once to its type: Int64 of integers, Float64 of floats, Decimal(38, s) of decimals.

    Null when there is no value; an integer sum beyond its type is null with status OVERFLOW.
    """

    kind: Literal["Sum"] = "Sum"
    """The name of the fold, as records and fingerprints have it."""
    column: str
    """The source column whose values it takes."""

    @declares
    def __init__(self, column: str, **options: Unpack[FoldOptions]) -> None:
        self.fill(column=column, **options)


class Mean(Fold):
    """The exact mean, rounded once to Float64. Null when there is no value."""

    kind: Literal["Mean"] = "Mean"
    """The name of the fold, as records and fingerprints have it."""
    column: str
    """The source column whose values it takes."""

    @declares
    def __init__(self, column: str, **options: Unpack[FoldOptions]) -> None:
        self.fill(column=column, **options)


class Min(Fold):
    """The least value; NaN is greater than every number, -0.0 less than 0.0."""

    kind: Literal["Min"] = "Min"
    """The name of the fold, as records and fingerprints have it."""
    column: str
    """The source column whose values it takes."""

    @declares
    def __init__(self, column: str, **options: Unpack[FoldOptions]) -> None:
        self.fill(column=column, **options)


class Max(Fold):
    """The greatest value; NaN is greater than every number, -0.0 less than 0.0."""

    kind: Literal["Max"] = "Max"
    """The name of the fold, as records and fingerprints have it."""
    column: str
    """The source column whose values it takes."""

    @declares
    def __init__(self, column: str, **options: Unpack[FoldOptions]) -> None:
        self.fill(column=column, **options)


class _Moment(Fold):
    takes = ("ddof",)
    ddof: Literal[0, 1] = 1
    """1: of a sample; 0: of a population."""
    column: str
    """The source column whose values it takes."""


class Var(_Moment):
    """The variance, rounded once from exact moments: of a sample (ddof=1) or a population (ddof=0).

    Float64; null unless there are more than `ddof` values.
    """

    kind: Literal["Var"] = "Var"
    """The name of the fold, as records and fingerprints have it."""

    @declares
    def __init__(self, column: str, *, ddof: Literal[0, 1] = 1, **options: Unpack[FoldOptions]) -> None:
        self.fill(column=column, ddof=ddof, **options)


class StdDev(_Moment):
    """The standard deviation, rounded once from exact moments; see Var."""

    kind: Literal["StdDev"] = "StdDev"
    """The name of the fold, as records and fingerprints have it."""

    @declares
    def __init__(self, column: str, *, ddof: Literal[0, 1] = 1, **options: Unpack[FoldOptions]) -> None:
        self.fill(column=column, ddof=ddof, **options)


class _Several(Fold):
    takes = ("n",)
    needs_window = False
    n: Annotated[int, Field(ge=1, le=1000)]
    """How many values at most."""
    column: str
    """The source column whose values it takes."""


class LastN(_Several):
    """The column's values in the n newest visible rows, newest first, nulls included. Array of the column's type."""

    kind: Literal["LastN"] = "LastN"
    """The name of the fold, as records and fingerprints have it."""

    @declares
    def __init__(self, column: str, n: int, **options: Unpack[FoldOptions]) -> None:
        self.fill(column=column, n=n, **options)


class LastDistinctN(_Several):
    """The n most recent distinct values of the column, newest first, nulls left out. Array of the column's type."""

    kind: Literal["LastDistinctN"] = "LastDistinctN"
    """The name of the fold, as records and fingerprints have it."""

    @declares
    def __init__(self, column: str, n: int, **options: Unpack[FoldOptions]) -> None:
        self.fill(column=column, n=n, **options)


class CountDistinct(Fold):
    """How many distinct values, exactly, up to `bound`; beyond it null with status OVERFLOW. Int64."""

    takes = ("bound",)
    kind: Literal["CountDistinct"] = "CountDistinct"
    """The name of the fold, as records and fingerprints have it."""
    column: str
    """The source column whose values it takes."""
    bound: Annotated[int, Field(ge=1, le=100_000)] = 1000
    """Up to how many values are counted."""

    @declares
    def __init__(self, column: str, *, bound: int = 1000, **options: Unpack[FoldOptions]) -> None:
        self.fill(column=column, bound=bound, **options)


PRECISIONS = (4, 16)
"""The least and the greatest precision of `ApproxCountDistinct`: with 16, a key has up to 64 KiB of registers."""


class ApproxCountDistinct(Fold):
    """About how many distinct values: HyperLogLog with 2^precision registers, error about 1.04 / 2^(precision/2). Int64."""

    takes = ("precision",)
    kind: Literal["ApproxCountDistinct"] = "ApproxCountDistinct"
    """The name of the fold, as records and fingerprints have it."""
    column: str
    """The source column whose values it takes."""
    precision: Annotated[int, Field(ge=PRECISIONS[0], le=PRECISIONS[1])] = 12
    """There are 2^precision registers of a byte each; one more halves their number's error by about 1.4."""

    @declares
    def __init__(self, column: str, *, precision: int = 12, **options: Unpack[FoldOptions]) -> None:
        self.fill(column=column, precision=precision, **options)


class ApproxQuantile(Fold):
    """A value within `accuracy` (relative) of the q-quantile: DDSketch. Float64."""

    takes = ("q", "accuracy")
    kind: Literal["ApproxQuantile"] = "ApproxQuantile"
    """The name of the fold, as records and fingerprints have it."""
    column: str
    """The source column whose values it takes."""
    q: Annotated[float, Field(ge=0, le=1)]
    """Which quantile, 0 to 1; 0.5 is the median."""
    accuracy: Annotated[float, Field(gt=0, lt=1)] = 0.01
    """How far the answer may be from it, as a share of it."""

    @declares
    def __init__(self, column: str, q: float, *, accuracy: float = 0.01, **options: Unpack[FoldOptions]) -> None:
        self.fill(column=column, q=q, accuracy=accuracy, **options)

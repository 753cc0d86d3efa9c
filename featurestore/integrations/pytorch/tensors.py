"""Columns of features as PyTorch tensors: each exactly, or all as one matrix of a dtype that is said."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch

from featurestore.declare.problems import shown
from featurestore.durable.parquet import restored
from featurestore.errors import NotFoundError, RequestError, did_you_mean
from featurestore.lazy import pa, pc
from featurestore.plurals import plural
from featurestore.semantics.columns import type_that_holds
from featurestore.semantics.values import canonical, fill, micros
from featurestore.serving.online_result import OnlineResult
from featurestore.training.training_frame import TrainingFrame
from featurestore.types import FeatureType

NUMBERS = {
    "Bool": torch.bool, "Int32": torch.int32, "Int64": torch.int64, "Float32": torch.float32, "Float64": torch.float64,
    "Date": torch.int32, "Timestamp": torch.int64,
}  # fmt: skip
"""The dtype that holds each value of a type: of Date the days, of Timestamp the µs, since 1970 in UTC."""

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
"""Of a matrix: PyTorch's floats that have an infinity and NaN, and arithmetic."""

IN_MATRIX = {"Bool", "Int32", "Int64", "Float32", "Float64", "Embedding"}


class Ragged(NamedTuple):
    """Lists of any length: those of row i are `values[offsets[i]:offsets[i + 1]]`.

    `torch.nested.nested_tensor_from_jagged(*ragged)` takes it, and an `EmbeddingBag` with include_last_offset=True.
    """

    values: torch.Tensor
    """The elements of all rows, one after the other."""
    offsets: torch.Tensor
    """Where each row's begin, and where the last one's end: int64, one more than there are rows."""


Features: TypeAlias = dict[str, torch.Tensor | Ragged] | torch.Tensor


@dataclass(frozen=True)
class FeatureTensors:
    """How columns become tensors, in training and in serving.

    Called with a training frame, the result of a lookup or an Arrow table, it gives the features in their order.
    Without dtype these are a dict of a tensor for each column, which holds each value exactly; with one, a matrix
    (rows, features) of it, in which an array of fixed length n is n columns. RequestError names the column of which that cannot be.
    """

    dtype: torch.dtype | None = None
    """The dtype of the matrix, one of floats: a number is rounded to the nearest, a null is NaN. Whole numbers that it does not
    hold, and finite ones that would become infinite, are refused. None: a dict."""
    fill: Mapping[str, Any] = field(default_factory=dict)
    """By column the value that stands for null."""
    encode: Mapping[str, Callable[[pa.Array], Any]] = field(default_factory=dict)
    """By column what makes of its Arrow array a tensor, or a numpy array, of as many rows; of text, bytes and decimals nothing else
    does. It goes to other processes by pickle, as a function of a module does."""

    def __post_init__(self) -> None:
        if self.dtype is not None and self.dtype not in DTYPES:
            given = self.dtype if isinstance(self.dtype, torch.dtype) else shown(self.dtype)
            raise RequestError(f"dtype is {', '.join(map(str, DTYPES))} or None, and not {given}")
        for word in ("fill", "encode"):
            if not isinstance(getattr(self, word), Mapping):
                raise RequestError(f"{word} is a dict by the names of columns, and not {shown(getattr(self, word))}")
        for name, function in self.encode.items():
            if not callable(function):
                raise RequestError(
                    f"encode['{name}'] is a function of the column's Arrow array, and not {shown(function)}"
                )

    def __call__(self, found: TrainingFrame | OnlineResult | pa.Table) -> Features:
        """The tensors of rows."""
        table = _features(found)
        columns = dict(zip(table.column_names, table.columns, strict=True))
        if self.dtype is None:
            return {name: self._exact(name, column) for name, column in columns.items()}
        parts = [_as_columns(self._number(name, column, self.dtype)) for name, column in columns.items()]
        matrix: torch.Tensor = torch.cat(parts, dim=1)
        return matrix

    def label(self, name: str, column: pa.ChunkedArray) -> torch.Tensor:
        """What is to be predicted, of its own type; floats of the matrix's dtype, where there is one. A null is refused."""
        array, of = self._filled(name, column)
        self.check(name, of, array.null_count, len(array), is_label=True)
        made = self._encoded(name, array) if name in self.encode else _tensor(array, of)
        return made if self.dtype is None or not made.is_floating_point() else _rounded(name, made, self.dtype)

    def check(self, name: str, of: FeatureType, nulls: int, rows: int, *, is_label: bool = False) -> None:
        """RequestError where a column of this type, with so many nulls in so many rows, is no tensor."""
        if name in self.encode:
            return
        is_list = of.element is not None and of.element.kind in NUMBERS and not is_label
        is_tensor = of.kind in NUMBERS or of.kind == "Embedding" or is_list
        if not (is_tensor if self.dtype is None or is_label else of.kind in IN_MATRIX):
            raise RequestError(
                f"column '{name}' is {of}, which is {'no tensor' if self.dtype is None else 'no number of a matrix'}; "
                f"FeatureTensors(encode={{'{name}': …}}) takes a function that makes numbers of it"
            )
        is_nan = of.is_float or of.kind == "Embedding" or self.dtype is not None
        if nulls and name not in self.fill and (is_label or not is_nan):
            way = "leave these rows out of the spine" if is_label else "a default of the feature"
            raise RequestError(
                f"column '{name}' is {of}, and null in {nulls} of {rows} {plural(rows, 'row')}; say what stands for null: "
                f"FeatureTensors(fill={{'{name}': …}}), or {way}"
            )

    def check_names(self, names: Sequence[str]) -> None:
        """NotFoundError where `fill` or `encode` names a column that is none of these."""
        for word in ("fill", "encode"):
            for name in getattr(self, word):
                if name not in names:
                    raise NotFoundError(f"{word} names '{name}', which is no column.{did_you_mean(name, names)}")

    def rounds(self, of: FeatureType) -> bool:
        """Whether numbers of a type are rounded to be those of the matrix."""
        exact = {"Float32": torch.float32, "Embedding": torch.float32, "Float64": torch.float64}.get(of.kind)
        return self.dtype is not None and exact is not None and torch.promote_types(self.dtype, exact) != self.dtype

    def said(self) -> dict[str, Any]:
        """What of it makes a difference to a model, as plain JSON; of functions, which columns have one."""
        dtype = None if self.dtype is None else _name(self.dtype)
        filled = {name: repr(value) for name, value in sorted(self.fill.items())}
        return {"dtype": dtype, "fill": filled, "encode": sorted(self.encode)}

    def _exact(self, name: str, column: pa.ChunkedArray) -> torch.Tensor | Ragged:
        array, of = self._filled(name, column)
        if name in self.encode:
            return self._encoded(name, array)
        self.check(name, of, array.null_count, len(array))
        if of.kind != "Array":
            return _tensor(array, of)
        assert of.element is not None
        values = array.flatten()
        if values.null_count and not of.element.is_float:
            raise RequestError(
                f"column '{name}' is {of}, and {values.null_count} of its elements are null, which {_name(NUMBERS[of.element.kind])} cannot "
                f"hold; FeatureTensors(encode={{'{name}': …}}) takes a function that makes numbers of it"
            )
        lengths = torch.tensor(pc.list_value_length(array).to_numpy(zero_copy_only=False), dtype=torch.int64)
        return Ragged(_tensor(values, of.element), torch.cat([lengths.new_zeros(1), lengths.cumsum(0)]))

    def _number(self, name: str, column: pa.ChunkedArray, dtype: torch.dtype) -> torch.Tensor:
        """Rows, or rows by n, of the matrix's dtype."""
        array, of = self._filled(name, column)
        if name in self.encode:
            return _rounded(name, self._encoded(name, array), dtype)
        self.check(name, of, array.null_count, len(array))
        if not array.null_count or of.is_float or of.kind == "Embedding":
            return _rounded(name, _tensor(array, of), dtype)
        there = _tensor(pc.fill_null(array, False if of.kind == "Bool" else 0), of)
        return _rounded(name, there, dtype).masked_fill(torch.from_numpy(_nulls(array)), torch.nan)

    def _filled(self, name: str, column: pa.ChunkedArray) -> tuple[pa.Array, FeatureType]:
        """The column in its type's own form, with what stands for null."""
        of = checked_type(name, column.type)
        try:
            array = micros(column) if of.kind == "Timestamp" else canonical(column, of)
        except ValueError as error:  # an integer of 64 bits without a sign
            raise RequestError(
                f"column '{name}' is {column.type}, and {of} does not hold each value: {error}"
            ) from None
        if name not in self.fill:
            return array, of
        try:
            return fill(array, _nulls(array), of, of.accept(self.fill[name])), of
        except (ValueError, TypeError) as error:
            raise RequestError(f"fill['{name}'] must be {of}: {error}") from None

    def _encoded(self, name: str, array: pa.Array) -> torch.Tensor:
        made = self.encode[name](array)
        if not isinstance(made, torch.Tensor):
            try:
                made = torch.tensor(np.asarray(made))
            except (TypeError, ValueError, RuntimeError) as error:
                raise RequestError(f"encode['{name}'] gave what is no tensor: {error}") from None
        if not made.ndim or len(made) != len(array):
            raise RequestError(
                f"encode['{name}'] gave a tensor of shape {tuple(made.shape)} for {len(array)} {plural(len(array), 'row')}; it gives one with a row for each"
            )
        return made


def checked_type(name: str, arrow: pa.DataType) -> FeatureType:
    """The type that holds a column's values; RequestError where there is none."""
    of = type_that_holds(arrow)
    if of is None:
        raise RequestError(f"column '{name}' is {arrow}, which is no type of this store")
    return of


def _features(found: Any) -> pa.Table:
    """The features of rows as a table."""
    if isinstance(found, TrainingFrame):
        found = found.to_arrow().select(list(found.types))
    elif isinstance(found, OnlineResult):
        found = found.to_arrow()
    if not isinstance(found, pa.Table):
        raise RequestError(
            f"Tensors are made of a training frame, the result of a lookup or an Arrow table, and not of {shown(found)}"
        )
    return restored(found)


def _nulls(array: pa.Array) -> Any:
    return pc.is_null(array).to_numpy(zero_copy_only=False)


def _tensor(array: pa.Array, of: FeatureType) -> torch.Tensor:
    """A tensor in memory of its own; the null of a float is NaN."""
    if of.kind == "Embedding":
        assert of.length is not None
        values = np.full((len(array), of.length), np.nan, np.float32)
        values[~_nulls(array)] = array.flatten().to_numpy().reshape(-1, of.length)
        return torch.from_numpy(values)
    if of.kind in {"Date", "Timestamp"}:
        array = array.cast(pa.int32() if of.kind == "Date" else pa.int64())
    return torch.tensor(array.to_numpy(zero_copy_only=False), dtype=NUMBERS[of.kind])


def _rounded(name: str, numbers: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Numbers in a dtype of floats, each the nearest; RequestError where that is another one in kind."""
    made = numbers.to(dtype)
    if numbers.is_floating_point():
        lost = made.isinf() & ~numbers.isinf()
    else:
        exact = 2 / torch.finfo(dtype).eps  # of float32 2^24
        whole = numbers.to(torch.int64)
        lost = (whole > exact) | (whole < -exact)
    if lost.any():
        value = numbers[lost][0].item()
        raise RequestError(
            f"column '{name}' holds {value!r}, which {_name(dtype)} cannot hold; take a wider dtype, none, or encode['{name}']"
        )
    return made


def _as_columns(numbers: torch.Tensor) -> torch.Tensor:
    return numbers.reshape(len(numbers), -1) if len(numbers) else numbers.reshape(0, *numbers.shape[1:] or (1,))


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")

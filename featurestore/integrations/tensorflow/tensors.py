"""Training sets as tensors: what `tf.io.parse_example` is told of records, and `tf.data` straight from the training set."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from featurestore.declare.problems import shown
from featurestore.errors import MissingPackageError, NotFoundError, RequestError, did_you_mean
from featurestore.integrations.opened import StorePath, opened
from featurestore.integrations.tensorflow.examples import form_of
from featurestore.integrations.tensorflow.records import RecordSet
from featurestore.integrations.tensorflow.training_rows import RowBatch, Training, TrainingRows
from featurestore.lazy import pa, pc
from featurestore.semantics.values import fill
from featurestore.store import FeatureStore
from featurestore.training.manifest import load_manifest
from featurestore.types import EPOCH, EPOCH_DAY, FeatureType

IS_NULL = "__is_null"
"""What follows a column's name where a tensor says in which rows it is null."""

DTYPES = {
    "Bool": "bool", "Int32": "int32", "Int64": "int64", "Float32": "float32", "Float64": "float64", "String": "string",
    "Bytes": "string", "Date": "int32", "Timestamp": "int64", "Decimal": "string",
}  # fmt: skip
"""TensorFlow's types of values as they are; a Date is days, a Timestamp µs, both since 1970, a Decimal is text."""

NULLS: dict[str, Callable[[FeatureType], Any]] = {
    "Bool": lambda _: False, "Int32": lambda _: 0, "Int64": lambda _: 0, "Float32": lambda _: math.nan, "Float64": lambda _: math.nan,
    "String": lambda _: "", "Bytes": lambda _: b"", "Date": lambda _: EPOCH_DAY, "Timestamp": lambda _: EPOCH,
    "Decimal": lambda of: of.accept(0), "Embedding": lambda of: [math.nan] * (of.length or 0),
}  # fmt: skip
"""What stands in a tensor where a value is null."""

SAID_BY_THEMSELVES = {"Float32", "Float64", "Embedding"}
"""Kinds of types whose tensors may have nulls without a word of the caller: NaN stands there."""

OF_LISTS = {"bytes_list": "string", "float_list": "float32", "int64_list": "int64"}
"""The same of the lists of a `tf.Example`."""


def _tensorflow() -> Any:
    try:
        import tensorflow as tf
    except ModuleNotFoundError as error:
        raise MissingPackageError(f"Tensors need {error.name}: pip install tensorflow") from error
    return tf


def feature_spec(
    training: Training | RecordSet, *, columns: Sequence[str] | None = None, defaults: Mapping[str, Any] | None = None,
    required: Sequence[str] = (),
) -> dict[str, Any]:  # fmt: skip
    """By name what `tf.io.parse_example` takes each feature of the records for, by its type alone.

    A single value is a `VarLenFeature`, of which null is no value; where `defaults` say what stands for null, or it is among
    `required`, whose nulls are an error then, a `FixedLenFeature`. A list is a `RaggedFeature`. An array of fixed length n is a
    `VarLenFeature` of n values, or a `FixedLenFeature([n])`. What is null throughout and has no type is left out.
    """
    tf = _tensorflow()
    types = training.types if isinstance(training, RecordSet) else TrainingRows(training, columns).opened().types
    if isinstance(training, RecordSet) and columns is not None:
        types = {name: types[_known(name, types)] for name in columns}
    fixed = {**dict.fromkeys(_names(required), None), **(defaults or {})}
    for name in fixed:
        of = types[_known(name, types)]
        if of is not None and of.element is not None and of.length is None:
            raise RequestError(f"'{name}' is {of}, whose lists have no fixed length, so null is no list of it")
    spec = {}
    for name, of in types.items():
        if of is None:
            continue
        dtype = getattr(tf, OF_LISTS[form_of(of).kind])
        if of.element is not None and of.length is None:
            spec[name] = tf.io.RaggedFeature(dtype, row_splits_dtype=tf.int64)
        elif name in fixed:
            spec[name] = tf.io.FixedLenFeature([] if of.length is None else [of.length], dtype, fixed[name])
        else:
            spec[name] = tf.io.VarLenFeature(dtype)
    return spec


def dataset(
    training: Training, *, batch_size: int, columns: Sequence[str] | None = None, label: str | None = None,
    defaults: Mapping[str, Any] | None = None, is_null: bool = False, store: FeatureStore | StorePath | None = None,
) -> Any:  # fmt: skip
    """A `tf.data.Dataset` of batches of a training set, each a dict by column, in which no value is another than in the set.

    A batch is tensors of `batch_size` values, the last of fewer; of an array of fixed length n of (rows, n), of lists a RaggedTensor. A
    null is NaN in floats, an empty list in lists, and what `defaults` say elsewhere, or an error. is_null: beside each column `x` a
    tensor `x__is_null` that tells, and null is then 0, "" or False where no default is said. label: this column apart,
    so that a batch is (features, label). The set is read anew for each epoch; a frame whose spine is a path is answered anew. store: whose definitions at hand are to be those of the
    set; FingerprintError where they are others.
    """
    tf = _tensorflow()
    if type(batch_size) is not int or batch_size < 1:
        raise RequestError(f"batch_size is a whole number from 1 on, and not {shown(batch_size)}")
    rows = TrainingRows(training, columns)
    if store is not None:
        opened(store).check_manifest(load_manifest(training)).refuse_others(rows.title)
    types = {name: of for name, of in rows.opened().types.items() if of is not None}
    said = {_known(name, types): value for name, value in (defaults or {}).items()}
    if label is not None:
        _known(label, types)
    tensors = _Tensors(tf, types, said, is_null=is_null, title=rows.title)
    if clash := [name for name in types if is_null and f"{name}{IS_NULL}" in types]:
        raise RequestError(
            f"is_null adds a tensor '{clash[0]}{IS_NULL}', which is a column too; leave one out by columns=[…]"
        )

    def batches() -> Iterator[Any]:
        for batch in rows.opened(batch_size).batches:
            made = tensors.of(batch)
            yield made if label is None else (made, made.pop(label))

    signature = tensors.signature()
    signatures = signature if label is None else (signature, signature.pop(label))
    made = tf.data.Dataset.from_generator(batches, output_signature=signatures)
    count = rows.count()
    return made if count is None else made.apply(tf.data.experimental.assert_cardinality(-(-count // batch_size)))


def _names(required: Sequence[str]) -> Sequence[str]:
    if isinstance(required, str):
        raise RequestError(f"required is a list of names, and not {shown(required)}")
    return required


def _known(name: str, types: Mapping[str, FeatureType | None]) -> str:
    if name not in types:
        raise NotFoundError(f"There is no column '{name}'.{did_you_mean(name, types)}")
    return name


class _Tensors:
    """Makes tensors of rows."""

    def __init__(
        self, tf: Any, types: Mapping[str, FeatureType], defaults: Mapping[str, Any], *, is_null: bool, title: str
    ) -> None:
        self._tf, self._types, self._is_null, self._title = tf, types, is_null, title
        self._fillers = {
            name: NULLS[of.kind](of)
            for name, of in types.items()
            if of.kind in NULLS and (is_null or of.kind in SAID_BY_THEMSELVES)
        }
        for name, value in defaults.items():
            try:
                self._fillers[name] = types[name].accept(value)
            except ValueError as error:
                raise RequestError(f"defaults: '{name}' is {types[name]}, and {error}") from None

    def signature(self) -> dict[str, Any]:
        """What each tensor is."""
        found = {}
        for name, of in self._types.items():
            dtype = getattr(self._tf, DTYPES[(of.element or of).kind])
            if of.element is not None and of.length is None:
                found[name] = self._tf.RaggedTensorSpec(
                    [None, None], dtype, ragged_rank=1, row_splits_dtype=self._tf.int64
                )
            else:
                found[name] = self._tf.TensorSpec([None] if of.length is None else [None, of.length], dtype)
            if self._is_null:
                found[f"{name}{IS_NULL}"] = self._tf.TensorSpec([None], self._tf.bool)
        return found

    def of(self, batch: RowBatch) -> dict[str, Any]:
        """The tensors of some rows."""
        found = {}
        for name, of in self._types.items():
            array = batch.columns[name]
            found[name] = self._tensor(name, array, of, batch.first)
            if self._is_null:
                found[f"{name}{IS_NULL}"] = array.is_null().to_numpy(zero_copy_only=False)
        return found

    def _tensor(self, name: str, array: pa.Array, of: FeatureType, first: int) -> Any:
        if of.element is not None and of.length is None:
            lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy().astype(np.int64)
            elements = array.flatten()
            if elements.null_count:
                row = next(row for row, value in enumerate(array.to_pylist()) if value and None in value)
                raise RequestError(
                    f"{self._title}: row {first + row}, column '{name}': an element of the list is null, and a tensor has no null"
                )
            values = self._tf.constant(_plain(elements, of.element), getattr(self._tf, DTYPES[of.element.kind]))
            return self._tf.RaggedTensor.from_row_lengths(values, lengths)
        if array.null_count:
            array = self._filled(name, array, of, first)
        if of.length is not None:
            return array.flatten().to_numpy().reshape(-1, of.length)
        return _plain(array, of)

    def _filled(self, name: str, array: pa.Array, of: FeatureType, first: int) -> pa.Array:
        """The array with something in the place of null."""
        nulls, value = array.is_null().to_numpy(zero_copy_only=False), self._fillers.get(name)
        if value is None:
            row = first + int(np.flatnonzero(nulls)[0])
            raise RequestError(
                f"{self._title}: row {row}, column '{name}': it is null, and a tensor of {of} has no null; defaults={{'{name}': …}} says "
                "what stands for it, and is_null=True tells the rows"
            )
        return fill(array, nulls, of, value)


def _plain(array: pa.Array, of: FeatureType) -> npt.NDArray[Any]:
    """Values, none of which is null, in numpy's dtype of a tensor's."""
    if DTYPES[of.kind] == "string":
        values = array.to_pylist()
        texts = [format(value, "f") for value in values] if of.kind == "Decimal" else values
        found = np.empty(len(texts), object)  # a dtype of texts would cut NULs off their ends
        found[:] = [text.encode() if isinstance(text, str) else text for text in texts]
        return found
    counts = {"Date": pa.int32(), "Timestamp": pa.int64()}
    whole: npt.NDArray[Any] = (array.cast(counts[of.kind]) if of.kind in counts else array).to_numpy(
        zero_copy_only=False
    )
    return whole

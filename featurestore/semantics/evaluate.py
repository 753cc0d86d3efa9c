"""On-demand features, evaluated: the same code for a training frame and for a lookup."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from featurestore.declare.on_demand import OnDemand, Request
from featurestore.declare.views import Selection
from featurestore.errors import OnDemandError
from featurestore.lazy import pa, pd
from featurestore.plurals import plural
from featurestore.semantics.service import REQUEST_TIME
from featurestore.semantics.values import canonical, scalars


def input_names(item: OnDemand) -> list[str]:
    """The names under which its inputs are found, in the order of its parameters."""
    names = []
    for value in item.inputs:
        if isinstance(value, Selection):
            names.append(value.columns[0])
        else:
            names.append(value.name if isinstance(value, Request) else REQUEST_TIME)
    return names


def evaluate(item: OnDemand, inputs: Mapping[str, pa.Array], row_name: Callable[[int], str]) -> pa.Array:
    """The feature's values, in its declared type, for inputs of equal length.

    row_name: names a row in an error message. Raises OnDemandError where the function raises, or returns what its
    declared output does not allow.
    """
    arrays = [inputs[name] for name in input_names(item)]
    if item.mode == "columns":
        return _columns(item, arrays, row_name)
    columns = [scalars(array) for array in arrays]
    rows = len(arrays[0]) if arrays else 1
    results = evaluate_rows(item, columns, rows, row_name)
    return canonical(pa.array(results, item.output.arrow), item.output)


def evaluate_rows(
    item: OnDemand, columns: Sequence[Sequence[Any]], rows: int, row_name: Callable[[int], str]
) -> list[Any]:
    """Row by row, over canonical Python scalars."""
    results = []
    function, accept = item.function, item.output.accept
    for i, arguments in enumerate(zip(*columns, strict=True) if columns else [()] * rows):
        try:
            results.append(accept(function(*arguments)))
        except Exception as error:  # the user's function may raise anything; it is named and passed on
            null = [name for name, value in zip(input_names(item), arguments, strict=False) if value is None]
            raise _failure(item, error, row_name(i), null) from error
    return results


def _columns(item: OnDemand, arrays: list[pa.Array], row_name: Callable[[int], str]) -> pa.Array:
    series = [pd.Series(pd.arrays.ArrowExtensionArray(array)) for array in arrays]
    try:
        result = item.function(*series)
    except Exception as error:  # as above
        raise _failure(item, error, row_name(0)) from error
    if not isinstance(result, (pd.Series, pa.Array, pa.ChunkedArray)) and not hasattr(result, "dtype"):
        raise OnDemandError(
            f"On-demand feature '{item.name}' returned {type(result).__name__}, not a column ({item.origin})"
        )
    if len(result) != len(arrays[0]):
        raise OnDemandError(
            f"On-demand feature '{item.name}' returned {len(result)} {plural(len(result), 'value')} for {len(arrays[0])} {plural(len(arrays[0]), 'row')} ({item.origin})"
        )
    try:
        array = result if isinstance(result, (pa.Array, pa.ChunkedArray)) else pa.Array.from_pandas(result)
        return canonical(array, item.output)
    except (ValueError, pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
        raise OnDemandError(
            f"On-demand feature '{item.name}' must return {item.output}: {error} ({item.origin})"
        ) from error


def _failure(item: OnDemand, error: Exception, row: str, null: Sequence[str] = ()) -> OnDemandError:
    given = f". Null here: {', '.join(null)}; a function is given None for each" if null else ""
    return OnDemandError(
        f"On-demand feature '{item.name}' failed for {row}: {type(error).__name__}: {error}{given} ({item.origin})"
    )

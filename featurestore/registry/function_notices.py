"""What to know of on-demand functions: what each does with nulls, being called once with nothing else, as it will be for a
key that is not known; and whose code was replaced since."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from featurestore.declare.on_demand import OnDemand, Request
from featurestore.declare.views import Selection
from featurestore.errors import OnDemandError
from featurestore.lazy import pa
from featurestore.registry.steps import Notice
from featurestore.report import typed_cell
from featurestore.semantics.evaluate import evaluate, input_names
from featurestore.semantics.service import REQUEST_TIME
from featurestore.semantics.values import scalars
from featurestore.semantics.view import ResolvedView
from featurestore.types import FeatureType, Timestamp


def function_notices(functions: Iterable[OnDemand], views: Mapping[str, ResolvedView]) -> Iterator[Notice]:
    """What each function returns, or how it fails, where all of its inputs are null; the time of a request never is. Before
    that, which is not the code any more that it was declared with."""
    for item in functions:
        if changed := told_of_change(item):
            yield Notice("on_demand", item.name, changed, act=True)
        if item.function is None or not item.inputs:
            continue
        types = dict(zip(input_names(item), (_type_of(value, views) for value in item.inputs), strict=True))
        nulls = {name: pa.nulls(1, of.arrow) for name, of in types.items()}
        if REQUEST_TIME in nulls:
            nulls[REQUEST_TIME] = pa.array([0], pa.int64()).cast(Timestamp.arrow)
        try:
            (value,) = scalars(evaluate(item, nulls, lambda _: "nulls"))
        except OnDemandError as error:
            why = error.__cause__ if error.__cause__ is not None else error
            text = f"a key that is not known makes it fail, and the whole request: {type(why).__name__}: {why}. Let it take None"
            yield Notice("on_demand", item.name, text, act=True)
        else:
            yield Notice(
                "on_demand", item.name, f"of a key that is not known it makes {typed_cell(value, item.output)}"
            )


def told_of_change(item: OnDemand) -> str:
    """What to say of a function whose code was replaced since it was declared; nothing where it was not."""
    names = ", ".join(item.changed())
    return names and (
        f"{names} changed since it was declared ({item.origin}), and goes on as it was then. Declare it again, or open "
        "the repository again, to use the new code"
    )


def _type_of(value: object, views: Mapping[str, ResolvedView]) -> FeatureType:
    if isinstance(value, Selection):
        return next(feature.type for feature in views[value.view.name].features if feature.name == value.features[0])
    return value.type if isinstance(value, Request) else Timestamp

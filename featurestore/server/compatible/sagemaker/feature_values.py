"""The value of a feature on the wire: its name, and texts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from featurestore.plurals import plural
from featurestore.server.compatible.sagemaker.limits import VALUES
from featurestore.server.compatible.values import from_text, text_of
from featurestore.server.problems import BadRequest
from featurestore.types import FeatureType, Scalar, from_json


def feature_value(name: str, of: FeatureType, value: Scalar) -> dict[str, Any]:
    """A value that is no null."""
    if of.element is not None and isinstance(value, list) and None not in value:
        return {"FeatureName": name, "ValueAsStringList": [text_of(of.element, item) for item in value]}
    return {"FeatureName": name, "ValueAsString": text_of(of, value)}


def json_form(of: FeatureType, name: str, given: Mapping[str, Any]) -> Any:
    """The JSON form of a value that is given, None where it has no text; BadRequest."""
    several, text = given.get("ValueAsStringList"), given.get("ValueAsString")
    try:
        if several is not None:
            if of.element is None or not isinstance(several, list):
                raise ValueError("it is no list")
            if len(several) > VALUES:
                raise ValueError(f"it has {len(several)} {plural(len(several), 'value')}; at most {VALUES} are taken")
            form: Any = [from_text(of.element, each) for each in several]
        else:
            form = None if text is None else from_text(of, text)
        from_json(of, form)  # which says what is wrong with it
    except (ValueError, TypeError, AttributeError, ArithmeticError) as error:
        raise BadRequest(f"'{name}' must be {of}: {error}") from None
    return form

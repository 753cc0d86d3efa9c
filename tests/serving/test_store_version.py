"""What a segment of the serving log says that served its rows."""

from __future__ import annotations

import json
import math
import platform
import sys
import types
from importlib.metadata import version

import orjson
import pytest
import yaml

from featurestore import FeatureService, FeatureStore, Latest, Request, on_demand
from featurestore.serving.store_version import StoreVersion, _version_of
from featurestore.types import Float64
from tests.small import NOON, opened, table, view_of

OWN = ("duckdb", "numpy", "pandas", "pyarrow")


def version_of(store: FeatureStore, number: int | None = 3) -> StoreVersion:
    return StoreVersion.of(store.lookup("service").service, number)


def test_it_says_the_service_and_what_values_come_from() -> None:
    with opened(view_of(table(thing=[1], at=[NOON], x=[1.0]), {"x": Latest("x")})) as (store, _):
        found = version_of(store)
        assert found.service == "service"
        assert found.fingerprint == store.lookup("service").service.fingerprint
        assert (found.registry_version, version_of(store, None).registry_version) == (3, None)
        assert (found.featurestore, found.python) == (version("featurestore"), platform.python_version())
        assert found.libraries == {name: version(name) for name in OWN}
        assert list(found.libraries) == sorted(found.libraries)


def test_it_is_read_back_and_is_json_with_the_number_of_its_format() -> None:
    one = StoreVersion("service", "f" * 64, None, "0.1", "3.11", {"numpy": "2"})
    assert StoreVersion.unpacked(one.packed()) == one
    assert json.loads(one.packed()) == {"format": 1, **one._asdict()}


def test_it_says_the_libraries_that_functions_name() -> None:
    """By the module's name, also where its distribution has another; Python's own modules are Python's version."""

    @on_demand(inputs=[Request("scale", Float64)], output=Float64)
    def read(scale):
        return float(yaml.safe_load(orjson.dumps(math.floor(scale)).decode()))

    view = view_of(table(thing=[1], at=[NOON], x=[1.0]), {"x": Latest("x")})
    with opened(view, FeatureService("service", features=[view, read])) as (store, _):
        others = {"orjson": version("orjson"), "yaml": version("PyYAML")}
        assert version_of(store).libraries == {name: version(name) for name in OWN} | others


def test_a_module_without_a_distribution_may_say_its_version(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = types.ModuleType("mine")
    monkeypatch.setitem(sys.modules, "mine", mine)
    assert _version_of("mine") is None
    mine.__version__ = 7  # type: ignore[attr-defined]  # an attribute for this test alone
    assert _version_of("mine") == "7"
    assert _version_of("never") is None

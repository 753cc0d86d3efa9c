"""The applied state is one JSON document, and definitions come back from it with the same fingerprints."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal as Number

import orjson
import pyarrow as pa
import pytest

from featurestore import types
from featurestore.catalog import Catalog
from featurestore.declare.entity import Entity
from featurestore.declare.folds import Latest
from featurestore.declare.sources import DataFrameSource, ParquetSource, TableSource
from featurestore.declare.views import FeatureView
from featurestore.errors import DeclarationError, NotFoundError, RegistryError
from featurestore.registry.documents import (
    catalog_of,
    digest_of,
    document_of,
    empty_document,
    merged,
    resolved_service,
    resolved_view,
    service_from,
    view_from,
)
from featurestore.semantics.service import resolve_service
from featurestore.semantics.view import resolve

EDGES = [
    (types.Bool, "BOOLEAN", False),
    (types.Int32, "INTEGER", -(2**31)),
    (types.Int64, "BIGINT", 2**63 - 1),
    (types.Float32, "FLOAT", 0.1015625),
    (types.Float64, "DOUBLE", -0.0),
    (types.Float64, "DOUBLE", float("nan")),
    (types.Float64, "DOUBLE", float("-inf")),
    (types.Float64, "BIGINT_OR_INTEGER", 3),
    (types.String, "VARCHAR", ""),
    (types.String, "VARCHAR", "none → null"),
    (types.Bytes, "BLOB", b"\x00\xff"),
    (types.Date, "DATE", dt.date(1969, 12, 31)),
    (types.Timestamp, "TIMESTAMP", dt.datetime(1901, 1, 1, 0, 0, 0, 1, tzinfo=dt.UTC)),
    (types.Decimal(38, 10), "DECIMAL(38,10)", Number("1234567890123456789012345678.0123456789")),
    (types.Array(types.Int64), "BIGINT[]", [1, None, -1]),
    (types.Array(types.Int64), "BIGINT[]", []),
    (types.Array(types.Float32, 2), "FLOAT[2]", [float("inf"), -0.0]),
]


@pytest.mark.parametrize(("of", "column", "default"), EDGES)
@pytest.mark.parametrize("stated", [True, False])
def test_every_type_and_default_comes_back_to_the_bit(of, column, default, stated):
    """What was applied and what is read back have equal fingerprints, through JSON text."""
    column = "INTEGER" if column == "BIGINT_OR_INTEGER" else column
    if column == "INTEGER" and of == types.Float64 and not stated:
        stated = True
    source = ParquetSource("s", "s.parquet", event_time="at")
    fold = Latest("c", default=default, type=of) if stated else Latest("c", default=default)
    view = FeatureView(
        "v", entity=Entity("e", key={"k": types.String}), source=source, refresh="1h", features={"c": fold}
    )
    resolved = resolve(view, {"at": "TIMESTAMP", "k": "VARCHAR", "c": column})
    catalog = Catalog.of([view])
    document = orjson.loads(orjson.dumps(document_of(catalog, {"v": resolved}, {})))
    back = resolved_view(document, "v")
    assert back.fingerprint == resolved.fingerprint
    assert back.definition == resolved.definition
    assert str(back.features[0].type) == str(of)
    assert repr(back.features[0].default) == repr(resolved.features[0].default)


def test_everything_comes_back_as_it_was_declared(repo, make_document):
    """Entities, sources, views, on-demand features and services are equal to those that were applied, functions apart."""
    definitions = repo()
    document = orjson.loads(orjson.dumps(make_document(definitions.all)))
    assert document == make_document(definitions.all)
    back = catalog_of(document)
    declared = Catalog.of(definitions.all)
    assert back == declared
    for name in declared.views:
        assert resolved_view(document, name).fingerprint == document["views"][name]["fingerprint"]
    service = resolved_service(document, "model")
    assert service.fingerprint == document["services"]["model"]["fingerprint"]
    assert (
        service.columns
        == resolve_service(definitions.model, {n: resolved_view(document, n) for n in back.views}).columns
    )
    assert list(service.inputs) == ["carrier", "origin", "number", "return_carrier", "minutes"]
    assert back.views["delays"].origin == "the registry"
    assert make_document([*back.views.values(), *back.services.values()]) == document


def test_the_order_of_keys_and_features_comes_back(repo, make_document):
    """It is the order of columns."""
    document = make_document(repo().all)
    swapped = make_document(
        repo(features={"count": Latest("count", type=types.Int64), "delay": Latest("delay", default=-0.0)}).all
    )
    assert list(view_from(document, "delays").features) == ["delay", "count"]
    assert list(view_from(swapped, "delays").features) == ["count", "delay"]
    assert digest_of(document) != digest_of(swapped)
    assert list(view_from(document, "routes").entity.key) == ["origin", "number"]


@pytest.mark.parametrize(
    "source",
    [
        ParquetSource("s", ["a.parquet", "b/*.parquet"], event_time="at", date="start", timezone="America/New_York"),
        TableSource("s", "w.duckdb", table="main.t", event_time=None, valid_from="at", refresh="1d", tags={"a": "b"}),
        DataFrameSource("s", pa.table({"at": [dt.datetime(2013, 1, 1)], "k": ["a"]}), event_time="at", ttl="1d"),
    ],
)
def test_every_kind_of_source_comes_back(source):
    """Of a frame its content's digest does, not its rows."""
    document = document_of(Catalog.of([source]), {}, {})
    back = catalog_of(document).sources["s"]
    assert back == source
    assert type(back) is type(source)
    assert getattr(back, "frame", None) is None


LABELS = [
    ("description", {"description": "How late."}, "views", "delays"),
    ("tags", {"entity_tags": {"a": "b"}}, "entities", "carrier"),
]


@pytest.mark.parametrize(("_", "words", "kind", "name"), LABELS)
def test_labels_are_no_part_of_the_value_fingerprint(repo, make_document, _, words, kind, name):
    """Description, owner and tags have a fingerprint of their own."""
    before, after = make_document(repo().all), make_document(repo(**words).all)
    assert before[kind][name]["fingerprint"] == after[kind][name]["fingerprint"]
    assert before[kind][name]["label"] != after[kind][name]["label"]


def test_where_data_lies_is_no_part_of_any_fingerprint(repo, make_document):
    """It is configuration, not identity."""
    before, after = make_document(repo().all), make_document(repo(path="elsewhere.parquet").all)
    for kind in ("sources", "views", "services"):
        assert {n: r["fingerprint"] for n, r in before[kind].items()} == {
            n: r["fingerprint"] for n, r in after[kind].items()
        }
    assert before != after


def test_an_unknown_name_is_not_found(repo, make_document):
    """With the nearest name."""
    document = make_document(repo().all)
    with pytest.raises(NotFoundError, match=r"No feature view 'delay' was applied\. Did you mean 'delays'"):
        resolved_view(document, "delay")
    with pytest.raises(NotFoundError, match="No feature service 'mdel' was applied"):
        service_from(document, "mdel")


def test_what_another_version_wrote_is_refused(repo, make_document):
    """A format, a kind of fold, a field or a fingerprint that this version would not write."""
    document = make_document(repo().all)
    for change, message in [
        (lambda d: d.update(format=2), "has format 2; this version reads format 1"),
        (lambda d: d["views"]["delays"]["declared"]["features"]["delay"].update(kind="Lates"), "Did you mean 'Latest'"),
        (lambda d: d["views"]["delays"]["declared"].update(hop="1h"), r"cannot be read by this version: hop"),
        (lambda d: d["views"]["delays"].update(fingerprint="0" * 32), "settles definitions differently"),
    ]:
        changed = orjson.loads(orjson.dumps(document))
        change(changed)
        with pytest.raises(RegistryError, match=message):
            resolved_view(changed, "delays")


def test_merging_removes_nothing_and_changes_only_what_is_listed(repo, make_document, raw):
    """What is not listed, and stands on nothing that changes, stays as it is."""
    current = make_document(repo().all)
    changed = repo(ttl="3d")
    listed = make_document([changed.carrier, changed.delays])
    document = merged(current, listed, raw_of=lambda _: pytest.fail("no source changed"))
    assert document["views"]["delays"] == listed["views"]["delays"]
    assert document["views"]["routes"] == current["views"]["routes"]
    assert document["views"].keys() == current["views"].keys()
    assert (
        document["services"]["model"]["fingerprint"] == make_document(changed.all)["services"]["model"]["fingerprint"]
    )
    assert document == make_document(changed.all)


def test_merging_a_source_settles_every_view_over_it_again(repo, make_document, raw):
    """And the services that read them: the document is the one that applying everything would give."""
    current, changed = make_document(repo().all), repo(known_after="9m")
    document = merged(current, make_document([changed.landings]), raw_of=lambda _: raw)
    assert document == make_document(changed.all)
    assert document["views"]["routes"]["fingerprint"] != current["views"]["routes"]["fingerprint"]


def test_merging_refuses_what_would_leave_a_service_without_its_feature(repo, make_document, raw):
    """The error names the service, the view and the feature."""
    current = make_document(repo().all)
    narrow = FeatureView("delays", entity=repo().carrier, source=repo().landings, refresh="1h", features=["delay"])
    with pytest.raises(DeclarationError, match="service 'model' reads feature 'count' of view 'delays'"):
        merged(current, make_document([narrow]), raw_of=lambda _: raw)


def test_merging_refuses_a_source_that_an_applied_view_does_not_fit(make_document, raw):
    """Such as one that no longer says the refresh which the view inherits."""
    entity = Entity("carrier", key={"carrier": types.String})

    def source(**words):
        return ParquetSource("landings", "x", event_time="at", **words)

    view = FeatureView("v", entity=entity, source=source(refresh="1h"), features=["delay"])
    current = make_document([view])
    with pytest.raises(DeclarationError, match="Applied feature view 'v' does not fit .*refresh must be said"):
        merged(current, make_document([source()]), raw_of=lambda _: raw)


def test_a_fingerprint_is_the_same_in_every_process_and_version(repo, make_document):
    """It is a digest of canonical JSON; online keys hang on it, so this value changes only on purpose."""
    document = make_document(repo().all)
    assert document["entities"]["route"]["fingerprint"] == "560fcddf678bb03518d8a7df3e2af7b9"
    assert digest_of(empty_document()) == "c72c30aa333455d44698c7ecf8d9d61f"


@pytest.mark.parametrize(
    "where",
    [
        "small > 1 AND note = 'wide'",
        '"small" > 1 OR "two words"',
        "list_sum(list_transform(ns, lambda wide: wide)) > 1",  # which is a key's name as well
        "length(note) > 1 AND NOT contains(note, 'small')",
    ],
)
def test_conditions_are_read_without_asking_the_engine(where, monkeypatch):
    """They were checked when they were applied. What they read is the same, though a word may be named like another column."""
    wide = Entity("e", key={"wide": types.Int64})
    fold = Latest("small", where=where, type=types.Int64)
    view = FeatureView(
        "v", entity=wide, source=ParquetSource("s", "s.parquet", event_time="at"), refresh="1h", features={"c": fold}
    )
    raw = {"at": "TIMESTAMP", "wide": "INTEGER", "small": "INTEGER", "note": "VARCHAR", "two words": "BOOLEAN"}
    resolved = resolve(view, {**raw, "ns": "BIGINT[]", "length": "VARCHAR"})
    document = orjson.loads(orjson.dumps(document_of(Catalog.of([view]), {"v": resolved}, {})))
    monkeypatch.delattr("featurestore.semantics.view.settled")
    assert resolved_view(document, "v").columns == resolved.columns

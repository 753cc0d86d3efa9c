"""The paths of other platforms beside our own: there where they are chosen, and counted and refused as all routes are."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, get_args

import pytest

from featurestore import Entity, FeatureStore, FeatureView, Latest, PushSource
from featurestore.access.api_keys import create_key
from featurestore.errors import ConfigError
from featurestore.server import create_app
from featurestore.server.compatible.chosen import ROUTES
from featurestore.server.compatible.values import from_text
from featurestore.settings import Platform
from featurestore.types import Decimal, FeatureType, Float32, Float64, Int64, String, Timestamp, from_json
from tests.cli.test_commands import run
from tests.platforms.shop import opened
from tests.server.test_http import serving

INVOCATIONS = "/serving-endpoints/users/invocations"
VERTEX = "/v1/projects/p/locations/l/featureOnlineStores/s/featureViews/"
ASKED = {"dataframe_records": [{"user_id": "u1"}]}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FeatureStore]:
    with opened(tmp_path_factory.mktemp("repo")) as store:
        yield store


def test_every_platform_of_the_settings_has_routes() -> None:
    assert set(ROUTES) == set(get_args(Platform))


@pytest.mark.parametrize(
    ("of", "text"),
    [
        (Int64, "1_000"), (Int64, " 5"), (Int64, "٣"), (Int64, "1.0"), (Int64, ""),
        (Float64, "1_0"), (Float64, "1.5 "), (Float64, "1e999"), (Float64, "0x1"), (Float32, "-1e99"),
        (Decimal(6, 2), "1_0"), (Decimal(6, 2), " 1"), (Decimal(6, 2), "NaN"), (Decimal(6, 2), "٣"),
    ],
)  # fmt: skip
def test_a_text_that_is_no_number_is_refused(of: FeatureType, text: str) -> None:
    with pytest.raises(ValueError, match="is no|beyond"):
        from_json(of, from_text(of, text))


@pytest.mark.parametrize("text", ["999999999999", "-999999999999", "253402300800"])
def test_seconds_beyond_the_years_of_a_calendar_are_an_instant(text: str) -> None:
    assert from_json(Timestamp, from_text(Timestamp, text)) == int(text) * 1_000_000


def test_it_is_off_unless_it_is_chosen(store: FeatureStore) -> None:
    """The same path is nowhere, and says so as our own paths do."""
    with serving(store) as client:
        assert client.post(INVOCATIONS, json=ASKED).json()["type"] == "urn:featurestore:not-found"


def test_metrics_and_limits_are_those_of_the_server(store: FeatureStore) -> None:
    """The route is the path with its names in braces; what is refused is counted under its setting, in the platform's form."""
    with serving(store, compatible=["databricks"]) as client:
        assert client.post(INVOCATIONS, json=ASKED).status_code == 200
        many = client.post(INVOCATIONS, json={"dataframe_records": ASKED["dataframe_records"] * 10_001})
        assert (many.status_code, many.json()["error_code"]) == (400, "INVALID_PARAMETER_VALUE")
        assert many.headers["x-request-id"]
        assert many.headers["cache-control"] == "no-store"
        told = client.get("/metrics").text
        assert (
            'featurestore_request_seconds_count{route="/serving-endpoints/{name}/invocations",status="2xx"} 1.0' in told
        )
        assert 'featurestore_refusals_total{reason="lookup_rows"} 1.0' in told
        assert client.post("/serving-endpoints/users", json=ASKED).json()["type"] == "urn:featurestore:not-found"
        assert client.get(INVOCATIONS).status_code == 404


def test_a_push_has_no_more_rows_than_the_server_takes(tmp_path: Path) -> None:
    """Whichever platform's words it is in; nothing of it is kept."""
    (tmp_path / "featurestore.toml").write_text('project = "few"\ndefinitions = []\n[server]\npush_rows = 3\n')
    rows = PushSource("rows", schema={"k": String, "at": Timestamp, "v": Int64}, event_time="at", lateness="3650d")
    view = FeatureView("view", entity=Entity("k", key={"k": String}), source=rows, features=["at", "v"])
    at = "2026-03-01T11:30:00Z"
    entry = {"dataKey": {"key": "z"}, "features": [{"name": "at", "value": {"stringValue": at}}]}

    def asked(count: int) -> list[tuple[str, dict[str, Any]]]:
        rows = {"k": ["z"] * count, "at": [at] * count}
        times = {"k": ["z"] * count, "event_timestamp": [at] * count}
        return [
            (VERTEX + "view:directWrite", {"dataKeyAndFeatureValues": [entry] * count}),
            ("/push", {"push_source_name": "rows", "df": rows}),
            ("/write-to-online-store", {"feature_view_name": "view", "df": times}),
        ]

    with FeatureStore(tmp_path) as store:
        store.apply([rows, view])
        with serving(store, compatible=list(ROUTES)) as client:
            for path, body in asked(4):
                told = client.post(path, json=body)
                assert (told.status_code, "more than 3 rows" in told.text) in {(400, True), (422, True)}, path
            assert 'featurestore_refusals_total{reason="push_rows"} 3.0' in client.get("/metrics").text
            assert store.offline.log(store.catalog.sources["rows"]).last_known_at() is None  # type: ignore[arg-type]  # a push source, by its name
            assert [client.post(path, json=body).status_code for path, body in asked(3)] == [200] * 3


def test_a_web_page_may_not_ask_there_either(store: FeatureStore) -> None:
    with serving(store, compatible=["databricks"]) as client:
        plain = client.post(INVOCATIONS, content=b"{}", headers={"content-type": "text/plain"})
        assert (plain.status_code, plain.json()["error_code"]) == (415, "INVALID_PARAMETER_VALUE")
        foreign = client.post(INVOCATIONS, json=ASKED, headers={"origin": "https://example.com"})
        assert (foreign.status_code, foreign.json()["error_code"]) == (403, "PERMISSION_DENIED")


def test_a_large_body_is_answered_in_a_lane(store: FeatureStore) -> None:
    """More bytes than are read on the event loop: the same values."""
    rows = [{"user_id": f"u{number}"} for number in range(3_000)]
    with serving(store, compatible=["databricks"]) as client:
        found = client.post("/serving-endpoints/plain/invocations", json={"dataframe_records": rows}).json()["outputs"]
        assert len(found) == 3_000
        assert (
            found[1]
            == client.post("/serving-endpoints/plain/invocations", json={"inputs": [rows[1]]}).json()["outputs"][0]
        )


def record(key: str, **values: str) -> list[dict[str, Any]]:
    """A record of the group `cards`."""
    said = {"user_id": key, "at": "2026-03-01T11:30:00Z", **values}
    return [{"FeatureName": name, "ValueAsString": text} for name, text in said.items()]


ODD = [True, 5, -1, 1.5, "", "x", "\x00", "9" * 5000, [], [1], [[1]], [None], {}, {"a": []}, 10**18, "²", ["x"], [{}]]
OPERATIONS: list[tuple[str, str, dict[str, Any]]] = [
    ("POST", "/BatchGetRecord", {"Identifiers": [{"FeatureGroupName": "users", "RecordIdentifiersValueAsString": ["u1"], "FeatureNames": ["wide"]}]}),
    ("POST", "/BatchWriteRecord", {"Entries": [{"FeatureGroupName": "cards", "Record": record("z", big="1"), "TargetStores": ["OnlineStore"]}]}),
    ("POST", "/FeatureGroup/cards/ListRecords", {"MaxResults": 1, "NextToken": "0", "IncludeSoftDeletedRecords": True}),
    ("POST", "/FeatureGroup/cards/Record", {"RecordIdentifierValueAsString": "k", "Features": record("k", big="2"), "TargetStores": ["OnlineStore"]}),
    ("PUT", "/FeatureGroup/cards", {"Record": record("z"), "TtlDuration": {"Unit": "Days", "Value": 1}}),
    ("POST", INVOCATIONS, {"dataframe_records": [{"user_id": "u1"}]}),
    ("POST", INVOCATIONS, {"dataframe_split": {"columns": ["user_id"], "data": [["u1"], ["u2"]]}}),
    ("POST", INVOCATIONS, {"inputs": {"user_id": ["u1"]}}),
    ("POST", "/get-online-features", {"features": ["users:wide"], "entities": {"user_id": ["u1"]}, "full_feature_names": True}),
    ("POST", "/push", {"push_source_name": "cards", "df": {"user_id": ["z"], "at": ["2026-03-01T11:30:00Z"]}, "to": "online"}),
    ("POST", "/write-to-online-store", {"feature_view_name": "cards", "df": {"user_id": ["z"], "event_timestamp": ["2026-03-01T11:30:00Z"]}}),
    ("POST", VERTEX + "users:fetchFeatureValues", {"dataKey": {"key": "u1"}, "dataFormat": "PROTO_STRUCT"}),
    ("POST", VERTEX + "pairs:fetchFeatureValues", {"dataKey": {"compositeKey": {"parts": ["UA", "0"]}}, "id": "x"}),
    ("POST", VERTEX + "cards:directWrite", {"dataKeyAndFeatureValues": [{"dataKey": {"key": "z"}, "features": [
        {"name": "at", "value": {"stringValue": "2026-03-01T11:30:00Z"}}, {"name": "big", "value": {"int64Value": "1"}},
        {"name": "counts", "value": {"int64ArrayValue": {"values": ["1"]}}}]}]}),
    ("POST", "/?DescribeFeatureGroup", {"FeatureGroupName": "cards"}),
    ("POST", "/?ListFeatureGroups", {"NameContains": "c", "MaxResults": 1, "NextToken": "1"}),
    ("POST", "/?CreateFeatureGroup", {"FeatureGroupName": "cards"}),
]  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where something else may stand in a body."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, each in inner:
        yield (*path, name)
        yield from places(each, (*path, name))


@pytest.mark.parametrize(("method", "path", "body"), OPERATIONS)
def test_what_no_client_sends_is_refused(store: FeatureStore, method: str, path: str, body: dict[str, Any]) -> None:
    """A member of any wrong type is a mistake of whoever asks, never an error of the server."""
    with serving(store, compatible=list(ROUTES)) as client:
        client.put("/FeatureGroup/cards", json={"Record": record("k", big="1")})
        headers = {"x-amz-target": f"SageMaker.{path.partition('?')[2]}"}
        assert client.request(method, path, json=body, headers=headers).status_code in {200, 400}
        for where in places(body):
            for odd in ODD:
                changed = copy.deepcopy(body)
                inside: Any = changed
                for name in where[:-1]:
                    inside = inside[name]
                inside[where[-1]] = odd
                answer = client.request(method, path, json=changed, headers=headers)
                assert answer.status_code < 500, (where, odd, answer.text)


def test_no_update_of_one_record_is_lost(store: FeatureStore) -> None:
    """Of those that come at the same time, each is in the record when it was answered."""
    values = {"small": "1", "big": "2", "wide": "3.5", "flag": "true"}
    with serving(store, compatible=["sagemaker"]) as client, ThreadPoolExecutor(4) as at_once:
        for number in range(10):
            key = f"at-once-{number}"
            assert client.put("/FeatureGroup/cards", json={"Record": record(key, text="a")}).status_code == 200

            def update(name: str, key: str = key) -> int:
                features = [{"FeatureName": name, "ValueAsString": values[name]}]
                asked = {"RecordIdentifierValueAsString": key, "Features": features}
                return client.post("/FeatureGroup/cards/Record", json=asked).status_code

            assert list(at_once.map(update, values)) == [200] * 4
            found = client.get("/FeatureGroup/cards", params={"RecordIdentifierValueAsString": key}).json()["Record"]
            assert {*values, "text"} <= {each["FeatureName"] for each in found}


def test_a_number_with_a_fraction_is_no_integer(store: FeatureStore) -> None:
    with serving(store, compatible=["vertex"]) as client:
        for kind, value in (("int64Value", 1.5), ("int64Value", True), ("int64ArrayValue", {"values": [1.5]})):
            features = [{"name": "big" if kind == "int64Value" else "counts", "value": {kind: value}}]
            entries = [{"dataKey": {"key": "z"}, "features": features}]
            told = client.post(f"{VERTEX}cards:directWrite", json={"dataKeyAndFeatureValues": entries})
            assert told.status_code == 400
            assert "it is no integer" in told.text


def test_a_value_that_is_given_twice_is_one_value(tmp_path: Path) -> None:
    """Under two names of a column, or the key's: whoever means two is told, and no record of another key is written."""
    (tmp_path / "featurestore.toml").write_text('project = "twice"\ndefinitions = []\n')
    rows = PushSource("rows", schema={"k": String, "at": Timestamp, "v": Int64}, event_time="at", lateness="3650d")
    both = {"at": Latest("at"), "a": Latest("v"), "b": Latest("v")}
    view = FeatureView("view", entity=Entity("k", key={"key": String}), source=rows, key={"key": "k"}, features=both)
    at = "2026-03-01T11:30:00Z"

    def direct(**features: dict[str, Any]) -> dict[str, Any]:
        said = [
            {"name": "at", "value": {"stringValue": at}},
            *({"name": name, "value": value} for name, value in features.items()),
        ]
        return {"dataKeyAndFeatureValues": [{"dataKey": {"key": "mine"}, "features": said}]}

    def framed(**columns: Any) -> dict[str, Any]:
        df = {"key": ["mine"], "event_timestamp": [at], **{name: [value] for name, value in columns.items()}}
        return {"feature_view_name": "view", "df": df}

    split = {"dataframe_split": {"columns": ["key", "key"], "data": [["mine", "other"]]}}
    refused = [
        (VERTEX + "view:directWrite", direct(k={"stringValue": "other"})),
        (VERTEX + "view:directWrite", direct(key={"stringValue": "other"})),
        (VERTEX + "view:directWrite", direct(a={"int64Value": "1"}, b={"int64Value": "2"})),
        ("/write-to-online-store", framed(k="other")),
        ("/write-to-online-store", framed(a=1, b=2)),
        ("/serving-endpoints/view/invocations", split),
    ]
    taken = [
        (
            VERTEX + "view:directWrite",
            direct(key={"stringValue": "mine"}, a={"int64Value": "1"}, b={"int64Value": "1"}),
        ),
        ("/write-to-online-store", framed(k="mine", a=1, b=1, at="2026-03-01T10:00:00Z")),
    ]
    with FeatureStore(tmp_path) as store:
        store.apply([rows, view])
        with serving(store, compatible=list(ROUTES)) as client:
            for path, body in refused:
                told = client.post(path, json=body)
                assert (told.status_code, "twice" in told.text) == (400, True), (path, body, told.text)
            assert store.offline.log(store.catalog.sources["rows"]).last_known_at() is None  # type: ignore[arg-type]  # a push source, by its name
            for path, body in taken:
                assert client.post(path, json=body).status_code == 200, path
            found = store.get_online_features({"key": "mine"}, "view").to_dict()
            assert (found["view__a"], found["view__b"]) == ([1], [1])


def test_a_deletion_of_no_time_is_refused(store: FeatureStore) -> None:
    with serving(store, compatible=["sagemaker"]) as client:
        for time in ("", "x", "9" * 20, "²"):
            for mode in ("SoftDelete", "HardDelete"):
                asked = {"RecordIdentifierValueAsString": "u1", "EventTime": time, "DeletionMode": mode}
                assert client.delete("/FeatureGroup/cards", params=asked).status_code == 400


def test_an_update_moves_no_record(store: FeatureStore) -> None:
    """Nor does it take the time away."""
    with serving(store, compatible=["sagemaker"]) as client:
        assert client.put("/FeatureGroup/cards", json={"Record": record("moved", text="a")}).status_code == 200
        for features in ([{"FeatureName": "user_id", "ValueAsString": "u1"}], [{"FeatureName": "at"}]):
            asked = {"RecordIdentifierValueAsString": "moved", "Features": features}
            assert client.post("/FeatureGroup/cards/Record", json=asked).status_code == 400


def test_a_key_that_is_limited_learns_nothing_of_other_groups(store: FeatureStore) -> None:
    """Whatever it asks, of a group that is there and of one that is not it is told the same."""
    secret = create_key(store.registry, "few", ["read", "push"], only_on=["view:pairs", "source:told"]).secret
    with serving(store, compatible=list(ROUTES), authentication=True) as client:
        client.headers["x-api-key"] = secret

        def told(group: str) -> list[tuple[int, str]]:
            asked = {"RecordIdentifierValueAsString": "[1,2,3]", "EventTime": "x", "FeatureName": "no"}
            identifiers = [{"FeatureGroupName": group, "RecordIdentifiersValueAsString": ["a"]}]
            answers = [
                client.get(f"/FeatureGroup/{group}", params=asked),
                client.delete(f"/FeatureGroup/{group}", params=asked),
                client.put(f"/FeatureGroup/{group}", json={"Record": [{"FeatureName": "no"}]}),
                client.post(f"/FeatureGroup/{group}/Record", json={"Features": [{"FeatureName": "no"}]}),
                client.post(f"/FeatureGroup/{group}/ListRecords", json={}),
                client.get(f"{VERTEX}{group}"),
                client.post(f"{VERTEX}{group}:fetchFeatureValues", json={"dataKey": {"compositeKey": {"parts": []}}}),
                client.post(f"{VERTEX}{group}:directWrite", json={"dataKeyAndFeatureValues": [1]}),
                client.post("/push", json={"push_source_name": group, "df": {"at": ["x"]}}),
                client.post("/write-to-online-store", json={"feature_view_name": group, "df": {"at": ["x"]}}),
                client.post(f"/serving-endpoints/{group}/invocations", json={"inputs": [{"no": 1}]}),
                client.post("/BatchGetRecord", json={"Identifiers": identifiers}),
                client.post("/BatchWriteRecord", json={"Entries": [{"FeatureGroupName": group, "Record": []}]}),
                *(
                    client.post("/", json={"FeatureGroupName": group}, headers={"x-amz-target": f"SageMaker.{name}"})
                    for name in ("DescribeFeatureGroup", "CreateFeatureGroup")
                ),
            ]
            return [(answer.status_code, answer.text.replace(group, "…")) for answer in answers]

        assert told("cards") == told("carde")
        assert all(status == 403 or "AccessForbidden" in text for status, text in told("cards"))
        listed = client.post("/", json={}, headers={"x-amz-target": "SageMaker.ListFeatureGroups"}).json()
        assert [group["FeatureGroupName"] for group in listed["FeatureGroupSummaries"]] == ["pairs"]
        assert client.post("/FeatureGroup/pairs/ListRecords", json={}).json()["RecordIdentifiers"]


def test_the_file_and_the_command_line_choose(tmp_path: Path, store: FeatureStore) -> None:
    """A name that is no platform's is refused before anything is served."""
    with pytest.raises(ConfigError, match="Did you mean 'databricks'"):
        create_app(store, compatible=["databrick"])
    (tmp_path / "featurestore.toml").write_text(
        'project = "p"\ndefinitions = []\n[server]\ncompatible = ["databricks"]\n'
    )
    with FeatureStore(tmp_path) as own, serving(own) as client:
        assert client.post(INVOCATIONS, json=ASKED).json()["error_code"] == "RESOURCE_DOES_NOT_EXIST"
    assert "Did you mean 'databricks'" in run(tmp_path, "serve", "--compatible", "databrick", code=1).output

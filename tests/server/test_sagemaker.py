"""SageMaker's records of views of every shape, as requests that its client would not send too: refused, or right to the bit."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pytest

from featurestore import DataFrameSource, Entity, FeatureStore, FeatureView, Latest, ManualClock, PushSource, Sum
from featurestore.types import Array, Bool, Bytes, Date, Decimal, Float64, Int64, String, Timestamp
from tests.server.test_http import serving

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
AT = "2026-03-01T11:00:00.000000Z"
Given = dict[str, str | list[str]]


def over(name: str, key: dict[str, Any], values: dict[str, Any], **words: Any) -> PushSource:
    schema = {**key, "at": Timestamp, "gone": Bool, **values}
    said = {"event_time": "at", "identity": [*key, "at"], "deleted": "gone", "lateness": "30d", **words}
    return PushSource(name, schema=schema, **said)


def definitions() -> list[Any]:
    moment = {"when": Timestamp, "what": Bytes}
    moments = over("moments", moment, {"v": Float64, "l": Array(Float64)})
    odd = {"a": Date, "b": Decimal(6, 2), "c": Bool}
    mapped = over("mapped", {"uid": String}, {"v": Decimal(12, 3)})
    times = pa.array([NOON - timedelta(hours=3)] * 2, pa.timestamp("us", "UTC"))
    before = pa.table({"k": ["old", "both"], "at": times, "gone": [False, False], "x": [1, 1], "y": [5, 5]})
    history = DataFrameSource("before", before, event_time="at", known_after="1m")
    with_history = {"history": history, "cutover": NOON - timedelta(hours=2)}
    kept = over("kept", {"k": String}, {"x": Int64, "y": Int64}, **with_history)
    user, thing = Entity("user", key={"user": String}), Entity("thing", key={"k": String})
    return [
        FeatureView("of_moment", entity=Entity("moment", key=moment), source=moments, features=["v", "l"]),
        FeatureView("of_odd", entity=Entity("odd", key=odd), source=over("odds", odd, {"v": Int64}), features=["v"]),
        FeatureView("of_all", entity=Entity("all", key={}), source=over("all", {}, {"v": Int64}, identity=["at"]), features=["v"]),
        FeatureView("of_user", entity=user, source=mapped, key={"user": "uid"}, features={"value": Latest("v")}),
        FeatureView("times", entity=user.model_copy(update={"name": "timed"}), source=mapped, key={"user": "uid"}, features=["at"]),
        FeatureView("of_thing", entity=thing, source=kept, features=["x", "y"]),
        FeatureView("sums", entity=Entity("summed", key={"k": String}), source=over("more", {"k": String}, {"x": Int64, "y": Int64}),
                    features={"x": Sum("x", window="1d"), "y": Latest("y")}),
    ]  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FeatureStore]:
    folder: Path = tmp_path_factory.mktemp("repo")
    (folder / "featurestore.toml").write_text('project = "records"\nonline = "lmdb://online"\ndefinitions = []\n')
    with FeatureStore(folder, clock=ManualClock(NOON)) as store:
        store.apply(definitions())
        store.materialize(progress=False)
        yield store


class Group:
    """What a client does with a group: each returns the status and what is said."""

    def __init__(self, client: httpx.Client, name: str) -> None:
        self._client, self._path = client, f"/FeatureGroup/{name}"

    def get(self, key: str) -> dict[str, Any]:
        answer = self._client.get(self._path, params={"RecordIdentifierValueAsString": key})
        assert answer.status_code == 200, answer.text
        found = answer.json().get("Record", [])
        return {each["FeatureName"]: each.get("ValueAsString", each.get("ValueAsStringList")) for each in found}

    def put(self, given: Given, **words: Any) -> str:
        return self._said(self._client.put(self._path, json={"Record": features(given), **words}))

    def update(self, key: str, given: Given) -> str:
        asked = {"RecordIdentifierValueAsString": key, "Features": features(given)}
        return self._said(self._client.post(self._path + "/Record", json=asked))

    def delete(self, key: str, mode: str, at: str = "2026-03-01T11:30:00Z") -> str:
        asked = {"RecordIdentifierValueAsString": key, "EventTime": at, "DeletionMode": mode}
        return self._said(self._client.delete(self._path, params=asked))

    def keys(self, **words: Any) -> list[str]:
        answer = self._client.post(self._path + "/ListRecords", json=words)
        assert answer.status_code == 200, answer.text
        found: list[str] = answer.json()["RecordIdentifiers"]
        return found

    def _said(self, answer: httpx.Response) -> str:
        assert answer.status_code < 500, answer.text
        return "" if answer.status_code == 200 else answer.json()["__type"] + ": " + answer.json()["Message"]


def features(given: Given) -> list[dict[str, Any]]:
    return [
        {"FeatureName": name, "ValueAsStringList" if isinstance(value, list) else "ValueAsString": value}
        for name, value in given.items()
    ]


@pytest.fixture
def client(store: FeatureStore) -> Iterator[httpx.Client]:
    with serving(store, compatible=["sagemaker"]) as client:
        yield client


ODD_NUMBERS = ["NaN", "-0.0", "Infinity", "-Infinity", "5e-324", "0.1"]


@pytest.mark.parametrize(
    ("group", "key", "values"),
    [
        ("of_moment", {"when": "+12013-12-01T06:30:00.000000Z", "what": "AP8="}, {"v": "NaN", "l": ODD_NUMBERS}),
        ("of_moment", {"when": "999999999999", "what": ""}, {"v": "-0.0", "l": []}),
        ("of_moment", {"when": "-62135596800.000001", "what": "AA=="}, {"v": "-Infinity", "l": '[null, "NaN", -0.0]'}),
        ("of_odd", {"a": "2026-01-01", "b": "1.50", "c": "true"}, {"v": "9223372036854775807"}),
        ("of_all", {}, {"v": "-9223372036854775808"}),
        ("of_user", {"user": 'é\x00 日本"\n'}, {"value": "-0.001"}),
        ("of_user", {"user": "\U0001f600\u2028"}, {"value": "1e-3"}),
    ],
)
def test_a_record_of_any_key_is_put_read_updated_listed_and_deleted(
    client: httpx.Client, group: str, key: dict[str, str], values: Given
) -> None:
    """Its values come back as they are written, and go in again as the same."""
    records = Group(client, group)
    assert records.put({**key, **values, "at": AT}) == ""
    (every,) = records.keys()
    identifier = list(key.values())[0] if group == "of_user" else json.dumps([*key.values()])
    first = records.get(identifier)
    assert {*first} == {*key, *values}
    assert records.get(every) == first
    (name, value), *_ = values.items()
    assert records.update(every, {name: first[name]}) == ""
    assert records.get(every) == first
    assert records.update(every, {name: "0"}) == ""
    assert records.get(every)[name] != first[name]
    assert records.update(every, {name: value}) == ""
    assert records.get(every) == first
    assert records.delete(every, "HardDelete") == ""
    assert (records.get(every), records.keys(), records.keys(IncludeSoftDeletedRecords=True)) == ({}, [], [])


@pytest.mark.parametrize(
    "key", ['["2026-01-01T00:00:00Z", null]', '[["2026-01-01T00:00:00Z"], ""]', '["2026-01-01T00:00:00Z"]', '{"when": 1}', "null", "",
            '["2026-01-01T00:00:00Z", "*"]', '["99999999999999", ""]', "[NaN, 1]", '["a", ""]', "[" * 3000],
)  # fmt: skip
def test_what_is_no_identifier_is_refused(client: httpx.Client, key: str) -> None:
    asked = {"RecordIdentifierValueAsString": key}
    answers = [
        client.get("/FeatureGroup/of_moment", params=asked),
        client.post("/FeatureGroup/of_moment/Record", json={**asked, "Features": features({"v": "1"})}),
        client.delete("/FeatureGroup/of_moment", params={**asked, "EventTime": AT}),
    ]
    assert {(answer.status_code, answer.json()["__type"]) for answer in answers} == {(400, "ValidationError")}
    batch = {"Identifiers": [{"FeatureGroupName": "of_moment", "RecordIdentifiersValueAsString": [key]}]}
    (error,) = client.post("/BatchGetRecord", json=batch).json()["Errors"]
    assert (error["RecordIdentifierValueAsString"], error["ErrorCode"]) == (key, "ValidationError")


@pytest.mark.parametrize("text", [b"%FF", b"%ED%A0%80"])
def test_a_query_that_is_no_text_is_refused(store: FeatureStore, client: httpx.Client, text: bytes) -> None:
    """And not read as another key, which would be deleted."""
    before = store.offline.log(store.catalog.sources["mapped"]).last_known_at()  # type: ignore[arg-type]  # a push source, by its name
    url = httpx.URL(
        "/FeatureGroup/of_user", query=b"RecordIdentifierValueAsString=" + text + b"&EventTime=" + AT.encode()
    )
    for method in ("GET", "DELETE"):
        answer = client.request(method, url)
        assert (answer.status_code, answer.json()["Message"]) == (400, "The query is not UTF-8")
    assert store.offline.log(store.catalog.sources["mapped"]).last_known_at() == before  # type: ignore[arg-type]  # a push source, by its name


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"value": " 1"}, "is no decimal"), ({"value": "1_0"}, "is no decimal"), ({"value": "NaN"}, "is no decimal"),
        ({"value": "1.0001"}, "more than 3 decimal places"), ({"value": ["1"]}, "it is no list"), ({"uid": "other"}, "given twice"),
        ({"gone": "true"}, "no feature 'gone'"), ({"v": "1", "value": "1"}, "given twice"), ({"known_at": "1"}, "no feature 'known_at'"),
    ],
)  # fmt: skip
def test_what_a_record_cannot_say_is_refused(client: httpx.Client, given: Given, says: str) -> None:
    told = Group(client, "of_user").put({"user": "refused", "at": AT, **given})
    assert told.startswith("ValidationError")
    assert says in told
    assert Group(client, "of_user").get("refused") == {}


def test_a_list_may_be_as_long_as_the_platform_has_it(client: httpx.Client) -> None:
    records, key = Group(client, "of_moment"), {"when": "2026-01-01T00:00:00Z", "what": ""}
    assert "at most 358400" in records.put({**key, "at": AT, "l": ["1"] * 358_401})
    assert records.put({**key, "at": AT, "l": ["1"] * 10_000}) == ""
    assert len(records.get('["2026-01-01T00:00:00Z", ""]')["l"]) == 10_000
    assert records.delete('["2026-01-01T00:00:00Z", ""]', "HardDelete") == ""


def test_a_view_of_nothing_but_times_has_records_of_known_keys_alone(client: httpx.Client) -> None:
    assert Group(client, "of_user").put({"user": "timed", "at": AT, "value": "1"}) == ""
    assert Group(client, "times").get("timed") == {"user": "timed", "at": AT}
    assert Group(client, "times").get("nobody") == {}


def test_rows_of_the_history_are_updated_and_never_deleted(client: httpx.Client) -> None:
    """What an update does not name comes from there. A hard deletion would leave them."""
    records = Group(client, "of_thing")
    assert records.get("old") == {"k": "old", "x": "1", "y": "5"}
    assert records.update("old", {"x": "2", "at": AT}) == ""
    assert records.get("old") == {"k": "old", "x": "2", "y": "5"}
    for key in ("old", "both"):
        assert "in the history, in which nothing can be deleted" in records.delete(key, "HardDelete")
    assert records.delete("both", "SoftDelete") == ""
    assert records.get("both") == {}
    assert records.put({"k": "new", "x": "1", "at": AT}) == ""
    assert records.delete("new", "HardDelete") == ""
    assert records.get("new") == {}


def test_an_update_of_a_sum_counts_once(client: httpx.Client) -> None:
    """At the record's own time it replaces the row; at a later one it is a row more."""
    records = Group(client, "sums")
    assert records.put({"k": "a", "x": "5", "y": "1", "at": AT}) == ""
    for value in ("7", "5", "7"):
        assert records.update("a", {"x": value}) == ""
        assert records.get("a") == {"k": "a", "x": value, "y": "1"}
    assert records.update("a", {"x": "1", "at": "2026-03-01T11:10:00Z"}) == ""
    assert records.get("a") == {"k": "a", "x": "8", "y": "1"}
    assert "HardDelete" in records.delete("a", "SoftDelete")
    assert records.delete("a", "HardDelete") == ""
    assert records.get("a") == {}


def test_names_that_are_no_group_are_not_found(client: httpx.Client) -> None:
    """Whatever is in them; and an ARN of nothing."""
    names = [
        "a%2Fb",
        "%00",
        "of_user%20",
        "OF_USER",
        "of_user/",
        "of_user/Record",
        "%FF",
        "arn:x",
        "arn:aws:sagemaker:::feature-group/",
    ]
    for name in names:
        asked = {"RecordIdentifierValueAsString": "k"}
        for answer in (
            client.get(f"/FeatureGroup/{name}", params=asked),
            client.put(f"/FeatureGroup/{name}", json={"Record": features({"user": "k", "at": AT})}),
            client.post(f"/FeatureGroup/{name}/ListRecords", json={}),
        ):
            assert (answer.status_code, answer.json()["__type"]) == (404, "ResourceNotFound"), name


def test_keys_that_no_client_may_ask_for_are_not_listed(store: FeatureStore, client: httpx.Client) -> None:
    """Nor do they keep the others out."""
    rows = [{"uid": uid, "at": NOON - timedelta(hours=1), "v": None, "gone": None} for uid in ("z" * 5000, "z1", "zz")]
    store.push("mapped", [{**row, "v": 1} for row in rows])
    found, token = [], {}
    while True:
        answer = client.post("/FeatureGroup/of_user/ListRecords", json={"MaxResults": 1, **token}).json()
        found += answer["RecordIdentifiers"]
        if "NextToken" not in answer:
            break
        token = {"NextToken": answer["NextToken"]}
    assert {"z1", "zz"} <= {*found}
    assert max(map(len, found)) < 1024

"""boto3 reads and writes records of our views as those of SageMaker's feature groups."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from featurestore import FeatureStore
from featurestore.access.api_keys import create_key
from featurestore.server.compatible.values import from_text, text_of
from featurestore.types import FeatureType, String, Timestamp, from_json, to_json
from tests.platforms.conftest import Told
from tests.platforms.shop import KEYS, NOON, PAIRS, TYPES, bits, definitions, opened, run_page, serving, value

RAN = "its own client ran, the service is emulated"
ARN = "arn:aws:sagemaker:us-east-1:123456789012:feature-group/cards"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[FeatureStore]:
    with opened(tmp_path) as store:
        yield store


def client_of(url: str, service: str = "sagemaker-featurestore-runtime", token: str | None = None) -> Any:
    return boto3.client(
        service, endpoint_url=url, region_name="us-east-1", aws_access_key_id="local", aws_secret_access_key="local",
        aws_session_token=token, config=Config(retries={"max_attempts": 1}),
    )  # fmt: skip


@pytest.fixture
def client(store: FeatureStore) -> Iterator[Any]:
    with serving(store, "sagemaker") as url:
        yield client_of(url)


def parsed(of: FeatureType, given: dict[str, Any]) -> Any:
    """The value that a feature of a record is."""
    if "ValueAsStringList" in given:
        assert of.element is not None
        return [from_json(of.element, from_text(of.element, text)) for text in given["ValueAsStringList"]]
    return from_json(of, from_text(of, given["ValueAsString"]))


def compared(
    store: FeatureStore, group: str, keys: list[dict[str, Any]], records: list[list[dict[str, Any]] | None]
) -> int:
    """How many values were compared, all of which are those of `get_online_features`."""
    expected, count = store.get_online_features(keys, group), 0
    types = {column.name.removeprefix(f"{group}__"): column.type for column in expected.service.columns}
    for place, (key, record) in enumerate(zip(keys, records, strict=True)):
        found = {each["FeatureName"]: each for each in record or []}
        for (column, values), (name, of) in zip(expected.columns.items(), types.items(), strict=True):
            if record is None:
                assert values[place] is None or expected.statuses[column][place] in {"MISSING", "EXPIRED"}, (key, name)
            elif values[place] is None:
                assert name not in found, (key, name)
            else:
                assert bits(parsed(of, found[name])) == bits(values[place]), (key, name, found[name])
            count += 1
        if record is not None:
            assert {name: parsed(of, found[name]) for name, of in expected.service.inputs.items()} == key
    return count


def test_every_type_by_random_keys(store: FeatureStore, client: Any, tell: Told) -> None:
    """GetRecord and BatchGetRecord of views that are refreshed and pushed, of a key of two columns, and of a service."""
    draw, count = random.Random(3), 0
    keys = [draw.choice([*KEYS, "nobody"]) for _ in range(60)]
    for group in ("users", "cards", "plain"):
        found = client.batch_get_record(
            Identifiers=[{"FeatureGroupName": group, "RecordIdentifiersValueAsString": keys}]
        )
        assert found["Errors"] == []
        records = {each["RecordIdentifierValueAsString"]: each["Record"] for each in found["Records"]}
        count += compared(store, group, [{"user_id": key} for key in keys], [records.get(key) for key in keys])
        for key in [key for key in keys if key][:5]:
            assert client.get_record(FeatureGroupName=group, RecordIdentifierValueAsString=key).get(
                "Record"
            ) == records.get(key)
    pairs = [draw.choice([*PAIRS, ("ZZ", 0)]) for _ in range(30)]
    got = [
        client.get_record(FeatureGroupName="pairs", RecordIdentifierValueAsString=json.dumps(pair)) for pair in pairs
    ]
    count += compared(
        store,
        "pairs",
        [{"carrier": carrier, "flight": flight} for carrier, flight in pairs],
        [each.get("Record") for each in got],
    )
    tell("sagemaker", version=f"boto3 {version('boto3')}", ran=RAN, compared=count)


def record(key: str, at: Any, values: dict[str, Any]) -> list[dict[str, Any]]:
    """A record of the group `cards`."""
    said = [
        {"FeatureName": "user_id", "ValueAsString": key},
        {"FeatureName": "at", "ValueAsString": text_of(Timestamp, at)},
    ]
    for name, given in values.items():
        of = TYPES[name]
        if given is not None and of.element is not None and None not in given:
            said.append({"FeatureName": name, "ValueAsStringList": [text_of(of.element, item) for item in given]})
        elif given is not None:
            said.append({"FeatureName": name, "ValueAsString": text_of(of, given)})
    return said


def test_what_is_put_is_served_to_the_bit(store: FeatureStore, client: Any, tell: Told) -> None:
    """PutRecord and BatchWriteRecord of every type, read by our own lookup, and trained on."""
    draw, count = random.Random(5), 0
    rows = {f"new {number}": {name: value(draw, of) for name, of in TYPES.items()} for number in range(30)}
    for key, values in list(rows.items())[:5]:
        client.put_record(FeatureGroupName=ARN, Record=record(key, NOON, values))
    entries = [
        {"FeatureGroupName": "cards", "Record": record(key, NOON, values)} for key, values in list(rows.items())[5:]
    ]
    assert client.batch_write_record(Entries=entries)["Errors"] == []
    online = store.get_online_features([{"user_id": key} for key in rows], "cards")
    for place, (key, values) in enumerate(rows.items()):
        for name, given in values.items():
            assert bits(online.columns[f"cards__{name}"][place]) == bits(given), (key, name)
            count += 1
    spine = [{"user_id": key, "event_timestamp": NOON + timedelta(seconds=1)} for key in rows]
    import pandas as pd

    trained = store.get_historical_features(pd.DataFrame(spine), "cards")
    pd.testing.assert_frame_equal(trained.features, online.features)
    tell("sagemaker", version=f"boto3 {version('boto3')}", ran=RAN, compared=count)


def text(client: Any, key: str) -> str | None:
    found = client.get_record(FeatureGroupName="cards", RecordIdentifierValueAsString=key, FeatureNames=["text"])
    return found["Record"][0]["ValueAsString"] if "Record" in found else None


def expires(client: Any, key: str) -> Any:
    words = {"FeatureGroupName": "cards", "RecordIdentifierValueAsString": key}
    assert "ExpiresAt" not in client.get_record(**words)
    return from_json(Timestamp, client.get_record(**words, ExpirationTimeResponse="Enabled")["ExpiresAt"])


def put(client: Any, key: str, minutes: int, said: str, **words: Any) -> None:
    at = NOON - timedelta(minutes=minutes)
    client.put_record(FeatureGroupName="cards", Record=record(key, at, {"text": said}), **words)


def test_an_older_record_changes_history_only(store: FeatureStore, client: Any) -> None:
    """A newer one is served; one of the same time takes the place of the other, in history too; training agrees."""
    put(client, "k", 60, "b")
    put(client, "k", 120, "a")
    assert text(client, "k") == "b"
    assert [
        row["text"]
        for row in store.offline.log(store.catalog.sources["cards"]).read().to_pylist()
        if row["user_id"] == "k"
    ] == ["b", "a"]
    for said in ("c", "c", "b", "c"):
        put(client, "k", 60, said)
        assert text(client, "k") == said
    put(client, "k", 30, "d")
    assert text(client, "k") == "d"


def test_a_record_ends_with_its_time_to_live(store: FeatureStore, client: Any) -> None:
    """TtlDuration counts from the event time; the view's own ttl bounds it."""
    put(client, "k", 60, "x", TtlDuration={"Unit": "Hours", "Value": 2})
    assert expires(client, "k") == NOON + timedelta(hours=1)
    put(client, "gone", 60, "x", TtlDuration={"Unit": "Minutes", "Value": 59})
    assert text(client, "gone") is None
    put(client, "long", 60, "x")
    assert expires(client, "long") == NOON + timedelta(days=20, hours=-1)
    units = {"Seconds": timedelta(seconds=1), "Minutes": timedelta(minutes=1), "Hours": timedelta(hours=1), "Days": timedelta(days=1), "Weeks": timedelta(weeks=1)}  # fmt: skip
    for unit, lasts in units.items():
        put(client, unit, 0, "x", TtlDuration={"Unit": unit, "Value": 2})
        assert expires(client, unit) == NOON + 2 * lasts
    entries: list[dict[str, Any]] = [
        {"FeatureGroupName": "cards", "Record": record(key, NOON, {"text": "x"})} for key in ("one", "all")
    ]
    entries[0]["TtlDuration"] = {"Unit": "Hours", "Value": 1}
    assert client.batch_write_record(Entries=entries, TtlDuration={"Unit": "Hours", "Value": 3})["Errors"] == []
    assert [expires(client, key) for key in ("one", "all")] == [NOON + timedelta(hours=hours) for hours in (1, 3)]
    got = client.batch_get_record(
        Identifiers=[{"FeatureGroupName": "cards", "RecordIdentifiersValueAsString": ["one", "gone"]}],
        ExpirationTimeResponse="Enabled",
    )
    assert [each["ExpiresAt"] for each in got["Records"]] == [to_json(Timestamp, NOON + timedelta(hours=1))]


def delete(client: Any, key: str, minutes: int, mode: str, group: str = "cards") -> None:
    when = text_of(Timestamp, NOON - timedelta(minutes=minutes))
    client.delete_record(FeatureGroupName=group, RecordIdentifierValueAsString=key, EventTime=when, DeletionMode=mode)


@pytest.mark.parametrize("mode", ["SoftDelete", "HardDelete"])
def test_a_deleted_record_is_gone_and_an_older_one_stays_so_where_it_is_soft(client: Any, mode: str) -> None:
    """The same record can be put again. A deletion that is older than the record is none; a hard one is refused then."""
    put(client, "k", 60, "a")
    put(client, "k", 40, "b")
    delete(client, "k", 30, mode)
    assert text(client, "k") is None
    for also, listed in ((False, False), (True, mode == "SoftDelete")):
        found = client.list_records(FeatureGroupName="cards", MaxResults=100, IncludeSoftDeletedRecords=also)
        assert ("k" in found["RecordIdentifiers"]) is listed
    with pytest.raises(client.exceptions.ResourceNotFound):
        client.update_record(
            FeatureGroupName="cards", RecordIdentifierValueAsString="k", Features=record("k", NOON, {})[1:]
        )
    put(client, "k", 40, "b")
    assert text(client, "k") == ("b" if mode == "HardDelete" else None)
    put(client, "k", 10, "new")
    assert text(client, "k") == "new"
    with nullcontext() if mode == "SoftDelete" else pytest.raises(client.exceptions.ValidationError, match="before"):
        delete(client, "k", 30, mode)
    assert text(client, "k") == "new"
    delete(client, "k", 10, mode)
    assert text(client, "k") is None
    delete(client, "nobody", 10, mode)


def test_a_record_with_rows_too_old_to_delete_is_not_half_deleted(store: FeatureStore, client: Any) -> None:
    """Else what it was long ago would be served again."""
    clock: Any = store._project.clock
    put(client, "k", 29 * 24 * 60, "ancient")
    clock.advance(timedelta(days=2))
    put(client, "k", 60, "new")
    with pytest.raises(client.exceptions.ValidationError, match="too late.*30d ago"):
        delete(client, "k", 0, "HardDelete")
    assert text(client, "k") == "new"
    delete(client, "k", 0, "SoftDelete")
    assert text(client, "k") is None


def test_what_was_deleted_by_other_clients_is_not_updated(store: FeatureStore, client: Any) -> None:
    """A deletion of ours names a row by its identity, and needs no key."""
    put(client, "k", 60, "a")
    store.push("cards", {"user_id": "k", "at": NOON - timedelta(minutes=60), "gone": True})
    with pytest.raises(client.exceptions.ResourceNotFound):
        client.update_record(
            FeatureGroupName="cards", RecordIdentifierValueAsString="k", Features=record("k", NOON, {})[1:]
        )


def test_an_update_keeps_what_it_does_not_name(client: Any) -> None:
    """An older one is a conflict, one of no record is not found."""
    client.put_record(
        FeatureGroupName="cards", Record=record("k", NOON - timedelta(minutes=9), {"text": "a", "big": 7})
    )

    def update(key: str, minutes: int) -> None:
        features = record(key, NOON - timedelta(minutes=minutes), {"big": 8})[1:]
        client.update_record(FeatureGroupName="cards", RecordIdentifierValueAsString=key, Features=features)

    update("k", 5)
    found = client.get_record(
        FeatureGroupName="cards", RecordIdentifierValueAsString="k", FeatureNames=["text", "big"]
    )["Record"]
    assert found == [{"FeatureName": "big", "ValueAsString": "8"}, {"FeatureName": "text", "ValueAsString": "a"}]
    with pytest.raises(client.exceptions.ConflictException):
        update("k", 6)
    with pytest.raises(client.exceptions.ResourceNotFound):
        update("none", 6)
    for said in ("b", "c", "b", "a"):  # at the record's own time, and what it was before, too
        client.update_record(
            FeatureGroupName=ARN, RecordIdentifierValueAsString="k",
            Features=[{"FeatureName": "text", "ValueAsString": said}],
        )  # fmt: skip
        assert text(client, "k") == said
    told = client.get_record(FeatureGroupName="cards", RecordIdentifierValueAsString="k", FeatureNames=["at", "big"])
    assert [each["ValueAsString"] for each in told["Record"]] == [text_of(Timestamp, NOON - timedelta(minutes=5)), "8"]


def test_an_update_and_the_end_of_a_record(client: Any) -> None:
    """What has expired is no record. An update leaves the end as it is, or says another together with its time."""
    lasts = {"Unit": "Hours", "Value": 2}
    put(client, "k", 60, "x", TtlDuration=lasts)
    put(client, "gone", 121, "x", TtlDuration=lasts)
    put(client, "old", 21 * 24 * 60, "x")

    def update(key: str, features: list[dict[str, Any]], **words: Any) -> None:
        client.update_record(FeatureGroupName="cards", RecordIdentifierValueAsString=key, Features=features, **words)

    plain = [{"FeatureName": "text", "ValueAsString": "y"}]
    for key in ("gone", "old"):
        with pytest.raises(client.exceptions.ResourceNotFound):
            update(key, plain)
    update("k", plain)
    assert expires(client, "k") == NOON + timedelta(hours=1)
    with pytest.raises(client.exceptions.ValidationError, match="counts from 'at'"):
        update("k", plain, TtlDuration=lasts)
    update("k", record("k", NOON, {"text": "z"})[1:])
    assert expires(client, "k") == NOON + timedelta(hours=1)
    update("k", record("k", NOON, {"text": "z"})[1:], TtlDuration=lasts)
    assert (text(client, "k"), expires(client, "k")) == ("z", NOON + timedelta(hours=2))


def test_pages_of_identifiers(store: FeatureStore, client: Any) -> None:
    """Each record is on one page, and no key without one."""
    found, words = [], {}
    while True:
        page = client.list_records(FeatureGroupName="cards", MaxResults=7, **words)
        found += page["RecordIdentifiers"]
        if "NextToken" not in page:
            break
        words = {"NextToken": page["NextToken"]}
    got = store.get_online_features([{"user_id": key} for key in KEYS], "cards")
    assert sorted(found) == sorted(
        key for key, status in zip(KEYS, got.statuses["cards__text"], strict=True) if status == "PRESENT"
    )


def test_a_group_by_its_arn(client: Any) -> None:
    """Whose colons and slash come percent-encoded, where they stand in a path."""
    client.put_record(FeatureGroupName=ARN, Record=record("k", NOON, {"text": "a"}))
    words = {"FeatureGroupName": ARN, "RecordIdentifierValueAsString": "k"}
    assert client.get_record(**words, FeatureNames=["text"])["Record"] == [
        {"FeatureName": "text", "ValueAsString": "a"}
    ]
    client.update_record(**words, Features=[{"FeatureName": "text", "ValueAsString": "b"}])
    assert "k" in client.list_records(FeatureGroupName=ARN)["RecordIdentifiers"]
    asked = [{"FeatureGroupName": ARN, "RecordIdentifiersValueAsString": ["k", "nobody"], "FeatureNames": ["text"]}]
    (found,) = client.batch_get_record(Identifiers=asked)["Records"]
    assert (found["FeatureGroupName"], found["Record"][0]["ValueAsString"]) == (ARN, "b")
    entry = {"FeatureGroupName": ARN, "Record": record("k", NOON, {"text": "c"})}
    assert client.batch_write_record(Entries=[entry])["Errors"] == []
    delete(client, "k", 0, "SoftDelete", group=ARN)
    assert "Record" not in client.get_record(**words)
    told = client_of(client.meta.endpoint_url, "sagemaker").describe_feature_group(FeatureGroupName=ARN)
    assert told["FeatureGroupName"] == "cards"


def test_pages_go_on_where_they_ended_whatever_is_put_meanwhile(client: Any) -> None:
    """By keys of two columns; where keys come between, none is told of twice, and none is left out that was there before."""
    found, words = [], {}
    while True:
        page = client.list_records(FeatureGroupName="pairs", MaxResults=4, **words)
        assert len(page["RecordIdentifiers"]) <= 4
        found += page["RecordIdentifiers"]
        if "NextToken" not in page:
            break
        words = {"NextToken": page["NextToken"]}
    assert found == sorted(found, key=json.loads)
    assert [tuple(json.loads(text)) for text in found] == sorted(PAIRS)
    for key in ("b", "d"):
        put(client, key, 1, "x")
    first = client.list_records(FeatureGroupName="cards", MaxResults=1)
    put(client, "!", 1, "x")
    rest = client.list_records(FeatureGroupName="cards", NextToken=first["NextToken"])["RecordIdentifiers"]
    assert {"b", "d", "!"} <= {*rest}
    assert not {*first["RecordIdentifiers"]} & {*rest}
    for token in ("7", "[]", "null", "[1, 2]", '["a", "b"]', "[[]]", "[null]", '["a"'):
        with pytest.raises(client.exceptions.ValidationError, match="NextToken"):
            client.list_records(FeatureGroupName="cards", NextToken=token)


def test_who_cannot_be_reached_is_asked_again(tmp_path: Path) -> None:
    """A store that is away is ServiceUnavailable, and never says that there is no record."""
    from tests.servers import RedisServer

    with RedisServer() as redis:
        lines = f'project = "away"\nonline = "{redis.url}"\ndefinitions = []\n[server]\nwhen_unavailable = "defaults"\n'
        (tmp_path / "featurestore.toml").write_text(lines)
        with FeatureStore(tmp_path) as store:
            store.apply(definitions(random.Random(0)))
            store.push("cards", {"user_id": "a", "at": datetime.now(UTC), "text": "x"})
            with serving(store, "sagemaker") as url:
                client = client_of(url)
                assert text(client, "a") == "x"
                redis.stop()
                for call, words in (
                    ("get_record", {"RecordIdentifierValueAsString": "a"}),
                    ("put_record", {"Record": record("a", datetime.now(UTC), {"text": "y"})}),
                ):
                    with pytest.raises(client.exceptions.ServiceUnavailable):
                        getattr(client, call)(FeatureGroupName="cards", **words)
                asked = [{"FeatureGroupName": "cards", "RecordIdentifiersValueAsString": ["a"]}]
                errors = client.batch_get_record(Identifiers=asked)["Errors"]
                assert [each["ErrorCode"] for each in errors] == ["ServiceUnavailable"]
                redis.start()


LONG = [{"FeatureGroupName": "users", "RecordIdentifiersValueAsString": ["a"] * 101}]


@pytest.mark.parametrize(
    ("call", "words", "error", "says"),
    [
        ("get_record", {"FeatureGroupName": "user", "RecordIdentifierValueAsString": "a"}, "ResourceNotFound", "Did you mean 'users'"),
        ("get_record", {"FeatureGroupName": "users", "RecordIdentifierValueAsString": "a", "FeatureNames": ["no"]}, "ValidationError", "no feature 'no'"),
        ("get_record", {"FeatureGroupName": "users", "RecordIdentifierValueAsString": "a" * 1025}, "ValidationError", "1024 bytes"),
        ("get_record", {"FeatureGroupName": "pairs", "RecordIdentifierValueAsString": "UA"}, "ValidationError", r"\(carrier, flight\) is a JSON array"),
        ("get_record", {"FeatureGroupName": "pairs", "RecordIdentifierValueAsString": '["UA", "x"]'}, "ValidationError", "'flight' must be Int64"),
        ("get_record", {"FeatureGroupName": "model", "RecordIdentifierValueAsString": '["a", "b", "c"]'}, "ValidationError", "user_id, add"),
        ("list_records", {"FeatureGroupName": "model"}, "ValidationError", r"request values \(add\)"),
        ("list_records", {"FeatureGroupName": "none"}, "ResourceNotFound", "none"),
        ("list_records", {"FeatureGroupName": "users:wide"}, "ResourceNotFound", "No feature view or service 'users:wide'"),
        ("get_record", {"FeatureGroupName": "users:wide", "RecordIdentifierValueAsString": "u1"}, "ResourceNotFound", "'users:wide'"),
        ("get_record", {"FeatureGroupName": "added", "RecordIdentifierValueAsString": '["u1", 1]'}, "ResourceNotFound", "'added'"),
        ("put_record", {"FeatureGroupName": "cards:wide", "Record": record("a", NOON, {})}, "ResourceNotFound", "'cards:wide'"),
        ("put_record", {"FeatureGroupName": "users", "Record": record("a", NOON, {})}, "ValidationError", "refreshed from its source"),
        ("put_record", {"FeatureGroupName": "events", "Record": record("a", NOON, {})}, "ValidationError", r"identity=\['user_id', 'at'\]"),
        ("put_record", {"FeatureGroupName": "plain", "Record": record("a", NOON, {})}, "ValidationError", "is a service"),
        ("put_record", {"FeatureGroupName": "cards", "Record": record("a", NOON, {})[:1]}, "ValidationError", "no 'at'"),
        ("put_record", {"FeatureGroupName": "cards", "Record": record("a", NOON + timedelta(hours=1), {})}, "ValidationError", "ahead"),
        ("put_record", {"FeatureGroupName": "cards", "Record": record("a", NOON - timedelta(days=31), {})}, "ValidationError", "too late"),
        ("put_record", {"FeatureGroupName": "cards", "Record": [*record("a", NOON, {}), {"FeatureName": "no", "ValueAsString": "1"}]}, "ValidationError", "no feature 'no'"),
        ("put_record", {"FeatureGroupName": "cards", "Record": [*record("a", NOON, {}), {"FeatureName": "big", "ValueAsString": "x"}]}, "ValidationError", "must be Int64"),
        ("put_record", {"FeatureGroupName": "cards", "Record": record("a", NOON, {}), "TargetStores": ["OfflineStore"]}, "ValidationError", "OnlineStore"),
        ("delete_record", {"FeatureGroupName": "sums", "RecordIdentifierValueAsString": "a", "EventTime": "2026-03-01T00:00:00Z"}, "ValidationError", "HardDelete"),
    ],
)  # fmt: skip
def test_mistakes_are_the_platforms_errors(client: Any, call: str, words: Any, error: str, says: str) -> None:
    """Its client raises its own classes, with our words."""
    with pytest.raises(getattr(client.exceptions, error), match=says):
        getattr(client, call)(**words)


def test_a_batch_says_what_failed(client: Any) -> None:
    """Each identifier of a group that is not there, each entry that is wrong; more than so many are refused at once."""
    asked = [{"FeatureGroupName": name, "RecordIdentifiersValueAsString": ["u1", "u2"]} for name in ("users", "none")]
    found = client.batch_get_record(Identifiers=asked)
    assert len(found["Records"]) == 2
    assert [(each["RecordIdentifierValueAsString"], each["ErrorCode"]) for each in found["Errors"]] == [
        ("u1", "ResourceNotFound"),
        ("u2", "ResourceNotFound"),
    ]
    entries = [{"FeatureGroupName": name, "Record": record("k", NOON, {})} for name in ("cards", "users")]
    errors = client.batch_write_record(Entries=entries)["Errors"]
    assert [(each["Entry"], each["ErrorCode"]) for each in errors] == [(entries[1], "ValidationError")]
    wide = boto3.client("sagemaker-featurestore-runtime", endpoint_url=client.meta.endpoint_url, region_name="us-east-1", aws_access_key_id="x",
                        aws_secret_access_key="x", config=Config(parameter_validation=False, retries={"max_attempts": 1}))  # fmt: skip
    with pytest.raises(ClientError, match="at most 100"):
        wide.batch_get_record(Identifiers=LONG)
    with pytest.raises(ClientError, match="at most 100"):
        wide.batch_get_record(Identifiers=asked[:1] * 101)
    with pytest.raises(ClientError, match="at most 25"):
        wide.batch_write_record(Entries=entries[:1] * 26)
    for call, words in (
        ("list_records", {"FeatureGroupName": "cards"}),
        ("list_records", {"FeatureGroupName": "users"}),
    ):
        for count in (0, 101):
            with pytest.raises(ClientError, match="MaxResults must be 1 to 100"):
                getattr(wide, call)(**words, MaxResults=count)
    most = [{"FeatureGroupName": "users", "RecordIdentifiersValueAsString": [f"u{n}" for n in range(100)]}] * 100
    found = client.batch_get_record(Identifiers=[{**each, "FeatureNames": ["user_id"]} for each in most])
    assert (len(found["Records"]), found["Errors"]) == (100 * 40, [])


def test_of_a_batch_the_right_ones_are_answered(client: Any) -> None:
    """What is wrong with one identifier, or one entry, is told of it alone."""
    ids = [
        '["UA", 0]',
        "UA",
        '["UA"]',
        '["UA", "x"]',
        '["UA", null]',
        '["UA", [0]]',
        '["UA", 1.5]',
        '["ZZ", 0]',
        '["AA", -1]',
    ]
    found = client.batch_get_record(Identifiers=[{"FeatureGroupName": "pairs", "RecordIdentifiersValueAsString": ids}])
    assert [each["RecordIdentifierValueAsString"] for each in found["Records"]] == [ids[0], ids[-1]]
    assert [(each["RecordIdentifierValueAsString"], each["ErrorCode"]) for each in found["Errors"]] == [
        (each, "ValidationError") for each in ids[1:7]
    ]
    good = {"FeatureGroupName": "cards", "Record": record("k", NOON, {"text": "a"})}
    wrong = {"FeatureGroupName": "cards", "Record": record("k", NOON, {"text": "b"})[:1]}
    last = {"FeatureGroupName": "cards", "Record": record("k", NOON, {"text": "c"})}
    errors = client.batch_write_record(Entries=[good, wrong, last])["Errors"]
    assert [(each["Entry"], each["ErrorCode"]) for each in errors] == [(wrong, "ValidationError")]
    assert text(client, "k") == "c"


def test_groups_are_what_is_applied(store: FeatureStore) -> None:
    """Of the control plane what readers ask: which groups there are, and what is in them."""
    with serving(store, "sagemaker") as url:
        control = client_of(url, "sagemaker")
        names = {each["FeatureGroupName"] for each in control.list_feature_groups()["FeatureGroupSummaries"]}
        assert names == {"users", "pairs", "cards", "sums", "events", "model", "plain"}
        told = control.describe_feature_group(FeatureGroupName="cards")
        assert (told["RecordIdentifierFeatureName"], told["EventTimeFeatureName"]) == ("user_id", "at")
        assert {"FeatureName": "embedding", "FeatureType": "Fractional", "CollectionType": "List"} in told[
            "FeatureDefinitions"
        ]
        words = {
            "RecordIdentifierFeatureName": "user_id",
            "EventTimeFeatureName": "at",
            "FeatureDefinitions": [{"FeatureName": "user_id", "FeatureType": "String"}],
        }
        for name, code in (("cards", "ResourceInUse"), ("new", "ValidationError")):
            with pytest.raises(ClientError) as raised:
                control.create_feature_group(FeatureGroupName=name, **words)
            assert raised.value.response["Error"]["Code"] == code
        with pytest.raises(control.exceptions.ResourceNotFound):
            control.describe_feature_group(FeatureGroupName="none")


def test_a_key_is_the_session_token(store: FeatureStore) -> None:
    """Its scope says what may be done, whatever signed the request."""
    secrets = {scope: create_key(store.registry, scope, [scope]).secret for scope in ("read", "push")}
    with serving(store, "sagemaker", authentication=True) as url:
        for token, may_read, may_push in (
            (None, False, False),
            (secrets["read"], True, False),
            (secrets["push"], False, True),
        ):
            client = client_of(url, token=token)
            with nullcontext() if may_read else pytest.raises(client.exceptions.AccessForbidden):
                client.get_record(FeatureGroupName="users", RecordIdentifierValueAsString="u1")
            with nullcontext() if may_push else pytest.raises(client.exceptions.AccessForbidden):
                client.put_record(FeatureGroupName="cards", Record=record("k", NOON, {}))


def test_texts_are_read_as_what_they_were_written_of() -> None:
    """Instants as seconds too, as the platform has them."""
    assert from_text(Timestamp, "1767225600.25") == "2026-01-01T00:00:00.250000Z"
    assert from_text(String, "1767225600") == "1767225600"
    assert from_text(TYPES["narrow"], "0.1") == pytest.approx(0.1)
    draw = random.Random(1)
    for of in [*TYPES.values()] * 50:
        given = value(draw, of)
        if given is not None:
            assert bits(from_json(of, from_text(of, text_of(of, given)))) == bits(given), of


def test_what_the_page_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """docs/platforms/sagemaker.md, with boto3."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "any")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    assert "client" in run_page("sagemaker", tmp_path)

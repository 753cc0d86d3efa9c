"""Whoever has a limited key sees its services and what those are made of, and of everything else no name, value or count.

All that the key is not for bears a word, and has values, that stand nowhere else: no page, table or export may have one of them, whatever
address is asked for.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from featurestore import (
    Count,
    Entity,
    FeatureService,
    FeatureStore,
    FeatureView,
    InRange,
    Latest,
    ManualClock,
    NotNull,
    ParquetSource,
    PushSource,
    on_demand,
)
from featurestore.access.api_keys import create_key
from featurestore.console.site_map import PAGES
from featurestore.registry.activity import Activity
from featurestore.types import Float64, Int64, String, Timestamp
from tests.console_pages.pages import Read, read
from tests.server.test_http import serving
from tests.small import NOON, hours, table, write

HIDDEN = "hush"
VALUES = ("913757", "424243", "686869")
"""Digits of values of hidden columns, hidden keys and hidden rows."""


def definitions(folder: Path, *, ttl: str = "2d") -> list[Any]:
    thing, other = Entity("thing", key={"thing": Int64}), Entity("hush_entity", key={"hush_key": Int64})
    rows = table(
        thing=[1, 2, 1, 2], at=[hours(-3), hours(-2), hours(-1), hours(-1.5)], x=[1.0, 2.0, 3.0, -1.0], hush_column=[913757.0, 913757.5, 1.0, 2.0],
    )  # fmt: skip
    secret = table(hush_key=[424243], at=[hours(-1)], value=[686869.0])
    shared = ParquetSource(
        "shared", write(folder / "shared.parquet", rows), event_time="at", derived={"hush_derived": "hush_column * 2"},
        expectations=[InRange("x", at_least=0, otherwise="quarantine"), InRange("hush_column", at_least=1.5, otherwise="quarantine")],
    )  # fmt: skip
    theirs = ParquetSource(
        "hush_source", write(folder / "hush.parquet", secret), event_time="at", expectations=[NotNull("value")]
    )
    view = FeatureView(
        "things", entity=thing, source=shared, refresh="1h", ttl=ttl,
        features={"x": Latest("x"), "hush_feature": Latest("hush_column"), "hush_where": Count(where="hush_derived > 3", window="1d")},
    )  # fmt: skip
    hush_view = FeatureView("hush_view", entity=other, source=theirs, refresh="1h", features={"value": Latest("value")})
    clicks = PushSource(
        "clicks", schema={"id": String, "thing": Int64, "at": Timestamp, "hush_field": Float64}, event_time="at", identity="id",
        expectations=[InRange("hush_field", at_most=9, otherwise="quarantine")],
    )  # fmt: skip
    hush_clicks = PushSource(
        "hush_clicks", schema={"id": String, "thing": Int64, "at": Timestamp}, event_time="at", identity="id"
    )
    counts = FeatureView("counts", entity=thing, source=clicks, features={"n": Count(window="1h")})
    hush_counts = FeatureView("hush_counts", entity=thing, source=hush_clicks, features={"n": Count(window="1h")})

    @on_demand(output=Float64, inputs=[view["x"]])
    def doubled(x: float | None) -> float | None:
        return None if x is None else 2 * x

    @on_demand(output=Float64, inputs=[hush_view["value"]])
    def hush_function(value: float | None) -> float | None:
        return value

    return [
        FeatureService("mine", features=[view["x"], counts, doubled], description="what the key is for"),
        FeatureService(
            "hush_service", features=[view, hush_view, hush_counts, hush_function], owner="hush_owner", skew_budget=0.5
        ),
    ]


@dataclass(frozen=True)
class Shared:
    """A server of a project of two teams, whoever has a key for one of them, and what the other one has."""

    store: FeatureStore
    client: httpx.Client
    request: str
    hidden_request: str
    frame: str
    hidden_frame: str
    secret: str
    """The key."""

    def ask(self, path: str, /, **words: str) -> httpx.Response:
        """With the key, as a browser would that follows no link."""
        return self.client.get(f"/ui/{path}".rstrip("/"), params=words)


@contextmanager
def two_teams(folder: Path) -> Iterator[Shared]:
    """The project, lived through for a minute, and a server of it that asks for keys."""
    (folder / "featurestore.toml").write_text('project = "shared"\ndefinitions = []\n[serving_log]\nrate = 1.0\n')
    clock = ManualClock(NOON)
    with FeatureStore(folder, clock=clock) as store:
        store.apply(definitions(folder), note="hush note")
        store.materialize(progress=False)
        for source in ("clicks", "hush_clicks"):
            field = {"hush_field": 686869.0} if source == "clicks" else {}
            store.push(
                source,
                [
                    {"id": "a", "thing": 1, "at": NOON, **field},
                    {"id": "b", "thing": 1, "at": NOON, **dict.fromkeys(field, 1.0)},
                ],
            )
        request = store.get_online_features([{"thing": 1}], "mine").request
        hidden = store.get_online_features([{"thing": 1, "hush_key": 424243}], "hush_service").request
        assert request is not None
        assert hidden is not None
        clock.advance(timedelta(minutes=1))
        frames = []
        for service, name in (("mine", "mine.parquet"), ("hush_service", "hush_frame.parquet")):
            spine = table(thing=[1], hush_key=[424243], event_timestamp=[NOON])
            store.get_historical_features(spine, service).to_parquet(folder / name)
            frames.append(str(folder / name))
        adhoc = store.get_historical_features(
            table(thing=[1], event_timestamp=[NOON]), ["things:hush_feature", "things:x"]
        )
        adhoc.to_parquet(folder / "hush_adhoc.parquet")
        store.audit()
        store.apply(definitions(folder, ttl="3d"), keep=True, note="hush note 2")
        store.materialize(progress=False)
        store.registry.add_activity(
            [Activity("fail to materialize", name, {"why": "hush: 913757"}) for name in ("things", "hush_view")]
        )
        made = create_key(store.registry, "limited", ["read"], only_on=["service:mine"])
        with serving(store, authentication=True) as client:
            client.headers["authorization"] = f"Bearer {made.secret}"
            yield Shared(store, client, request, hidden, frames[0], frames[1], made.secret)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    with two_teams(tmp_path_factory.mktemp("shared")) as made:
        yield made


NAMES = {
    "entity": "thing", "source": "shared", "view": "things", "feature": "things:x", "function": "doubled", "service": "mine", "lineage": "things",
}  # fmt: skip
WORDS: dict[str, list[dict[str, str]]] = {
    "audit": [{"since": "1d", "run": "1"}], "drift": [{"service": "mine", "since": "1d", "run": "1", "baseline": "mine.parquet"}],
    "statistics": [{"limit": "50"}, {"service": "mine"}, {"view": "things"}, {"feature": "things:x"}], "availability": [{"run": "1"}, {"view": "things", "run": "1"}],
    "explain": [
        {"view": "things", "key.thing": "1"},
        *({**asked, "run": "1"} for asked in ({"view": "things", "key.thing": "1"}, {"view": "things:x", "key.thing": "2"}, {"view": "counts", "key.thing": "1"}, {"view": "things", "key.thing": "x"})),
    ],
    "request": [{"id": "{request}"}, {"id": "{hidden}"}, {"id": "{request}", "row": "7"}], "catalog": [{"q": "thing"}, {"q": "a"}, {"kind": "source"}],
    "lookup": [{"service": "mine"}, {"service": "mine", "in.thing": "1"}, {"service": "mine", "in.thing": "x"}], "training": [{"path": "mine.parquet"}, {"service": "mine"}],
    "pushes": [{"source": "clicks"}], "quarantine": [{"of": "things"}, {"run": "1"}, {"of": "things", "run": "1"}, {"of": "clicks", "run": "1"}], "runs": [{"view": "things"}, {"limit": "1"}],
    "lineage": [{"direction": "upstream"}, {"direction": "downstream"}],
}  # fmt: skip
PAGES_SEEN = [page for page in PAGES if page.scope == "read"]


def addresses(shared: Shared, kind: str) -> Iterator[tuple[str, dict[str, str]]]:
    """What is asked of a kind of page, in all of its forms."""
    path = f"{kind}/{NAMES[kind]}" if kind in NAMES else kind
    for words in [{}, *WORDS.get(kind, [])]:
        yield (
            path,
            {word: said.format(request=shared.request, hidden=shared.hidden_request) for word, said in words.items()},
        )


def silent(answer: httpx.Response, *but: str) -> str:
    """The text of an answer, which tells of nothing hidden. but: what was asked for, which may be said again."""
    text = answer.text
    for said in but:
        text = text.replace(said, "")
    for word in (HIDDEN, *VALUES):
        at = text.lower().find(word)
        assert at < 0, (str(answer.url), text[max(0, at - 200) : at + 100])
    return text


@pytest.mark.parametrize("kind", [page.kind for page in PAGES_SEEN])
def test_no_page_tells_of_what_the_key_is_not_for(shared: Shared, kind: str) -> None:
    """As a page, as JSON, and each of its tables as CSV."""
    for path, words in addresses(shared, kind):
        answer = shared.ask(path, **words)
        assert answer.status_code in {200, 404, 422}, answer.text
        page = read(answer)
        silent(answer)
        if answer.status_code != 200:
            continue
        assert "limited to service 'mine'" in page.text
        whole = shared.ask(path, **words, format="json")
        silent(whole)
        for name in whole.json().get("tables", {}) if whole.status_code == 200 else ():
            export = shared.ask(path, **words, format="csv", table=name)
            assert export.status_code == 200
            silent(export)


@pytest.mark.parametrize("kind", [page.kind for page in PAGES if page.scope != "read"])
def test_what_is_for_administrators_is_refused(shared: Shared, kind: str) -> None:
    for form in ("html", "json"):
        answer = shared.ask(kind, format=form)
        assert answer.status_code == 403
        silent(answer)


GUESSES = {
    "entity": ["hush_entity"], "source": ["hush_source", "hush_clicks"], "view": ["hush_view", "hush_counts"],
    "feature": ["things:hush_feature", "hush_view:value", "hush_feature"], "function": ["hush_function"], "service": ["hush_service"],
    "lineage": ["hush_view", "hush_service", "things:hush_feature", "things__hush_feature", "shared.hush_column", "shared.hush_derived", "hush_function", "hush_source"],
}  # fmt: skip
GUESSED_WORDS = [
    ("runs", "view", "hush_view"), ("statistics", "service", "hush_service"), ("statistics", "view", "hush_view"),
    ("statistics", "feature", "things:hush_feature"), ("statistics", "feature", "hush_function"), ("availability", "view", "hush_view"), ("audit", "service", "hush_service"),
    ("drift", "service", "hush_service"), ("drift", "baseline", "hush_frame.parquet"), ("drift", "baseline", "hush_adhoc.parquet"),
    ("training", "path", "hush_frame.parquet"), ("training", "path", "hush_adhoc.parquet"), ("training", "beside", "hush_frame.parquet"),
    ("training", "service", "hush_service"), ("lookup", "service", "hush_service"), ("pushes", "source", "hush_clicks"), ("quarantine", "of", "hush_view"),
    ("quarantine", "of", "hush_clicks"), ("explain", "view", "hush_view"), ("explain", "view", "things:hush_feature"), ("catalog", "q", "hush"), ("catalog", "q", "hush_feature"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, names in GUESSES.items() for name in names])
def test_a_guessed_name_is_none(shared: Shared, kind: str, name: str) -> None:
    """It is answered as one is that there is not, letter for letter but for the name."""
    never = name.replace("hush", "zzzz")
    for form in ("html", "json"):
        found, other = shared.ask(f"{kind}/{name}", format=form), shared.ask(f"{kind}/{never}", format=form)
        assert found.status_code == other.status_code == 404
        silent(found, name)
        assert same(found, name) == same(other, never)


def same(answer: httpx.Response, name: str) -> str:
    """An answer without what is each request's own."""
    text = answer.text.replace(answer.headers.get("x-request-id", "-"), "")
    return text.replace(name, "NAME").replace(name.replace(":", "%3A"), "NAME")


@pytest.mark.parametrize(("kind", "word", "said"), GUESSED_WORDS)
def test_a_guessed_word_finds_nothing(shared: Shared, kind: str, word: str, said: str) -> None:
    never = said.replace("hush", "zzzz")
    more = (
        {"run": "1"}
        if kind in {"audit", "availability", "explain", "quarantine"}
        else {"run": "1", "since": "1d", **({} if word == "service" else {"service": "mine"})}
        if kind == "drift"
        else {}
    )
    more |= (
        {"key.hush_key": "424243", "key.thing": "1"}
        if kind == "explain"
        else {"in.thing": "1", "in.hush_key": "424243"}
        if kind == "lookup"
        else {}
    )
    more |= {"path": "mine.parquet"} if word == "beside" else {}
    for form in ("html", "json"):
        found, other = (
            shared.ask(kind, **{**more, word: said, "format": form}),
            shared.ask(kind, **{**more, word: never, "format": form}),
        )
        assert found.status_code == other.status_code
        silent(found, said, said.replace(":", "%3A"), *more)
        assert same(found, said) == same(other, never)


def test_a_request_to_another_service_was_never_made(shared: Shared) -> None:
    never = "0" * len(shared.hidden_request)
    for row, form in itertools.product(("0", "1"), ("html", "json")):
        found = shared.ask("request", id=shared.hidden_request, row=row, format=form)
        other = shared.ask("request", id=never, row=row, format=form)
        assert found.status_code == other.status_code
        assert same(found, shared.hidden_request) == same(other, never)
        silent(found)


def test_what_the_key_is_for_is_all_there(shared: Shared) -> None:
    """Each kind of page has something to say of it."""

    def records(path: str, of: str, /, **words: str) -> list[dict[str, Any]]:
        answer = shared.ask(path, **words, format="json", table=of)
        assert answer.status_code == 200, answer.text
        found: list[dict[str, Any]] = answer.json()
        return found

    assert {one["name"] for one in records("catalog", "found")} == {
        "mine", "doubled", "things", "things:x", "counts", "counts:n", "shared", "clicks", "thing",
    }  # fmt: skip
    assert {one["view"] for one in records("", "views")} == {"things", "counts"}
    assert [one["service"] for one in records("", "skew")] == ["mine"]
    assert [one["feature"] for one in records("view/things", "features")] == ["x"]
    assert {one["column"] for one in records("source/shared", "columns")} == {"thing", "at", "x"}
    assert [one["expectation"] for one in records("source/shared", "expectations")] == ["InRange('x', at_least=0)"]
    assert {one["view"] for one in records("runs", "runs")} == {"things", "counts"}
    assert [one["why"] for one in records("runs", "failures")]
    assert [one["is"] for one in records("service/mine", "versions")] == ["applied", "kept"]
    assert {one["name"] for one in records("lineage/things", "nodes")} >= {
        "shared.x",
        "things:x",
        "mine",
        "mine.parquet",
    }
    assert [one["service"] for one in records("training", "frames")] == ["mine"]
    assert {one["feature"] for one in records("audit", "features", since="1d")} >= {"things__x", "counts__n", "doubled"}
    assert [one["column"] for one in records("lookup", "values", service="mine", **{"in.thing": "1"})] == [
        "things__x",
        "counts__n",
        "doubled",
    ]
    assert [
        (one["feature"], one["value"]) for one in records("explain", "values", view="things", **{"key.thing": "1"})
    ] == [("x", "1.0")]
    (row, *_) = records("explain", "rows", view="things", **{"key.thing": "1"})
    assert {"x", "verdict"} <= set(row)
    assert {one["feature"] for one in records("request", "values", id=shared.request)} == {
        "things__x",
        "counts__n",
        "doubled",
    }
    assert [one["source"] for one in records("pushes", "logs")] == ["clicks"]
    assert {(one["of"], one["what is expected"]) for one in records("quarantine", "expectations")} == {
        ("things", "InRange('x', at_least=0)")
    }
    (aside,) = records("quarantine", "rows", of="things")
    assert (aside["x"], aside["does not meet"]) == (-1.0, ["InRange('x', at_least=0)"])
    assert records("statistics", "kept-1", service="mine")


def test_rows_in_quarantine_for_what_is_hidden_are_not_counted(shared: Shared) -> None:
    """A row of this key was kept aside for a column that the key may not read: of that neither an explanation tells, nor a log's page."""
    words = {"view": "counts", "key.thing": "1", "run": "1"}
    whole = create_key(shared.store.registry, "counting", ["read"])
    headers = {"authorization": f"Bearer {whole.secret}"}
    assert "in quarantine" in read(shared.client.get("/ui/explain", params=words, headers=headers)).text
    assert "in quarantine" not in read(shared.ask("explain", **words)).text
    (log,) = shared.ask("pushes", format="json", table="logs").json()
    assert log["in quarantine"] == 0


def test_everybody_else_sees_all_of_it(shared: Shared) -> None:
    """The words that are looked for do stand on pages: the tests above would find them."""
    whole = create_key(shared.store.registry, "whole", ["read"])
    with httpx.Client(base_url=shared.client.base_url, headers={"x-api-key": whole.secret}, timeout=600) as client:
        for path in ("catalog", "view/things", "source/shared", "lineage/things", "training", "runs", "quarantine?of=things&run=1", "explain?view=things&key.thing=1&run=1",
                     "quarantine?of=clicks&run=1", f"request?id={shared.hidden_request}", "statistics", "audit?since=1d&run=1", ""):  # fmt: skip
            answer = client.get(f"/ui/{path}")
            assert answer.status_code == 200
            text = answer.text.lower()
            assert HIDDEN in text or any(value in text for value in VALUES), path
            assert "limited to" not in Read(answer.text).text


@pytest.mark.parametrize("limits", [["view:things"], ["source:clicks"], ["service:nothing"]])
def test_a_key_for_a_view_or_a_source_sees_that_alone(shared: Shared, limits: list[str]) -> None:
    """All of the view's features; of a source, its columns and its rows. A name that nothing bears shows nothing."""
    made = create_key(shared.store.registry, limits[0].replace(":", "-"), ["read"], only_on=limits)
    with httpx.Client(base_url=shared.client.base_url, headers={"x-api-key": made.secret}, timeout=600) as client:
        found = {one["name"] for one in client.get("/ui/catalog", params={"format": "json", "table": "found"}).json()}
        expected = {
            "view:things": {"thing", "shared", "things", "things:x", "things:hush_feature", "things:hush_where"},
            "source:clicks": {"clicks"},
        }
        assert found == expected.get(limits[0], set())
        assert client.get("/ui/service/mine").status_code == 404
        for page in PAGES_SEEN:
            if not page.is_named:
                assert client.get(f"/ui/{page.kind}").status_code == 200
        if limits == ["source:clicks"]:
            (aside,) = client.get("/ui/quarantine", params={"of": "clicks", "format": "json", "table": "rows"}).json()
            assert aside["hush_field"] == 686869.0

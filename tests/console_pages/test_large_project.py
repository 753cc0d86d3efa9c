"""A project of 3,000 features in 300 views: every page is there, and none is longer than a browser takes at once, or does more than it shows."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qsl

import pytest

from featurestore import Entity, FeatureService, FeatureStore, FeatureView, ManualClock, NotNull, ParquetSource
from featurestore.console import Console
from featurestore.console.page import PageKind
from featurestore.console.pages.statistics import MOST_DRAWINGS
from featurestore.console.site_map import PAGES
from featurestore.reports.lineage.graph import Edge, found, graph_of
from featurestore.types import Int64
from tests.console_pages.pages import checked
from tests.small import NOON, hours, table, write

VIEWS, FEATURES, SERVICES = 300, 10, 60

ONLINE = 100
"""Views that are materialized, of which the service "wide" is made."""

LARGEST_BYTES = 300_000
MOST_ELEMENTS = 8_000

NAMED = {
    "entity": ["thing"], "source": ["rows"], "view": ["view007"], "feature": ["view007:f3"], "service": ["model", "service07"], "function": [],
    "lineage": ["model", "rows", "view007", "view007:f3"],
}  # fmt: skip
WORDS = {
    "catalog": ["q=f3", "kind=feature", "q=view007:f3"], "explain": ["view=view007&key.thing=1", "view=view007&key.thing=1&run=1"], "lookup": ["service=model", "service=wide&in.thing=1"],
    "statistics": ["service=model", "feature=view007:f3"], "training": ["service=model", "path=frame.parquet"], "runs": ["view=view007"],
    "quarantine": ["of=view007", "of=view007&run=1"], "audit": ["since=1d&run=1&service=service07"],
}  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FeatureStore]:
    """Applied; some views are materialized, a frame of all features is written, and some requests were logged."""
    folder = tmp_path_factory.mktemp("large")
    (folder / "featurestore.toml").write_text('project = "large"\ndefinitions = []\n[serving_log]\nrate = 1.0\n')
    columns: dict[str, list[Any]] = {f"f{n}": [1.0 * n, 2.0, 3.0] for n in range(FEATURES)}
    rows = table(thing=[1, 2, 2], at=[hours(-3), hours(-2), hours(-1)], **columns)
    thing = Entity("thing", key={"thing": Int64})
    source = ParquetSource("rows", write(folder / "rows.parquet", rows), event_time="at", expectations=[NotNull("f0")])
    views = [
        FeatureView(
            f"view{n:03}", entity=thing, source=source, refresh="1h", ttl="2d", features=list(columns),
            description=f"What is known of things, part {n}", owner=f"team {n % 7}", tags={"team": str(n % 7)},
        )
        for n in range(VIEWS)
    ]  # fmt: skip
    services = [FeatureService(f"service{n:02}", features=views[5 * n : 5 * n + 5]) for n in range(SERVICES)]
    with FeatureStore(folder, clock=ManualClock(NOON)) as store:
        store.apply(
            [FeatureService("model", features=views), FeatureService("wide", features=views[:ONLINE]), *services]
        )
        store.materialize([view.name for view in views[:ONLINE]], progress=False)
        store.get_online_features([{"thing": 1}, {"thing": 2}], "service07")
        spine = table(thing=[1, 2], event_timestamp=[NOON, NOON])
        store.get_historical_features(spine, "model").to_parquet(folder / "frame.parquet")
        yield store


@pytest.mark.parametrize("kind", PAGES, ids=[page.kind or "overview" for page in PAGES])
def test_no_page_is_too_long(store: FeatureStore, kind: PageKind) -> None:
    """In bytes, and in elements."""
    console = Console(store)
    for path in [f"{kind.kind}/{name}" for name in NAMED.get(kind.kind, [])] if kind.is_named else [kind.kind]:
        for words in ["", *WORDS.get(kind.kind, [])]:
            answer = console.answer(path, dict(parse_qsl(words)))
            assert len(answer.body) < LARGEST_BYTES, (path, words)
            page = checked(answer.body.decode())
            assert len(page.elements) < MOST_ELEMENTS, (path, words)


def test_what_is_found_by_words_is_what_has_them(store: FeatureStore) -> None:
    found = Console(store).answer("catalog", {"q": "view007:f3", "format": "json", "table": "found"})
    (entry,) = json.loads(found.body)
    assert (entry["kind"], entry["name"], entry["owner"]) == ("feature", "view007:f3", "team 0")


def test_drawings_are_few_however_much_is_kept(store: FeatureStore) -> None:
    page = checked(Console(store).answer("statistics", {"limit": "50"}).body.decode())
    kept = len(store.statistics(limit=50).found)
    assert 0 < len(page.all("figure")) <= max(MOST_DRAWINGS, kept)


def calls(do: Callable[[], object]) -> int:
    """How many functions are called: what is done for each pair of columns shows, however fast the machine is."""
    count = 0

    def called(_: object, event: str, __: object) -> None:
        nonlocal count
        count += event in {"call", "c_call"}

    before = sys.getprofile()
    sys.setprofile(called)
    try:
        do()
    finally:
        sys.setprofile(before)
    return count


def test_a_lookup_does_as_much_for_each_column_however_many_there_are(store: FeatureStore) -> None:
    """1,000 columns, and 50: 20 times as many."""
    console = Console(store)

    def asked(service: str) -> int:
        words = {"service": service, "in.thing": "1"}
        assert b"PRESENT" in console.answer("lookup", words).body  # and what is read once is read
        return calls(lambda: console.answer("lookup", words))

    assert asked("wide") < 20 * asked("service07")


class Counted(dict[Edge, None]):
    """Edges that count how often somebody goes through them."""

    times = 0

    def __iter__(self) -> Iterator[Edge]:
        self.times += 1
        return super().__iter__()


def test_what_a_name_stands_for_is_found_without_going_through_the_graph_for_each(store: FeatureStore) -> None:
    graph = graph_of(store.catalog)
    graph.edges = edges = Counted(graph.edges)
    assert found(graph, store.catalog, "service07") == ("service:service07",)
    assert len(found(graph, store.catalog, "view007")) == 1 + FEATURES
    assert edges.times <= 2

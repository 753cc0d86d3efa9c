"""Rows in quarantine are told with what they do not meet, of files and of pushes alike, wherever the push log lies."""

from __future__ import annotations

from collections.abc import Iterator
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
    ManualClock,
    Matches,
    ParquetSource,
    PushSource,
)
from featurestore.errors import PushError
from featurestore.types import Float64, Int64, String, Timestamp
from tests.console_pages.pages import HOSTILE, read, rows
from tests.server.test_http import serving
from tests.small import NOON, hours, table, write


def views(folder: Path, *, at_most: int = 100) -> list[FeatureView]:
    path = write(
        folder / "rows.parquet", table(thing=[1, 1, 2], at=[hours(-3), hours(-2), hours(-1)], word=["a", HOSTILE, "b"])
    )
    thing = Entity("thing", key={"thing": Int64})
    files = ParquetSource(
        "files", path, event_time="at", expectations=[Matches("word", "[a-z]", otherwise="quarantine")]
    )
    swipes = PushSource(
        "swipes", schema={"id": String, "thing": Int64, "at": Timestamp, "amount": Float64}, event_time="at", identity="id",
        expectations=[InRange("amount", at_most=at_most, otherwise="quarantine")],
    )  # fmt: skip
    return [
        FeatureView("words", entity=thing, source=files, refresh="1h", features=["word"]),
        FeatureView("swiped", entity=thing, source=swipes, features={"n": Count(window="1h")}),
    ]


@pytest.fixture(scope="module", params=["files", "PostgreSQL"])
def served(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[FeatureStore, httpx.Client]]:
    folder = tmp_path_factory.mktemp("kept")
    place = ""
    if request.param == "PostgreSQL":  # which is for several machines, and so with Redis
        redis_url, postgres = request.getfixturevalue("redis_url"), request.getfixturevalue("postgres_server")
        place = f'online = "{redis_url}"\npush_log = "{postgres.url}"\n'
    (folder / "featurestore.toml").write_text(f'project = "kept"\ndefinitions = []\n{place}')
    with FeatureStore(folder, clock=ManualClock(NOON)) as store:
        store.apply([FeatureService("model", features=views(folder))])
        store.materialize(progress=False)
        store.push(
            "swipes",
            [
                {"id": HOSTILE, "thing": 1, "at": NOON, "amount": 101.0},
                {"id": "b", "thing": 1, "at": NOON, "amount": 1.0},
            ],
        )
        with serving(store) as client:
            yield store, client


@pytest.fixture
def kept(served: tuple[FeatureStore, httpx.Client]) -> httpx.Client:
    return served[1]


def test_what_is_expected_is_counted(kept: httpx.Client) -> None:
    found = {one["of"]: one["rows that do not meet it"] for one in rows(kept, "/ui/quarantine", "expectations")}
    assert found == {"words": "1", "swipes": "1"}


@pytest.mark.parametrize(("name", "unmet", "column"), [("words", "Matches", "word"), ("swipes", "InRange", "id")])
def test_each_row_says_what_it_does_not_meet(kept: httpx.Client, name: str, unmet: str, column: str) -> None:
    """And where it lies; how pushed ones are pushed again stands below."""
    answer = kept.get("/ui/quarantine", params={"of": name, "format": "json", "table": "rows"})
    (found,) = answer.json()
    assert found[column] == HOSTILE
    assert ("id in quarantine" in found) == (name == "swipes")  # beside a column of the source that is called id
    assert found["does not meet"][0].startswith(unmet)
    page = read(kept.get("/ui/quarantine", params={"of": name, "run": "1"}))
    assert not page.all("img")
    assert ("quarantine replay swipes" in page.text) == (name == "swipes")


def test_a_value_is_explained_with_the_rows_of_its_key_that_are_kept_aside(kept: httpx.Client) -> None:
    page = read(kept.get("/ui/explain", params={"view": "swiped", "key.thing": "1", "run": "1"}))
    assert "1 row of this key, counted nowhere" in page.text
    assert "/ui/quarantine?of=swipes" in [link.get("href") for link in page.all("a")]
    other = read(kept.get("/ui/explain", params={"view": "swiped", "key.thing": "2", "run": "1"}))
    assert "counted nowhere" not in other.text


def test_what_is_not_there_is_not_found(kept: httpx.Client) -> None:
    assert kept.get("/ui/quarantine", params={"of": HOSTILE, "run": "1"}).status_code == 404
    assert kept.get("/ui/quarantine", params={"of": "words", "limit": "x"}).status_code == 422


def test_rows_in_quarantine_need_somebody(kept: httpx.Client) -> None:
    """The first page says so, of files and of pushes, and leads to them; so do the pages of the view, of the source and of pushes."""
    needs = {one["where"]: one["what is wrong"] for one in rows(kept, "/ui", "needs")}
    assert needs["rows of swipes"] == "1 pushed row does not meet what is expected: replay or discard"
    assert needs["rows of words"].startswith("1 row did not meet Matches('word'")
    for address, of in (
        ("/ui", "swipes"),
        ("/ui", "words"),
        ("/ui/view/words", "words"),
        ("/ui/source/swipes", "swipes"),
        ("/ui/pushes", "swipes"),
    ):
        assert f"/ui/quarantine?of={of}" in read(kept.get(address)).links(), address


def test_what_was_replayed_or_discarded_is_there_no_more(served: tuple[FeatureStore, httpx.Client]) -> None:
    """As the page says, in a terminal: rows that meet by now what is expected are pushed again, others are erased; no page counts them any more."""
    store, client = served
    store.push("swipes", [{"id": name, "thing": 3, "at": NOON, "amount": 150.0} for name in "cd"])

    def of_thing(number: int) -> list[dict[str, Any]]:
        return [row for row in rows(client, "/ui/quarantine?of=swipes", "rows") if row["thing"] == number]

    assert [row["id"] for row in of_thing(3)] == ["c", "d"]
    assert {type(one) for one in store.replay_quarantined("swipes").values()} == {PushError}  # none meets it
    first, second = (int(row["id in quarantine"]) for row in of_thing(3))
    assert store.discard_quarantined("swipes", [first]) == 1
    assert [int(row["id in quarantine"]) for row in of_thing(3)] == [second]
    assert rows(client, "/ui/pushes", "logs")[0]["in quarantine"] == "2"
    store.apply([FeatureService("model", features=views(store.config.root, at_most=200))])
    (again,) = of_thing(3)
    assert again["does not meet"] == "meets all by now"
    done = store.replay_quarantined("swipes", [second])
    assert list(done) == [second]
    assert of_thing(3) == []
    assert store.discard_quarantined("swipes") == 1
    page = read(client.get("/ui/quarantine?of=swipes&run=1"))
    assert "Every row of swipes meets what is expected of it." in page.text
    assert rows(client, "/ui/pushes", "logs")[0]["in quarantine"] == 0
    assert rows(client, "/ui/explain?view=swiped&key.thing=3", "values")[0]["value"] == "1"

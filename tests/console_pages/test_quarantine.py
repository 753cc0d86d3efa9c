"""Rows in quarantine are told with what they do not meet, of files and of pushes alike."""

from __future__ import annotations

from collections.abc import Iterator

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
from featurestore.types import Float64, Int64, String, Timestamp
from tests.console_pages.pages import HOSTILE, read, rows
from tests.server.test_http import serving
from tests.small import NOON, hours, table, write


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    folder = tmp_path_factory.mktemp("kept")
    (folder / "featurestore.toml").write_text('project = "kept"\ndefinitions = []\n')
    path = write(
        folder / "rows.parquet", table(thing=[1, 1, 2], at=[hours(-3), hours(-2), hours(-1)], word=["a", HOSTILE, "b"])
    )
    thing = Entity("thing", key={"thing": Int64})
    files = ParquetSource(
        "files", path, event_time="at", expectations=[Matches("word", "[a-z]", otherwise="quarantine")]
    )
    swipes = PushSource(
        "swipes", schema={"id": String, "thing": Int64, "at": Timestamp, "amount": Float64}, event_time="at", identity="id",
        expectations=[InRange("amount", at_most=100, otherwise="quarantine")],
    )  # fmt: skip
    views = [
        FeatureView("words", entity=thing, source=files, refresh="1h", features=["word"]),
        FeatureView("swiped", entity=thing, source=swipes, features={"n": Count(window="1h")}),
    ]
    with FeatureStore(folder, clock=ManualClock(NOON)) as store:
        store.apply([FeatureService("model", features=views)])
        store.materialize(progress=False)
        store.push(
            "swipes",
            [
                {"id": HOSTILE, "thing": 1, "at": NOON, "amount": 101.0},
                {"id": "b", "thing": 1, "at": NOON, "amount": 1.0},
            ],
        )
        with serving(store) as client:
            yield client


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
    page = read(kept.get("/ui/quarantine", params={"of": name}))
    assert not page.all("img")
    assert ("quarantine replay swipes" in page.text) == (name == "swipes")


def test_a_value_is_explained_with_the_rows_of_its_key_that_are_kept_aside(kept: httpx.Client) -> None:
    page = read(kept.get("/ui/explain", params={"view": "swiped", "key.thing": "1"}))
    assert "1 row of this key, counted nowhere" in page.text
    assert "/ui/quarantine?of=swipes" in [link.get("href") for link in page.all("a")]
    other = read(kept.get("/ui/explain", params={"view": "swiped", "key.thing": "2"}))
    assert "counted nowhere" not in other.text


def test_what_is_not_there_is_not_found(kept: httpx.Client) -> None:
    assert kept.get("/ui/quarantine", params={"of": HOSTILE}).status_code == 404
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

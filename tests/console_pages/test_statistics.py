"""What values were like: the figures are those that were kept, and bars are as high as they say."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from featurestore.console.value_bars import HEIGHT, WIDTH, value_bars
from tests.console_pages.pages import HOSTILE, read
from tests.console_pages.test_why import rows
from tests.console_pages.told import Told, told
from tests.server.test_http import serving


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    with told(tmp_path_factory.mktemp("told")) as made:
        yield made


@pytest.fixture(scope="module")
def client(made: Told) -> Iterator[httpx.Client]:
    with serving(made.store) as client:
        yield client


def test_statistics_are_those_that_were_kept(client: httpx.Client, made: Told) -> None:
    """Of a frame and of a run, each with a table and a drawing of each feature."""
    found = made.store.statistics().found
    assert {kept.kind for kept in found} >= {"training_set", "run"}
    page = read(client.get("/ui/statistics"))
    assert len(page.all("figure")) == sum(len(kept.features) for kept in found)
    assert page.all("img") == []
    (run,) = made.store.statistics(view="said").found
    records = rows(client, "/ui/statistics?view=said", "kept-1")
    assert [(one["feature"], one["rows"]) for one in records] == [
        (one.feature, one.column.rows) for one in run.features
    ]


def test_bars_are_as_high_as_the_counts(made: Told) -> None:
    """Texts by how frequent they are, and numbers by their buckets; a long text is cut."""
    (run,) = made.store.statistics(view="said").found
    for feature in run.features:
        drawn = value_bars(feature.feature, feature.column)
        assert max(bar.height for bar in drawn.bars) == HEIGHT
        assert all(bar.y + bar.height == pytest.approx(HEIGHT) and len(bar.label) <= 60 for bar in drawn.bars)
        assert drawn.bars[-1].x + drawn.bars[-1].width == pytest.approx(WIDTH, abs=0.5)


@pytest.mark.parametrize("asked", [{"feature": HOSTILE}, {"view": "no"}, {"service": "no"}, {"limit": "x"}])
def test_what_is_not_there_is_an_error(client: httpx.Client, asked: dict[str, str]) -> None:
    answer = client.get("/ui/statistics", params=asked)
    assert answer.status_code in {404, 422}
    read(answer)

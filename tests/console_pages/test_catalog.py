"""The catalog finds definitions and features by what is in them, and exports what it finds, harmlessly."""

from __future__ import annotations

import csv
import io

import httpx
import pytest

from featurestore import FeatureStore
from tests.console_pages.pages import HOSTILE, read, rows
from tests.console_pages.project import LONG


@pytest.mark.parametrize(
    ("asked", "names"),
    [
        ({"q": "things"}, {"things", "things:x"}), ({"q": "THINGS :x"}, {"things:x"}), ({"q": "things__x"}, {"things:x"}),
        ({"q": "nothing such"}, set()), ({"q": "", "kind": "feature service"}, {"model", "clicked"}),
        ({"q": HOSTILE, "kind": "entity"}, {"thing"}), ({"kind": "nothing"}, set()), ({"q": "xxxxx"}, {"model"}),
    ],
)  # fmt: skip
def test_each_word_is_in_what_is_found(client: httpx.Client, asked: dict[str, str], names: set[str]) -> None:
    answer = client.get("/ui/catalog", params={**asked, "format": "json", "table": "found"})
    assert {one["name"] for one in answer.json()} == names


def test_hostile_texts_are_texts(client: httpx.Client, store: FeatureStore) -> None:
    """Each is on the page as it was written; a long one is cut there, and whole in exports."""
    page = read(client.get("/ui/catalog", params={"q": HOSTILE}))
    assert page.text.count(HOSTILE) > 10
    assert page.all("img") == []
    assert any(one.get("value") == HOSTILE for one in page.all("input"))
    assert LONG not in client.get("/ui/catalog").text
    assert LONG in [one["description"] for one in rows(client, "/ui/catalog", "found")]


def test_a_spreadsheet_runs_nothing(client: httpx.Client) -> None:
    text = client.get("/ui/catalog", params={"q": "clicked", "format": "csv"}).text
    (found,) = list(csv.DictReader(io.StringIO(text)))
    assert found["description"] == HOSTILE
    from featurestore.console.exports import as_csv
    from featurestore.console.page import PageTable

    cells = ["=1+1", "+1", "-1", "@a", "\tb", "plain", -1, -1.5, None, ["=x"]]
    written = as_csv(PageTable("t", "t", [f"c{number}" for number in range(len(cells))], [cells])).decode()
    assert list(csv.reader(io.StringIO(written)))[1] == [
        "'=1+1", "'+1", "'-1", "'@a", "'\tb", "plain", "-1", "-1.5", "null", "'=x",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("address", "status"),
    [("/ui/nowhere", 404), ("/ui/catalog/name", 404), ("/ui/catalog?format=xml", 422), ("/ui/catalog?format=csv&table=no", 404),
     (f"/ui/{'x' * 1000}", 404), ("/ui/%3Cscript%3E", 404)],
)  # fmt: skip
def test_what_is_not_there_is_an_error(client: httpx.Client, address: str, status: int) -> None:
    """A page for a browser, a problem for a program."""
    answer = client.get(address)
    assert answer.status_code == status
    if "format" not in address:
        assert "To the first page" in read(answer).text


def test_a_page_behind_a_prefix_links_there(store: FeatureStore) -> None:
    """A proxy may serve the whole of it below a path of its own."""
    from featurestore.console import Console
    from tests.console_pages.pages import checked

    html = Console(store).answer("catalog", {}, prefix="/features").body.decode()
    assert all(link.startswith(("/features/ui", "#")) for link in checked(html, prefix="/features/ui").links())

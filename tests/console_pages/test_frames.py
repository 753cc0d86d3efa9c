"""What is slow comes after the frame of its page: until then the page has its form, and what it asks for is the same page with `run`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from jinja2 import Environment

from featurestore import FeatureService, FeatureStore, ManualClock
from featurestore.console.rendering import environment
from featurestore.console.site_map import PAGES
from tests.console_pages.pages import Read, read
from tests.console_pages.test_quarantine import views
from tests.server.test_http import serving
from tests.small import NOON


@pytest.fixture
def client(tmp_path: Any) -> Iterator[httpx.Client]:
    environment.cache_clear()  # as in a process in which no server was started before
    (tmp_path / "featurestore.toml").write_text('project = "kept"\ndefinitions = []\n')
    with FeatureStore(tmp_path, clock=ManualClock(NOON)) as store:
        store.apply([FeatureService("model", features=views(tmp_path))])
        with serving(store) as client:
            yield client


def later(page: Read) -> str:
    """The address that a frame asks for once it is there."""
    (found,) = [str(one["hx-get"]) for _, one in page.elements if one.get("hx-trigger") == "load"]
    return found


SLOW = {
    "explain?view=words&key.thing=1": ("explain", "rows.parquet row 1"),
    "quarantine": ("quarantine", "Matches('word'"),
    "quarantine?of=words": ("quarantined_rows", "Matches('word'"),
}
"""Addresses, with the slow operation of each, and a text of what it finds."""


@pytest.mark.parametrize("address", SLOW)
def test_a_frame_is_painted_before_anything_slow_is_done(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    """Without one call of the operation. What the frame asks for has what is found, in the place that is exchanged."""
    operation, found = SLOW[address]
    called: list[str] = []
    real = getattr(FeatureStore, operation)

    def counted(self: FeatureStore, *given: Any, **words: Any) -> Any:
        called.append(operation)
        return real(self, *given, **words)

    monkeypatch.setattr(FeatureStore, operation, counted)
    frame = read(client.get(f"/ui/{address}"))
    assert called == []
    assert found not in frame.text
    whole = read(client.get(later(frame)))
    assert called == [operation]
    assert found in whole.text
    assert [one for _, one in whole.elements if one.get("id") == "found"] != []
    assert not [one for _, one in whole.elements if one.get("hx-trigger") == "load"]
    assert not [
        link for link in whole.links() if link.startswith("/ui/explain?") and "run=" in link and "format=" not in link
    ]


def test_what_fails_after_the_frame_is_told_in_its_place(client: httpx.Client) -> None:
    """The answer says that it is to be exchanged, which other errors, as of a page that renews itself, are not."""
    refused = client.get(later(read(client.get("/ui/quarantine?of=nothing"))))
    assert refused.status_code == 404
    assert refused.headers["hx-reswap"] == "outerHTML"
    page = read(refused)
    assert [one for _, one in page.elements if one.get("id") == "found"] != []
    assert "hx-reswap" not in client.get("/ui/view/nothing").headers


def test_what_can_be_refused_at_once_is(client: httpx.Client) -> None:
    """Words that are no instant or number are told in the frame."""
    for words in ("at=yesterday", "limit=x", "back=x"):
        page = read(client.get(f"/ui/explain?view=words&key.thing=1&{words}"))
        assert "hx-get" not in {name for _, one in page.elements if one.get("hx-trigger") == "load" for name in one}
        assert [one for _, one in page.elements if one.get("role") == "alert"] != []
    assert client.get("/ui/quarantine?limit=x").status_code == 422


def test_no_visitor_waits_for_a_template(client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """All are read before the server takes requests."""
    read_later: list[str] = []
    monkeypatch.setattr(Environment, "compile", lambda _, source, name=None, *__, **___: read_later.append(str(name)))
    for page in PAGES:
        if not page.is_named:
            assert client.get(f"/ui/{page.kind}").status_code == 200
    assert client.get("/ui/view/nothing").status_code == 404
    assert read_later == []

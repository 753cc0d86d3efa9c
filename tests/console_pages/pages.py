"""What each page of the console must be, whatever it shows: read as a browser would, it runs and loads nothing but its own files."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

import httpx

VOID = {"meta", "link", "input", "br", "hr", "img"}

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>\u202egnp\u202c{{ 7*7 }}=cmd()"
"""A text that would run, in HTML, in an attribute, in a template or in a spreadsheet, where it is not taken for text."""


class Read(HTMLParser):
    """A page as it is read: its elements and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.data = ""
        self.feed(html)
        self.close()
        assert self.open in ([], ["svg"]), f"not closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(set(names)) == len(names), (tag, attrs)
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, tag
        assert self.open.pop() == tag, f"{tag} is closed where another element is open"

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            self.data += data
        else:
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def links(self) -> list[str]:
        return [str(one["href"]) for one in self.all("a") if "href" in one]


def read(answer: httpx.Response, *, prefix: str = "/ui") -> Read:
    """A page, which is what every page must be."""
    assert answer.headers["content-type"] == "text/html; charset=utf-8", answer.text
    policy = answer.headers["content-security-policy"]
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy
    return checked(answer.text, prefix=prefix)


def checked(html: str, *, prefix: str = "/ui") -> Read:
    """No script, style or handler of its own, no other host; labelled, with unique ids and one heading."""
    page = Read(html)
    for tag, attributes in page.elements:
        assert tag not in {"style", "iframe", "object", "embed", "base"}, tag
        assert not [name for name in attributes if name.startswith("on") or name in {"style", "hx-on", "srcdoc"}], (
            attributes
        )
        if tag == "script":
            assert attributes.get("type") == "application/json" or str(attributes.get("src")).startswith(prefix)
        for name in ("href", "src", "action", "hx-get"):
            address = attributes.get(name)
            assert address is None or address.startswith((prefix, "#")), address
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(set(ids)) == len(ids), sorted(map(str, ids))
    assert len(page.all("h1")) == 1
    assert len(page.all("main")) == 1
    labelled = {one["for"] for one in page.all("label") if "for" in one}
    for tag in ("input", "select", "textarea"):
        for one in page.all(tag):
            assert one.get("type") == "hidden" or one.get("id") in labelled or "aria-label" in one, one
    return page


def rows(client: httpx.Client, address: str, table: str) -> list[dict[str, Any]]:
    """The records of a page's table, of an address with its own words."""
    answer = client.get(httpx.URL(address).copy_merge_params({"format": "json", "table": table}))
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()
    return found

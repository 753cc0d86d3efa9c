"""A word of an address that cannot be read is refused as one, by every page that reads it: never as a fault of the server."""

from __future__ import annotations

import httpx
import pytest

from featurestore.console.page import PART, PageKind, PageRequest
from featurestore.console.site_map import PAGES
from tests.console_pages.pages import HOSTILE, read

NAMED = {"entity": "thing", "source": "files", "view": "things", "feature": "things:x", "function": "with_fee", "service": "model", "lineage": "things"}  # fmt: skip
WORDS = ("since", "until", "at", "from", "to", "before", "every", "limit", "back", "row", "view", "service", "feature", "source", "of", "id",
         "what", "kind", "q", "path", "beside", "baseline", "direction", "cause")  # fmt: skip
"""What pages read of an address."""


WRONG = ("x", "\x00", HOSTILE, "9" * 30, "9999-12-31T23:59:59-14:00", "\ud800".encode("utf-8", "surrogatepass"))


@pytest.fixture
def was_read(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The words that pages have read so far, whether the address has them or not."""
    found: set[str] = set()
    real = PageRequest.word

    def word(self: PageRequest, name: str) -> str | None:
        found.add(name)
        return real(self, name)

    monkeypatch.setattr(PageRequest, "word", word)
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.kind)
def test_a_wrong_word_is_no_fault_of_the_server(client: httpx.Client, was_read: set[str], page: PageKind) -> None:
    """Of those that the page reads each is wrong in turn; of the others, which change nothing, one is."""
    kind = page.kind
    address = "/ui/" + "/".join(filter(None, (kind, NAMED.get(kind))))
    asked = {"service": "model", "since": "1d", "view": "things", "key.thing": "1", "run": "1"} if kind in {"audit", "drift", "explain"} else {"run": "1"}  # fmt: skip
    assert client.get(address, params=asked).status_code in {200, 404, 422}
    tried: set[str] = set()
    unread = next(word for word in WORDS if word not in was_read)
    while left := (was_read | {unread}) - tried:
        word = min(left)
        tried.add(word)
        for said in WRONG:
            answer = client.get(address, params={**asked, word: said})
            assert answer.status_code in {200, 404, 422}, (word, said, answer.text)
            read(answer)
    assert {word for word in was_read if not word.startswith(PART)} <= {*WORDS, "run"}

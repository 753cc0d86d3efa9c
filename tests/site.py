"""`python -m tests.site build/site`: every link of the built site leads somewhere, and its reference has every public name.

Reads the HTML alone: what a reader has, whatever built it. Addresses elsewhere are not asked.
"""

from __future__ import annotations

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import featurestore
from featurestore import errors


class Page(HTMLParser):
    """The links of a page, and the anchors in it."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.anchors: set[str] = set()
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        said = dict(attrs)
        self.anchors |= {value for name in ("id", "name") if (value := said.get(name))}
        self.links |= {value for name in ("href", "src") if (value := said.get(name))}


def problems(site: Path) -> list[str]:
    """What is wrong with the site, a line each."""
    pages = {path: Page(path) for path in sorted(site.resolve().rglob("*.html"))}
    found = [] if pages else [f"{site} has no page"]
    for path, page in pages.items():
        if path.name == "404.html":  # its links are to the place where the site will be
            continue
        for link in sorted(page.links):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            there = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            there = there / "index.html" if there.is_dir() else there
            if not there.exists():
                found.append(f"{path.name}: {link} is no page")
            elif parts.fragment and there in pages and unquote(parts.fragment) not in pages[there].anchors:
                found.append(f"{path.name}: {link} has no such anchor")
    anchors = set().union(*(page.anchors for page in pages.values()))
    names = [f"featurestore.{name}" for name in featurestore.__all__]
    names += [f"featurestore.errors.{name}" for name in raised()]
    return found + [f"the reference has no {name}" for name in names if name not in anchors]


def raised() -> list[str]:
    """The errors that stand on the reference's page of errors, beside the first of them."""
    kinds = [name for name in errors.__all__ if isinstance(getattr(errors, name), type)]
    return [name for name in kinds if name not in featurestore.__all__]


def main() -> int:
    """0 where all is well."""
    found = problems(Path(sys.argv[1]))
    print("\n".join(found) or "Every link leads somewhere.")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

"""Which pages there are, in the order of the navigation."""

from __future__ import annotations

from featurestore.console.page import PageKind
from featurestore.console.pages import catalog, overview

PAGES: tuple[PageKind, ...] = (overview.PAGE, catalog.PAGE)
"""Each kind of page once; a page is added here, and has a module in `pages` and a template of its own."""

"""The console: pages for a browser that show what exists, whether it is fresh and right, and why a value is what it is.

Each page is one module of `pages`: it calls an operation of the store, the same as the command line does, and gives a plain model
that a template shows. `Console` answers addresses with pages; the server says who may see them, and `static_site` writes some of
them as files.
"""

from featurestore.console.console import Console, ConsoleAnswer

__all__ = ["Console", "ConsoleAnswer"]

"""The page at /docs: the API's description as plain HTML, which loads and runs nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
pre { background: #f4f4f4; padding: .7rem; overflow-x: auto; font-size: 14px; }
h2 { border-top: 1px solid #ccc; padding-top: 1rem; } code { font-size: 95%; } summary { cursor: pointer; }
"""


def page(described: Mapping[str, Any]) -> str:
    """An OpenAPI description as a page: each route, its body and its answers, with their examples."""
    title = escape(described["info"]["title"])
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">',
        f"<title>{title}</title><style>{STYLE}</style></head>",
        f'<body><main><h1>{title}</h1><p>The same for programs: <a href="openapi.json">openapi.json</a></p>',
    ]
    for path, operations in described["paths"].items():
        for method, operation in operations.items():
            parts.append(f"<h2><code>{method.upper()} {escape(path)}</code></h2>")
            parts += _operation(operation)
    return "".join([*parts, "</main></body></html>"])


def _operation(operation: Mapping[str, Any]) -> Iterator[str]:
    for paragraph in operation.get("description", "").split("\n\n"):
        yield f"<p>{escape(paragraph)}</p>"
    for parameter in operation.get("parameters", ()):
        told = escape(parameter.get("description", ""))
        yield f"<p><code>{escape(parameter['name'])}</code> ({escape(parameter['in'])}) {told}</p>"
    for kind, content in operation.get("requestBody", {}).get("content", {}).items():
        yield f"<p>Body: <code>{escape(kind)}</code></p>"
        yield _content(content)
    for status, response in sorted(operation["responses"].items()):
        yield f"<details><summary><b>{escape(status)}</b> {escape(response['description'])}</summary>"
        for kind, content in response.get("content", {}).items():
            yield f"<p><code>{escape(kind)}</code></p>"
            yield _content(content)
        yield "</details>"


def _content(content: Mapping[str, Any]) -> str:
    """An example of a body, where there is one."""
    return f'<pre tabindex="0">{escape(json.dumps(content["example"], indent=2))}</pre>' if "example" in content else ""

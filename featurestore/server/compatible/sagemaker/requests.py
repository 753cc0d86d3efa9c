"""A request: the group in its path, and what its query says."""

from __future__ import annotations

from urllib.parse import parse_qs

from featurestore.server.compatible.sagemaker.feature_groups import short_name
from featurestore.server.hot_routes import HotCall
from featurestore.server.problems import BadRequest


def asked_group(call: HotCall) -> str:
    """The name of the group."""
    return short_name(call.scope["path_params"]["name"])


def query_of(call: HotCall) -> dict[str, list[str]]:
    """The values of each name; BadRequest where one is no text."""
    try:
        return parse_qs(call.scope["query_string"].decode(), keep_blank_values=True, errors="strict")
    except ValueError:
        raise BadRequest("The query is not UTF-8") from None

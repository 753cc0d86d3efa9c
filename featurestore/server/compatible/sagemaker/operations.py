"""The operations of the platform: by which path each is asked for, and what it takes."""

from __future__ import annotations

from functools import partial

from featurestore.access.authentication import Headers
from featurestore.server.compatible.routes import CompatibleRoute, Platform
from featurestore.server.compatible.sagemaker.answers import CONTROL, problem
from featurestore.server.compatible.sagemaker.feature_groups import FeatureGroups
from featurestore.server.compatible.sagemaker.reads import RecordReads
from featurestore.server.compatible.sagemaker.writes import RecordWrites
from featurestore.server.hot_routes import HotRoutes


def routes(hot: HotRoutes) -> list[CompatibleRoute]:
    """What is answered to the platform's clients."""
    platform = Platform(problem, _credentials, frozenset({CONTROL.encode()}))
    reads, writes, groups, of_group = (
        RecordReads(hot),
        RecordWrites(hot),
        FeatureGroups(hot),
        "/FeatureGroup/{name:path}",
    )
    told = [
        ("POST", "/BatchGetRecord", "read", reads.batch_get),
        ("POST", "/BatchWriteRecord", "push", writes.batch_write),
        ("POST", of_group + "/ListRecords", "read", reads.listed),
        ("POST", of_group + "/Record", "push", writes.update),
        ("GET", of_group, "read", reads.get),
        ("PUT", of_group, "push", writes.put),
        ("DELETE", of_group, "push", writes.delete),
        ("POST", "/", "read", groups.control),
    ]
    return [
        CompatibleRoute(platform, method, path, needs, partial(hot.take, answers))
        for method, path, needs, answers in told
    ]


def _credentials(headers: Headers) -> Headers:
    """A key of ours is the session token, which is sent as it is; the signature says nothing to us."""
    found: list[tuple[bytes, bytes]] = []
    for name, value in headers:
        if name == b"x-amz-security-token":
            found.append((b"x-api-key", value))
        elif name != b"authorization" or not value.startswith(b"AWS4-"):
            found.append((name, value))
    return found

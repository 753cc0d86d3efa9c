"""What the last report about each service found, in a file beside the serving log, for metrics and alerts.

<folder>/audits.json, drifts.json    service → what was found, and when; with a checksum
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import orjson

from featurestore.durable.checksums import decoded, encoded
from featurestore.durable.disk import replace
from featurestore.errors import FeatureStoreError


def keep_findings(path: Path, found: Callable[[dict[str, Any]], Mapping[str, Any]]) -> None:
    """Keep what is found of each service, given what is kept so far. Where the folder is not there, or cannot be written, nothing
    is kept."""
    try:
        replace(path, encoded(dict(found(last_findings(path)))))
    except (OSError, FeatureStoreError):
        return


def last_findings(path: Path) -> dict[str, Any]:
    """What was kept, by service; a file that is not what was written says nothing. Raises OSError."""
    try:
        return dict(decoded(path.read_bytes()))
    except FileNotFoundError:
        return {}
    except (ValueError, orjson.JSONDecodeError):
        return {}

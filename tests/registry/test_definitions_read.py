"""What was applied is read from its document once, until another process applies something else."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featurestore import FeatureStore
from featurestore.registry import documents

NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)
VIEWS = 50

DEFINITIONS = """
from featurestore import Entity, FeatureService, FeatureView, Latest, ParquetSource
from featurestore.types import Int64

thing = Entity("thing", key={{"thing": Int64}})
rows = ParquetSource("rows", "rows.parquet", event_time="at")
views = [
    FeatureView(f"view_{{n}}", entity=thing, source=rows, refresh="1h", ttl="{ttl}", features={{"x": Latest("x")}})
    for n in range({views})
]
service = FeatureService("service", features=views[:2])
first = views[0]
for view in views:
    globals()[view.name] = view
"""

APPLY = "import sys; from featurestore import FeatureStore; FeatureStore(sys.argv[1], env='applies').apply()"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project that declares nothing but in the environment of those who apply."""
    times = pa.array([NOON - timedelta(hours=3)], pa.timestamp("us", "UTC"))
    pq.write_table(pa.table({"thing": [1], "x": [7], "at": times}), tmp_path / "rows.parquet")
    (tmp_path / "featurestore.toml").write_text(
        'project = "read"\ndefinitions = []\n[env.applies]\ndefinitions = ["definitions.py"]\n'
    )
    return tmp_path


def apply(project: Path, *, ttl: str, views: int = VIEWS) -> None:
    """In another process."""
    (project / "definitions.py").write_text(DEFINITIONS.format(ttl=ttl, views=views))
    subprocess.run([sys.executable, "-c", APPLY, str(project)], check=True, env=os.environ, timeout=600)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the views that were read from a document."""
    names: list[str] = []
    own: Callable[[dict[str, Any]], Any] = documents.read_view  # type: ignore[attr-defined]  # a name that the module imports, to be replaced

    def read_view(fields: dict[str, Any]) -> Any:
        names.append(fields["name"])
        return own(fields)

    monkeypatch.setattr(documents, "read_view", read_view)
    return names


def trained(store: FeatureStore, features: Any) -> list[Any]:
    """The value at noon of the first column."""
    spine = pa.table({"thing": [1], "event_timestamp": pa.array([NOON], pa.timestamp("us", "UTC"))})
    frame = store.get_historical_features(spine, features)
    return list(frame.to_arrow().column(2).to_pylist())


def test_a_training_call_reads_no_definition_again(project: Path, read: list[str]) -> None:
    """However many views were applied; nor do materialize, lookups and status."""
    apply(project, ttl="1d")
    with FeatureStore(project) as store:
        assert trained(store, "service") == [7]
        assert len(read) == VIEWS
        assert (
            trained(store, "service")
            == trained(store, ["view_3:x"])
            == trained(store, store.catalog.services["service"])
        )
        assert len(read) == VIEWS
        store.materialize(["view_0", "view_1"], progress=False)
        store.status()
        counted = len(read)
        store.materialize(["view_0", "view_1"], progress=False)
        store.status()
        assert trained(store, "service") == [7]
        assert len(read) == counted


def test_what_another_process_applies_is_seen(project: Path, read: list[str]) -> None:
    """By the next call, and read once."""
    apply(project, ttl="1d")
    with FeatureStore(project) as store:
        assert trained(store, "service") == [7]
        before = store.get_historical_features(pa.table({"thing": [1], "event_timestamp": [NOON]}), "service").manifest
        read.clear()
        apply(project, ttl="2h", views=3)
        assert trained(store, "service") == [None]
        after = store.get_historical_features(pa.table({"thing": [1], "event_timestamp": [NOON]}), "service").manifest
        assert before["fingerprint"] != after["fingerprint"]
        assert sorted(read) == ["view_0", "view_1", "view_2"]
        assert list(store.catalog.views) == ["view_0", "view_1", "view_2"]


def test_a_version_is_the_same_one(project: Path) -> None:
    """As long as nothing is applied; its definitions are those of its document."""
    apply(project, ttl="1d", views=3)
    with FeatureStore(project) as store:
        version = store.registry.current()
        assert store.registry.current() is version
        assert store.registry.version(version.number) is version
        assert store.registry.history() == (version,)
        assert version.catalog.views == documents.catalog_of(version.document).views
        assert version.view("view_0") is version.view("view_0")
        assert (
            version.service("service").fingerprint
            == documents.resolved_service(version.document, "service").fingerprint
        )

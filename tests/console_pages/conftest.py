"""The hostile project, and a server of it, once for each file of tests."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from featurestore import FeatureStore
from tests.console_pages.project import project
from tests.server.test_http import serving


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FeatureStore]:
    with project(tmp_path_factory.mktemp("console")) as store:
        yield store


@pytest.fixture(scope="module")
def client(store: FeatureStore) -> Iterator[httpx.Client]:
    with serving(store) as client:
        yield client

"""What a page is made of is away, damaged or may not be read: a page says what and where, and the rest of the server goes on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from featurestore import FeatureStore
from featurestore.access.api_keys import create_key
from featurestore.console.site_map import PAGES
from featurestore.errors import RegistryError, RegistryUnavailableError
from featurestore.server.console_routes import _refused
from tests.console_pages.pages import read
from tests.console_pages.project import definitions, project
from tests.server.test_http import serving

LISTED = [page.kind for page in PAGES if not page.is_named]
ASKED = {"service": "model", "rows": [{"thing": 2, "fee": 1.0}]}


def files_of(store: FeatureStore) -> list[Path]:
    """The registry's, with those that SQLite puts beside it."""
    path = Path(store.config.registry)
    return sorted(path.parent.glob(f"{path.name}*"))


@contextmanager
def without_registry(store: FeatureStore, how: str) -> Iterator[None]:
    """The registry's file is damaged, or a folder, or text, for a while."""
    kept = {path: path.read_bytes() for path in files_of(store)}
    path = Path(store.config.registry)
    for one in kept:
        one.unlink()
    if how == "folder":
        path.mkdir()
    else:
        path.write_bytes(b"no database" * 1_000 if how == "text" else kept[path][:100] + b"\xff" * 8_000)
    try:
        yield
    finally:
        for one in files_of(store):
            if one.is_dir():
                one.rmdir()
            else:
                one.unlink()
        for one, content in kept.items():
            one.write_bytes(content)


@pytest.mark.parametrize("how", ["folder", "text", "damaged"])
def test_a_registry_that_cannot_be_read_is_a_page_that_says_so(tmp_path: Path, how: str) -> None:
    """503 with the path, and no word of when to come back, since it does not heal by itself. Lookups go on; then pages do."""
    with project(tmp_path) as store, serving(store) as client:
        assert client.post("/v1/online-features", json=ASKED).status_code == 200
        assert client.get("/ui").status_code == 200
        with without_registry(store, how):
            seen = {}
            for kind in LISTED:
                answer = client.get(f"/ui/{kind}", params={"of": "things"} if kind == "quarantine" else {})
                seen[kind] = answer.status_code
                assert answer.status_code in {200, 503}, (kind, answer.text)
                page = read(answer)
                if answer.status_code == 503:
                    assert str(store.config.registry) in page.text
                    assert "retry-after" not in answer.headers
                    told = client.get(f"/ui/{kind}", params={"format": "json"})
                    assert (told.status_code, told.headers["content-type"]) == (503, "application/problem+json")
            assert {"", "runs", "training"} <= {kind for kind, status in seen.items() if status == 503}
            assert client.post("/v1/online-features", json=ASKED).status_code == 200
            assert client.get("/healthz").status_code == 200
        assert client.get("/ui").status_code == 200


def test_whoever_is_not_signed_in_is_told_nothing_of_it(tmp_path: Path) -> None:
    """Where keys cannot be looked up for the first time: the form, with 503, without the path."""
    with project(tmp_path) as store:
        made = create_key(store.registry, "reader", ["read"])
        with without_registry(store, "text"), serving(store, authentication=True) as client:
            signed = client.post(
                "/ui/login", data={"key": made.secret, "then": "/ui"},
                headers={"content-type": "application/x-www-form-urlencoded", "origin": str(client.base_url).rstrip("/")},
            )  # fmt: skip
            assert signed.status_code == 503
            assert "retry-after" in signed.headers
            assert "cannot be looked up just now" in read(signed).text
            assert str(tmp_path) not in signed.text


@pytest.mark.parametrize(("file", "kind"), [("audits.json", "audit"), ("drifts.json", "drift")])
def test_what_the_last_reports_found_cannot_be_read(tmp_path: Path, file: str, kind: str) -> None:
    """The page about it says so with 503; the first page is there, and says that somebody is needed."""
    with project(tmp_path) as store, serving(store) as client:
        place = store.config.serving_log.folder / file
        place.mkdir(parents=True)
        answer = client.get(f"/ui/{kind}")
        assert answer.status_code == 503
        assert str(place) in read(answer).text
        first = client.get("/ui")
        assert first.status_code == 200
        assert "cannot be read" in read(first).text


def test_a_damaged_serving_log_is_told(tmp_path: Path) -> None:
    """The audit names the file; other pages do without what was in it."""
    with project(tmp_path) as store, serving(store) as client:
        store.get_online_features([{"thing": 2, "fee": 1.0}], "model")
        store.audit(keep=False)
        files = list(store.config.serving_log.folder.glob("model/*/*.parquet"))
        assert files
        for file in files:
            file.write_bytes(b"damaged")
        audit = client.get("/ui/audit", params={"since": "1d", "run": "1"})
        assert audit.status_code == 200
        assert files[0].name in read(audit).text
        for kind in ("", "drift", "service/model", "statistics"):
            assert client.get(f"/ui/{kind}").status_code == 200


def test_an_online_store_that_is_away_is_told(tmp_path: Path) -> None:
    """Pages that do without it are there; a lookup says with 503 what it cannot reach."""
    (tmp_path / "featurestore.toml").write_text(
        'project = "away"\ndefinitions = []\nonline = "redis://127.0.0.1:1/0"\n'
    )
    with FeatureStore(tmp_path) as store:
        store.apply(definitions(tmp_path))
        with serving(store) as client:
            for page in PAGES:
                name = {"entity": "thing", "source": "files", "view": "things", "feature": "things:x", "function": "with_fee", "service": "model", "lineage": "things"}.get(page.kind)  # fmt: skip
                answer = client.get(f"/ui/{page.kind}" + (f"/{name}" if name else ""))
                assert answer.status_code == 200, (page.kind, answer.text)
            assert "The online store cannot be read" in read(client.get("/ui")).text
            looked = client.get("/ui/lookup", params={"service": "model", "in.thing": "1", "in.fee": "1"})
            assert (looked.status_code, "127.0.0.1:1" in read(looked).text) == (503, True)


def test_answers_that_pass_say_when_to_come_back() -> None:
    """A registry that others hold, or a server that is away; by the errors that both raise."""
    scope = {"path": "/ui", "type": "http", "headers": []}
    passing = _refused(RegistryUnavailableError("The registry /a/b is held"), scope)
    lasting = _refused(RegistryError("The registry /a/b is damaged"), scope)
    folder = _refused(PermissionError(13, "Permission denied", "/a/b"), scope)
    assert (passing.status, lasting.status, folder.status) == (503, 503, 503)
    assert "Retry-After" in passing.headers
    assert not {"Retry-After"} & {*lasting.headers, *folder.headers}
    assert b"/a/b" in folder.pieces[0]


def test_a_limited_key_is_told_that_and_not_where(tmp_path: Path) -> None:
    with project(tmp_path) as store:
        made = create_key(store.registry, "part", ["read"], only_on=["service:model"])
        with serving(store, authentication=True) as client:
            client.headers["x-api-key"] = made.secret
            assert client.get("/ui").status_code == 200
            with without_registry(store, "text"):
                answer = client.get("/ui/runs")
            assert answer.status_code == 503
            assert "cannot be read" in read(answer).text
            assert str(tmp_path) not in answer.text

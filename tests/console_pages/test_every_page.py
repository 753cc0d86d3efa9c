"""Every page, over a project in which all texts are hostile: each is a page, and each of its links leads to one."""

from __future__ import annotations

import httpx
import pandas as pd
import pytest

from featurestore import FeatureStore
from featurestore.access.api_keys import create_key
from featurestore.console.site_map import PAGES
from tests.console_pages.pages import HOSTILE, read, rows
from tests.small import NOON


@pytest.fixture(scope="module")
def used(store: FeatureStore, client: httpx.Client) -> httpx.Client:
    """The project after it was used: looked up, trained on and given a key."""
    store.get_online_features([{"thing": 1, "fee": 1.0}], "model")
    spine = pd.DataFrame({"thing": [1, 2], "fee": [0.5, 1.5], "event_timestamp": [NOON, NOON]})
    frame = store.get_historical_features(spine, "model")
    for name in ("one", "two"):
        frame.to_parquet(store.config.root / f"{name}.parquet")
    create_key(store.registry, "web", ["read"])
    return client


def crawled(client: httpx.Client) -> dict[str, httpx.Response]:
    """Every address that is linked from the first page on."""
    found: dict[str, httpx.Response] = {}
    left = ["/ui"]
    while left:
        address = left.pop()
        if address.startswith("#") or address in found:
            continue
        answer = found[address] = client.get(address)
        if answer.headers["content-type"].startswith("text/html"):
            left += read(answer).links()
    return found


def test_each_link_leads_somewhere(used: httpx.Client) -> None:
    """And all kinds of pages are among them, each without a hostile element; none shows a text that was taken for code."""
    found = crawled(used)
    wrong = {address: answer.status_code for address, answer in found.items() if answer.status_code != 200}
    assert not wrong
    kinds = {address.removeprefix("/ui").lstrip("/").partition("/")[0].partition("?")[0] for address in found}
    assert kinds >= {page.kind for page in PAGES}
    for address, answer in found.items():
        if answer.headers["content-type"].startswith("text/html"):
            page = read(answer)
            assert not page.all("img"), address
            assert "49" not in page.text.replace("2024", "").split("{{ 7*7 }}"), address


@pytest.mark.parametrize(
    "address", ["", "/catalog", "/view/things", "/lineage/things", "/training", "/activity", "/runs"]
)
def test_any_word_may_stand_in_an_address(used: httpx.Client, address: str) -> None:
    """Also one that the templates use for something else; exports have it too."""
    words = ["self", "kind", "name", "query", "format ", "url", "tables", "title", "data", "a b", "", HOSTILE]
    answer = used.get(f"/ui{address}", params=dict.fromkeys(words, "feature view"))
    assert answer.status_code == 200
    exports = [link for link in read(answer).links() if "format=csv" in link]
    for link in exports:
        assert "kind=feature+view" in link
        assert used.get(link).status_code == 200


def test_json_of_each_page_is_json(used: httpx.Client) -> None:
    named = {"entity": "thing", "source": "files", "view": "things", "feature": "things:x", "function": "with_fee", "service": "model",
             "lineage": "things"}  # fmt: skip
    for page in PAGES:
        name = f"/{named[page.kind]}" if page.kind in named else ""
        if page.is_named and not name:
            continue
        answer = used.get(f"/ui/{page.kind}{name}", params={"format": "json"})
        assert answer.status_code == 200, answer.text
        assert answer.json()["title"]


def test_a_view_tells_its_schema_its_freshness_and_its_history(used: httpx.Client, store: FeatureStore) -> None:
    (state,) = [one for one in store.status() if one.view == "things"]
    (found,) = rows(used, "/ui/view/things", "freshness")
    assert (found["fingerprint"], found["state"]) == (state.fingerprint[:12], state.state)
    assert [one["type"] for one in rows(used, "/ui/view/things", "features")] == ["Float64"]
    (version,) = rows(used, "/ui/view/things", "history")
    assert (version["what changed"], version["note"]) == ("added", HOSTILE)
    assert [one["outcome"] for one in rows(used, "/ui/view/things", "runs")]


def test_a_function_shows_its_code_as_text(used: httpx.Client) -> None:
    page = read(used.get("/ui/function/with_fee"))
    assert "known = '<script>alert(1)</script>'" in page.text
    assert {one["from"] for one in rows(used, "/ui/function/with_fee", "inputs")} == {"things:x", "the request"}


def test_a_service_tells_who_asked_for_which_version(used: httpx.Client, store: FeatureStore) -> None:
    (found,) = rows(used, "/ui/service/model", "versions")
    assert (found["is"], found["online"], found["requests logged"]) == ("applied", "online", 1)
    assert rows(used, "/ui/service/model", "differences") == []
    assert "Kept versions" not in read(used.get("/ui/service/model")).text


def test_lineage_is_that_of_the_store(used: httpx.Client, store: FeatureStore) -> None:
    """Both directions, or one; as tables, and as what the graph is drawn of."""
    for direction in ("both", "upstream", "downstream"):
        answer = used.get("/ui/lineage/things:x", params={"format": "json", "direction": direction}).json()
        told = store.lineage("things:x", direction=direction).to_dict()
        assert [one["id"] for one in answer["data"]["nodes"]] == [one["id"] for one in told["nodes"]]
        assert len(answer["tables"]["edges"]) == len(told["edges"])
    assert used.get("/ui/lineage/things:x", params={"direction": "sideways"}).status_code == 422
    assert used.get("/ui/lineage/nothing").status_code == 404
    page = read(used.get("/ui/lineage/things:x"))
    assert '"href": "/ui/view/things"' in page.data
    told = {one["kind"]: one["details"] for one in rows(used, "/ui/lineage/things:x", "nodes")}
    assert "online: true" in told["served version"]  # as every other table has it, and not as Python does
    assert "['" not in told["source"]


def test_training_sets_are_told_and_compared(used: httpx.Client, store: FeatureStore) -> None:
    """Of the registry's journal, and of no other file."""
    paths = [one["file"] for one in rows(used, "/ui/training", "frames")]
    assert len(paths) == 2
    shown = read(used.get("/ui/training", params={"path": paths[0], "beside": paths[1]}))
    assert "definition" in shown.text
    assert used.get("/ui/training", params={"path": "/etc/passwd"}).status_code == 404
    assert (
        used.get(
            "/ui/training", params={"path": paths[0], "beside": str(store.config.root / "featurestore.toml")}
        ).status_code
        == 404
    )


def test_a_lookup_gives_what_the_store_gives(used: httpx.Client, store: FeatureStore) -> None:
    """Live, of one row; what is wrong with a value is said beside the form, and nothing is logged."""
    logged = store.serving_log_losses().offered
    asked = {"service": "model", "in.thing": "2", "in.fee": "0.5"}
    answer = used.get("/ui/lookup", params={**asked, "format": "json", "table": "values"}).json()
    told = store.lookup("model").get([{"thing": 2, "fee": 0.5}]).to_dict()
    assert {one["column"]: one["value"] for one in answer} == {
        name: value for name, (value,) in told.items() if name not in {"thing", "fee"}
    }
    (why,) = [link for link in read(used.get("/ui/lookup", params=asked)).links() if link.startswith("/ui/explain?")]
    values = {one["feature"]: one["value"] for one in rows(used, why, "values")}
    assert values["x"] == str(told["things__x"][0])
    assert httpx.URL(why).params["key.thing"] == "2"
    wrong = read(used.get("/ui/lookup", params={**asked, "in.thing": "1_0"}))
    assert "'thing' must be Int64" in wrong.text
    assert any(one.get("value") == "1_0" for one in wrong.all("input"))
    hostile = read(used.get("/ui/lookup", params={**asked, "in.thing": HOSTILE}))
    assert not hostile.all("img")
    assert used.get("/ui/lookup", params={"service": "nothing"}).status_code == 404
    assert store.serving_log_losses().offered == logged


def test_push_logs_are_told(used: httpx.Client, store: FeatureStore) -> None:
    (found,) = rows(used, "/ui/pushes", "logs")
    assert (found["source"], found["rows"], found["not served yet"]) == ("clicks", 1, 0)
    assert used.get("/ui/pushes", params={"source": "nothing"}).status_code == 404
    read(used.get("/ui/pushes", params={"source": "clicks"}))


def test_activity_and_keys_are_for_administrators(store: FeatureStore, used: httpx.Client) -> None:
    """They say who did what, and no secret; whoever only reads sees neither, nor that they are there."""
    from tests.server.test_http import serving

    assert {one["what"] for one in rows(used, "/ui/activity", "activity")} >= {
        "apply",
        "materialize",
        "push",
        "create key",
    }
    assert [
        one["what"]
        for one in used.get("/ui/activity", params={"what": "push", "format": "json", "table": "activity"}).json()
    ] == ["push"]
    assert used.get("/ui/activity", params={"what": "nothing"}).status_code == 422
    assert used.get("/ui/activity", params={"limit": "-1"}).status_code == 422
    key = create_key(store.registry, "seen", ["read"])
    chief = create_key(store.registry, "chief", ["read", "admin"])
    assert key.secret not in used.get("/ui/keys").text
    with serving(store, authentication=True) as client:
        for page in ("keys", "activity"):
            assert client.get(f"/ui/{page}", headers={"x-api-key": key.secret}).status_code == 403
            assert client.get(f"/ui/{page}", headers={"x-api-key": chief.secret}).status_code == 200
        assert "/ui/keys" not in read(client.get("/ui", headers={"x-api-key": key.secret})).links()
        assert "/ui/keys" in read(client.get("/ui", headers={"x-api-key": chief.secret})).links()


@pytest.mark.parametrize(
    "address", ["/ui/view/thing", "/ui/view/nothing", "/ui/entity/things", "/ui/feature/things", "/ui/service/things"]
)
def test_a_page_of_another_kind_is_not_there(used: httpx.Client, address: str) -> None:
    answer = used.get(address)
    assert answer.status_code == 404
    assert "first page" in read(answer).text


def test_paths_are_told_as_seen_from_the_repository(used: httpx.Client, store: FeatureStore) -> None:
    """Where it lies on a server's disk is nobody's concern, and in the way of what is to be read."""
    found = crawled(used)
    comparison = {"service": "model", "since": "1d", "baseline": str(store.config.root / "one.parquet"), "run": "1"}
    found["drift"] = used.get("/ui/drift", params=comparison)
    found["statistics"] = used.get("/ui/statistics", params={"limit": "50"})
    assert "one.parquet" in read(found["drift"]).text
    assert "one.parquet" in read(found["/ui/training"]).text
    root = str(store.config.root)
    showing = {
        address: text[text.index(root) - 50 :][:150]
        for address, answer in found.items()
        if answer.headers["content-type"].startswith("text/html") and "path=" not in address  # a manifest is shown as it is
        and root in (text := read(answer).text)
    }  # fmt: skip
    assert not showing
    manifest = used.get("/ui/training", params={"path": "one.parquet", "format": "json"}).json()
    assert manifest["path"] == "one.parquet"
    assert manifest == used.get("/ui/training", params={"path": f"{root}/one.parquet", "format": "json"}).json()

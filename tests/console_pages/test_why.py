"""The pages that tell why a value is what it is, and whether it was right: what the operations say, whatever the texts are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from featurestore import FeatureStore
from tests.console_pages.pages import HOSTILE, Read, read
from tests.console_pages.told import LONG, Told, told
from tests.server.test_http import serving
from tests.small import NOON, hours


def rows(client: httpx.Client, address: str, table: str) -> list[dict[str, Any]]:
    """The records of a page's table; the address may have words."""
    answer = client.get(httpx.URL(address).copy_merge_params({"format": "json", "table": table}))
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()
    return found


NOON_TEXT = "2024-05-01T12:00:00Z"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    with told(tmp_path_factory.mktemp("told")) as made:
        yield made


@pytest.fixture(scope="module")
def client(made: Told) -> Iterator[httpx.Client]:
    with serving(made.store) as client:
        yield client


# --- a value ----------------------------------------------------------------------------------

ASKED = {"view": "said", "key.name": HOSTILE, "at": NOON_TEXT, "run": "1"}


def test_a_value_is_explained_row_by_row(client: httpx.Client, made: Told) -> None:
    """Each row with its verdict and reason, as `explain` says them, and drawn in the lane of its verdict."""
    found = made.store.explain("said", {"name": HOSTILE}, at=NOON)
    page = read(client.get("/ui/explain", params=ASKED))
    assert found.summary in page.text
    assert HOSTILE[:25] in page.text
    assert any(one.get("value") == HOSTILE for one in page.all("input"))
    assert page.all("img") == []
    assert LONG not in page.text
    drawn = [one for one in page.all("g") if str(one.get("class")).startswith("row ") and one["class"] != "row counts"]
    assert sorted(str(one["class"]).split()[1] for one in drawn) == sorted(
        row.verdict.replace(" ", "-") for row in found.rows
    )
    records = rows(client, "/ui/explain?" + str(httpx.QueryParams(ASKED)), "rows")
    assert [(one["verdict"], one["reason"]) for one in records] == [(row.verdict, row.reason) for row in found.rows]
    values = rows(client, "/ui/explain?" + str(httpx.QueryParams(ASKED)), "values")
    assert [(one["feature"], one["status"], one["of rows"]) for one in values] == [
        ("n", "PRESENT", 2),
        ("word", "PRESENT", "the newest"),
    ]


def test_rows_lead_to_the_value_at_their_time(client: httpx.Client) -> None:
    """The same question at another instant is a link away, and a refreshed view's neighbours too."""
    page = read(client.get("/ui/explain", params=ASKED))
    found = [httpx.URL(link) for link in page.links() if link.startswith("/ui/explain?") and "format=" not in link]
    assert {url.params["at"] for url in found} >= {
        "2024-05-01T09:00:00Z",
        "2024-05-01T11:00:00Z",
        "2024-05-01T13:00:00Z",
    }
    assert {url.params["key.name"] for url in found} == {HOSTILE}
    read(client.get(found[0]))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"at": "yesterday"}, "'yesterday' is no instant"), ({"key.name": None}, "Ask for its key"), ({"limit": "-1"}, "limit is a whole number"),
        ({"view": "said:nothing"}, "nothing"), ({"key.name": ""}, "no row of this key"), ({"at": "9999-12-31T23:59:59Z"}, "PRESENT"),
        ({"at": "0001-01-01T00:00:00Z"}, "MISSING"),
    ],
)  # fmt: skip
def test_what_cannot_be_explained_is_told_beside_the_form(
    client: httpx.Client, changed: dict[str, str | None], said: str
) -> None:
    asked = {word: value for word, value in {**ASKED, **changed}.items() if value is not None}
    page = read(client.get("/ui/explain", params=asked))
    if changed != {"key.name": None}:
        assert said in page.text, page.text[:2000]
    assert any(one.get("name") == "key.name" for one in page.all("input"))


def test_a_view_that_is_not_there_is_an_error(client: httpx.Client) -> None:
    assert client.get("/ui/explain", params={"view": HOSTILE}).status_code == 404
    assert client.get("/ui/explain", params={**ASKED, "at": "x", "format": "json"}).status_code == 422
    read(client.get("/ui/explain"))


# --- a request --------------------------------------------------------------------------------


def test_a_request_is_explained_value_by_value(client: httpx.Client, made: Told) -> None:
    """As `explain_request` says it: what was served, what training says now, and whether they are the same bits."""
    found = made.store.explain_request(made.request)
    page = read(client.get("/ui/request", params={"id": made.request}))
    assert found.summary in page.text
    assert "history" not in found.summary
    records = rows(client, f"/ui/request?id={made.request}", "values")
    assert {one["feature"]: one["same bits"] for one in records} == {
        "said__word": "yes",
        "said__n": "no",
        "scaled": "yes",
    }
    inputs = rows(client, f"/ui/request?id={made.request}", "inputs")
    assert [(one["function"], one["input"], one["value"]) for one in inputs] == [
        ("scaled", "said__n", "1"),
        ("scaled", "scale", "2.0"),
    ]
    assert len([one for one in page.all("svg") if one.get("class") == "time-line"]) == 1
    whole = client.get("/ui/request", params={"id": made.request, "format": "json"})
    assert set(whole.json()["tables"]) == {"values", "inputs", "rows-1"}


def test_every_row_of_a_request_is_told(client: httpx.Client, made: Told) -> None:
    """An unknown key too; and what the log does not have is told beside the form."""
    page = read(client.get("/ui/request", params={"id": made.request, "row": "2"}))
    assert "No row ever bore this key." in page.text
    for asked, said in (
        ({"id": HOSTILE}, HOSTILE),
        ({"id": made.request, "row": "9"}, "has no row 9"),
        ({"id": made.request, "row": "x"}, "row is a whole number"),
    ):
        assert said in read(client.get("/ui/request", params=asked)).text
    assert client.get("/ui/request", params={"id": "no", "format": "json"}).status_code == 404
    read(client.get("/ui/request"))


# --- the audit --------------------------------------------------------------------------------


def when_it_came(client: httpx.Client, address: httpx.URL | str) -> Read:
    """A page with what comes when it is there."""
    waiting = read(client.get(address))
    (later,) = [str(one["hx-get"]) for _, one in waiting.elements if "hx-get" in one]
    return read(client.get(later))


def test_an_audit_leads_from_the_map_to_the_rows(client: httpx.Client, made: Told) -> None:
    """A cell of the map to its examples, and each example to its request."""
    found = made.store.audit(since="1d")
    page = read(client.get("/ui/audit", params={"since": "1d", "run": "1"}))
    cells = [one for one in page.all("td") if one.get("class") in {"exact", "rewritten", "skewed", "nothing"}]
    assert [one["class"] for one in cells] == ["rewritten", "rewritten", "exact"]
    link, _ = [link for link in page.links() if "#table-examples" in link]
    there = httpx.URL(link)
    assert there.params["feature"] == "said__n"
    narrowed = when_it_came(client, there)
    examples = [httpx.URL(link) for link in narrowed.links() if link.startswith("/ui/request?")]
    assert [(url.params["id"], url.params["row"]) for url in examples] == [(made.request, "0")]
    assert HOSTILE in narrowed.text
    causes = rows(client, "/ui/audit?since=1d", "causes")
    assert {one["cause"]: one["values"] for one in causes} == found.causes == {"history rewritten": 2}
    features = rows(client, "/ui/audit?since=1d", "features")
    assert {one["feature"]: (one["compared"], one["exact"]) for one in features} == {
        of.feature: (of.compared, of.exact) for of in found.features
    }
    assert rows(client, "/ui/audit?since=1d&feature=said__word", "examples") == []


def test_an_audit_is_run_when_it_is_asked_for(client: httpx.Client, made: Told) -> None:
    """First what the last ones found; then a page that loads the rest, also without scripts."""
    made.store.audit(since="1d")
    page = read(client.get("/ui/audit"))
    assert "What the last audits found" in page.text
    assert page.all("table")
    waiting = read(client.get("/ui/audit", params={"since": "1d", "service": "model"}))
    (later,) = [one["hx-get"] for _, one in waiting.elements if "hx-get" in one]
    assert httpx.URL(str(later)).params["run"] == "1"
    assert later in waiting.links()
    assert "exact" in read(client.get(str(later))).text


def test_an_audit_that_looked_at_nothing_is_not_green(client: httpx.Client, made: Told) -> None:
    """Nor one over files that are damaged, of which it tells first."""
    nothing = read(client.get("/ui/audit", params={"since": "1d", "until": "2024-05-01T11:00:00Z", "run": "1"}))
    assert [one for one in nothing.all("p") if one.get("role") == "alert"]
    assert "minimum_compared" not in nothing.text  # which is what a command is told
    assert not [one for one in nothing.all("span") if one.get("class") == "mark good"]
    folder = made.store.config.serving_log.folder
    (log,) = (folder / "model").rglob("*.parquet")
    content = log.read_bytes()
    try:
        log.write_bytes(content[:100] + bytes(8) + content[108:])
        damaged = read(client.get("/ui/audit", params={"since": "1d", "run": "1"}))
        assert f"{log.name} is damaged" in damaged.text
        assert str(made.store.config.root) not in damaged.text
        assert damaged.text.index("is damaged") < damaged.text.index("values compared")
        assert not [one for one in damaged.all("span") if one.get("class") == "mark good"]
    finally:
        log.write_bytes(content)


@pytest.mark.parametrize("asked", [{"since": "soon"}, {"until": "soon"}, {"service": HOSTILE}, {"from": HOSTILE}])
def test_an_audit_of_nothing_that_there_is_is_refused(client: httpx.Client, asked: dict[str, str]) -> None:
    answer = client.get("/ui/audit", params={"since": "1d", "run": "1", **asked})
    assert answer.status_code in {404, 422}
    read(answer)


# --- drift ------------------------------------------------------------------------------------


def test_drift_is_drawn_against_a_frame_of_the_registry(client: httpx.Client, made: Told) -> None:
    """The distances are those of `drift`; a page reads no file that the registry does not know."""
    asked = {"service": "model", "since": "1d", "baseline": str(made.frame), "every": "1h"}
    found = made.store.drift("model", since="1d", baseline=str(made.frame), every="1h")
    page = read(client.get("/ui/drift", params={**asked, "run": "1"}))
    assert f"{'y' * 59}…" in page.text
    assert len([one for one in page.all("polyline") if one.get("class") == "baseline"]) == len(found.features) == 3
    assert found.exceeded == ()
    assert "no feature has a limit" in page.text
    records = rows(client, "/ui/drift?" + str(httpx.QueryParams(asked)), "features")
    assert [(one["feature"], one["rows served"]) for one in records] == [
        (of.feature, of.served_rows) for of in found.features
    ]
    assert client.get("/ui/drift", params={**asked, "baseline": "/etc/passwd", "run": "1"}).status_code == 404
    assert client.get("/ui/drift", params={**asked, "baseline": "s3://bucket/x.parquet", "run": "1"}).status_code == 404
    offered = read(client.get("/ui/drift", params={"service": "model"}))
    assert made.frame.name in [one["value"] for one in offered.all("option") if "value" in one]


def test_drift_without_requests_is_an_error_page(client: httpx.Client) -> None:
    assert (
        client.get(
            "/ui/drift", params={"service": "model", "since": "2024-05-01T13:00:00Z", "until": NOON_TEXT, "run": "1"}
        ).status_code
        == 422
    )
    assert "run" in str(read(client.get("/ui/drift", params={"service": "model", "since": "1d"})).elements)


# --- runs and availability --------------------------------------------------------------------


def test_runs_are_those_of_the_journal(client: httpx.Client, made: Told) -> None:
    page = read(client.get("/ui/runs"))
    records = rows(client, "/ui/runs", "runs")
    assert [(one["run"], one["view"], one["keys written"]) for one in records] == [
        (run.id, run.view, run.keys) for run in made.store.registry.runs()
    ]
    assert len([one for one in page.all("rect") if one.get("class") == "run"]) == len(records) + 1  # and the legend
    assert client.get("/ui/runs", params={"view": HOSTILE}).status_code == 404
    assert rows(client, "/ui/runs?view=said&limit=1", "runs") == records[:1]


def test_failures_are_beside_the_runs(client: httpx.Client, made: Told) -> None:
    """What the trail says of them, and nobody's name, which only administrators may see."""
    from featurestore.registry.activity import Activity

    made.store.registry.add_activity([Activity("fail to materialize", "said", {"error": HOSTILE}, "os:secret@here")])
    page = read(client.get("/ui/runs"))
    assert f"error {HOSTILE}" in page.text
    assert "os:secret" not in page.text
    (failure,) = rows(client, "/ui/runs", "failures")
    assert (failure["view"], failure["why"]) == ("said", f"error {HOSTILE}")


def test_availability_is_beside_what_was_declared(client: httpx.Client, made: Told) -> None:
    """As `availability` measured it."""
    assert client.get("/ui/availability", params={"since": "soon", "run": "1"}).status_code == 422
    read(client.get("/ui/availability"))
    page = read(client.get("/ui/availability", params={"since": "40d", "run": "1"}))
    found = made.store.availability(since="40d").views["said"]
    records: list[dict[str, Any]] = rows(client, "/ui/availability?since=40d", "promises")
    assert {one["word"] for one in records} >= {"known_after", "ready_after"}
    measured = rows(client, "/ui/availability?since=40d", "rows")
    assert [(one["view"], one["rows"]) for one in measured] == [("said", found.known.rows)]
    assert len([one for one in page.all("svg") if str(one.get("class")).startswith("promise ")]) == len(records)


@pytest.mark.parametrize(
    "address", ["audit?since=40d", "drift?service=model&since=40d", "availability?since=40d", "quarantine?of=said"]
)
def test_a_link_of_a_page_asks_for_what_takes_long_when_its_own_page_is_there(
    client: httpx.Client, address: str
) -> None:
    """No link has the word that says so, whether the page was asked for with it or without, but the one that waits."""
    (name, _, words) = address.partition("?")
    for page in (read(client.get(f"/ui/{address}")), read(client.get(f"/ui/{address}&run=1"))):
        own = [link for link in page.links() if link.startswith("/ui/") and "run=" in link]
        assert set(own) <= {f"/ui/{name}?{words}&run=1"}
    assert own == []


def test_an_empty_project_has_every_page(tmp_path: Any) -> None:
    """Nothing was applied, served or run: each page says so."""
    (tmp_path / "featurestore.toml").write_text('project = "empty"\ndefinitions = []\n')
    with FeatureStore(tmp_path) as store, serving(store) as client:
        for address in (
            "explain",
            "request",
            "audit",
            "audit?since=1d&run=1",
            "drift",
            "runs",
            "availability",
            "availability?run=1",
        ):
            read(client.get(f"/ui/{address}"))


def test_the_json_of_a_page_is_what_the_command_prints(client: httpx.Client, made: Told) -> None:
    """`explain --json` has more; each row that the page's export has is one of its rows."""
    told_rows = made.store.explain("said", {"name": HOSTILE}, at=hours(0)).to_dict()["rows"]
    records = rows(client, "/ui/explain?" + str(httpx.QueryParams(ASKED)), "rows")
    assert [one["reason"] for one in records] == [one["reason"] for one in told_rows]

"""Feast's client, with a remote online store, asks and writes to our server; it lives in an environment of its own."""

from __future__ import annotations

import json
import os
import random
import subprocess
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from featurestore import FeatureStore
from featurestore.access.api_keys import create_key
from featurestore.types import FeatureType, from_json, to_json
from tests.cli.test_commands import run
from tests.platforms.conftest import Told
from tests.platforms.shop import BLOCK, KEYS, NOON, PAGES, PAIRS, TYPES, bits, opened, run_page, serving, value
from tests.servers import PATIENCE_SECONDS

ROOT = Path(__file__).parents[2]
FEAST = ROOT / ".venv-feast" / "bin"
CLIENT = Path(__file__).with_name("feast_client.py")
QUIET = {**os.environ, "FEAST_USAGE": "False", "PYTHONWARNINGS": "ignore", "PYTHONPATH": ""}


def run_feast(folder: Path, *command: str, given: str = "") -> str:
    done = subprocess.run(
        [FEAST / command[0], *command[1:]],
        cwd=folder,
        env=QUIET,
        input=given,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FeatureStore]:
    with opened(tmp_path_factory.mktemp("repo")) as store:
        yield store


def exported(store: FeatureStore, folder: Path, url: str) -> None:
    """A feature store of Feast's, as `featurestore export-feast` and `feast apply` make it."""
    run(Path(store.config.root), "export-feast", str(folder), "--url", url)
    run_feast(folder, "feast", "apply")


def ask(folder: Path, *questions: dict[str, Any]) -> list[Any]:
    answers: list[Any] = json.loads(run_feast(folder, "python", str(CLIENT), given=json.dumps(questions)))
    return answers


KINDS = {
    "Bool": "bool_val",
    "Int32": "int64_val",
    "Int64": "int64_val",
    "Float32": "double_val",
    "Float64": "double_val",
}


def same(of: FeatureType, given: Any, told: Any) -> bool:
    """Whether the client has a value, in the type that JSON has for it."""
    if given is None or given != given:  # it takes NaN for null
        return told is None
    kind, found = told
    inner = of.element or of
    expected = KINDS.get(inner.kind, "string_val")
    if of.element is not None and (not given or None in given):
        return kind == "string_val" and bits(from_json(of, json.loads(found))) == bits(given)
    if of.element is not None:
        expected = expected.replace("_val", "_list_val")
    plain = given if inner.is_float else to_json(of, given)
    return kind == expected and bits(found) == bits(plain)


def compared(
    store: FeatureStore, features: Any, rows: list[dict[str, Any]], answer: dict[str, Any], *, full: bool
) -> int:
    """How many values were compared, all of which are those of `get_online_features`."""
    expected, count = store.get_online_features(rows, features), 0
    names = [column.name if full else column.feature or column.name for column in expected.service.columns]
    assert list(answer) == [*expected.inputs, *names]
    for name, column in zip(names, expected.service.columns, strict=True):
        for place, (told, status) in enumerate(answer[name]):
            given, ours = expected.columns[column.name][place], expected.statuses[column.name][place]
            assert same(column.type, given, told), (rows[place], column.name, given, told)
            words = {"MISSING": "NOT_FOUND", "EXPIRED": "OUTSIDE_MAX_AGE"}.get(
                ours, "NULL_VALUE" if given is None else "PRESENT"
            )
            assert status == NUMBERS[words], (ours, given, status)
            count += 1
    return count


NUMBERS = {"PRESENT": 1, "NULL_VALUE": 2, "NOT_FOUND": 3, "OUTSIDE_MAX_AGE": 4}
"""Feast's numbers of its statuses."""


def test_every_type_by_random_keys(store: FeatureStore, tmp_path: Path, tell: Told) -> None:
    """By references and by service, with short and full names; then rows that the client pushes, and what it raises."""
    draw = random.Random(11)
    users = [{"user_id": draw.choice([*KEYS, "nobody"])} for _ in range(60)]
    pairs = [dict(zip(("carrier", "flight"), draw.choice([*PAIRS, ("ZZ", 1)]), strict=True)) for _ in range(40)]
    asked = [{**user, "add": draw.randrange(9)} for user in users]
    of_view = {view: [f"{view}:{name}" for name in TYPES] for view in ("users", "cards", "pairs")}
    row = {
        name: value(draw, of)
        for name, of in TYPES.items()
        if of.kind not in {"Bytes", "Date", "Timestamp", "Decimal", "Float32"} and of.element is None
    }
    row |= {
        "small": 7,
        "big": 2**53 + 1,
        "wide": 0.1,
        "flag": True,
        "text": "é",
        "price": "12.340",
        "day": "2026-02-28",
        "embedding": [0.5, 1.0, -2.0],
    }
    row |= {
        "narrow": 0.5,
        "names": ["a"],
        "counts": [1],
        "flags": [True],
        "levels": [0.1],
        "moment": "2026-02-28T01:02:03Z",
    }
    pushed = {"user_id": "new", "at": "2026-03-01T11:00:00.5Z", "ends": "2026-03-02T00:00:00Z", "raw": None, **row}
    questions = [
        {"features": of_view["users"], "rows": users},
        {"features": of_view["cards"], "rows": users, "full": True},
        {"features": of_view["pairs"], "rows": pairs},
        {"service": "plain", "rows": users},
        {"service": "model", "rows": asked, "full": True},
        {"features": ["user:wide"], "rows": users},
        {"features": ["users:wide"], "rows": [{"user": "a"}]},
        {"push": "cards", "rows": [pushed], "times": ["at", "ends", "moment"]},
    ]
    with serving(store, "feast") as url:
        exported(store, tmp_path, url)
        answers = ask(tmp_path, *questions)
    count = sum(
        compared(
            store,
            question.get("features", question.get("service")),
            question["rows"],
            answer,
            full=question.get("full", False),
        )
        for question, answer in zip(questions[:5], answers, strict=False)
    )
    assert answers[5]["error"] == "FeatureViewNotFoundException", answers[5]
    assert "Did you mean 'users" in answers[5]["says"]
    assert answers[6]["error"] == "FeastError"
    assert "has no 'user_id'" in answers[6]["says"]
    assert answers[7] == "pushed", answers[7]
    found = store.get_online_features([{"user_id": "new"}], "cards").to_dict()
    for name, given in row.items():
        of = TYPES[name]
        said = (
            given
            if name in {"price", "day"}
            else "2026-02-28T01:02:03.000000Z"
            if name == "moment"
            else to_json(of, given)
        )
        assert to_json(of, found[f"cards__{name}"][0]) == said, name
    assert found["cards__at"][0] == NOON - timedelta(minutes=60) + timedelta(milliseconds=500)
    version = run_feast(tmp_path, "python", "-c", "import importlib.metadata as m; print(m.version('feast'))").strip()
    tell(
        "feast",
        version=f"feast {version}",
        ran="its own client ran, its feature server is emulated",
        compared=count + len(row),
    )


def test_what_its_feature_server_takes_beside(store: FeatureStore) -> None:
    """`/push` and `/health`, which have no place in its client, and the refusals in its form."""
    push = {
        "push_source_name": "cards",
        "df": {"user_id": ["p"], "at": [(NOON - timedelta(hours=1)).isoformat()], "moment": [1767225600], "small": [5]},
    }
    with (
        serving(store, "feast", authentication=True) as url,
        httpx.Client(base_url=url, timeout=PATIENCE_SECONDS) as client,
    ):
        assert client.get("/health").status_code == 200
        read, write = (
            {
                "authorization": f"Bearer {create_key(store.registry, f'feast {scope}'.replace(' ', '-'), [scope]).secret}"
            }
            for scope in ("read", "push")
        )
        refused = client.post("/push", json=push, headers=read)
        assert refused.status_code == 403
        assert json.loads(refused.json())["class"] == "FeastPermissionError"
        assert client.post("/push", json=push).status_code == 401
        assert client.post("/push", json=push, headers=write).status_code == 200
        offline = client.post("/push", json={**push, "to": "offline"}, headers=write)
        assert (offline.status_code, "served, too" in offline.text) == (400, True)
        twice = client.post(
            "/get-online-features",
            json={"entities": {"user_id": ["a"]}, "features": ["users:text", "cards:text"]},
            headers=read,
        )
        assert (twice.status_code, "full_feature_names" in twice.text) == (400, True)
    found = store.get_online_features([{"user_id": "p"}], "cards").to_dict()
    assert (found["cards__small"][0], found["cards__moment"][0].isoformat()) == (5, "2026-01-01T00:00:00+00:00")


def test_a_key_of_ours_is_the_clients_token(store: FeatureStore, tmp_path: Path) -> None:
    """As the page says it goes into feature_store.yaml."""
    secret = create_key(store.registry, "feast-client", ["read"]).secret
    question = {"features": ["users:text"], "rows": [{"user_id": "u1"}]}
    with serving(store, "feast", authentication=True) as url:
        exported(store, tmp_path, url)
        assert ask(tmp_path, question)[0]["error"] == "FeastError"
        settings = tmp_path / "feature_store.yaml"
        settings.write_text(settings.read_text() + f"auth: {{type: oidc, token: {secret}}}\n")
        assert list(ask(tmp_path, question)[0]) == ["user_id", "text"]


def test_export_writes_over_nothing(store: FeatureStore, tmp_path: Path) -> None:
    root = Path(store.config.root)
    run(root, "export-feast", str(tmp_path))
    assert "--force" in run(root, "export-feast", str(tmp_path), code=1).output
    run(root, "export-feast", str(tmp_path), "--force")


def test_what_the_page_shows(tmp_path: Path) -> None:
    """docs/platforms/feast.md, with Feast's client: the page's block runs in its environment."""
    (code,) = [text for kind, text in BLOCK.findall((PAGES / "feast.md").read_text()) if kind == "python"]

    def show(store: FeatureStore, url: str) -> None:
        exported(store, tmp_path / "feast", url)
        run_feast(tmp_path, "python", "-c", code)

    run_page("feast", tmp_path, show)

"""The alert rules and the dashboard: they name what there is, and the real promtool understands them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from featurestore import FeatureStore
from featurestore.config import Config
from tests.server.test_http import serving
from tests.server.test_metrics import LOOKUP, PUSH, ROW, definitions

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
RULES = DEPLOY / "prometheus" / "alerts.yml"
ALERTS = [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
DASHBOARD = json.loads((DEPLOY / "grafana" / "featurestore.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
QUERIES = [target["expr"] for panel in PANELS for target in panel["targets"]]
QUERIES += [one["expr"] for one in DASHBOARD["annotations"]["list"]]
PROMETHEUS = {"instance", "job", "le"}
"""Labels that Prometheus puts there itself, and those of a histogram's buckets."""


@pytest.fixture(scope="session")
def promtool() -> str:
    """Of Prometheus: the one on PATH, else the one that `make promtool` has fetched."""
    found = shutil.which("promtool") or shutil.which("promtool", path=ROOT / ".promtool" / "usr" / "bin")
    if found is None:
        pytest.skip("promtool is neither on PATH nor in .promtool: make promtool")
    return found


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """What a server tells Prometheus that has answered, refused, pushed, logged and audited something."""
    folder = tmp_path_factory.mktemp("told")
    (folder / "featurestore.toml").write_text('project = "p"\ndefinitions = []\n[serving_log]\nrate = 1.0\n')
    with FeatureStore(folder) as store:
        store.apply(definitions())
        store.materialize(progress=False)
        with serving(store) as client:
            client.post(PUSH, json={"source": "s", "rows": [ROW]})
            client.post(LOOKUP, json={"service": "m", "rows": [{"thing": "a"}]})
            client.get("/v1/views", headers={"origin": "https://example.com"})
            store.audit()
            yield client.get("/metrics").text


@pytest.fixture(scope="module")
def labels(told: str) -> dict[str, set[str]]:
    """By the name of a series its labels: those of the page, which those of the server must be."""
    rows = re.findall(
        r"^\| (`featurestore_[^|]*) \|([^|]*)\|", (ROOT / "docs" / "metrics.md").read_text(), re.MULTILINE
    )
    said: dict[str, set[str]] = {}
    for names, words in rows:
        for name in re.findall(r"`(\w+)`", names):
            whole = name if name.startswith("featurestore") else f"featurestore_serving_log{name}"
            said[whole] = set(re.findall(r"`(\w+)`", words))
    for name, kind in re.findall(r"^# TYPE (\w+) (\w+)$", told, re.MULTILINE):
        if kind == "histogram":
            said |= {f"{name}{part}": said[name] for part in ("_bucket", "_count", "_sum")}
    series = re.findall(r"^(featurestore_\w+)(?:\{(.*)\})? ", told, re.MULTILINE)
    assert len(series) > 50
    for name, words in series:
        if not name.endswith("_created"):
            assert set(re.findall(r'(\w+)="', words)) - {"le"} == said[name], name
    return said


def test_every_metric_and_label_is_there(labels: dict[str, set[str]]) -> None:
    """A rule about what nobody tells is silent for ever."""
    for query in [alert["expr"] for alert in ALERTS] + QUERIES:
        plain = re.sub(r'"[^"]*"', '""', query)
        names = set(re.findall(r"\b(featurestore_\w+|up)\b", plain))
        assert names, query
        known = PROMETHEUS.union(*(labels[name] for name in names - {"up"}))
        for name, matchers in re.findall(r"\b(featurestore_\w+)\{([^}]*)\}", plain):
            assert set(re.findall(r"(\w+)\s*[=!]", matchers)) <= labels[name] | PROMETHEUS, query
        for words in re.findall(r"\b(?:by|on) \(([^)]*)\)", plain):
            assert {word.strip() for word in words.split(",")} <= known, query


def test_promtool_understands_the_rules_and_they_fire_when_they_should(promtool: str) -> None:
    """Each in its own test, beside what must not make it fire."""
    tests = RULES.with_suffix(".test.yml")
    for words in (["check", "rules", str(RULES)], ["test", "rules", str(tests)]):
        done = subprocess.run([promtool, *words], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    fired = {
        case["alertname"]
        for test in yaml.safe_load(tests.read_text())["tests"]
        for case in test["alert_rule_test"]
        if case["exp_alerts"]
    }
    assert fired == {alert["alert"] for alert in ALERTS}


def test_promtool_understands_the_dashboard(promtool: str, tmp_path: Path) -> None:
    """Each of its queries, with what Grafana puts in place of its variables."""
    plain = [re.sub(r"\$\w+", "a", query.replace("$__rate_interval", "5m")) for query in QUERIES]
    rules = [{"record": f"panel:{number}", "expr": query} for number, query in enumerate(plain)]
    file = tmp_path / "dashboard.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    done = subprocess.run([promtool, "check", "rules", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_takes_the_configuration_and_the_metrics(promtool: str, told: str, tmp_path: Path) -> None:
    """Prometheus would start with the one, and has no fault to find with the other."""
    text = (DEPLOY / "prometheus" / "prometheus.yml").read_text()
    (tmp_path / "prometheus.yml").write_text(text.replace("/watch/prometheus.key", str(tmp_path / "key")))
    (tmp_path / "key").write_text("fsk_")
    shutil.copy(RULES, tmp_path / "alerts.yml")
    checks = [("config", [str(tmp_path / "prometheus.yml")], ""), ("metrics", [], told)]
    for what, words, given in checks:
        done = subprocess.run(
            [promtool, "check", what, *words], input=given, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_page_scrapes_where_a_server_listens() -> None:
    """The target that the page shows is the address that `featurestore serve` takes when nothing else is said."""
    server = Config.local(Path("nowhere")).server
    targets = re.findall(r'targets: \["([^"]*)"\]', (ROOT / "docs" / "metrics.md").read_text())
    assert targets == [f"{server.host}:{server.port}"]


def test_every_alert_is_explained() -> None:
    """It has a section of the page, which it names, and says who is to be told; the page has no others."""
    page = (ROOT / "docs" / "alerts.md").read_text()
    sections = re.findall(r"^### (\w+)$", page, re.MULTILINE)
    assert sorted(sections) == sorted(alert["alert"] for alert in ALERTS)
    for alert in ALERTS:
        assert alert["labels"]["severity"] in {"page", "ticket"}
        assert alert["annotations"]["runbook"] == f"docs/alerts.md#{alert['alert'].lower()}"
        assert alert["annotations"]["summary"]


def test_the_dashboard_is_whole() -> None:
    """Panels have their own numbers and places, and read the Prometheus that is chosen."""
    numbers = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(numbers) == len(set(numbers))
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken
        assert at["x"] + at["w"] <= 24
        taken |= cells
    assert all(target["datasource"]["uid"] == "${datasource}" for panel in PANELS for target in panel["targets"])

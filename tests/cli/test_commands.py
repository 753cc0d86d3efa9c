"""Every command's example runs, in order, in one repository; exit codes, JSON and environments."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner, Result

from featurestore import FeatureStore
from featurestore.cli import app
from tests.ports import free_port
from tests.servers import PATIENCE_SECONDS

ROOT = Path(__file__).parents[2]
ORDER = [
    "plan", "apply", "historical", "snapshot", "materialize", "push", "online", "manifest", "explain", "lineage", "show", "status",
    "compact", "take-back", "forget", "backup", "audit", "availability", "simulate", "history", "activity", "teardown",
]  # fmt: skip
PRINTS = {
    "plan": "plan", "apply": "apply", "materialize": "materialize --quiet", "show": "show", "status": "status",
    "history": "history", "push": "push carts data/carts.jsonl", "compact": "compact", "take-back": "take-back carts", "forget": "forget customer customer=nobody --yes", "audit": "audit", "availability": "availability", "simulate": "simulate --lookups 2", "snapshot": "snapshot customer_orders --at 2025-01-05 --at 2025-01-06",
    "explain": "explain customer_orders customer=ann", "lineage": "lineage orders.amount", "online": "online order_model customer=ann amount=NaN",
    "historical": "historical data/spine.parquet order_model -o json.parquet", "teardown": "teardown --yes",
    "manifest": "manifest json.parquet", "activity": "activity", "backup": "backup json.tar",
}  # fmt: skip


def run(where: Path, *args: str, code: int = 0, given: str = "", env: str | None = None) -> Result:
    """A command line in this process. env: what FEATURESTORE_ENV says, if anything."""
    with contextlib.chdir(where):
        done = CliRunner().invoke(app, args, input=given, env={"FEATURESTORE_ENV": env}, prog_name="featurestore")
    assert done.exit_code == code, done.output
    assert done.exception is None or isinstance(done.exception, SystemExit)
    return done


def environment() -> dict[str, str]:
    """Of a process of its own."""
    given = {name: value for name, value in os.environ.items() if name != "FEATURESTORE_ENV"}
    return {**given, "PYTHONPATH": str(ROOT)}


def run_apart(where: Path, *args: str) -> str:
    """What a command line prints that runs in a process of its own, which has imported nothing before."""
    done = subprocess.run(
        [sys.executable, "-m", "featurestore", *args], cwd=where, env=environment(), capture_output=True, text=True,
        timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


def examples(*command: str) -> list[list[str]]:
    found = re.findall(r"^\s*Example: featurestore (.*)$", run(ROOT, *command, "--help").stdout, re.MULTILINE)
    assert found, f"{command} has no example"
    return [shlex.split(line) for line in found]


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    run(tmp_path, "init", "shop")
    return tmp_path / "shop"


def test_the_first_audit_has_something_to_compare(repo: Path) -> None:
    """What init writes logs what is served, within bounds; nothing need be switched on."""
    run(repo, "apply", "--yes")
    run(repo, "materialize", "--quiet")
    with FeatureStore(repo) as store:
        log = store.config.serving_log
        assert log.rate == 1.0
        assert log.retention is not None
        assert log.max_bytes is not None
        assert log.folder == repo / ".featurestore" / "served"
        store.get_online_features({"customer": "ann", "amount": 30.0}, "order_model")
        audited = store.audit()
    assert (audited.compared, audited.skewed) == (3, 0)
    with FeatureStore(repo, env="staging") as store:
        assert store.config.serving_log.rate == 1.0
        assert store.config.serving_log.folder != log.folder


def test_examples_run_in_order(tmp_path: Path) -> None:
    """The first of each command in a process of its own, so that no command needs what another has imported."""
    for args in examples("init"):
        run_apart(tmp_path, *args)
    for command in ORDER:
        first, *others = examples(command)
        assert run_apart(tmp_path / "shop", *first) or command == "materialize"
        for args in others:
            if "--follow" in args:  # which goes on until it is told to stop; see test_follow
                continue
            assert run(tmp_path / "shop", *args).stdout or command == "materialize"
        assert {args[0] for args in (first, *others)} == {command}


@pytest.mark.parametrize("number", [0, 1], ids=["as it is applied", "by a manifest"])
def test_the_examples_of_serve_answer_until_they_are_told_to_stop(repo: Path, number: int) -> None:
    """As they stand in the help, but for the port; with a manifest, what it names is served to whoever names none."""
    command = examples("serve")[number]
    if number:
        for line in (
            "apply --yes",
            "materialize --quiet",
            "historical data/spine.parquet order_model -o training.parquet",
        ):
            run(repo, *shlex.split(line))
    port = str(free_port())
    assert command[:3] == ["serve", "--port", "6570"]
    process = subprocess.Popen(
        [sys.executable, "-m", "featurestore", "serve", "--port", port, *command[3:]],
        cwd=repo,
        env=environment(),
        stderr=subprocess.PIPE,
    )
    try:
        deadline = time.monotonic() + 600
        while True:
            assert process.poll() is None
            assert time.monotonic() < deadline
            try:
                assert httpx.get(f"http://127.0.0.1:{port}/healthz", timeout=PATIENCE_SECONDS).status_code == 200
                if number:
                    said = json.loads((repo / "training.parquet.manifest.json").read_text())["fingerprint"]
                    ready = httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=PATIENCE_SECONDS).json()
                    assert ready == {"status": "ready", "manifests": {"order_model": said}}
                break
            except httpx.ConnectError:
                time.sleep(0.1)
    finally:
        process.terminate()
        assert process.wait(timeout=600) in {0, -signal.SIGTERM}
        assert process.stderr is not None
        process.stderr.close()


def texts_of(value: Any) -> Iterator[str]:
    """Every text of a JSON document."""
    if isinstance(value, str):
        yield value
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from texts_of(item)


def test_json_parses_and_holds_json_forms(repo: Path) -> None:
    told = {command: json.loads(run(repo, *shlex.split(PRINTS[command]), "--json").stdout) for command in ORDER}
    assert told["online"]["rows"][0]["amount"] == "NaN"
    assert told["online"]["rows"][0]["customer_orders__amount"] == 27.5
    assert told["snapshot"][0]["event_timestamp"] == "2025-01-05T00:00:00.000000Z"
    assert told["snapshot"][-1]["event_timestamp"] == "2025-01-06T00:00:00.000000Z"
    assert told["historical"]["rows"] == 6
    assert [view["state"] for view in told["status"]["views"]] == ["fresh", "fresh"]
    assert told["push"] == {"accepted": 9, "unchanged": 0, "late": 0, "quarantined": 0, "without_key": 0, "notices": []}
    assert told["compact"] == {"carts": {"segments": 0, "rows": 0, "deleted": 0}}
    assert told["history"][0]["version"] == 1
    assert (told["manifest"]["state"], told["manifest"]["served"], told["manifest"]["applied"]) == ("applied", True, [])
    assert told["teardown"]["freed"] > 0
    told["historical"]["manifest"] = None  # a file's text, whose form is its own
    instants = [text for text in texts_of(told) if re.match(r"\d{4}-\d\d-\d\dT", text)]
    assert len(instants) > 20
    assert {text for text in instants if not re.fullmatch(r"[-0-9]{10}T[:0-9]{8}\.\d{6}Z", text)} == set()


def test_check_exits_with_2_on_a_change_only(repo: Path) -> None:
    run(repo, "plan", "--check", code=2)
    run(repo, "plan")
    run(repo, "apply")
    run(repo, "plan", "--check")


def test_environments_lie_apart_and_options_stand_anywhere(repo: Path) -> None:
    run(repo.parent, "--repo", "shop", "--env", "staging", "apply")
    run(repo.parent, "plan", "--check", "--repo=shop", "--env=staging")
    run(repo, "plan", "--check", code=2)
    assert "no [env.nope]" in run(repo, "status", "--env", "nope", code=1).stderr


def test_the_environment_may_be_named_by_a_variable(repo: Path) -> None:
    """FEATURESTORE_ENV is what --env is, which goes before it; empty, it names none."""
    run(repo, "apply", env="staging")
    run(repo, "plan", "--check", "--env", "staging")
    run(repo, "plan", "--check", code=2, env="")
    assert "no [env.nope]" in run(repo, "status", code=1, env="nope").stderr
    run(repo, "status", "--env", "staging", env="nope")


def test_a_misspelled_key_is_refused_with_the_right_one(repo: Path) -> None:
    """In the configuration, by file and key."""
    with (repo / "featurestore.toml").open("a") as file:
        file.write('[env.prod]\nonlin = "redis://localhost:6379/0"\n')
    told = run(repo, "status", code=1).stderr
    assert "featurestore.toml: env.prod.onlin: there is no such key. Did you mean 'online'?" in told


@pytest.mark.parametrize(
    ("line", "code", "says"),
    [
        ("show nope", 1, "no definition 'nope'"),
        ("explain customer_orders custmer=ann", 1, "Did you mean 'customer'"),
        ("explain customer_orders customer=ann --at noon", 2, "no instant"),
        ("historical nope.parquet order_model -o x.parquet", 1, "no nope.parquet"),
        ("historical data/spine.parquet order_model -o no/x.parquet", 1, "no/x.parquet"),
        ("online order_model customer=ann", 1, ""),
        ("teardown", 1, "--yes"),
        ("init .", 1, "exists already"),
        ("push cart data/carts.jsonl", 1, "No push source"),
        ("push carts nope.jsonl", 1, "no file nope.jsonl; - takes rows from standard input"),
        ("compact cart", 1, "No push source 'cart'"),
        ("plan --retire order_model@1a", 1, "'order_model@1a' is no version that is kept"),
        ("manifest nope.parquet", 1, "There is no file nope.parquet, nor nope.parquet.manifest.json beside it"),
        ("serve --manifest featurestore.toml", 1, "featurestore.toml is neither a Parquet file nor JSON"),
        ("nonsense", 2, "nonsense"),
    ],
)
def test_mistakes_are_a_line_on_stderr(repo: Path, line: str, code: int, says: str) -> None:
    done = run(repo, *shlex.split(line), code=code)
    assert says in done.stderr
    assert done.stderr


def test_rows_are_pushed_from_every_kind_of_file_and_from_standard_input(repo: Path) -> None:
    """JSON lines, a JSON list and Parquet mean the same rows, so that the later ones are retries; then they are served."""
    run(repo, "apply")
    rows = [json.loads(line) for line in (repo / "data/carts.jsonl").read_text().splitlines()]
    (repo / "list.json").write_text(json.dumps(rows, indent=1))
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    times = pa.array([datetime.fromisoformat(text) for text in columns["at"]], pa.timestamp("us", "UTC"))
    pq.write_table(pa.table({**columns, "at": times}), repo / "carts.parquet")
    lines = "\n".join(json.dumps(row) for row in rows)  # without a last newline, and with an empty line
    assert run(repo, "push", "carts", given=f"\n{lines}").stdout == "9 accepted, 0 unchanged, 0 late\n"
    for file in ("-", "list.json", "carts.parquet", "data/carts.jsonl"):
        assert run(repo, "push", "carts", file, given=lines).stdout == "0 accepted, 9 unchanged, 0 late\n"
    served = json.loads(run(repo, "online", "cart_model", "customer=ann", "--json").stdout)["rows"][0]
    assert served["customer_carts__carts_1d"] == 3
    assert served["customer_carts__amount_1d"] == 12.5 + 24.5 + 36.5


def test_a_mistake_in_a_pushed_file_names_the_line_or_the_row(repo: Path) -> None:
    """What is no JSON by its line, a wrong value by its row; parts before it stay pushed."""
    run(repo, "apply")
    line = '{"cart": "%s", "customer": "ann", "at": "' + datetime.now(UTC).isoformat() + '", "amount": %s}\n'
    assert "line 2 is no JSON" in run(repo, "push", "carts", given=line % ("a", 1) + "{\n", code=1).stderr
    assert (
        "row 1, column 'amount'"
        in run(repo, "push", "carts", given=line % ("a", 1) + line % ("b", '"x"'), code=1).stderr
    )
    many = "".join(line % (n, 1) for n in range(5000)) + line % ("b", '"x"')
    told = run(repo, "push", "carts", given=many, code=1).stderr
    assert "row 0, column 'amount'" in told
    assert "counted from row 5000 of the file" in told
    assert "5000 of them accepted" in told


def test_a_roll_out_from_the_command_line(repo: Path) -> None:
    """A model's version is kept while another is rolled out, told by status, retired by name, and refused from then on."""
    for line in ("apply --yes", "historical data/spine.parquet order_model -o old.parquet"):
        run(repo, *shlex.split(line))
    fingerprint = json.loads((repo / "old.parquet.manifest.json").read_text())["fingerprint"]
    definitions = (repo / "definitions.py").read_text()
    assert definitions.count('refresh="1h"') == 1
    (repo / "definitions.py").write_text(definitions.replace('refresh="1h"', 'refresh="30m"'))
    assert f"Kept order_model@{fingerprint[:12]}." in run(repo, "apply", "--keep", "--yes").stdout
    run(repo, "materialize", "--quiet")
    assert f"order_model@{fingerprint[:12]}" in run(repo, "status").stdout
    ask = ["online", "order_model", "customer=ann", "amount=99.5", "--manifest", "old.parquet", "--json"]
    assert json.loads(run(repo, *ask).stdout)["fingerprint"] == fingerprint
    run(repo, "manifest", "old.parquet", "--check")
    retire = f"order_model@{fingerprint[:5]}"
    planned = run(repo, "plan", "--check", "--retire", retire, code=2).stdout
    assert f"retire order_model {fingerprint[:8]}: freed once its successor" in planned
    assert f"Retired order_model@{fingerprint[:12]}." in run(repo, "apply", "--yes", "--retire", retire).stdout
    run(repo, "manifest", "old.parquet", "--check", code=2)
    for refused in (ask, ["serve", "--port", "0", "--manifest", "old.parquet"]):
        told = run(repo, *refused, code=1).stderr
        assert "FingerprintError: " in told
        assert "refresh: 1h → 30m" in told


def test_a_changed_type_is_taken_on_request(repo: Path) -> None:
    """Each message on the way leads to the next command."""
    run(repo, "apply", "--yes")
    run(repo, "materialize", "--quiet")
    file = repo / "data/orders.parquet"
    rows = pq.read_table(file)
    place = rows.column_names.index("amount")
    pq.write_table(rows.set_column(place, "amount", rows["amount"].cast(pa.float32())), file)
    for line in (["materialize", "--full"], ["plan"], ["apply", "--yes"]):
        told = run(repo, *line, code=1).stderr
        assert "column 'amount' (" in told
        assert "was Float64 (DOUBLE) when it was applied and is Float32 (FLOAT) now" in told
        assert "featurestore apply --accept-types" in told
    assert "columns.amount: Float64 → Float32" in run(repo, "plan", "--accept-types").stdout
    run(repo, "apply", "--yes", "--accept-types")
    run(repo, "materialize", "--quiet")


def test_every_command_is_documented() -> None:
    text = (ROOT / "docs/command-line.md").read_text(encoding="utf-8")
    assert all(f"`featurestore {command}" in text for command in ["init", *ORDER, "serve"])


def test_help_imports_nothing_heavy() -> None:
    code = "import sys, featurestore.cli; print([m for m in ('pandas', 'duckdb', 'fastapi', 'pyarrow') if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], env=environment(), text=True).strip() == "[]"


def test_serve_has_help() -> None:
    assert "--workers" in run(ROOT, "serve", "--help").stdout

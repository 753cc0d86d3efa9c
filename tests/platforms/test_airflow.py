"""DAGs run by Airflow itself, in an environment of its own, over our commands and our Python in another."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from featurestore import FeatureStore, ManualClock
from tests.platforms.conftest import Told
from tests.platforms.frameworks import BLOCK, PAGES, beginning, serve_skew, write_example
from tests.platforms.shop import bits
from tests.servers import PATIENCE_SECONDS

ROOT = Path(__file__).parents[2]
AIRFLOW = ROOT / ".venv-airflow" / "bin"
EXAMPLE = ROOT / "examples/schedule/airflow_features.py"
BIN = Path(sys.executable).parent


class Airflow:
    """A home of Airflow in a folder, its database included."""

    def __init__(self, home: Path, project: Path) -> None:
        self.home = home
        (home / "dags").mkdir(parents=True)
        (home / "airflow.cfg").write_text("[core]\nload_examples = False\n")
        self.environment = {
            **os.environ, "AIRFLOW_HOME": str(home), "PYTHONPATH": str(ROOT), "FEATURESTORE": f"{BIN}/featurestore --repo {project}",
        }  # fmt: skip

    def run(self, *words: str) -> tuple[int, str]:
        """The exit code of a command, and what it printed."""
        done = subprocess.run(
            [AIRFLOW / "airflow", *words], env=self.environment, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False
        )  # fmt: skip
        return done.returncode, done.stdout + done.stderr

    def test(self, dag: str, day: str) -> tuple[dict[str, str], dict[str, Any]]:
        """Run a DAG for a day: the state of each task, and what it gave."""
        code, printed = self.run("dags", "test", dag, f"{day}T00:00:00")
        of_run = f"JOIN dag_run USING (dag_id, run_id) WHERE dag_id = '{dag}' AND logical_date LIKE '{day}%'"
        with closing(sqlite3.connect(self.home / "airflow.db")) as database:
            states = dict(
                database.execute(f"SELECT task_id, task_instance.state FROM task_instance {of_run}").fetchall()
            )
            given = database.execute(f"SELECT task_id, value FROM xcom {of_run} AND key = 'return_value'").fetchall()
        assert (code == 0) is (set(states.values()) == {"success"}), printed
        return states, {task: json.loads(value) for task, value in given}


def gate(project: Path, *words: str) -> tuple[int, str]:
    """The exit code of the page's gate, and what it says of the reasons."""
    command = [BIN / "featurestore", "--repo", project, "audit", "--since", "2d", "--fail-on-skew", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False)
    return done.returncode, done.stderr


def test_the_gate_lets_what_is_the_same_through_and_stops_skew(tmp_path: Path, tell: Told) -> None:
    """docs/platforms/airflow.md: what tasks give, and the files that they write, are the store's own; behind the gate nothing runs."""
    project, other = tmp_path / "rides", tmp_path / "other"
    project.mkdir()
    write_example(project, "[serving_log]\nrate = 1.0\n")
    with FeatureStore(project, clock=ManualClock(datetime(2026, 1, 2, 7, 30, tzinfo=UTC))) as store:
        store.apply()
        store.materialize(progress=False)
    with beginning(project) as names:
        names["rides"].to_parquet(project / "rides.parquet")
    stopped, why = gate(project)  # nobody was served yet
    assert (stopped, gate(project, "--minimum-compared", "0")) == (3, (0, "")), why
    assert "The audit stops here: 0 values were compared, and a gate wants 1 at least" in why
    with beginning(project) as names:
        names["store"].get_online_features([{"driver_id": "d1"}, {"driver_id": "d2"}], "ranking")
    shutil.copytree(project, other)
    with FeatureStore(other) as store:
        due = [
            {"view": run.view, "keys": run.keys, "fingerprint": run.fingerprint}
            for run in store.materialize(progress=False)
        ]
    assert due

    airflow = Airflow(tmp_path / "airflow", project)
    page = "\n".join(BLOCK.findall((PAGES / "airflow.md").read_text()))
    (airflow.home / "dags/rides.py").write_text(
        page.replace("/srv/rides", str(project)).replace("/opt/featurestore/bin", str(BIN))
    )
    shutil.copy(EXAMPLE, airflow.home / "dags")
    for words in (["db", "migrate"], ["dags", "reserialize"]):
        code, printed = airflow.run(*words)
        assert code == 0, printed

    states, given = airflow.test("rides", "2026-03-01")
    assert states == dict.fromkeys(("materialize", "training_set", "audit", "learn"), "success")
    with beginning(project) as names:
        store = names["store"]
        path = project / "training-2026-03-01.parquet"
        expected = store.get_historical_features(str(project / "rides.parquet"), "ranking")
        found = pq.read_table(path)
        for name in expected.to_arrow().column_names:
            assert bits(found[name].to_pylist()) == bits(expected.to_arrow()[name].to_pylist())
        fingerprint = expected.manifest["fingerprint"]
        assert store.load_manifest(path).fingerprint == fingerprint
        audit = store.audit(since="2d")
        assert (audit.compared, audit.skewed) == (4, 0)
        assert given == {
            "materialize": due,
            "training_set": {"path": str(path), "rows": 4, "fingerprint": fingerprint},
            "audit": audit.report().text().splitlines()[-1],
            "learn": found.column_names,
        }
        serve_skew(store)
        skewed = store.audit(since="2d")
        assert (skewed.compared, skewed.skewed) == (8, 2)

        states, given = airflow.test("rides", "2026-03-02")
        assert states == {
            "materialize": "success",
            "training_set": "success",
            "audit": "failed",
            "learn": "upstream_failed",
        }
        assert set(given) == {"materialize", "training_set"}

        states, _ = airflow.test("rides_history", "2026-01-02")
        assert states == {"snapshot": "success"}
        day = pq.read_table(project / "history-2026-01-02.parquet")
        every = store.snapshot("ranking", at=datetime(2026, 1, 2, tzinfo=UTC)).to_arrow()
        assert day.to_pylist() == every.to_pylist()
        assert sorted(map(str, day["drivers__fare"].to_pylist())) == ["14.0", "None"]
    states, _ = airflow.test("features", "2026-03-01")  # the example for schedules, over the same skew
    assert states == {"materialize": "success", "audit": "failed"}
    (version,) = [line for line in airflow.run("version")[1].splitlines() if line[:1].isdigit()]
    tell(
        "airflow",
        version=f"apache-airflow {version}",
        ran="it ran, on SQLite",
        compared=found.num_rows * found.num_columns + day.num_columns,
    )

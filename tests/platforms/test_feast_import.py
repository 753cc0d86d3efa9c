"""Feast's own templates, and repositories that were made to be hard, moved here by `featurestore import-feast` with Feast's Python."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import textwrap
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import Result

from featurestore import FeatureStore, ManualClock
from featurestore.migrate.frame_differences import CAUSES
from tests.cli.test_commands import run
from tests.platforms.conftest import Told
from tests.platforms.test_feast import FEAST, QUIET
from tests.servers import PATIENCE_SECONDS
from tests.small import TIME, hours, table

PYTHON = str(FEAST / "python")
TEMPLATES = FEAST.parent / "lib"


def moved(folder: Path, repo: str = ".", *options: str, code: int = 0) -> dict[str, Any]:
    """What the command tells of a repository, which it leaves as it was."""
    before = listing(folder / repo)
    done: Result = run(
        folder, "import-feast", repo, "--out", "ours", "--feast-python", PYTHON, "--json", *options, code=code
    )
    assert listing(folder / repo) == before
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def listing(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file of a folder, its size and when it was written."""
    files = [path for path in folder.rglob("*") if path.is_file() and "ours" not in path.relative_to(folder).parts]
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in files}


def feast_init(folder: Path, template: str) -> Path:
    """What `feast init` writes, each of its questions answered with its default."""
    done = subprocess.run(
        [str(FEAST / "feast"), "init", "-t", template, "theirs"], cwd=folder, env=QUIET, input="\n" * 40, capture_output=True,
        text=True, timeout=PATIENCE_SECONDS, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "theirs" / "feature_repo"


def summed(told: dict[str, Any]) -> tuple[int, int, dict[str, int]]:
    """How many values were compared, how many are equal, and the causes of the others."""
    causes: dict[str, int] = {}
    for one in told["compared"]:
        for cause, count in one["causes"].items():
            causes[cause] = causes.get(cause, 0) + count
    cells, equal = (sum(one[word] for one in told["compared"]) for word in ("cells", "equal"))
    assert cells == equal + sum(causes.values())
    return cells, equal, causes


# --- templates ----------------------------------------------------------------------------------


def test_feasts_own_template(tmp_path: Path, tell: Told) -> None:
    """Everything but its label view goes over, and each value that differs has a cause; then it is served."""
    feast_init(tmp_path, "local")
    told = moved(tmp_path, "theirs")
    assert told["written"] == {"entities": 1, "sources": 3, "views": 2, "on-demand features": 4, "services": 4}
    assert {one["kind"] for one in told["refused"]} == {"label view", "list of features", "push source"}
    matters = {(one["about"], one["matter"]) for one in told["differences"]}
    assert {
        ("driver_hourly_stats", "refresh"), ("driver_hourly_stats", "ttl"), ("driver_hourly_stats_source", "created"),
        ("driver_stats_push_source", "cutover"), ("driver_hourly_stats:driver_profile", "type"), ("transformed_conv_rate", "split"),
        ("test_workflow_features", "service"),
    } <= matters  # fmt: skip
    cells, equal, causes = summed(told)
    assert [one["problem"] for one in told["compared"]] == [None] * 4
    assert {"refresh", "dropped row", "history", "type"} == set(causes)
    newest = (
        pq.read_table(tmp_path / "theirs/feature_repo/data/driver_stats.parquet")["event_timestamp"].to_pandas().max()
    )
    with FeatureStore(tmp_path / "ours", clock=ManualClock(newest.to_pydatetime() + timedelta(minutes=5))) as store:
        store.apply()
        store.materialize(progress=False)
        asked = {"driver_id": 1001, "val_to_add": 1000, "val_to_add_2": 2000}
        found = store.get_online_features(asked, "driver_activity_v1").to_dict()
        (rate,) = found["driver_hourly_stats__conv_rate"]
        assert found["conv_rate_plus_val1"] == [rate + 1000]
        row = {"driver_id": 1001, "event_timestamp": newest.to_pydatetime() + timedelta(minutes=4), "conv_rate": 0.85}
        store.push(
            "driver_stats_push_source",
            {**dict.fromkeys(store.catalog.sources["driver_stats_push_source"].columns), **row},
        )  # type: ignore[attr-defined]  # a node of the syntax tree
        fresh = store.get_online_features(asked, "driver_activity_v3").to_dict()
        assert fresh["driver_hourly_stats_fresh__conv_rate"] == [0.85]
        assert fresh["transformed_conv_rate_fresh_conv_rate_plus_val2"] == [2000.85]
    readme = (tmp_path / "ours" / "README.md").read_text()
    assert f"{equal:,} of {cells:,} values are equal" in readme
    tell("feast", version=f"feast {told['feast']}", ran="its templates, read and trained by it", compared=cells)


@pytest.mark.parametrize("template", ["cassandra", "hazelcast", "hbase", "milvus", "ray"])
def test_templates_over_files_with_other_stores(tmp_path: Path, template: str, tell: Told) -> None:
    """Whose online stores are refused by name, and whose views go over."""
    feast_init(tmp_path, template)
    told = moved(tmp_path, "theirs/feature_repo")
    assert told["written"]["views"] == told["declared"]["views"]
    assert told["written"]["services"] >= told["declared"]["services"]
    cells, _, causes = summed(told)
    assert "unexplained" not in causes
    tell("feast", version=f"feast {told['feast']}", ran="its templates, read and trained by it", compared=cells)


@pytest.mark.parametrize(
    ("template", "system"),
    [
        ("gcp", "BigQuery"),
        ("aws", "Redshift"),
        ("snowflake", "Snowflake"),
        ("spark", "Spark"),
        ("postgres", "PostgreSQL"),
    ],
)
def test_templates_over_warehouses(tmp_path: Path, template: str, system: str) -> None:
    """As they lie in the package: `feast init` asks the warehouse. What is written is over the export."""
    (package,) = TEMPLATES.glob(f"python*/site-packages/feast/templates/{template}/feature_repo")
    shutil.copytree(package, tmp_path / "theirs", ignore=shutil.ignore_patterns("__pycache__"))
    for file in (tmp_path / "theirs").iterdir():
        file.write_text(re.sub("%([A-Z0-9_]+)%", r"\1", file.read_text()))
    told = moved(tmp_path, "theirs")
    elsewhere = {one["system"] for one in told["exports"]}
    assert elsewhere == {system} or template == "spark", told["exports"]
    assert told["written"]["views"] == told["declared"]["views"] > 0
    with FeatureStore(tmp_path / "ours") as store:
        assert len(store.catalog.views) == told["written"]["views"]


# --- repositories that are hard -----------------------------------------------------------------


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """A repository with a few rows: one view, of which a test adds what it is about."""
    folder = tmp_path / "theirs"
    (folder / "data").mkdir(parents=True)
    (folder / "feature_store.yaml").write_text(
        "project: shop\nregistry: data/registry.db\nprovider: local\nonline_store: {type: sqlite, path: data/online.db}\n"
    )
    moments = [hours(n) for n in range(6)]
    rows = table(
        driver_id=pa.array([1, 2] * 6), at=[moment for moment in moments for _ in range(2)],
        rate=pa.array([n / 7 for n in range(11)] + [None], pa.float32()), trips=pa.array(range(12)),
        created=pa.array([moment + timedelta(minutes=n) for n, moment in enumerate(moments) for _ in range(2)], TIME),
    )  # fmt: skip
    pq.write_table(rows, folder / "data" / "rows.parquet")
    declare(folder, "features.py", HEAD)
    return folder


HEAD = """
from datetime import timedelta
from feast import Entity, FeatureService, FeatureView, Field, FileSource, RequestSource, PushSource
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Float32, Float64, Int64, String
import pandas as pd

driver = Entity(name="driver", join_keys=["driver_id"])
rows = FileSource(name="rows", path="data/rows.parquet", timestamp_field="at", created_timestamp_column="created")
stats = FeatureView(
    name="stats", entities=[driver], ttl=timedelta(hours=2), source=rows,
    schema=[Field(name="rate", dtype=Float32), Field(name="trips", dtype=Int64)],
)
"""


def declare(folder: Path, name: str, text: str) -> None:
    (folder / name).parent.mkdir(exist_ok=True)
    with (folder / name).open("a") as file:
        file.write(textwrap.dedent(text))


def test_rows_that_came_late_are_known_when_they_came_and_the_proof_says_so(theirs: Path) -> None:
    told = moved(theirs.parent, "theirs")
    assert {one["about"]: one["here"] for one in told["differences"] if one["matter"] == "created"} == {
        "rows": 'known_at="created": training sees a row from then on'
    }
    _, _, causes = summed(told)
    assert causes["late row"] > 0
    assert set(causes) <= set(CAUSES) - {"unexplained"}


def test_scripts_are_not_run_and_what_a_file_declared_before_it_failed_is_taken(theirs: Path) -> None:
    """Nor may a file of definitions write, or work with a store; what it applies counts."""
    declare(theirs, "train.py", "import feast_is_no_such_module\nopen('touched', 'w')\n")
    declare(theirs, "script.py", "from feast import FeatureStore\nstore = FeatureStore('.')\nopen('touched', 'w')\n")
    declare(
        theirs,
        "sub/writes.py",
        "from feast import Entity\nfirst = Entity(name='first', join_keys=['x'])\nopen('touched', 'w')\nsecond = Entity(name='second')\n",
    )
    declare(
        theirs,
        "sub/asks.py",
        "from feast import Entity, FeatureStore\nstore = FeatureStore('.')\nstore.apply([Entity(name='applied', join_keys=['y'])])\nstore.get_online_features([], [])\n",
    )
    declare(
        theirs,
        "sub/makes.py",
        "import os\nfrom feast import Entity\nos.makedirs('data/made', exist_ok=True)\nthird = Entity(name='third', join_keys=['z'])\n",
    )
    declare(theirs, "sub/variable.py", "import os\nfrom feast import Entity\nhost = os.environ['NO_SUCH_VARIABLE']\n")
    declare(theirs, "sub/silent.py", "from feast import Entity\nassert Entity is None\n")
    declare(theirs, "feast/__init__.py", "raise RuntimeError('another package of that name')\n")
    declare(theirs, "sub/ends.py", "import sys\nfrom feast import Entity\nsys.exit(3)\n")
    declare(theirs, "sub/broken.py", "def (:\n")
    declare(theirs, "sub/serves.py", "if __name__ == '__main__':\n    open('touched', 'w')\nfrom feast import Entity\n")
    told = moved(theirs.parent, "theirs", "--no-prove")
    assert told["compared"] is None
    refused = {one["name"]: one["why"] for one in told["refused"] if one["kind"] == "file"}
    assert set(refused) == {
        "sub/writes.py:3", "sub/asks.py:4", "sub/ends.py:3", "sub/broken.py", "sub/variable.py:3", "sub/silent.py:2",
    }  # fmt: skip
    assert "reads the variable NO_SUCH_VARIABLE of the environment, which is not set" in refused["sub/variable.py:3"]
    assert "AssertionError: assert Entity is None (silent.py:2)" in refused["sub/silent.py:2"]
    assert "would be written while definitions are read" in refused["sub/writes.py:3"]
    assert "it opens a store and calls get_online_features" in refused["sub/asks.py:4"]
    entities = {one["about"] for one in told["differences"] if one["matter"] == "entity"}
    assert entities == {"first", "applied", "third"}
    assert not (theirs / "touched").exists()
    assert not (theirs / "data" / "made").exists()


def test_libraries_that_are_not_there_do_not_keep_definitions_from_being_read(theirs: Path) -> None:
    """The user's own, and those of Feast's sources; modules of the project are found beside it."""
    declare(theirs.parent, "pyproject.toml", "")
    declare(theirs.parent, "settings.py", "import only_the_project_needs_it\nTABLE = 'd.rides'\n")
    declare(
        theirs,
        "warehouse.py",
        """
        import not_there_at_all as n
        from not_there_at_all.deep import Base, helper
        from settings import TABLE
        from feast import FeatureView, Field
        from feast.infra.offline_stores.contrib.postgres_offline_store.postgres_source import PostgreSQLSource
        from feast.types import Int64
        from features import driver

        from not_there_at_all.sources import HiveSource

        class Own(Base):
            pass

        hive = FeatureView(
            name="hive", entities=[driver], schema=[Field(name="n", dtype=Int64)],
            source=HiveSource(table="warehouse.hive", timestamp_field="at", created_timestamp_column="made"),
        )

        rides = FeatureView(
            name="rides", entities=[driver], schema=[Field(name="n", dtype=Int64)],
            source=PostgreSQLSource(name="rides", query=f"SELECT * FROM {TABLE}", timestamp_field="at"),
        )
        """,
    )
    told = moved(theirs.parent, "theirs", "--no-prove")
    assert {"not_there_at_all", "only_the_project_needs_it"} <= {*told["absent"]}
    assert [one for one in told["refused"] if one["kind"] == "file"] == []
    hive, rides = sorted(told["exports"], key=lambda one: str(one["system"]))
    assert (hive["system"], rides["system"]) == ("Hive", "PostgreSQL")
    assert "store.get_data_source('warehouse.hive')" in hive["commands"]
    assert "SELECT * FROM d.rides" in rides["commands"]
    assert (told["written"]["views"], told["declared"]["views"]) == (3, 3)


def test_a_library_that_dies_while_python_ends_takes_no_answer_along(theirs: Path) -> None:
    """As those do whose threads of C++ are still running then; what Feast had answered is whole."""
    declare(
        theirs,
        "dies.py",
        "import atexit, os\nfrom feast import Entity\natexit.register(os.abort)\nlast = Entity(name='last')\n",
    )
    told = moved(theirs.parent, "theirs")
    assert "last" in {one["about"] for one in told["differences"] if one["matter"] == "entity"}
    assert summed(told)[0] > 0


def test_a_package_that_imports_its_own_modules_is_read(theirs: Path) -> None:
    """From its `__init__`, as many do; each object is met once, and a module that fails takes only itself along."""
    declare(theirs, "entities/__init__.py", "from entities.user import user\nfrom .shop import shop\n")
    declare(theirs, "entities/user.py", "from feast import Entity\n\nuser = Entity(name='user')\n")
    declare(
        theirs,
        "entities/shop.py",
        "from feast import Entity\nfrom entities.user import user\nshop = Entity(name='shop')\n",
    )
    declare(theirs, "more/__init__.py", "")
    declare(
        theirs, "more/failing.py", "from feast import Entity\n\nhalf = Entity(name='half')\nraise ValueError('no')\n"
    )
    told = moved(theirs.parent, "theirs", "--no-prove")
    assert [(one["name"], one["why"][-12:]) for one in told["refused"] if one["kind"] == "file"] == [
        ("more/failing.py:4", "e taken over")
    ]
    assert told["declared"]["entities"] == 4


def test_words_of_an_older_feast_are_read(theirs: Path) -> None:
    (theirs / "features.py").write_text(
        textwrap.dedent(
            """
            from google.protobuf.duration_pb2 import Duration
            from feast import Entity, Feature, FeatureView, Field, ValueType
            from feast.data_source import FileSource
            from feast.value_type import Int64
            from feast.infra.offline_stores.contrib.spark_offline_store.spark_source import SparkSource
            from feast.infra.offline_stores.file import FileOfflineStore

            rows = FileSource(path="data/rows.parquet", event_timestamp_column="at", created_timestamp_column="created")
            driver = Entity(name="driver", join_key="driver_id", value_type=ValueType.INT64, description="who drives")
            stats = FeatureView(
                name="stats", entities=["driver"], ttl=Duration(seconds=7200), batch_source=rows, online=True,
                features=[Feature(name="rate", dtype=ValueType.FLOAT), Feature(name="trips", dtype=ValueType.INT64)],
            )
            rides = FeatureView(
                name="rides", entities=["driver"], ttl=Duration(seconds=60), schema=[Field(name="n", dtype=Int64)],
                batch_source=SparkSource(table="d.rides", event_timestamp_column="at"),
            )
            """
        )
    )
    told = moved(theirs.parent, "theirs")
    (older,) = [one for one in told["differences"] if one["matter"] == "older words"]
    for words in (
        "FeatureView(batch_source=…)",
        "from feast.data_source import FileSource",
        "SparkSource(event_timestamp_column=…)",
    ):
        assert words in older["there"]
    assert "feast.infra.offline_stores.file" in told["absent"]
    assert [one["system"] for one in told["exports"]] == ["Spark"]
    cells, equal, causes = summed(told)
    assert equal > 0
    assert "unexplained" not in causes
    assert 'ttl="2h"' in (theirs.parent / "ours" / "definitions.py").read_text()


def test_a_registry_is_read_where_there_are_no_files(theirs: Path) -> None:
    """Functions too, of which it has the text alone; and the proof runs over it."""
    declare(
        theirs,
        "features.py",
        """
        @on_demand_feature_view(
            sources=[stats, RequestSource(name="asked", schema=[Field(name="extra", dtype=Int64)])],
            schema=[Field(name="more", dtype=Float64)],
        )
        def added(inputs: pd.DataFrame) -> pd.DataFrame:
            df = pd.DataFrame()
            df["more"] = inputs["rate"] + inputs["extra"]
            return df

        model = FeatureService(name="model", features=[stats, added])
        """,
    )
    subprocess.run(
        [str(FEAST / "feast"), "apply"],
        cwd=theirs,
        env=QUIET,
        capture_output=True,
        timeout=PATIENCE_SECONDS,
        check=True,
    )
    whole = moved(theirs.parent, "theirs")
    texts = {path.name: path.read_text() for path in (theirs.parent / "ours").glob("*.py")}
    shutil.rmtree(theirs.parent / "ours")
    (theirs / "features.py").unlink()
    told = moved(theirs.parent, "theirs")
    assert (whole["read_from"], told["read_from"]) == ("files", "registry")
    (views, added), (of_views, of_added) = told["compared"], whole["compared"]
    assert (views["cells"], views["equal"], views["problem"]) == (of_views["cells"], of_views["equal"], None)
    # Feast itself makes no frame of a function of which its registry has the text alone, and the report says so.
    assert of_added["cells"] > 0
    assert added["problem"].startswith("Feast cannot make its frame")
    again = {path.name: path.read_text() for path in (theirs.parent / "ours").glob("*.py")}
    expected = texts["definitions.py"].replace("feast_features", "feast_registry")
    assert sorted(again["definitions.py"].splitlines()) == sorted(expected.splitlines())  # imports are in another order
    shutil.rmtree(theirs.parent / "ours")
    named = moved(theirs.parent, "theirs", "--registry", str(theirs / "data" / "registry.db"), "--no-prove")
    assert named["written"] == told["written"]


def test_a_registry_in_a_database_is_read_from_the_file_that_the_error_tells_how_to_write(theirs: Path) -> None:
    """And of several projects the one that feature_store.yaml names."""
    yaml = theirs / "feature_store.yaml"
    sql = "registry:\n  registry_type: sql\n  path: sqlite:///registry-in-sql.db\nprovider: local\noffline_store: {type: file}\n"
    for project in ("other", "shop"):
        yaml.write_text(f"project: {project}\n{sql}")
        done = subprocess.run(
            [str(FEAST / "feast"), "apply"], cwd=theirs, env=QUIET, capture_output=True, text=True,
            timeout=PATIENCE_SECONDS, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
    (theirs / "features.py").unlink()
    said = run(
        theirs.parent, "import-feast", "theirs", "--out", "ours", "--feast-python", PYTHON, "--no-prove", code=1
    ).output
    assert "(sql) is no file" in said
    code = re.search(r'python -c "(.*?)"; then name that', " ".join(said.split()))
    assert code is not None
    subprocess.run([PYTHON, "-c", code[1]], cwd=theirs, env=QUIET, timeout=PATIENCE_SECONDS, check=True)
    told = moved(theirs.parent, "theirs", "--registry", "theirs/registry.db", "--no-prove")
    assert told["written"]["views"] == 1
    shutil.rmtree(theirs.parent / "ours")
    yaml.write_text(f"project: third\n{sql}")
    options = ("--out", "ours", "--feast-python", PYTHON, "--registry", "theirs/registry.db")
    said = run(theirs.parent, "import-feast", "theirs", *options, code=1).output
    assert "the registry holds the projects other, shop, and feature_store.yaml says 'third'" in " ".join(said.split())
    options = (*options[:-1], "theirs/feature_store.yaml")
    said = run(theirs.parent, "import-feast", "theirs", *options, code=1).output
    assert "feature_store.yaml is no registry file of Feast's" in " ".join(said.split())


def test_a_function_that_hangs_on_other_rows_is_found(theirs: Path) -> None:
    """Nothing that the move changed is its cause, so the command fails, and what it wrote is there to look at."""
    declare(
        theirs,
        "features.py",
        """
        @on_demand_feature_view(sources=[stats], schema=[Field(name="share", dtype=Float64)], mode="python")
        def shared(inputs):
            known = [x for x in inputs["trips"] if x is not None and x == x]
            return {"share": [float(len(known)) for x in inputs["trips"]]}
        """,
    )
    told = moved(theirs.parent, "theirs", code=1)
    assert summed(told)[2]["unexplained"] > 0
    assert (theirs.parent / "ours" / "README.md").exists()
    assert any(one["matter"] == "rows at once" for one in told["differences"])


def test_a_function_that_fails_where_an_input_is_null(theirs: Path) -> None:
    declare(
        theirs,
        "features.py",
        """
        @on_demand_feature_view(sources=[stats], schema=[Field(name="double", dtype=Int64)], mode="python")
        def doubled(inputs):
            return {"double": [int(x) * 2 for x in inputs["trips"]]}
        """,
    )
    told = moved(theirs.parent, "theirs")
    (function,) = [one for one in told["compared"] if one["name"] == "doubled"]
    assert function["causes"].get("on-demand error", 0) > 0 or function["problem"] is None
    assert "unexplained" not in function["causes"]


def test_corrected_rows_in_any_order_are_told_as_ties(theirs: Path) -> None:
    """Feast's file store does not always take the row that was created last."""
    moments = [hours(0)] * 400
    many = table(
        driver_id=pa.array([n % 8 for n in range(400)]), at=moments, rate=pa.array([float(n) for n in range(400)], pa.float32()),
        trips=pa.array(range(400)), created=pa.array([hours(9) - timedelta(seconds=n % 3) for n in range(400)], TIME),
    )  # fmt: skip
    pq.write_table(many, theirs / "data" / "rows.parquet")
    told = moved(theirs.parent, "theirs")
    assert set(summed(told)[2]) <= {"tie", "dropped row", "refresh"}


def test_views_of_everything_and_of_several_entities(theirs: Path) -> None:
    declare(
        theirs,
        "features.py",
        """
        trip = Entity(name="trip", join_keys=["trips"])
        both = FeatureView(name="both", entities=[trip, driver], source=rows, schema=[Field(name="rate", dtype=Float32)])
        everything = FeatureView(name="everything", source=rows, schema=[Field(name="rate", dtype=Float32)])
        two = FeatureService(name="two", features=[both, stats.with_name("other").with_join_key_map({"driver_id": "other_id"})])
        """,
    )
    told = moved(theirs.parent, "theirs")
    assert told["written"] == {"entities": 3, "sources": 1, "views": 3, "on-demand features": 0, "services": 1}
    assert "unexplained" not in summed(told)[2]
    with FeatureStore(theirs.parent / "ours") as store:
        assert store.catalog.services["two"].columns == ("both__rate", "other__rate", "other__trips")


def test_the_command_tells_what_it_did_and_what_comes_next(theirs: Path) -> None:
    done = run(theirs.parent, "import-feast", "theirs", "--out", "ours", "--feast-python", str(FEAST.parent))
    said = done.stdout
    assert "What means another thing here" in said
    assert "values are equal" in said
    assert "Next: featurestore --repo ours plan" in said
    assert "3 to add" in run(theirs.parent, "--repo", "ours", "plan").stdout
    assert [path.name for path in theirs.parent.iterdir() if path.name.startswith(".ours")] == []

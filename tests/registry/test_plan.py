"""plan: the difference between what is declared and what was applied, settled over the sources' real columns."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from featurestore.declare.folds import Latest
from featurestore.declare.sources import DataFrameSource, TableSource
from featurestore.declare.views import FeatureView
from featurestore.errors import DeclarationError, SourceError
from featurestore.registry.apply import apply_plan
from featurestore.registry.documents import catalog_of, resolved_view
from featurestore.registry.steps import AddDefinition, ChangeLabel, ChangeValue, FreeOnline, Refill, RemoveDefinition
from featurestore.types import Float64, Int32, Int64
from tests.registry.small_repository import START, Repository, landings, naive


@pytest.fixture
def repo(tmp_path):
    repository = Repository(tmp_path)
    yield repository
    repository.offline.close()


def apply(repo, definitions, **words):
    return apply_plan(repo.plan(definitions, **words), repo.registry, free=lambda *_: 0)


def names(plan, kind):
    return {step.name for step in plan.steps if isinstance(step, kind)}


def test_the_first_plan_adds_everything_and_writes_nothing(repo):
    """It is made against version 0; the registry's file is not made by looking."""
    plan = repo.plan(repo.definitions())
    assert plan.base == 0
    assert names(plan, AddDefinition) == {"carrier", "landings", "carriers", "delays", "seats", "share", "model"}
    assert {step.view for step in plan.steps if isinstance(step, Refill)} == {"delays", "seats"}
    assert not repo.registry.place.exists()


def test_what_was_applied_is_planned_as_nothing(repo):
    """However often, also by another process's registry, and whatever rows were added meanwhile."""
    apply(repo, repo.definitions())
    assert repo.plan(repo.definitions()).is_empty
    repo.write("landings.parquet", pa.concat_tables([landings(), landings()]))
    assert repo.plan(repo.definitions()).is_empty
    assert resolved_view(repo.registry.current().document, "delays").raw["gate"] == "INTEGER"


CHANGES = [
    ({"ttl": "3d"}, ChangeValue, {"delays", "model"}),
    ({"refresh": "2h"}, ChangeValue, {"delays", "model"}),
    ({"ready_after": "11m"}, ChangeValue, {"delays", "model"}),
    ({"stale": "withhold"}, ChangeValue, {"delays", "model"}),
    ({"source": {"known_after": "3m"}}, ChangeValue, {"landings", "delays", "model"}),
    ({"source": {"tiebreak": "gate"}}, ChangeValue, {"landings", "delays", "model"}),
    (
        {"features": {"delay": Latest("arr_delay", default=0.0), "gate": Latest("gate")}},
        ChangeValue,
        {"delays", "model"},
    ),
    ({"features": {"delay": Latest("gate", type=Float64), "gate": Latest("gate")}}, ChangeValue, {"delays", "model"}),
    ({"minutes": 3600}, ChangeValue, {"share", "model"}),
    ({"description": "How late."}, ChangeLabel, {"delays"}),
    ({"owner": "ops@example.com"}, ChangeLabel, {"delays"}),
    ({"tags": {"team": "ops"}}, ChangeLabel, {"delays"}),
    ({"freshness": "1h"}, ChangeLabel, {"delays"}),
    ({"entity_description": "An airline."}, ChangeLabel, {"carrier"}),
    ({"features": {"delay": Latest("arr_delay", type=Float64), "gate": Latest("gate")}}, ChangeLabel, {"delays"}),
    ({"source": {"settle": "0s"}}, ChangeValue, {"landings"}),
]


@pytest.mark.parametrize(("words", "kind", "changed"), CHANGES)
def test_what_changes_a_value_is_told_from_what_changes_a_label(repo, words, kind, changed):
    """Exactly the definitions whose values may differ change theirs; only those views are refilled."""
    apply(repo, repo.definitions())
    plan = repo.plan(repo.definitions(**words))
    assert names(plan, (ChangeValue, ChangeLabel)) == names(plan, kind) == changed
    views = changed & {"delays", "seats"} if kind is ChangeValue else set()
    assert {step.view for step in plan.steps if isinstance(step, Refill)} == views
    assert {step.view for step in plan.steps if isinstance(step, FreeOnline)} == views
    apply(repo, repo.definitions(**words))
    assert repo.plan(repo.definitions(**words)).is_empty


def test_a_whole_repository_removes_what_is_declared_no_more(repo):
    """And only then: a partial plan removes nothing."""
    apply(repo, repo.definitions())
    repo.definitions()
    plan = repo.plan([repo.delays])
    assert names(plan, RemoveDefinition) == {"carriers", "seats", "share", "model"}
    assert [(step.view, step.replaced_by) for step in plan.steps if isinstance(step, FreeOnline)] == [("seats", None)]
    assert repo.plan([repo.delays], remove_missing=False).is_empty


def test_a_partial_plan_adds_what_is_listed_with_what_it_refers_to(repo):
    """And nothing else that the listed definitions' file holds."""
    repo.definitions()
    plan = repo.plan([repo.carrier, repo.delays], remove_missing=False)
    assert names(plan, AddDefinition) == {"carrier", "landings", "delays"}
    assert len(plan.steps) == 4


def test_a_partial_plan_changes_only_what_is_listed(repo):
    """What stands on it follows, what was edited beside it and not listed stays as it was applied."""
    apply(repo, repo.definitions())
    repo.definitions(ttl="3d", minutes=3600)
    plan = repo.plan([repo.delays], remove_missing=False)
    assert names(plan, ChangeValue) == {"delays", "model"}
    apply(repo, [repo.delays], remove_missing=False)
    assert names(repo.plan(repo.definitions(ttl="3d", minutes=3600)), ChangeValue) == {"share", "model"}
    assert repo.plan(repo.definitions(ttl="3d")).is_empty


def test_a_partial_plan_of_a_source_takes_the_views_over_it_along(repo):
    """They are read back from the registry and settled again, with columns that the source did not name before."""
    apply(repo, repo.definitions())
    repo.definitions(source={"tiebreak": ["gate", "arr_delay"]})
    plan = repo.plan([repo.source], remove_missing=False)
    assert names(plan, ChangeValue) == {"landings", "delays", "model"}
    whole = repo.plan(repo.definitions(source={"tiebreak": ["gate", "arr_delay"]}))
    assert (plan.document, plan.digest) == (whole.document, whole.digest)


def test_the_catalog_read_back_is_planned_as_nothing(repo):
    """What the registry holds is enough to plan with."""
    apply(repo, repo.definitions())
    back = catalog_of(repo.registry.current().document)
    assert repo.plan([*back.services.values(), *back.views.values()]).is_empty


def test_a_view_over_a_frame_and_a_table(repo):
    """Their columns are looked at as those of files are; a frame of other rows is read from elsewhere."""
    with duckdb.connect(str(repo.root / "w.duckdb")) as connection:
        connection.execute("CREATE TABLE t AS SELECT TIMESTAMPTZ '2013-01-01 00:00:00Z' AS at, 'UA' AS carrier, 1 AS x")
    repo.definitions()
    table = TableSource("t", "w.duckdb", table="t", event_time="at", refresh="1h", ready_after="1m")
    over_table = FeatureView("over_table", entity=repo.carrier, source=table, features=["x"])

    def over_frame(number):
        rows = pa.table({"at": pa.array([START], pa.timestamp("us", "UTC")), "carrier": ["UA"], "y": [number]})
        frame = DataFrameSource("f", rows, event_time="at", refresh="1h", ready_after="1m")
        return FeatureView("over_frame", entity=repo.carrier, source=frame, features=["y"])

    apply(repo, [over_table, over_frame(1)])
    document = repo.registry.current().document
    assert resolved_view(document, "over_table").raw["x"] == "INTEGER"
    assert resolved_view(document, "over_frame").raw["y"] == "BIGINT"
    assert repo.plan([over_table, over_frame(1)]).is_empty
    plan = repo.plan([over_table, over_frame(2)])
    assert [(type(step), step.name) for step in plan.steps] == [(ChangeLabel, "f")]
    assert any("read from elsewhere (~ content:" in notice.text for notice in plan.notices)
    repo.definitions()
    assert names(repo.plan([repo.delays], remove_missing=False), AddDefinition) == {"landings", "delays"}


# --- types that do not fit ------------------------------------------------------------------------


TYPES = [
    (
        {"gate": pa.array(range(100), pa.int64())},
        r"column 'gate' \(feature 'gate'\) was Int32 \(INTEGER\) when it was applied and is Int64 \(BIGINT\) now",
    ),
    (
        {"gate": pa.array(map(str, range(100)))},
        r"was Int32 \(INTEGER\) when it was applied and is String \(VARCHAR\) now",
    ),
    ({"arr_delay": pa.array([1.0] * 100, pa.float32())}, r"'arr_delay' \(feature 'delay'\) was Float64 .* is Float32"),
    (
        {"gate": pa.array(range(100), pa.int64()), "arr_delay": pa.array([1] * 100)},
        r"column 'arr_delay' .* is Int64 .*; column 'gate' .* is Int64",
    ),
    (
        {"landed_at": pa.array([START.date()] * 100)},
        r"'landed_at' \(an option of the source\) was Timestamp .* is Date \(DATE\)",
    ),
]


@pytest.mark.parametrize(("columns", "message"), TYPES)
def test_a_column_whose_type_changed_under_an_unchanged_definition_is_an_error(repo, columns, message):
    """That shows both types, the view, what reads the column, the place of the declaration and the file."""
    apply(repo, repo.definitions())
    repo.write("landings.parquet", landings(**columns))
    with pytest.raises(SourceError, match=message) as caught:
        repo.plan(repo.definitions())
    text = str(caught.value)
    for part in ("FeatureView 'delays'", "source 'landings'", "small_repository.py:", f"{repo.root}/landings.parquet"):
        assert part in text
    with pytest.raises(SourceError, match=message):
        repo.plan(repo.definitions(description="Only a label."))


def test_a_column_stored_otherwise_in_the_same_type_is_no_error(repo):
    """Nor a change of any value; the registry notes how it is stored."""
    apply(repo, repo.definitions())
    stored = {"gate": pa.array(range(100), pa.int16()), "carrier_code": pa.array(["UA"] * 100).dictionary_encode()}
    repo.write("landings.parquet", landings(**stored))
    (step,) = repo.plan(repo.definitions()).steps
    assert (type(step), [str(change) for change in step.changes]) == (ChangeLabel, ["~ raw.gate: INTEGER → SMALLINT"])


def test_a_changed_type_is_accepted_on_request_or_with_a_changed_definition(repo):
    """It then is a change of the view's values like any other."""
    apply(repo, repo.definitions())
    repo.write("landings.parquet", landings(gate=pa.array(range(100), pa.int64())))
    accepted = repo.plan(repo.definitions(), accept_types=True)
    assert names(accepted, ChangeValue) == {"delays", "model"}
    assert "~ columns.gate: Int32 → Int64" in str(accepted)
    stated = {"delay": Latest("arr_delay"), "gate": Latest("gate", type=Int64)}
    assert names(repo.plan(repo.definitions(features=stated)), ChangeValue) == {"delays", "model"}
    apply(repo, repo.definitions(), accept_types=True)
    assert repo.plan(repo.definitions()).is_empty


ERRORS = [
    (
        {"features": {"delay": Latest("arr_delai")}},
        DeclarationError,
        r"no column 'arr_delai' for its feature 'delay'\. Did you mean 'arr_delay'",
    ),
    (
        {"features": {"delay": Latest("arr_delay", type=Int32)}},
        DeclarationError,
        r"feature 'delay' is Latest\('arr_delay'\) of column 'arr_delay' of source 'landings': the column is Float64, which does not fit Int32",
    ),
    (
        {"features": {"delay": Latest("place")}},
        SourceError,
        r"feature 'delay': column 'place' .* STRUCT.* which no feature type",
    ),
    ({"source": {"event_time": "gate"}}, DeclarationError, r"column 'gate' cannot be a time: it is INTEGER"),
]


@pytest.mark.parametrize(("words", "kind", "message"), ERRORS)
def test_what_does_not_fit_names_the_feature_the_column_and_the_file(repo, words, kind, message):
    """Besides the place of the declaration."""
    repo.write("landings.parquet", landings(place=pa.array([{"x": 1}] * 100)))
    with pytest.raises(kind, match=message) as caught:
        repo.plan(repo.definitions(**words))
    assert f"[read from {repo.root}/landings.parquet]" in str(caught.value)
    assert "small_repository.py:" in str(caught.value)


def test_several_files_are_named_by_the_first(repo):
    """And how many more there are."""
    (repo.root / "many").mkdir()
    for i in range(3):
        repo.write(f"many/{i}.parquet", landings())
    with pytest.raises(DeclarationError, match=r"\[read from .*/many/0\.parquet and 2 files more\]"):
        repo.plan(repo.definitions(path="many", features={"delay": Latest("nothing")}))


def test_a_damaged_file_is_a_source_error(repo):
    """Whether its footer or only its rows cannot be read."""
    path = repo.root / "landings.parquet"
    whole = path.read_bytes()
    path.write_bytes(b"PAR1")
    with pytest.raises(
        SourceError,
        match="ParquetSource 'landings': .*landings.parquet begins as a Parquet file and does not end as one",
    ):
        repo.plan(repo.definitions())
    path.write_bytes(whole[:4] + b"\xff" * 600 + whole[604:])
    with pytest.raises(SourceError, match="ParquetSource 'landings' cannot be read"):
        repo.plan(repo.definitions())


def test_data_that_says_less_of_time_is_still_planned(repo):
    """Naive timestamps, nulls everywhere and no rows at all."""
    repo.write("landings.parquet", landings(landed_at=naive([START] * 100)))
    assert not repo.plan(repo.definitions()).is_empty
    repo.write("landings.parquet", landings(landed_at=pa.nulls(100, pa.timestamp("us", "UTC"))))
    assert not repo.plan(repo.definitions()).is_empty
    repo.write("landings.parquet", landings().slice(0, 0))
    assert not repo.plan(repo.definitions()).is_empty


def test_the_documentation_runs_and_shows_what_is_printed():
    """Every block of its page, in order; the plan shown is the one printed, line breaks and fingerprints apart."""
    page = (Path(__file__).parents[2] / "docs" / "plan-and-apply.md").read_text(encoding="utf-8")
    space: dict[str, Any] = {"__name__": "docs"}
    for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(compile(block, "docs/plan-and-apply.md", "exec"), space)
    shown = re.search(r"```text\n(Plan \w+ against .*?)```", page, re.DOTALL)[1]
    texts = [re.sub(r"\b[0-9a-f]{8}\b", "…", " ".join(text.split())) for text in (shown, str(space["plan"]))]
    assert texts[0] == texts[1]
    space["store"].close()

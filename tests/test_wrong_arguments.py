"""What a caller gives to a verb that is of another kind: told by the argument's name and what it is, in our own errors.

The arguments are those of the signatures: one without a case, or a reason for none, fails the test.
"""

from __future__ import annotations

import asyncio
import inspect
import re
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from featurestore import Entity, FeatureService, FeatureStore, FeatureView, ManualClock, PushSource, on_demand
from featurestore.declare.arguments import KINDS
from featurestore.errors import FeatureStoreError
from featurestore.serving.online_result import OnlineResult
from featurestore.training.training_frame import TrainingFrame
from featurestore.types import Float32, Float64, Int64, Timestamp
from tests.small import NOON, hours, table, view_of, write

VIEW = view_of(table(thing=[1, 2], at=[hours(-2), hours(-1)], x=[1.0, 0.0]), ["x"], refresh="1h")
PUSHED = PushSource("clicks", schema={"thing": Int64, "at": Timestamp, "rate": Float32}, event_time="at")
CLICKS = FeatureView("click", entity=Entity("thing", key={"thing": Int64}), source=PUSHED, features=["rate"])


@on_demand(inputs=[VIEW["x"]], output=Float64)
def inverse(x):  # type: ignore[no-untyped-def]  # a user's function without types  # noqa: ANN001, ANN201
    """Fails for 0."""
    return 1 / x


SERVICE = FeatureService("service", features=[VIEW, CLICKS])
INVERSE = FeatureService("inverse_model", features=[inverse])
SPINE = table(thing=[1], event_timestamp=[NOON])
FOLDER = TemporaryDirectory()
SPINE_FILE = write(Path(FOLDER.name, "spine.parquet"), SPINE)
SET = Event()
SET.set()
ROW = {"thing": 1, "at": NOON, "rate": 1.0}

CASES: list[tuple[str, dict[str, Any], str]] = [
    ("plan", {"definitions": 3}, "A plan is of a list of definitions, such as [view, service], and not of 3"),
    ("plan", {"definitions": "service"}, "and not of 'service'"),
    ("plan", {"definitions": [3]}, "int is no definition; entities, sources"),
    ("apply", {"definitions": ["service"]}, "str is no definition"),
    ("apply", {"definitions": 3}, "A plan is of a list of definitions"),
    ("get_historical_features", {"spine": 3, "features": "service"}, "int is no spine; pass a pandas, polars or Arrow frame"),
    ("get_historical_features", {"spine": SPINE, "features": 3}, "int names no feature; features are a service, a view"),
    ("get_historical_features", {"spine": SPINE, "features": SPINE}, "Table names no feature"),
    ("get_historical_features", {"spine": SPINE, "features": "servcie"}, "Did you mean 'service'?"),
    ("get_historical_features", {"spine": SPINE, "features": ["view:y"]}, "FeatureView 'view': no feature 'y'. Features: x."),
    ("get_historical_features", {"spine": SPINE, "features": "service", "timestamp": "at"}, "no timestamp column 'at'. Its columns: event_timestamp, thing. timestamp= names another."),
    ("get_historical_features", {"spine": SPINE, "features": "service", "timezone": "here"}, "here"),
    ("get_historical_features", {"spine": table(thing=[1], event_timestamp=["2024-05-01"]), "features": "service"}, "is String (VARCHAR), and must be a timestamp; convert it, as pandas does by pd.to_datetime(spine['event_timestamp'], utc=True)"),
    ("get_historical_features", {"spine": table(thing=[1], event_timestamp=[1714521600]), "features": "service"}, "say its unit, as pd.to_datetime(spine['event_timestamp'], unit='s', utc=True) does"),
    ("get_historical_features", {"spine": table(thing=pa.array(np.array([1], np.float16)), event_timestamp=[NOON]), "features": "service"}, "Spine column 'thing' is halffloat, and must be Int64"),
    ("get_historical_features", {"spine": pd.DataFrame({"thing": [1, object()], "event_timestamp": [NOON] * 2}), "features": "service"}, "column 'thing', row 1: an object is no value"),
    ("get_historical_features", {"spine": pd.DataFrame({"thing": [1, "a"], "event_timestamp": [NOON] * 2}), "features": "service"}, "column 'thing' holds values of several types: in row 1 'a', and before it 1"),
    ("get_historical_features", {"spine": SPINE, "features": "service", "from_log": "soon"}, "from_log: Duration 'soon' cannot be read"),
    ("get_historical_features", {"spine": SPINE, "features": "service", "sources_as_in": 5}, "int is no manifest"),
    ("snapshot", {"features": 3, "at": NOON}, "int names no feature; features are a service, a view"),
    ("snapshot", {"features": "service", "at": "yesterday"}, "at: 'yesterday' is no instant; give a datetime with a zone, such as datetime(2026, 3, 1, 9, tzinfo=UTC)"),
    ("snapshot", {"features": "service", "at": [NOON, 3]}, "at: 3 is no instant"),
    ("historical_parts", {"folder": FOLDER.name, "spine": SPINE, "features": "view"}, "The spine of parts is a Parquet file or folder, and not "),
    ("historical_parts", {"folder": 3, "spine": SPINE_FILE, "features": "view"}, "The training frame cannot be written: 3 is no path"),
    ("historical_parts", {"folder": SPINE_FILE, "spine": SPINE_FILE, "features": "view"}, "spine.parquet' is no folder"),
    ("historical_parts", {"folder": FOLDER.name + "/a", "spine": SPINE_FILE, "features": "view", "timestamp": "at"}, "no timestamp column 'at'. Its columns: event_timestamp, thing"),
    ("historical_parts", {"folder": FOLDER.name + "/a", "spine": SPINE_FILE, "features": "view", "timezone": "here"}, "here"),
    ("historical_parts", {"folder": FOLDER.name + "/a", "spine": SPINE_FILE, "features": "view", "part_rows": 0}, "part_rows is a number of rows, 1 or more, and not 0"),
    ("historical_parts", {"folder": FOLDER.name + "/a", "spine": SPINE_FILE, "features": "view", "from_log": "soon"}, "from_log: Duration 'soon' cannot be read"),
    ("snapshot_parts", {"folder": 3, "features": "view", "at": NOON}, "The training frame cannot be written: 3 is no path"),
    ("snapshot_parts", {"folder": FOLDER.name + "/b", "features": "veiw", "at": NOON}, "Did you mean 'view'?"),
    ("snapshot", {"features": "view", "at": NOON, "sources_as_in": 5}, "int is no manifest"),
    ("historical_parts", {"folder": FOLDER.name + "/c", "spine": SPINE_FILE, "features": "view", "sources_as_in": 5}, "int is no manifest"),
    ("snapshot_parts", {"folder": FOLDER.name + "/c", "features": "view", "at": NOON, "sources_as_in": 5}, "int is no manifest"),
    ("snapshot_parts", {"folder": FOLDER.name + "/b", "features": "view", "at": []}, "at: a snapshot needs an instant, or several"),
    ("snapshot_parts", {"folder": FOLDER.name + "/b", "features": "view", "at": NOON, "part_rows": -1}, "part_rows is a number of rows, 1 or more, and not -1"),
    ("optimize", {"sources": ["view_row"]}, "No view reads a source 'view_row'. Did you mean 'view_rows'?"),
    ("explain", {"view": 3, "key": {"thing": 1}}, "A view is asked for by its name, \"view\" or \"view:feature\", or itself, and not by 3"),
    ("explain", {"view": ["view"], "key": {"thing": 1}}, "and not by ['view']"),
    ("explain", {"view": "veiw", "key": {"thing": 1}}, "Did you mean 'view'?"),
    ("explain", {"view": "view", "key": 1}, "A key is a dict of column and value, of thing, and not 1"),
    ("explain", {"view": "view", "key": {"thin": 1}}, "Did you mean 'thing'?"),
    ("explain", {"view": "view", "key": {"thing": "a"}}, "'a' is no integer"),
    ("explain", {"view": "view", "key": {"thing": 1}, "at": "noon"}, "at: 'noon' is no instant"),
    ("get_historical_features", {"spine": SPINE, "features": "service", "timestamp": 5}, "timestamp is text, and not 5"),
    ("get_historical_features", {"spine": SPINE, "features": "service", "with_status": "no"}, "with_status is True or False, and not 'no'"),
    ("get_online_features", {"rows": [{"thing": 1}], "features": "training.parquet"}, "'training.parquet' is the name of a file; a manifest is given as store.load_manifest('training.parquet')"),
    ("get_online_features", {"rows": [{"thing": 1}], "features": 5}, "int names no feature; features are a service, a view"),
    ("compact", {"sources": "click"}, "No push source 'click' was applied. Did you mean 'clicks'?"),
    ("audit", {"service": "../service"}, "No feature service '../service' was applied"),
    ("audit", {"service": "servcie"}, "Did you mean 'service'?"),
    ("lineage", {"of": "view", "direction": "up"}, "direction is 'both' or 'upstream' or 'downstream', and not 'up'"),
    ("explain", {"view": "view", "key": {"thing": 1}, "limit": -1}, "limit is -1"),
    ("explain_request", {"request": "nobody's"}, "nobody's"),
    ("describe", {"name": "veiw"}, "Did you mean 'view'?"),
    ("lineage", {"of": "veiw"}, "Did you mean 'view'?"),
    ("materialize", {"views": ["veiw"]}, "Did you mean 'view'?"),
    ("materialize", {"views": "veiw"}, "No feature view 'veiw' was applied. Did you mean 'view'?"),
    ("estimate_plan", {"plan": "plan"}, "plan is what FeatureStore.plan gives, and not 'plan'"),
    ("estimate_materialize", {"views": ["veiw"]}, "Did you mean 'view'?"),
    ("estimate_snapshot", {"features": "veiw", "at": NOON}, "Did you mean 'view'?"),
    ("estimate_snapshot", {"features": "view", "at": "noon"}, "at: 'noon' is no instant"),
    ("estimate_snapshot", {"features": "view", "at": NOON, "part_rows": 0}, "part_rows is a number of rows, 1 or more, and not 0"),
    ("estimate_historical_features", {"spine": 3, "features": "view"}, "int is no spine"),
    ("estimate_historical_features", {"spine": SPINE, "features": "veiw"}, "Did you mean 'view'?"),
    ("estimate_historical_features", {"spine": SPINE, "features": "view", "timestamp": "t"}, "no timestamp column 't'"),
    ("estimate_historical_features", {"spine": SPINE, "features": "view", "timezone": "Mars"}, "Mars"),
    ("estimate_historical_features", {"spine": SPINE, "features": "view", "part_rows": 1.5}, "part_rows is a number of rows, 1 or more"),
    ("materialize", {"stop": 3}, "stop is a threading.Event, and not 3"),
    ("materialize", {"views": 3}, "views is a list of names of views, and not 3"),
    ("materialize", {"views": [3]}, "views is a list of names of views, and not [3]"),
    ("follow", {"stop": SET, "views": ["veiw"]}, "Did you mean 'view'?"),
    ("follow", {"stop": SET, "every": "soon"}, "every: Duration 'soon' cannot be read"),
    ("follow", {"stop": 3}, "stop is a threading.Event, and not 3"),
    ("backup", {"to": 3}, "to is the path of a folder or a file, and not 3"),
    ("verify", {"views": 3}, "views is a list of names of views, and not 3"),
    ("availability", {"views": 3}, "views is a list of names of views, and not 3"),
    ("availability", {"since": 3}, "since: 3 is no instant"),
    ("activity", {"what": "aply"}, "Did you mean 'apply'?"),
    ("push", {"source": "click", "rows": [ROW]}, "Did you mean 'clicks'?"),
    ("key_columns", {"source": "click"}, "Did you mean 'clicks'?"),
    ("push", {"source": [ROW], "rows": "clicks"}, "source is text, and not a list"),
    ("push", {"source": "view_rows", "rows": [ROW]}, "only a PushSource takes rows"),
    ("push", {"source": "clicks", "rows": "rows.parquet"}, "str is neither rows nor a frame"),
    ("push", {"source": "clicks", "rows": [{**ROW, "at": "2024-05-01 09:00"}]}, "row 0, column 'at' must be Timestamp: '2024-05-01 09:00' is no timestamp, but text; give a datetime, as datetime.fromisoformat(…)"),
    ("push", {"source": "clicks", "rows": [{**ROW, "rate": 0.1}]}, "0.1 is not exactly a Float32; declare a wider type"),
    ("push", {"source": "clicks", "rows": pd.DataFrame([{**ROW, "rate": 0.1}])}, 'or round the column first, as .astype("float32")'),
    ("push", {"source": "clicks", "rows": [ROW], "within_seconds": 0}, "within_seconds is a number of seconds above 0, and not 0"),
    ("push", {"source": "clicks", "rows": [{"thing": 1}]}, "row 0 has no 'at', which is its event_time"),
    ("take_back", {"source": "click"}, "click"),
    ("forget", {"entity": "thng", "key": {"thing": 1}}, "No entity 'thng' was declared or applied. Did you mean 'thing'?"),
    ("forget", {"entity": "view", "key": {"thing": 1}}, "'view' is a feature view"),
    ("forget", {"entity": "thing", "key": {"thnig": 1}}, "has no key column 'thnig'. Did you mean 'thing'?"),
    ("forget", {"entity": "thing", "key": {"thing": "1"}}, "Key column 'thing' of entity 'thing' is Int64"),
    ("forget", {"entity": "thing", "key": {"thing": None}}, "is null, which is no key"),
    ("forget", {"entity": "thing", "key": {}}, "A key of entity 'thing' is made of thing (Int64)"),
    ("forget", {"entity": "thing", "key": 1}, "A key is a dict of column and value, of thing (Int64), and not 1"),
    ("compact", {"sources": ["click"]}, "Did you mean 'clicks'?"),
    ("load_manifest", {"given": 3}, "int is no manifest"),
    ("load_manifest", {"given": {"a": 1}}, "service: must be given; fingerprint: must be given"),
    ("load_manifest", {"given": {"service": 3, "fingerprint": "x"}}, "service: must be text, and is 3"),
    ("check_manifest", {"given": {}}, "service: must be given"),
    ("lookup", {"features": "servcie"}, "Did you mean 'service'?"),
    ("lookup", {"features": "service", "fingerprint": "x"}, "was never applied with fingerprint x"),
    ("unfilled", {"features": "servcie"}, "Did you mean 'service'?"),
    ("get_online_features", {"rows": 3, "features": "service"}, "int is neither rows nor a frame; pass a list of dicts, or a frame"),
    ("get_online_features", {"rows": [3], "features": "service"}, "Row 0 is int, and must map names to values"),
    ("get_online_features", {"rows": [{"thin": 1}], "features": "service"}, "Row 0 has no 'thing' (Int64); it brings thin"),
    ("get_online_features", {"rows": [{"thing": "a"}], "features": "service"}, "Row 0: 'thing' must be Int64: 'a' is no integer"),
    ("get_online_features", {"rows": [{"thing": 1}], "features": "servcie"}, "Did you mean 'service'?"),
    ("get_online_features", {"rows": [{"thing": 1}], "features": ["view:x", "view"]}, "The features asked for: column 'view__x' is listed twice; list it once, or give one of the views an alias"),
    ("get_online_features", {"rows": [{"thing": 2}], "features": "inverse_model"}, "(tests/test_wrong_arguments.py:"),
    ("get_online_features", {"rows": [{"thing": 1}], "features": "service", "request_id": "é"}, "printable ASCII"),
    ("get_online_features", {"rows": [{"thing": 1}], "features": "service", "within_seconds": "1s"}, "within_seconds is"),
    ("get_online_features", {"rows": [{"thing": 1}], "features": "service", "within_seconds": 0}, "within_seconds is a number of seconds above 0, and not 0"),
    ("get_online_features", {"rows": [{"thing": 1}], "features": "service", "when_unavailable": "default"}, "when_unavailable is"),
    ("audit", {"since": "1 day"}, "'1 day' cannot be read"),
    ("audit", {"since": 3}, "since: 3 is no instant"),
    ("audit", {"until": "now"}, "until: 'now' is no instant"),
    ("audit", {"spine": 3}, "The spine cannot be read: int is no frame"),
    ("statistics", {"view": "veiw"}, "Did you mean 'view'?"),
    ("statistics", {"run": "1"}, "limit and run are whole numbers, and not 20 and '1'"),
    ("statistics", {"view": "view", "service": "service"}, "view and service exclude each other"),
    ("statistics", {"feature": "view:y"}, "FeatureView 'view': no feature 'y'"),
    ("statistics", {"training_set": 3}, "training_set is a path or a URL, and not 3"),
    ("statistics", {"since": "1 day"}, "'1 day' cannot be read"),
    ("statistics", {"limit": 0}, "limit is 1 or more, and not 0"),
    ("when_statistics_fail", {"told": 3}, "told is a function, and not 3"),
    ("drift", {"service": "servcie"}, "Did you mean 'service'?"),
    ("drift", {"service": "service", "baseline": 3}, "baseline is a training frame, the Parquet file that it was written to"),
    ("drift", {"service": "service", "before": "week"}, "before: "),
    ("drift", {"service": "service", "since": "1 day"}, "'1 day' cannot be read"),
    ("drift", {"service": "service", "until": "now"}, "until: 'now' is no instant"),
    ("drift", {"service": "service", "every": 3}, "every: "),
    ("consume", {"sources": ["click"]}, "Did you mean 'clicks'?"),
    ("consume", {"sources": ["clicks"]}, "has no stream: say stream="),
    ("consume", {"stop": 3}, "stop is a threading.Event, and not 3"),
    ("poison", {"source": "click"}, "Did you mean 'clicks'?"),
    ("replay_poison", {"source": "click"}, "Did you mean 'clicks'?"),
    ("discard_poison", {"source": "click"}, "Did you mean 'clicks'?"),
    ("replay_poison", {"source": "clicks", "ids": 3}, "ids is a list of numbers"),
    ("discard_poison", {"source": "clicks", "ids": [3]}, "No message 3 of push source 'clicks' is kept aside"),
    ("quarantined_rows", {"name": "clickz"}, "Did you mean 'click'? There are: click, clicks, view"),
    ("quarantined_rows", {"name": "clicks", "most": "all"}, "most is "),
    ("replay_quarantined", {"source": "click"}, "Did you mean 'clicks'?"),
    ("discard_quarantined", {"source": "click"}, "Did you mean 'clicks'?"),
    ("replay_quarantined", {"source": "clicks", "ids": 3}, "ids is a list of numbers"),
    ("discard_quarantined", {"source": "clicks", "ids": [3]}, "3"),
    ("simulate", {"start": "yesterday"}, "start: 'yesterday' is no instant"),
    ("simulate", {"end": 3}, "end: 3 is no instant"),
    ("simulate", {"services": ["servcie"]}, "Did you mean 'service'?"),
]  # fmt: skip

JUDGED_ELSEWHERE = {
    ("estimate_materialize", "full"), ("estimate_snapshot", "with_status"), ("estimate_historical_features", "with_status"),
    ("estimate_historical_features", "with_event_time"),
    ("plan", "accept_types"), ("plan", "keep"), ("plan", "retire"), ("apply", "note"), ("apply", "accept_types"), ("apply", "keep"), ("apply", "retire"),
    ("get_historical_features", "with_event_time"), ("snapshot", "with_status"),
    ("historical_parts", "with_status"), ("historical_parts", "with_event_time"), ("snapshot_parts", "with_status"), ("optimize", "remove"),
    ("explain_request", "row"), ("explain_request", "limit"), ("materialize", "full"),
    ("materialize", "progress"), ("verify", "repair"), ("forget", "dry_run"), ("push", "json"), ("push", "who"), ("push", "request_id"), ("activity", "since"), ("activity", "limit"), ("get_online_features", "json"), ("unfilled", "fingerprint"),
    ("get_online_features", "fingerprint"), ("audit", "against"), ("audit", "keep"), ("drift", "keep"), ("simulate", "faults"),
    ("consume", "until_end"), ("consume", "skip_lost"), ("consume", "begin_again"), ("poison", "after"), ("poison", "most"),
    ("simulate", "seed"), ("simulate", "lookups"), ("simulate", "rows"),
}  # fmt: skip
"""Flags, whose truth counts; and what the tests of their own verbs are about."""

SAME = {"apush": "push", "submit_push": "push", "aget_online_features": "get_online_features", "local": "__init__"}
"""Verbs that take what another does."""

FOREIGN = re.compile(
    r"Input should|Field required|pydantic|Could not convert|Conversion failed|Arrow\w*Error|Error: \w+ Error"
)


@pytest.fixture(scope="module")
def store() -> Iterator[FeatureStore]:
    with FeatureStore.local(clock=ManualClock(NOON)) as store:
        store.apply([SERVICE, INVERSE])
        store.materialize(progress=False)
        yield store


@pytest.mark.parametrize(("verb", "said", "says"), CASES)
def test_a_wrong_argument_is_told(store: FeatureStore, verb: str, said: dict[str, Any], says: str) -> None:
    with pytest.raises(FeatureStoreError) as caught:
        getattr(store, verb)(**said)
    assert says in str(caught.value)
    assert not FOREIGN.search(str(caught.value)), caught.value


def test_every_argument_of_every_verb_has_a_case() -> None:
    covered = {(verb, name) for verb, said, _ in CASES for name in said} | JUDGED_ELSEWHERE
    found = {
        (verb, name)
        for verb, function in inspect.getmembers(FeatureStore, inspect.isfunction)
        if not verb.startswith("_") and verb not in SAME
        for name in list(inspect.signature(function).parameters)[1:]
    }
    assert found == covered


WRONG: dict[str, Any] = {
    "None": None, "NaT": pd.NaT, "''": "", "'text'": "text", "5": 5, "[]": [], "an object": object(), "nan": float("nan"),
}  # fmt: skip
"""What callers give by mistake, each as messages show it."""

RIGHT: dict[str, dict[str, Any]] = {
    "aget_online_features": {"rows": [{"thing": 1}], "features": "service"},
    "apush": {"source": "clicks", "rows": []},
    "check_manifest": {"given": {}},
    "consume": {"until_end": True},
    "discard_poison": {"source": "clicks"},
    "discard_quarantined": {"source": "clicks"},
    "drift": {"service": "service"},
    "explain": {"view": "view", "key": {"thing": 1}},
    "explain_request": {"request": "x"},
    "follow": {"stop": SET},
    "forget": {"entity": "thing", "key": {"thing": 1}},
    "get_historical_features": {"spine": SPINE, "features": "service"},
    "get_online_features": {"rows": [{"thing": 1}], "features": "service"},
    "historical_parts": {"folder": "text", "spine": SPINE_FILE, "features": "view"},
    "estimate_historical_features": {"spine": SPINE, "features": "view"},
    "estimate_snapshot": {"features": "view", "at": NOON},
    "lineage": {"of": "view"},
    "load_manifest": {"given": {}},
    "lookup": {"features": "service"},
    "poison": {"source": "clicks"},
    "push": {"source": "clicks", "rows": []},
    "quarantined_rows": {"name": "view"},
    "replay_poison": {"source": "clicks"},
    "replay_quarantined": {"source": "clicks"},
    "submit_push": {"source": "clicks", "rows": []},
    "simulate": {"start": hours(-0.1), "end": NOON, "lookups": 1},
    "snapshot": {"features": "view", "at": NOON},
    "snapshot_parts": {"folder": "texts", "features": "view", "at": NOON},
    "split_by_time": {"at": NOON},
    "take_back": {"source": "clicks"},
    "to_part": {"path": "text"},
    "to_parquet": {"path": "text"},
    "unfilled": {"features": "service"},
}
"""The arguments that stand beside the wrong one."""

BY_WHOM = {word: {"None", "''", "'text'"} for word in ("who", "request_id")}

FITTING: dict[str, dict[str, set[str]]] = {
    "aget_online_features": {"rows": {"[]"}, "fingerprint": {"None"}, "request_id": {"None", "'text'"}, "within_seconds": {"None", "5"}},
    "activity": {"since": {"None"}, "what": {"None"}, "limit": {"5"}},
    "apply": {"definitions": {"None", "[]"}, "note": {"''", "'text'"}, "retire": {"[]"}},
    "apush": {"rows": {"[]"}, **BY_WHOM, "within_seconds": {"None", "5"}},
    "audit": {word: {"None"} for word in ("since", "until", "service", "against", "spine")},
    "availability": {"views": {"None", "[]"}, "since": {"None"}},
    "compact": {"sources": {"None", "[]"}},
    "consume": {"stop": {"None"}, "sources": {"None", "[]"}},
    "describe": {"name": {"None"}},
    "discard_poison": {"ids": {"None", "[]", "''"}},
    "discard_quarantined": {"ids": {"None", "[]", "''"}},
    "drift": {word: {"None"} for word in ("baseline", "since", "until", "every")},
    "explain": {"at": {"None"}, "limit": {"5"}},
    "explain_request": {"row": {"5"}, "limit": {"5"}},
    "backup": {"to": {"'text'"}},
    "estimate_historical_features": {"timezone": {"None"}, "part_rows": {"None", "5"}},
    "estimate_materialize": {"views": {"None", "[]"}},
    "estimate_snapshot": {"part_rows": {"None", "5"}},
    "follow": {"views": {"None", "[]"}},
    "get_historical_features": {"timezone": {"None"}, "from_log": {"None"}, "sources_as_in": {"None"}},
    "get_online_features": {"rows": {"[]"}, "fingerprint": {"None"}, "request_id": {"None", "'text'"}, "within_seconds": {"None", "5"}},
    "historical_parts": {"folder": {"'text'"}, "timezone": {"None"}, "part_rows": {"5"}, "from_log": {"None"}, "sources_as_in": {"None"}},
    "lookup": {"fingerprint": {"None"}},
    "materialize": {"views": {"None", "[]"}, "stop": {"None"}},
    "plan": {"definitions": {"None", "[]"}, "retire": {"[]"}},
    "quarantined_rows": {"most": {"5"}},
    "replay_poison": {"ids": {"None", "[]", "''"}},
    "replay_quarantined": {"ids": {"None", "[]", "''"}},
    "poison": {"after": {"5"}, "most": {"5"}},
    "push": {"rows": {"[]"}, **BY_WHOM, "within_seconds": {"None", "5"}},
    "submit_push": {"rows": {"[]"}, **BY_WHOM},
    "simulate": {
        "services": {"None"}, "start": {"None"}, "end": {"None"}, "faults": {"None"}, "seed": {"5"}, "lookups": {"5"},
        "rows": {"None"},
    },
    "optimize": {"sources": {"None", "[]"}},
    "snapshot": {"at": {"[]"}, "sources_as_in": {"None"}},
    "statistics": {**{word: {"None"} for word in ("feature", "view", "service", "since")}, "run": {"None", "5"}, "training_set": {"None", "'text'"}, "limit": {"5"}},
    "snapshot_parts": {"folder": {"'text'"}, "part_rows": {"5"}, "sources_as_in": {"None"}},
    "to_part": {"path": {"'text'"}},
    "to_numpy": {"dtype": {"None"}, "columns": {"None", "[]"}},
    "to_parquet": {"path": {"'text'"}, "group_rows": {"None", "5"}},
    "unfilled": {"fingerprint": {"None"}},
    "verify": {"views": {"None", "[]"}},
}  # fmt: skip
"""Which of `WRONG` are right there."""


def arguments_of(kind: type) -> list[tuple[str, str]]:
    """Every argument of a class's public methods, as (method, argument)."""
    methods = inspect.getmembers(kind, inspect.isfunction)
    return [
        (verb, name)
        for verb, method in methods
        if not verb.startswith("_")
        for name in list(inspect.signature(method).parameters)[1:]
    ]


ASKED: dict[type, Callable[[FeatureStore], Any]] = {
    FeatureStore: lambda store: store,
    TrainingFrame: lambda store: store.get_historical_features(SPINE, "view"),
    OnlineResult: lambda store: store.get_online_features({"thing": 1}, "view"),
}


@pytest.mark.parametrize(
    ("kind", "verb", "name"), [(kind, *argument) for kind in ASKED for argument in arguments_of(kind)],
)  # fmt: skip
def test_nothing_but_our_own_errors_comes_of_a_wrong_argument(
    store: FeatureStore, kind: type, verb: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It names the argument, or what was given for it, and never what some library says of it."""
    monkeypatch.chdir(tmp_path)
    fitting = FITTING.get(verb, {}).get(name, set())
    for label, wrong in WRONG.items():
        said = {**RIGHT.get(verb, {}), name: wrong}
        if label in fitting:
            if verb not in {
                "simulate",
                "explain_request",
                "drift",
                "replay_poison",
            }:  # slow, and of requests that are there: they have tests of their own
                _done(getattr(ASKED[kind](store), verb)(**said))
            continue
        with pytest.raises(FeatureStoreError) as caught:
            _done(getattr(ASKED[kind](store), verb)(**said))
        told = str(caught.value)
        assert any(word in told for word in (name, label, type(wrong).__name__, f" {wrong},")), (label, told)
        assert not FOREIGN.search(told), (label, told)


def _done(answer: Any) -> None:
    """What is computed when it is awaited, or read, is computed."""
    if inspect.isawaitable(answer):
        asyncio.run(_awaited(answer))
    elif isinstance(answer, Future):
        answer.result()
    elif isinstance(answer, TrainingFrame):
        len(answer)


async def _awaited(answer: Any) -> None:
    await answer


@pytest.mark.parametrize(
    ("path", "more", "says"),
    [
        (3, {}, "A repository is named by the path of its folder, as text or a Path, and not by 3"),
        ("nowhere", {}, "nowhere"),
        (".", {"env": 3}, "env is the name of an [env.NAME] of "),
        (".", {"env": "prod"}, "there is no [env.prod]"),
        (".", {"clock": 3}, "clock is a callable that returns a datetime with a zone, and not 3"),
    ],
)
def test_a_store_that_cannot_be_opened_says_why(
    path: Any, more: dict[str, Any], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "featurestore.toml").write_text('project = "p"\ndefinitions = []\n')
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FeatureStoreError) as caught:
        FeatureStore(path, **more)
    assert says in str(caught.value)


def test_a_frame_says_what_it_cannot_be_made_to(store: FeatureStore, tmp_path: Path) -> None:
    frame = store.get_historical_features(SPINE, "view")
    wrong: list[tuple[Any, str]] = [
        (lambda: frame.to_parquet(tmp_path), "is a folder, and a file is to be written"),
        (lambda: frame.to_parquet(tmp_path / "no" / "frame.parquet"), "frame.parquet: there is no folder "),
        (lambda: frame.to_parquet(3), "3 is no path"),  # type: ignore[arg-type]  # the mistake
        (lambda: frame.to_parquet("a\0b"), "holds a NUL"),
        (lambda: frame.to_parquet("hdfs://host/frame.parquet"), "lies in no folder of this machine"),
        (lambda: frame.to_parquet("s3://bucket"), "s3://bucket names no file in a bucket"),
        (lambda: frame.split_by_time("half"), "at: 'half' is no instant; give a datetime with a zone"),
        (lambda: frame.split_by_time(3), "at: 3 is no instant"),  # type: ignore[arg-type]  # the mistake
        (lambda: frame.split_by_time(NOON, gap=3), "is a bare number, so its unit is unclear"),
        (lambda: frame.split_by_time(NOON, gap=pd.NaT), "gap: Duration NaT is a NaTType"),
        (lambda: frame.to_numpy("text"), "dtype is one of numpy's, such as 'float32' or np.int64, and not 'text'"),
        (lambda: frame.to_numpy(str), "dtype is one of numbers"),
        (lambda: frame.to_numpy(columns=5), "columns is a list of names of columns, and not 5"),  # type: ignore[arg-type]  # the mistake
        (lambda: frame.to_numpy(columns={"view__x"}), "columns is a list of names of columns, and not a set"),  # type: ignore[arg-type]  # the mistake
        (lambda: frame.to_numpy(columns=["view__x", "view__x"]), "columns names 'view__x' twice"),
        (lambda: VIEW[5], "FeatureView 'view': features are asked for by a name or a list of names, and not by 5"),  # type: ignore[index]  # the mistake
        (lambda: VIEW[[5]], "and not by [5]"),  # type: ignore[list-item]  # the mistake
        (lambda: VIEW[[]], "and not by []"),
        (lambda: VIEW.alias("other")[None], "and not by None"),  # type: ignore[index]  # the mistake
        (lambda: frame.to_pandas(dtypes="numpyy"), "dtypes is 'arrow' or 'numpy', and not 'numpyy'"),  # type: ignore[arg-type]  # the mistake
    ]
    for make, says in wrong:
        with pytest.raises(FeatureStoreError) as caught:
            make()
        assert says in str(caught.value)


def test_one_name_and_one_definition_are_lists_of_one(store: FeatureStore) -> None:
    """A text is not gone through letter by letter, nor a definition field by field."""
    assert store.plan(SERVICE).digest == store.plan([SERVICE]).digest
    assert store.verify("view").ok
    assert [*store.availability("view").views] == ["view"]


NOT_LOOKED_AT: dict[type, list[Any]] = {
    bool: [True, False],
    int: [0, -1, 1 << 70],
    str: ["", "x"],
    Event: [Event()],
    type(None): [None],
}
"""By type values that are taken without a look where their type is enough."""


@pytest.mark.parametrize("kind", [kind for _, kind in KINDS], ids=lambda kind: kind.said)
def test_a_type_that_is_enough_is_enough(kind: Any) -> None:
    """What is said of a type alone is what each of its values would be told."""
    assert all(kind.fits(value) for of in kind.types for value in NOT_LOOKED_AT[of])

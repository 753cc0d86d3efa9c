"""python -m tests.damaged_project FOLDER [--bits N] [--seed S]

A project with every kind of file that the product writes. Of each file some bits are flipped, one at a time, and a process of
its own then trains, looks up, explains, audits, materializes, compacts and pushes. Each of these gives what it gives without
damage, or an error of the product; anything else is printed, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import faulthandler
import os
import pickle
import random
import shutil
import sys
import traceback
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from featurestore import FeatureStore, ManualClock
from featurestore.errors import FeatureStoreError
from featurestore.sources.log import FileLog
from featurestore.tiles import file_tile_query as tiling
from featurestore.training.manifest import Manifest
from tests.damage import flip, places

START = datetime(2026, 3, 1, tzinfo=UTC)
THINGS = 4
DEFINITIONS = """
from featurestore import *
from featurestore.types import Float64, Int64, String, Timestamp

thing = Entity("thing", key={"thing": Int64})
rows = ParquetSource("rows", "rows", event_time="at", known_at=ARRIVAL)
view = FeatureView("view", entity=thing, source=rows, refresh="1h", ttl="30d",
    features={"x": Latest("x"), "text": Latest("text"), "mean": Mean("x", window="2d"), "count": Count(window="lifetime")})
plain = FeatureView("plain", entity=thing, source=ParquetSource("other", "other.parquet", event_time="at", known_after="1m"),
    refresh="1h", features={"mean": Mean("x", window="2d"), "count": Count(window="lifetime")})
pushed = PushSource("pushed", schema={"id": Int64, "thing": Int64, "at": Timestamp, "x": Float64}, event_time="at",
    identity="id")
recent = FeatureView("recent", entity=thing, source=pushed, features={"last": Latest("x"), "mean": Mean("x", window="1d")})

@on_demand(inputs=[view["mean"], recent["mean"]], output=Float64)
def ratio(a, b):
    return None if a is None or not b else a / b

model = FeatureService("model", features=[view, plain, recent, ratio])
"""
QUIET = ("lock.mdb", "frame.parquet")
"""Files that hold nothing, or are the user's own from then on."""


def opened(folder: Path, hours: float) -> FeatureStore:
    return FeatureStore(folder, clock=ManualClock(START + timedelta(hours=hours)))


def pushes(first: int, at: datetime) -> list[dict[str, Any]]:
    return [{"id": first + n, "thing": n % THINGS, "at": at, "x": (first + n) / 7} for n in range(20)]


def make(folder: Path) -> None:
    """Everything that there is to damage."""
    (folder / "rows").mkdir(parents=True)
    (folder / "featurestore.toml").write_text(
        'project = "damaged"\ndefinitions = ["definitions.py"]\n[serving_log]\nrate = 1.0\n'
    )
    (folder / "definitions.py").write_text(DEFINITIONS)
    at = pa.array([START - timedelta(minutes=9 * n) for n in range(1200)], pa.timestamp("us", "UTC"))
    values = [(n * 7919 % 1000) / 3 for n in range(1200)]
    table = pa.table(
        {"thing": [n % THINGS for n in range(1200)], "at": at, "x": values, "text": [f"t{n}" for n in range(1200)]}
    )
    pq.write_table(table.slice(0, 600), folder / "rows" / "a.parquet")
    pq.write_table(table.slice(600), folder / "rows" / "b.parquet")
    pq.write_table(table, folder / "other.parquet")
    with opened(folder, 0.5) as store:
        store.apply()
    for run in range(1, 4):
        with opened(folder, run + 0.5) as store:
            store.materialize(progress=False)
            assert store.online.get([]).now
            store.push("pushed", pushes(100 * run, START + timedelta(hours=run)))
            late = [{"id": run, "thing": 1, "at": START - timedelta(days=30), "x": 1.0}]
            try:
                store.push("pushed", late)
            except FeatureStoreError:
                pass
            store.get_online_features(asked(), "model", request_id=f"request-{run}")
            store.audit()
            if run == 2:
                store.compact()
    with opened(folder, 4.5) as store:
        frame = store.get_historical_features(spine(), "model")
        frame.to_parquet(folder / ".featurestore" / "frame.parquet")


def asked() -> list[dict[str, int]]:
    return [{"thing": thing} for thing in range(THINGS + 2)]


def spine() -> pa.Table:
    times = [START + timedelta(hours=h + 0.75) for h in range(4) for _ in range(THINGS)]
    return pa.table({"thing": [*range(THINGS)] * 4, "event_timestamp": pa.array(times, pa.timestamp("us", "UTC"))})


def said_by(manifest: Manifest) -> str:
    return repr(
        (str(manifest), manifest.definition, manifest.columns, manifest.views, manifest.sources, manifest.versions)
    )


def outcomes(folder: Path) -> dict[str, Any]:
    """What each operation gives: ("same form for same values", …), or ("error", its message)."""
    found: dict[str, Any] = {}

    def record(name: str, of: Callable[[], Any]) -> None:
        try:
            found[name] = ("value", of())
        except FeatureStoreError as error:
            found[name] = ("error", f"{type(error).__name__}: {error}")
        except BaseException:  # noqa: BLE001 - it is what is looked for
            found[name] = ("raw", traceback.format_exc())

    def looked_up(store: FeatureStore) -> Any:
        result = store.get_online_features(asked(), "model")
        return {name: repr((values, result.statuses.get(name))) for name, values in result.to_dict().items()}

    def trained(store: FeatureStore) -> str:
        return repr(store.get_historical_features(spine(), "model", with_status=True).to_arrow().to_pylist())

    def explained(store: FeatureStore) -> str:
        request = store.explain_request("request-2", 3)
        return str(request)

    def audited(store: FeatureStore) -> Any:
        audit = store.audit(until=START + timedelta(hours=4))
        return audit.compared, audit.skewed, audit.rewritten, len(audit.damaged) + len(audit.not_audited)

    def run(hours: float, steps: dict[str, Callable[[FeatureStore], Any]]) -> None:
        holder: list[FeatureStore] = []
        record(f"open {hours}", lambda: holder.append(opened(folder, hours)))
        for store in holder:
            for name, step in steps.items():
                record(f"{name} {hours}", lambda step=step: step(store))
            record(f"close {hours}", store.close)

    frame = folder / ".featurestore" / "frame.parquet"
    run(3.6, {"lookup": looked_up, "training": trained, "explain": explained, "audit": audited,
              "manifest": lambda store: said_by(store.load_manifest(frame.with_name(f"{frame.name}.manifest.json"))),
              "history": lambda store: repr([(v.number, v.digest) for v in store.history()])})  # fmt: skip
    run(4.6, {"materialize": lambda store: len(store.materialize(progress=False)), "lookup": looked_up,
              "push": lambda store: repr(store.push("pushed", pushes(900, START + timedelta(hours=4))).__class__),
              "again": looked_up, "compact": lambda store: bool(store.compact()), "training": trained})  # fmt: skip
    return found


def in_a_process(of: Callable[[], Any]) -> Any:
    """What a call returns in a child, of which nothing is left here; None where it did not come to its end."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        faulthandler.disable()
        try:
            with os.fdopen(writing, "wb") as pipe:
                pickle.dump(of(), pipe)
        except BaseException:  # noqa: BLE001 - the child must not come back
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        data = pipe.read()
    os.waitpid(child, 0)
    return pickle.loads(data) if data else None


def wrong(found: Any, right: dict[str, Any], *, lmdb: bool) -> dict[str, Any]:
    """The operations that gave neither what is right nor an error of the product."""
    if found is None:
        return {} if lmdb else {"process": "it did not come to its end"}  # see docs/online-stores.md
    bad = {}
    lookups = [told for name, (_, told) in right.items() if name.startswith(("lookup", "again"))]
    for name, (kind, what) in found.items():
        stopped = any(
            found[step][0] == "error" for step in ("open 4.6", "materialize 4.6", "push 4.6") if step in found
        )
        if name in {"lookup 4.6", "again 4.6"} and kind == "value" and stopped:  # true for the instants of before
            good = all(
                any(told[column] == values for told in lookups) for column, values in what.items() if column != "ratio"
            )
        elif name == "audit 3.6" and found["lookup 3.6"][0] == "error":  # which is one request less
            good = kind == "error" or what[1:3] == (0, 0)
        else:
            good = kind == "error" or (kind == "value" and _as(name, what, right[name][1]))
        if not good:
            bad[name] = what
    return bad


def _as(name: str, what: Any, right: Any) -> bool:
    if name.startswith("audit"):
        compared, skewed, rewritten, left_out = what
        return what == right or (skewed == rewritten == 0 and compared < right[0] and left_out > 0)
    return name.startswith(("open", "close")) or what == right


def files_of(state: Path) -> list[Path]:
    found = [path for path in sorted(state.rglob("*")) if path.is_file() and path.stat().st_size]
    return [path for path in found if path.name not in QUIET]


def kind_of(path: Path, state: Path) -> str:
    """What a file is: its folder, and its suffix, or its own name where it has none."""
    place = path.relative_to(state)
    own = path.suffix or ("counts" if path.parent.name == "processes" else path.name)
    return f"{place.parts[0]} {own}"


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--bits", type=int, default=3, help="of each kind of file")
    parser.add_argument("--seed", default="1")
    said = parser.parse_args()
    tiling.TILED_MIN_ROWS = 1
    FileLog.__init__.__kwdefaults__["segment_bytes"] = 500  # type: ignore[index]  # it has keyword defaults
    folder: Path = said.folder.absolute()
    state, kept = folder / ".featurestore", folder.with_name(f"{folder.name}.kept")
    in_a_process(lambda: make(folder))
    shutil.copytree(state, kept)

    def restore() -> None:
        shutil.rmtree(state)
        shutil.copytree(kept, state)

    restore()
    right = in_a_process(lambda: outcomes(folder))
    assert right is not None
    failing = {name: what for name, (kind, what) in right.items() if kind != "value"}
    assert not failing, failing
    kinds: dict[str, list[Path]] = {}
    restore()
    for path in files_of(state):
        kinds.setdefault(kind_of(path, state), []).append(path)
    failures = 0
    for kind, files in kinds.items():
        told: Counter[str] = Counter()
        chosen = random.Random(f"{said.seed} {kind}")
        for number in range(said.bits):
            restore()
            path = chosen.choice(files)
            bit = places(path.stat().st_size, number + 1, seed=f"{said.seed} {path.name}")[number]
            flip(path, bit)
            found = in_a_process(lambda: outcomes(folder))
            bad = wrong(found, right, lmdb=kind == "online .mdb")
            failures += bool(bad)
            errors = [name for name, (kind_, _) in (found or {}).items() if kind_ == "error"]
            told["wrong" if bad else "ended" if found is None else "error" if errors else "same"] += 1
            for name, what in bad.items():
                print(f"{path} bit {bit}: {name} gave {what}", flush=True)
        print(f"{kind}: " + ", ".join(f"{count} {what}" for what, count in sorted(told.items())), flush=True)
    return 1 if failures else 0


if __name__ == "__main__":
    raise SystemExit(main())

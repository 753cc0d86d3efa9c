"""Whose a log is: what no path is stated for depends on the project, and a log of another project is refused by name."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from featurestore import (
    ARRIVAL,
    Count,
    FeatureService,
    FeatureStore,
    FeatureView,
    ManualClock,
    ParquetSource,
    PushSource,
)
from featurestore.config import load_config
from featurestore.durable.owner import OwnedFolder
from featurestore.errors import ConfigError, LogError, RegistryError
from featurestore.sources.log import FileLog
from featurestore.types import Int64, String, Timestamp
from tests.forks import forks
from tests.small import NOON, THING, hours, raised, spine, table, write

STAGING = '\n[env.staging]\nproject = "shop_staging"\n'
CLICKS = PushSource("clicks", schema={"id": String, "thing": Int64, "at": Timestamp}, event_time="at", identity="id")
SERVICE = FeatureService(
    "service", features=[FeatureView("view", entity=THING, source=CLICKS, features={"n": Count(window="1h")})]
)
SAMPLED = "\n[serving_log]\nrate = 1.0\n"


def paths(folder: Path, env: str | None = None) -> list[str]:
    """Every place that a project's data lies in, as the configuration has it."""
    config = load_config(folder, env)
    places = [config.registry, config.logs, config.offline.tiles, config.serving_log.folder]
    return [*(str(Path(str(place)).relative_to(folder)) for place in places), config.online]


def configured(folder: Path, text: str = f'project = "shop"\ndefinitions = []\n{SAMPLED}{STAGING}') -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "featurestore.toml").write_text(text)
    return folder


def store(folder: Path, env: str | None = None) -> FeatureStore:
    return FeatureStore(folder, env=env, clock=ManualClock(NOON))


def row(name: str, thing: int = 1) -> dict[str, Any]:
    return {"id": name, "thing": thing, "at": NOON}


def test_what_is_not_stated_depends_on_the_project(tmp_path: Path) -> None:
    """An environment with a project of its own has every default below a folder of that name; what is stated stays."""
    configured(tmp_path)
    own = ["registry.db", "logs", "tiles", "served"]
    assert paths(tmp_path)[:4] == [f".featurestore/{name}" for name in own]
    assert paths(tmp_path, "staging")[:4] == [f".featurestore/shop_staging/{name}" for name in own]
    assert paths(tmp_path, "staging")[4] == f"lmdb://{tmp_path}/.featurestore/shop_staging/online"
    configured(tmp_path, f'project = "shop"{STAGING}logs = "mine"\n[env.b]\nregistry = "b.db"\n')
    assert paths(tmp_path, "staging")[:2] == [".featurestore/shop_staging/registry.db", "mine"]
    assert paths(tmp_path, "b")[:2] == ["b.db", ".featurestore/logs"]


def test_a_project_that_lies_in_the_place_of_the_files_own_is_found_there(tmp_path: Path) -> None:
    """As on a machine where one environment alone ever ran, before places depended on the project."""
    configured(tmp_path, 'project = "shop_staging"\ndefinitions = []\n')
    with store(tmp_path) as old:
        old.apply([SERVICE])
        old.push("clicks", [row("a")])
    configured(tmp_path)
    assert paths(tmp_path, "staging")[0] == ".featurestore/registry.db"
    with store(tmp_path, "staging") as found:
        assert found.get_online_features([{"thing": 1}], "service").to_dict()["view__n"] == [1]
    (tmp_path / ".featurestore/registry.db").write_bytes(b"damaged" * 1000)
    assert "cannot be used" in raised(RegistryError, store(tmp_path, "staging").registry.current)


def test_two_environments_of_a_repository_share_nothing(tmp_path: Path) -> None:
    """What is pushed and asked in one is not seen, trained on, nor audited in the other."""
    configured(tmp_path)
    served = {}
    for env, names in ((None, "abc"), ("staging", "de")):
        with store(tmp_path, env) as opened:
            opened.apply([SERVICE])
            opened.push("clicks", [row(name) for name in names])
            opened.materialize(progress=False)
            for _ in names:
                served[env] = opened.get_online_features([{"thing": 1}], "service").to_dict()["view__n"]
    assert served == {None: [3], "staging": [2]}
    for env, count in ((None, 3), ("staging", 2)):
        with store(tmp_path, env) as opened:
            opened.repair()
            at = NOON + timedelta(minutes=1)
            frame = opened.get_historical_features(spine(at, thing=[1]), "service").to_arrow()
            assert frame["view__n"].to_pylist() == [count]
            assert opened.audit().exact == count


def one_folder(folder: Path, key: str) -> None:
    """Two projects that both state one place."""
    table = {"served": f'{SAMPLED}folder = "served"\n', "logs": 'logs = "logs"\n'}[key]
    text = f'project = "shop"\ndefinitions = []\n{table if key == "logs" else ""}{STAGING}'
    configured(folder, text + (table if key == "served" else ""))


def test_a_push_log_of_another_project_is_refused(tmp_path: Path) -> None:
    """Reading, pushing and compacting, with both names and what to do; the log stays as it is."""
    one_folder(tmp_path, "logs")
    for env in (None, "staging"):
        with store(tmp_path, env) as applied:
            applied.apply([SERVICE])
    with store(tmp_path) as shop:
        shop.push("clicks", [row("a")])
    before = {path: path.read_bytes() for path in (tmp_path / "logs").rglob("*") if path.is_file()}
    with store(tmp_path, "staging") as other:
        asked: list[Callable[[], Any]] = [
            lambda: other.apply([SERVICE]),
            lambda: other.push("clicks", [row("b")]),
            lambda: other.materialize(progress=False),
            lambda: other.get_historical_features(spine(NOON, thing=[1]), "service").to_arrow(),
            other.compact,
            other.repair,
        ]
        for ask in asked:
            said = raised(ConfigError, ask)
            assert "is the push log of 'clicks' of project 'shop', and this is project 'shop_staging'" in said
            assert str(tmp_path / "logs/clicks") in said
    assert {path: path.read_bytes() for path in (tmp_path / "logs").rglob("*") if path.is_file()} == before
    with store(tmp_path) as shop:
        assert shop.push("clicks", [row("b")]).accepted == 1


def test_a_log_without_an_owner_is_adopted_by_the_first_that_writes(tmp_path: Path) -> None:
    """As an earlier version left it: whoever reads may, and whoever appends second is refused before anything is kept."""
    one_folder(tmp_path, "logs")
    with store(tmp_path) as shop:
        shop.apply([SERVICE])
        shop.push("clicks", [row("a")])
    (tmp_path / "logs/clicks/owner.json").unlink()
    with store(tmp_path, "staging") as other, store(tmp_path) as shop:
        other.apply([SERVICE])
        for one in (other, shop):
            frame = one.get_historical_features(spine(hours(0.1), thing=[1]), "service").to_arrow()
            assert frame["view__n"].to_pylist() == [1]
        assert not (tmp_path / "logs/clicks/owner.json").exists()
        shop.push("clicks", [row("b")])
        assert "of project 'shop'" in raised(ConfigError, lambda: other.push("clicks", [row("c")]))
    with store(tmp_path) as shop:
        frame = shop.get_historical_features(spine(hours(0.1), thing=[1]), "service").to_arrow()
        assert frame["view__n"].to_pylist() == [2]


def test_a_log_that_was_shared_is_not_silently_begun_anew(tmp_path: Path) -> None:
    """Where an environment pushed into the log of the file's own project: it says where it goes on."""
    shared = tmp_path / ".featurestore/logs"
    configured(tmp_path)
    with store(tmp_path) as shop:
        shop.apply([SERVICE])
        shop.push("clicks", [row("a")])
    (shared / "clicks/owner.json").unlink()  # as an earlier version left it
    with store(tmp_path, "staging") as other:
        said = raised(ConfigError, lambda: other.apply([SERVICE]))
    assert f'logs = "{shared}"' in said
    with store(tmp_path) as shop:
        shop.push("clicks", [row("c")])  # which adopts it
    (tmp_path / ".featurestore/shop_staging/logs").mkdir(parents=True)
    with store(tmp_path, "staging") as other:
        other.apply([SERVICE])
        assert other.push("clicks", [row("b")]).accepted == 1


def _adopt(folder: Path, project: str, barrier: Any, results: Any) -> None:
    barrier.wait()
    try:
        OwnedFolder(folder, project, what="log", key="logs").claim()
        results.put(project)
    except ConfigError:
        results.put(None)


def test_of_many_that_adopt_at_once_one_does(tmp_path: Path) -> None:
    """In processes that race for it."""
    context = forks()
    barrier, results = context.Barrier(4), context.Queue()
    processes = [context.Process(target=_adopt, args=(tmp_path, f"p{n}", barrier, results)) for n in range(4)]
    for process in processes:
        process.start()
    said = [results.get(timeout=600) for _ in processes]
    for process in processes:
        process.join(timeout=600)
    owner = json.loads((tmp_path / "owner.json").read_text())["project"]
    assert [name for name in said if name is not None] == [owner]
    assert [path.name for path in tmp_path.iterdir()] == ["owner.json"]


def test_a_process_that_was_stopped_while_it_claimed_a_folder_holds_up_nobody(tmp_path: Path) -> None:
    """Whatever lock it has on the folder: who claims it does not wait."""
    folder = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(folder, fcntl.LOCK_EX)
    claim = threading.Thread(target=OwnedFolder(tmp_path, "shop", what="push log", key="logs").claim, daemon=True)
    claim.start()
    claim.join(600)
    assert not claim.is_alive()
    os.close(folder)
    assert json.loads((tmp_path / "owner.json").read_text())["project"] == "shop"
    assert [path.name for path in tmp_path.iterdir()] == ["owner.json"]


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "it is damaged"), ("[]", "it is damaged"), ("", "it is damaged"),
     ('{"version": 2, "project": "shop"}', "newer version of featurestore")],
)  # fmt: skip
def test_an_owner_that_cannot_be_read_is_refused(tmp_path: Path, text: str, message: str) -> None:
    """And not taken for nobody."""
    (tmp_path / "owner.json").write_text(text)
    owned = OwnedFolder(tmp_path, "shop", what="log", key="logs")
    for ask in (owned.check, owned.claim):
        said = raised(ConfigError, ask)
        assert message in said
        assert str(tmp_path) in said


def test_a_serving_log_of_another_project_is_refused(tmp_path: Path) -> None:
    """By whoever would write to it, and whoever asks it."""
    one_folder(tmp_path, "served")
    with store(tmp_path) as shop:
        shop.apply([SERVICE])
        shop.materialize(progress=False)
        shop.get_online_features([{"thing": 1}], "service")
    assert json.loads((tmp_path / "served/owner.json").read_text())["project"] == "shop"
    configured(
        tmp_path,
        (tmp_path / "featurestore.toml")
        .read_text()
        .replace(STAGING, f'{STAGING}serving_log = {{folder = "served", rate = 1.0}}\n'),
    )
    with store(tmp_path, "staging") as other:
        asked: list[Callable[[], Any]] = [
            lambda: other.apply([SERVICE]),
            lambda: other.get_online_features([{"thing": 1}], "service"),
            other.audit,
            other.compact_serving_log,
            lambda: other.lineage(SERVICE),
        ]
        for ask in asked:
            said = raised(ConfigError, ask)
            assert "is the serving log of project 'shop', and this is project 'shop_staging'" in said
            assert "serving_log.folder" in said
    with store(tmp_path) as shop:
        assert shop.serving_log_losses().written == 1


def test_a_journal_of_arrivals_of_another_project_is_refused(tmp_path: Path) -> None:
    """One of an earlier version belongs to the first that writes it."""
    write(tmp_path / "rows.parquet", table(thing=[1], at=[hours(-3)], x=[1]))
    source = ParquetSource("rows", tmp_path / "rows.parquet", event_time="at", known_at=ARRIVAL)
    service = FeatureService(
        "service", features=[FeatureView("view", entity=THING, source=source, features=["x"], refresh="1h")]
    )
    configured(tmp_path / "repo")
    journal = tmp_path / "repo/.featurestore/registry.arrivals.db"
    with store(tmp_path / "repo") as shop:
        shop.apply([service])
        shop.materialize(progress=False)
    with closing(sqlite3.connect(journal, isolation_level=None)) as connection:
        assert connection.execute("SELECT project FROM owner").fetchall() == [("shop",)]
        connection.execute("DROP TABLE owner")
        connection.execute("PRAGMA user_version = 2")
    with store(tmp_path / "repo") as shop:
        assert len(shop.offline.arrivals.stays("rows")) == 1
        write(tmp_path / "rows.parquet", table(thing=[1, 2], at=[hours(-3)] * 2, x=[1, 1]))
        shop.materialize(progress=False, full=True)
    (tmp_path / "repo/.featurestore/shop_staging").mkdir()
    journal.replace(tmp_path / "repo/.featurestore/shop_staging/registry.arrivals.db")
    with store(tmp_path / "repo", "staging") as other:
        said = raised(RegistryError, lambda: other.apply([service]))
        assert "journal of arrivals of project 'shop', and this is project 'shop_staging'" in said


def test_a_log_by_itself_has_no_owner(tmp_path: Path) -> None:
    """What is written without a project can be opened without one."""
    schema = pa.schema([("x", pa.int64()), ("known_at", pa.int64())])
    with FileLog(tmp_path / "log", lambda: schema) as log, log.lock():
        log.append([pa.record_batch([[1], [2]], schema=schema)])
    assert not list(tmp_path.rglob("owner.json"))
    assert not issubclass(ConfigError, LogError)


@pytest.mark.parametrize("what", ["rows", "clicks", "logs"])
def test_a_log_that_was_removed_under_a_pusher_is_told_apart(tmp_path: Path, what: str) -> None:
    """Whether or not another was made in its place: nothing is written into the one that is gone, and nothing is acknowledged. One
    that is put back is gone on with."""
    configured(tmp_path, 'project = "shop"\nlogs = "logs"\ndefinitions = []\n')
    with store(tmp_path) as shop:
        shop.apply([SERVICE])
        shop.push("clicks", [row("a")])
        log, confirm = shop.offline.log(CLICKS), shop._project.pushing._pushers["clicks"].confirm
        folder = next(path for path in (log.folder, *log.folder.parents) if path.name == what)
        kept = tmp_path / "kept"
        folder.rename(kept)
        with pytest.raises(LogError, match="Nothing of this push was kept"):
            shop.push("clicks", [row("b")])
        with pytest.raises(LogError):  # and no other error, which would end the thread that confirms
            confirm(older=-1)
        with FileLog(log.folder, lambda: log.schema) as another:
            asked: list[Callable[[], Any]] = [
                log.read,
                lambda: confirm(older=-1),
                lambda: shop.push("clicks", [row("b")]),
            ]
            for ask in asked:
                with pytest.raises(LogError, match="another was put in its place"):
                    ask()
            assert another.read().num_rows == 0
        shutil.rmtree(folder)
        kept.rename(folder)
        assert shop.push("clicks", [row("b")]).accepted == 1
        assert log.read()["id"].to_pylist() == ["a", "b"]

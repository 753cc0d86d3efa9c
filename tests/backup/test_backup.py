"""A backup has all that was acknowledged before it began, refers to nothing that it lacks, and is restored whole or not at all."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import featurestore.serving.log.copying as copying
from featurestore import FeatureStore
from featurestore.backup.archive import Archive
from featurestore.backup.make import make_backup
from featurestore.backup.restore import restore_backup
from featurestore.config import load_config
from featurestore.durable.checksums import encoded
from featurestore.errors import BackupError, ConfigError, LogDamagedError, RegistryError
from featurestore.online import open_online
from featurestore.registry.store import Registry
from featurestore.serving.log.copying import copy_serving_log
from featurestore.serving.log.segments import REPLACES, live
from tests.cli.test_commands import run
from tests.servers import PostgresServer

ROOT = Path(__file__).parents[2]
NAMES = ["folder", "file.tar"]


def program(name: str, *args: Path) -> subprocess.Popen[str]:
    """A module beside this one; what it says on stderr is this process's own."""
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", f"tests.backup.{name}", *map(str, args)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environ)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with pushed rows, late ones, and a serving log; nothing changes it."""
    folder = tmp_path_factory.mktemp("backup")
    run(folder, "init", "shop")
    with FeatureStore(folder / "shop") as store:
        store.apply()
        late = {"cart": "late", "customer": "u1", "at": datetime(2020, 1, 1, tzinfo=UTC), "amount": 1.0}
        rows = [{**late, "cart": f"c{number}", "at": datetime.now(UTC)} for number in range(20)]
        assert store.push("carts", [*rows, late]).late == 1
        store.materialize(progress=False)
        store.get_online_features([{"customer": "u1"}], "cart_model")
    return folder / "shop"


def is_sealed(repo: Path) -> bool:
    """Whether a segment of the log was sealed."""
    return b".parquet" in (repo / ".featurestore/logs/carts/rows/manifest.json").read_bytes()


def test_what_was_acknowledged_is_restored_and_audited(shop: Path, tmp_path: Path) -> None:
    """While a process pushes, serves, logs, seals segments, deletes old ones and materializes: every row that was acknowledged
    before the backup began is in it, every value that was logged is training's there, and so is what is online after materialize."""
    repo, other = tmp_path / "shop", tmp_path / "other"
    shutil.copytree(shop, repo, ignore=shutil.ignore_patterns(".featurestore", "__pycache__"))
    with FeatureStore(repo) as store:
        store.apply()
    with program("working", repo) as worker:
        try:
            assert worker.stdout is not None
            acknowledged = []
            while len(acknowledged) < 60 or not (is_sealed(repo) and any(repo.rglob("cart_model/*/[0-9]*.parquet"))):
                acknowledged.append(int(worker.stdout.readline()))
            manifest = make_backup(load_config(repo), tmp_path / "backups" / "b.tar")
            assert worker.poll() is None
        finally:
            worker.kill()
    assert any(file.endswith(".parquet") and file.startswith("logs/") for file in manifest.files)
    shutil.copytree(repo, other, ignore=shutil.ignore_patterns(".featurestore", "__pycache__", "featurestore.toml"))
    assert restore_backup(tmp_path / "backups" / "b.tar", other).settings
    with FeatureStore(other) as store:
        source: Any = store.catalog.sources["carts"]
        kept = store.offline.log(source).read()["cart"].to_pylist()
        assert kept == [f"c{number}" for number in range(len(kept))]
        assert len(kept) > acknowledged[-1]
        store.materialize(progress=False)
        assert store.verify().ok
        audit = store.audit()
        assert audit.compared > 0
        assert (audit.skewed, sum(view.early for view in audit.lateness), dict(audit.damaged)) == (0, 0, {})
        again = store.push("carts", [{"cart": "c0", "customer": "u0", "at": datetime.now(UTC), "amount": 2.5}])
        assert again.accepted == 1
        keys = [{"customer": f"u{number}"} for number in range(7)]
        online = store.get_online_features(keys, "cart_model")
        at = online.as_of["customer_carts"]
        spine = pa.table({"customer": [key["customer"] for key in keys], "event_timestamp": [at] * len(keys)})
        assert store.get_historical_features(spine, "cart_model").features.equals(online.features)
        assert store.verify().ok


def test_what_is_killed_leaves_nothing_half(shop: Path, tmp_path: Path) -> None:
    """kill -9 at each of many steps: a backup is there whole or not at all, a restored project is whole, is nothing, or is
    refused; and the next one makes it whole."""
    shutil.copytree(shop, tmp_path / "shop")
    (tmp_path / "folders").mkdir()
    (tmp_path / "files").mkdir()
    runs = [
        program("killed", tmp_path / "shop", tmp_path / "folders" / "b"),
        program("killed", tmp_path / "shop", tmp_path / "files" / "b.tar", tmp_path / "other"),
    ]
    told = [run.communicate()[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0], told
    assert "restore killed" in told[1]
    assert ": refused" in told[1]


@pytest.fixture(scope="module", params=NAMES)
def backup(request: pytest.FixtureRequest, shop: Path) -> Path:
    path = shop.parent / request.param
    if not path.exists():
        make_backup(load_config(shop), path)
    return path


def test_only_its_owner_may_read_it(backup: Path, tmp_path: Path) -> None:
    """Each file and folder, from the first byte on, whatever the umask says; and what is restored of it."""
    before = os.umask(0)
    try:
        restore_backup(backup, tmp_path / "other")
    finally:
        os.umask(before)
    restored = tmp_path / "other" / ".featurestore"
    parts = [tmp_path / "other/featurestore.toml", restored / "registry.db", restored / "logs", restored / "served"]
    for part in [backup, *parts]:
        for path in [part, *part.rglob("*")]:
            assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path
    with FeatureStore(tmp_path / "other") as store:
        assert store.activity(what="restore")[0].subject == backup.name
        assert store.serving_log_losses().offered == 1
    with FeatureStore(shop_of(backup)) as store:
        assert backup.name in {one.subject for one in store.activity(what="back up")}


def shop_of(backup: Path) -> Path:
    return backup.parent / "shop"


def test_damage_is_named_before_anything_is_written(shop: Path, tmp_path: Path) -> None:
    """A bit of any file, a file that is gone, one that nobody wrote, a folder that is none: and nothing is there afterwards."""
    whole = tmp_path / "whole"
    make_backup(load_config(shop), whole)
    for path in sorted(path for path in whole.rglob("*") if path.is_file()):
        data = path.read_bytes()
        name = path.relative_to(whole).as_posix()
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        with pytest.raises(BackupError, match="is damaged.*(manifest|is not what was written)") as caught:
            restore_backup(whole, tmp_path / "other")
        assert name in str(caught.value)
        path.unlink()
        with pytest.raises(BackupError, match="it has no manifest.json" if name == "manifest.json" else "is missing"):
            restore_backup(whole, tmp_path / "other")
        path.write_bytes(data)
    (whole / "logs" / "more").write_bytes(b"")
    with pytest.raises(BackupError, match="'logs/more' is not in its manifest"):
        restore_backup(whole, tmp_path / "other")
    assert not (tmp_path / "other").exists()
    with pytest.raises(BackupError, match="There is no "):
        restore_backup(tmp_path / "nothing", tmp_path / "other")


def test_a_damaged_tar_file_is_told(shop: Path, tmp_path: Path) -> None:
    make_backup(load_config(shop), tmp_path / "b.tar")
    data = (tmp_path / "b.tar").read_bytes()
    for wrong in (data[: len(data) // 2], data[:100], b"", data.replace(b"FSL1", b"FSL2")):
        (tmp_path / "b.tar").write_bytes(wrong)
        with pytest.raises(BackupError, match="b.tar is (damaged|no backup)"):
            restore_backup(tmp_path / "b.tar", tmp_path / "other")
    with tarfile.open(tmp_path / "c.tar", "w") as tar:
        link = tarfile.TarInfo("manifest.json")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    with pytest.raises(BackupError, match="'manifest.json' is no file"):
        restore_backup(tmp_path / "c.tar", tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_a_name_leads_nowhere_else(tmp_path: Path) -> None:
    """A manifest that somebody wrote by hand, and one of a version to come."""
    folder = tmp_path / "b"
    folder.mkdir()
    words = {
        "version": 1,
        "project": "shop",
        "created": 0,
        "release": "0",
        "has_registry": True,
        "files": {"../x": [0, ""], "/x": [0, ""]},
    }
    (folder / "manifest.json").write_bytes(encoded(words))
    with pytest.raises(BackupError, match="'../x' is no name of a file in it; '/x' is no name"):
        restore_backup(folder, tmp_path / "other")
    (folder / "manifest.json").write_bytes(encoded({**words, "version": 2}))
    with pytest.raises(BackupError, match="was made by a newer version of featurestore"):
        restore_backup(folder, tmp_path / "other")


def test_nothing_is_written_over(backup: Path, shop: Path, tmp_path: Path) -> None:
    """Neither a backup, nor any place of a project, nor another project."""
    with pytest.raises(BackupError, match="is there already; a backup overwrites nothing"):
        make_backup(load_config(shop), backup)
    other = tmp_path / "other"
    (other / ".featurestore").mkdir(parents=True)
    shutil.copy(shop / "featurestore.toml", other)
    for name in (
        "registry.db",
        "registry.db-wal",
        "registry.arrivals.db",
        "registry.arrivals.db-wal",
        "logs/x",
        "served/x",
    ):
        path = other / ".featurestore" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
        with pytest.raises(
            BackupError,
            match="is there already; a backup is restored where there is nothing yet.*--repo FOLDER restore",
        ):
            restore_backup(backup, other)
        path.unlink()
    (other / "featurestore.toml").write_text('project = "bakery"\n')
    with pytest.raises(BackupError, match="is of project 'shop', and .* is of 'bakery'"):
        restore_backup(backup, other)
    assert not (other / ".featurestore" / "registry.db").exists()


@pytest.mark.parametrize("online", ["lmdb", "redis"])
def test_the_online_store_of_the_original_is_not_written_over(
    shop: Path, tmp_path: Path, online: str, request: pytest.FixtureRequest
) -> None:
    """With the same keys there the restore is refused, until it is said that they are to be deleted."""
    url = "lmdb://online" if online == "lmdb" else request.getfixturevalue("redis_url")
    make_backup(load_config(shop), tmp_path / "b")
    other = tmp_path / "other"
    other.mkdir()
    (other / "featurestore.toml").write_text(f'project = "shop"\ndefinitions = []\nonline = "{url}"\n')
    store = open_online(load_config(other).online)
    store.write({b"shop:x": b"1", b"shopping:x": b"1"})
    with pytest.raises(BackupError, match="holds keys of project 'shop'.*another online store.*--empty-online"):
        restore_backup(tmp_path / "b", other)
    assert not (other / ".featurestore" / "logs").exists()
    assert restore_backup(tmp_path / "b", other, empty_online=True).emptied == 1
    assert store.get([b"shop:x", b"shopping:x"]).values == [None, b"1"]
    store.write({b"shopping:x": None})
    store.close()


def test_a_registry_in_postgresql_is_for_its_own_dump(
    shop: Path, tmp_path: Path, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The backup has all else, and says so; it is restored beside a registry in PostgreSQL, and beside no other."""
    monkeypatch.setenv("REGISTRY_URL", postgres.url)
    repo, other = tmp_path / "shop", tmp_path / "other"
    shutil.copytree(shop, repo, ignore=shutil.ignore_patterns(".featurestore", "__pycache__"))
    toml = (repo / "featurestore.toml").read_text()
    (repo / "featurestore.toml").write_text(f'registry = "${{REGISTRY_URL}}"\n{toml}')
    with FeatureStore(repo) as store:
        store.apply()
        store.push("carts", [{"cart": "c", "customer": "u1", "at": datetime.now(UTC), "amount": 1.0}])
    said = run(repo, "backup", str(tmp_path / "b.tar")).stdout
    assert "PostgreSQL: dump them now, by its own pg_dump." in said
    assert not {"registry.db", "arrivals.db"} & Archive(tmp_path / "b.tar").manifest.files.keys()
    other.mkdir()
    (other / "featurestore.toml").write_text(toml)
    with pytest.raises(BackupError, match="had its registry in PostgreSQL, and .* says registry = .*registry.db"):
        restore_backup(tmp_path / "b.tar", other)
    (other / "featurestore.toml").unlink()
    assert restore_backup(tmp_path / "b.tar", other).settings
    with FeatureStore(other) as store:
        store.materialize(["customer_carts"], progress=False)
        online = store.get_online_features([{"customer": "u1"}], "cart_model").to_dict()
    assert online["customer_carts__carts_1d"] == [1]
    make_backup(load_config(shop), tmp_path / "c")
    with pytest.raises(
        BackupError, match=r"has its registry in a file, and .* says registry = \$\{REGISTRY_URL\}.*registry copy"
    ):
        restore_backup(tmp_path / "c", repo)
    assert "secret" not in said


def test_what_is_refused_leaves_no_settings(backup: Path, tmp_path: Path) -> None:
    """Neither a featurestore.toml nor a folder; else the folder would look like a project, and the next try like another's."""
    with pytest.raises(ConfigError, match="nowhere"):
        restore_backup(backup, tmp_path / "deep" / "new", env="nowhere")
    assert not (tmp_path / "deep").exists()
    there = tmp_path / "there"
    (there / ".featurestore" / "logs").mkdir(parents=True)
    (there / ".featurestore" / "logs" / "mine").touch()
    with pytest.raises(BackupError, match="is there already"):
        restore_backup(backup, there)
    assert [path.name for path in there.iterdir()] == [".featurestore"]
    (there / ".featurestore" / "logs" / "mine").unlink()
    assert restore_backup(backup, there).settings


def test_a_half_restored_project_is_not_opened(shop: Path, tmp_path: Path) -> None:
    repo = tmp_path / "shop"
    shutil.copytree(shop, repo)
    load_config(repo).restoring.write_bytes(orjson.dumps({"places": []}))
    with pytest.raises(ConfigError, match="run featurestore restore again"):
        FeatureStore(repo)
    with pytest.raises(ConfigError, match="run featurestore restore again"):
        make_backup(load_config(repo), tmp_path / "b")


def test_a_damaged_log_is_not_backed_up(shop: Path, tmp_path: Path) -> None:
    """Its file is named, and nothing is left."""
    repo = tmp_path / "shop"
    shutil.copytree(shop, repo)
    log = repo / ".featurestore/logs/carts/rows/00000001.log"
    data = bytearray(log.read_bytes())
    data[60] ^= 1
    log.write_bytes(data)
    (tmp_path / "backups").mkdir()
    with pytest.raises(LogDamagedError, match=str(log)):
        make_backup(load_config(repo), tmp_path / "backups" / "b")
    assert list((tmp_path / "backups").iterdir()) == []


def test_a_trail_that_cannot_be_written_spoils_no_backup(
    shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is said; and a path that is none is refused before anything is written."""

    def refuse(*_: object) -> None:
        raise RegistryError("read-only file system")

    monkeypatch.setattr(Registry, "add_activity", refuse)
    make_backup(load_config(shop), tmp_path / "b")
    Archive(tmp_path / "b").check()
    assert "The backup is made, and not in the trail of activity: read-only" in caplog.text
    with pytest.raises(BackupError, match="is no path: it holds a NUL"):
        make_backup(load_config(shop), tmp_path / "a\0b")
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_a_full_disk_leaves_nothing(shop: Path, tmp_path: Path) -> None:
    """Neither of a backup nor of a restore; here the greatest size of a file is what is full."""
    make_backup(load_config(shop), tmp_path / "b.tar")
    (tmp_path / "backups").mkdir()
    program = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        "from featurestore.cli import main; sys.argv[0] = 'featurestore'; main()"
    )
    environ = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "PYTHONDONTWRITEBYTECODE": "1",
    }  # a half written module would stay
    for words in (
        ["--repo", shop, "backup", tmp_path / "backups/b"],
        ["--repo", tmp_path / "other", "restore", tmp_path / "b.tar"],
    ):
        command = [sys.executable, "-c", program, *map(str, words)]
        done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert "full" in done.stderr
    assert list((tmp_path / "backups").iterdir()) == []
    left = [path.name for path in (tmp_path / "other").rglob("*") if path.is_file() and "online" not in path.parts]
    assert left == []


def test_a_serving_log_that_is_merged_meanwhile_is_copied_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What vanishes while it is copied is looked for in what took its place, and no row is there twice."""
    version = tmp_path / "log" / "model" / "f"
    version.mkdir(parents=True)

    def put(name: str, row: int, replaces: list[str]) -> None:
        words = {REPLACES: orjson.dumps(replaces)} if replaces else None
        pq.write_table(pa.table({"row": [row]}, pa.schema([("row", pa.int64())], words)), version / name)

    names = [f"{number}-{number}-p-{number}.parquet" for number in range(3)]
    for number, name in enumerate(names):
        put(name, number, [])
    real, copied = shutil.copyfile, []

    def copy(source: Path, target: Path) -> None:
        copied.append(source)
        if len(copied) == 2:
            put("0-2-merged-x.parquet", 9, names)
            for name in names:
                (version / name).unlink()
        real(source, target)

    monkeypatch.setattr(copying.shutil, "copyfile", copy)  # type: ignore[attr-defined]  # a name that the module imports, to be replaced
    copy_serving_log(tmp_path / "log", tmp_path / "copy")
    assert len(copied) == 3
    assert [file.path.name for file in live(tmp_path / "copy" / "model" / "f")] == ["0-2-merged-x.parquet"]
    assert len(list((tmp_path / "copy").rglob("*.parquet"))) == 1


def test_the_commands(shop: Path, tmp_path: Path) -> None:
    """Where, how much, and what comes next; as JSON for programs."""
    said = run(shop, "backup", str(tmp_path / "b.tar")).stdout
    assert said.startswith("project 'shop' at 20")
    assert f" is in {tmp_path}/b.tar: " in said
    told = orjson.loads(run(shop, "backup", str(tmp_path / "b"), "--json").stdout)
    assert (told["project"], told["files"]) == ("shop", len(Archive(tmp_path / "b").manifest.files))
    (tmp_path / "other").mkdir()
    said = run(tmp_path / "other", "restore", str(tmp_path / "b.tar")).stdout
    assert "There was no featurestore.toml; the backup's is there now." in said
    assert said.endswith("materialize\n")
    with FeatureStore(shop) as store:
        assert store.backup(tmp_path / "c") == tmp_path / "c"


@contextmanager
def full_disk() -> Iterator[None]:
    """No file of this process may become longer than a byte, which is what a full disk is to whoever writes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_is_told_as_the_backups(shop: Path, tmp_path: Path) -> None:
    """It is the place of the backup that has no room, and not the log that is copied; nothing is left of it."""
    copy, backups = tmp_path / "copy", tmp_path / "backups"
    shutil.copytree(shop, copy)
    shutil.rmtree(copy / ".featurestore" / "served")  # it is copied before the logs
    backups.mkdir()
    with full_disk(), pytest.raises(BackupError, match=r"b\.tar cannot be written: disk full"):
        make_backup(load_config(copy), backups / "b.tar")
    assert list(backups.iterdir()) == []


def test_nothing_is_no_backup(tmp_path: Path) -> None:
    """Whoever backs the wrong folder up every night learns of it before that is all there is."""
    (tmp_path / "featurestore.toml").write_text('project = "shop"\n')
    with pytest.raises(BackupError, match="There is nothing to back up of project 'shop'"):
        make_backup(load_config(tmp_path), tmp_path / "b.tar")
    assert [path.name for path in tmp_path.iterdir()] == ["featurestore.toml"]

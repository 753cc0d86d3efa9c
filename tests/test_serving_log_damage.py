"""Bits of the serving log that change are never audited, explained or merged as if they had been served."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet as pq
import pytest
import typer
from typer.testing import CliRunner

from featurestore import FeatureStore
from featurestore.cli import auditing
from featurestore.reports.audit import Audit
from featurestore.serving.log.process_counts import ProcessCounts, fold_ended, losses
from featurestore.serving.log.serving_log import is_sound, segments
from featurestore.serving.log.upkeep import Limits, keep_up
from featurestore.serving.served_rows import find_request
from tests.damage import flipped, places
from tests.test_audit import HOUR, START, World

AFTER = round((START + HOUR * 48).timestamp() * 1e6)


class Served(NamedTuple):
    """A project that served three requests, each in a file of its own."""

    world: World
    files: list[Path]
    compared: int


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served")
    world = World(folder, f"lmdb://{folder}/online")
    with world.store as store:
        for _ in range(3):
            world.serve(1)
            audit = store.audit()  # which writes what was served
        (files,) = segments(store.config.serving_log.folder).values()
        assert len(files) == 3
        assert (audit.skewed, audit.damaged) == (0, {})
        yield Served(world, files, audit.compared)


def as_told(audit: Audit) -> tuple[str, str]:
    """What a report says of damage, as JSON has it and as a page."""
    return str(audit.to_dict()["damaged"]), audit.to_html()


def test_the_audit_skips_damaged_files(served: Served) -> None:
    """The other files are audited, nothing is skewed, and the damaged one is named."""
    file = served.files[1]
    for bit in places(file.stat().st_size, 24, seed="served"):
        with flipped(file, bit):
            audit = served.world.store.audit()
        assert [*audit.damaged] == [str(file)], bit
        assert (audit.skewed, audit.compared, audit.not_audited) == (0, served.compared * 2 // 3, {}), bit
    assert all(str(file) in told for told in as_told(audit))
    assert served.world.store.audit().compared == served.compared


def test_files_without_checksums(served: Served) -> None:
    """Those of an earlier version are audited, and skipped where their damage shows."""
    file = served.files[0]
    name = file.name.split(".")
    older = file.rename(file.with_name(f"{name[0]}.parquet"))
    try:
        assert served.world.store.audit().compared == served.compared
        with flipped(older, 8 * older.stat().st_size - 3):  # Parquet's own mark
            audit = served.world.store.audit()
        assert [*audit.damaged] == [str(older)]
        assert audit.compared == served.compared * 2 // 3
    finally:
        older.rename(file)


def test_a_request_is_found_as_it_was_logged(served: Served) -> None:
    """Or not at all, where the file with its rows is damaged; other requests are found."""
    folder = served.world.store.config.serving_log.folder
    ids = [pq.read_table(file, columns=["request"])["request"][0].as_py() for file in served.files]
    rows = [find_request(folder, request).rows for request in ids]  # type: ignore[union-attr]  # each request is there
    file = served.files[1]
    for bit in places(file.stat().st_size, 60, seed="request"):
        with flipped(file, bit):
            found = find_request(folder, ids[1])
            assert found is None or found.rows.equals(rows[1]), bit
            other = find_request(folder, ids[2])
            assert other is not None
            assert other.rows.equals(rows[2]), bit


def test_damaged_files_are_not_merged(served: Served, tmp_path: Path) -> None:
    """Of an hour's files the sound ones become one; a merged file that is damaged stands for no other."""
    version = tmp_path / "service" / "f"
    version.mkdir(parents=True)
    for number in range(4):
        copy = served.files[0].name.replace("-", f"-{number}", 1)  # another last time
        (version / copy).write_bytes(served.files[0].read_bytes())
    rows = pq.read_metadata(served.files[0]).num_rows
    one, *others = sorted(version.iterdir())
    with flipped(one, 900):
        done = keep_up(tmp_path, Limits(), now=AFTER)
        assert done is not None
        assert (done.merged, done.into) == (3, 1)
        (merged,) = (path for path in version.iterdir() if "merged" in path.name)
        assert is_sound(merged)
        assert pq.read_metadata(merged).num_rows == 3 * rows
        (left,) = segments(tmp_path).values()
        assert sorted(left) == sorted([one, merged])
    with flipped(merged, 8 * merged.stat().st_size - 400):
        (left,) = segments(tmp_path).values()
        assert sorted(left) == sorted([one, merged, *others])  # and the audit skips the merged one


def test_damaged_counts(tmp_path: Path) -> None:
    """They are told of, and not added up; neither are those of processes that ended long ago."""
    counts = [ProcessCounts(tmp_path, f"{number}-a") for number in (1, 2)]
    for each in counts:
        made = each.map()
        assert made is not None
        each.keep(made)
        each.offered, each.written = 5, 4
        each.ended()
    assert losses(tmp_path)[:4] == (10, 8, 0, 2)
    file = tmp_path / "processes" / "1-a"
    for bit in [*range(8 * 24), *range(8 * 232, 8 * 236)]:
        with flipped(file, bit):
            found = losses(tmp_path)
            assert found[:4] == (5, 4, 0, 1), bit
            assert found.last_error is not None
            assert str(file) in found.last_error
    with flipped(file, 3):
        assert fold_ended(tmp_path) == 1
    assert losses(tmp_path)[:4] == (10, 8, 0, 2)
    assert fold_ended(tmp_path) == 1
    ended = tmp_path / "processes" / "ended.json"
    for bit in range(8 * ended.stat().st_size):
        with flipped(ended, bit):
            found = losses(tmp_path)
            assert found[:4] in {(10, 8, 0, 2), (0, 0, 0, 0)}, bit
            assert (found.offered == 10) == (found.last_error is None)
            assert fold_ended(tmp_path) == 0


def test_the_command_names_damaged_files(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """As text, as JSON and as a page; and exits with 3, since what it skipped may be skewed."""

    @contextmanager
    def opened(_: object, **options: Any) -> Iterator[FeatureStore]:
        assert options == {"at": None}
        yield served.world.store

    monkeypatch.setattr(auditing, "opened", opened)
    application = typer.Typer()
    application.command()(auditing.audit)
    page = served.world.folder / "audit.html"
    file = served.files[2]
    with flipped(file, 999):
        said = CliRunner().invoke(application, ["--html", str(page)])
        told = CliRunner().invoke(application, ["--json"])
    assert (said.exit_code, told.exit_code) == (3, 3)
    assert f"{file} is damaged" in said.output
    assert "1 damaged" in said.output
    assert [*json.loads(told.output)["damaged"]] == [str(file)]
    assert str(file) in page.read_text()
    assert CliRunner().invoke(application, []).exit_code == 0

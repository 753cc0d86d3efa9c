"""A path is a path: whatever signs the folders of a project have in their names, it reads and writes there and nowhere else."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featurestore import (
    Count,
    FeatureService,
    FeatureStore,
    FeatureView,
    Latest,
    ManualClock,
    ParquetSource,
    PushSource,
    TableSource,
)
from featurestore.config import load_config
from featurestore.errors import ConfigError, DeclarationError, FeatureStoreError, SourceError, SpineError
from featurestore.sources.log import FileLog
from featurestore.types import Int64, Timestamp
from tests.compact_worker import SEGMENT
from tests.small import NOON, THING, hours, opened, raised, spine, table, trained, write
from tests.test_tiled_materialize import World

ODD = {
    "brackets": ("run[1]", "run1"),
    "star": ("a*b", "aXb"),
    "question": ("q?", "qX"),
    "percent": ("x%41", "xA"),
    "hash": ("h#t", "h"),
    "braces": ("{a,b}", "a"),
    "quote": ("it's", "its"),
    "newline": ("new\nline", "newline"),
    "equals": ("k=1", "k"),
    "decomposed": ("e\u0301", "\u00e9"),
    "deep": ("**", "any"),
    "semicolon": ("a;b", "a"),
    "colon": ("s3:", "s3"),
    "all": ("[!a]*?%3F#'{k=2}", "b"),
}
"""Names of folders, each with that of a sibling for which it could be taken."""

WORDS: dict[str, Any] = {"event_time": "at", "refresh": "continuous"}


def rows(x: int) -> pa.Table:
    return table(thing=[1], at=[hours(-1)], x=[x])


@pytest.fixture(params=ODD)
def odd(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A folder with an odd name, and rows beside it that are none of its."""
    name, sibling = ODD[request.param]
    for folder, x in ((name, 1), (sibling, 1_000)):
        (tmp_path / folder / "data").mkdir(parents=True)
        write(tmp_path / folder / "data" / "rows.parquet", rows(x))
    return tmp_path / name


def test_a_source_is_what_its_path_says(odd: Path) -> None:
    """Each row once, and none of a folder for which the name could be a pattern: only what was written is one, relative to
    the repository or not, or in its configuration."""
    (odd / "featurestore.toml").write_text('project = "odd"\ndefinitions = []\n[sources]\nlocated = "data/*.parquet"\n')
    file = odd / "data" / "rows.parquet"
    paths: list[Any] = [
        odd,
        odd / "data",
        file,
        [file],
        "data",
        "data/*.parquet",
        odd / "data" / "*.parquet",
        "**/*.parquet",
    ]
    sources = [ParquetSource(f"rows{n}", path, **WORDS) for n, path in enumerate(paths)]
    views = [
        FeatureView(f"v{n}", entity=THING, source=source, features={"n": Count(window="1d"), "x": Latest("x")})
        for n, source in enumerate([*sources, ParquetSource("located", "nowhere.parquet", **WORDS)])
    ]
    with FeatureStore(odd, clock=ManualClock(NOON)) as store:
        found = store.get_historical_features(spine(NOON, thing=[1]), views).features
    assert found.to_dict("list") == {f"v{n}__{feature}": [1] for n in range(len(views)) for feature in ("n", "x")}


def test_a_place_beside_the_repository_is_a_path_too(tmp_path: Path) -> None:
    """A pattern in the configuration that leads up and down again: the folder above keeps its name."""
    for name, x in (("a*b", 1), ("aXb", 1_000)):
        (tmp_path / name / "data").mkdir(parents=True)
        write(tmp_path / name / "data" / "rows.parquet", rows(x))
    repository = tmp_path / "a*b" / "repository"
    repository.mkdir()
    (repository / "featurestore.toml").write_text(
        'project = "odd"\ndefinitions = []\n[sources]\nrows = "../data/*.parquet"\n'
    )
    view = FeatureView(
        "view", entity=THING, source=ParquetSource("rows", "x", **WORDS), features={"n": Count(window="1d")}
    )
    with FeatureStore(repository, clock=ManualClock(NOON)) as store:
        assert store.get_historical_features(spine(NOON, thing=[1]), [view]).to_arrow()["view__n"].to_pylist() == [1]


@pytest.mark.parametrize("odd", ["brackets", "question", "percent", "all"], indirect=True)
def test_a_project_works_in_any_folder(odd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Registry, journal, online store, sealed push log, serving log, audit, spines, exports: all lie in it, and the same
    project beside it, in the folder for which its name could be taken, keeps its own values."""
    monkeypatch.setitem(FileLog.__init__.__kwdefaults__, "segment_bytes", SEGMENT)  # type: ignore[arg-type]  # it has keyword defaults
    sibling = next(path for path in odd.parent.iterdir() if path != odd)
    with _project(sibling) as other, _project(odd) as store:
        for number, project in ((1, store), (2, other)):
            log = project.offline.log(project._project.definitions.sources["pushed"])  # type: ignore[arg-type]  # a push source, by its name
            for _ in range(60):
                project.push("pushed", {"thing": number, "at": project._project.clock()})
                project._project.clock.advance(timedelta(milliseconds=1))  # type: ignore[attr-defined]  # the clock of these tests
            assert len(log.segments()) > 1
            project.compact()
            project.materialize(progress=False)
        for number, project in ((1, store), (2, other)):
            online = project.get_online_features([{"thing": 1}, {"thing": 2}], "service")
            counts = [60 if thing == number else 0 for thing in (1, 2)]
            assert [n or 0 for n in online.to_dict()["recent__n"]] == counts
            assert online.to_dict()["view__x"] == [1 if project is store else 1_000, None]
            asked = spine(project._project.clock(), thing=[1, 2])
            frame = project.get_historical_features(asked, "service").to_arrow()
            assert [n or 0 for n in frame["recent__n"].to_pylist()] == counts
        written = write(odd / "spine.parquet", spine(store._project.clock(), thing=[1]))
        exported = store.get_historical_features(written, "service").to_parquet(odd / "out.parquet")
        assert pq.read_table(exported, partitioning=None)["view__x"].to_pylist() == [1]
        folders = {path.name for path in odd.iterdir()}
    assert folders == {
        "data",
        "featurestore.toml",
        ".featurestore",
        "spine.parquet",
        "out.parquet",
        "out.parquet.manifest.json",
    }
    assert {path.name for path in odd.parent.iterdir()} == {odd.name, sibling.name}
    with _project(odd) as store:
        audit = store.audit()
        assert audit.features
        assert all(feature.skewed == 0 for feature in audit.features)


def _project(folder: Path) -> FeatureStore:
    (folder / "featurestore.toml").write_text('project = "odd"\ndefinitions = []\n[serving_log]\nrate = 1.0\n')
    store = FeatureStore(folder, clock=ManualClock(NOON))
    pushed = PushSource("pushed", schema={"thing": Int64, "at": Timestamp}, event_time="at")
    views = [
        FeatureView("view", entity=THING, source=ParquetSource("rows", "data", event_time="at"), refresh="1h", features=["x"]),
        FeatureView("recent", entity=THING, source=pushed, features={"n": Count(window="1d")}),
    ]  # fmt: skip
    store.apply([FeatureService("service", features=views)])
    return store


@pytest.mark.parametrize("name", ["run[1]*", "k=1", "x%41"])
def test_tiles_are_read_where_they_were_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """In a folder with an odd name, two runs use the tiles of earlier ones, and values stay training's."""
    (tmp_path / "run1x").mkdir()
    world = World(tmp_path / name, monkeypatch)
    with world.store:
        assert [world.run() for _ in range(3)] == [([], False), ([4], True), ([], True)]


@pytest.mark.parametrize("name", [name for name, _ in ODD.values() if "?" not in name])
def test_tables_lie_in_any_folder(tmp_path: Path, name: str) -> None:
    """A DuckDB file is opened by its very name."""
    (tmp_path / name).mkdir()
    with duckdb.connect(str(tmp_path / name / "w.duckdb")) as connection:
        connection.register("given", rows(7))
        connection.execute("CREATE TABLE t AS SELECT * FROM given")
    source = TableSource("rows", tmp_path / name / "w.duckdb", table="t", **WORDS)
    with opened(FeatureView("view", entity=THING, source=source, features=["x"])) as (store, _):
        assert trained(store, NOON, thing=[1])["view__x"].to_pylist() == [7]


@pytest.mark.parametrize("name", ["q?", "back\\slash"])
def test_a_table_that_the_engine_would_look_for_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    """DuckDB takes what follows a ? for no part of the name, and a backslash for a slash."""
    (tmp_path / name).mkdir()
    (tmp_path / name / "w.duckdb").write_bytes(b"")
    source = TableSource("rows", tmp_path / name / "w.duckdb", table="t", **WORDS)
    with opened() as (store, _):
        said = raised(
            SourceError, lambda: store.plan([FeatureView("view", entity=THING, source=source, features=["x"])])
        )
    assert "'rows'" in said
    assert str(tmp_path / name / "w.duckdb") in said


def test_brackets_in_a_written_folder_are_its_name_where_it_is_there(tmp_path: Path) -> None:
    """And a pattern where it is not; a file that is called like a pattern beside files that match it is refused."""
    for name, x in (("run[1]", 1), ("run1", 2), ("run2", 3)):
        (tmp_path / name).mkdir()
        write(tmp_path / name / "p.parquet", rows(x))

    def counted(path: Path) -> list[Any]:
        view = FeatureView(
            "view", entity=THING, source=ParquetSource("rows", path, **WORDS), features={"n": Count(window="1d")}
        )
        with opened(view) as (store, _):
            found: list[Any] = trained(store, NOON, thing=[1])["view__n"].to_pylist()
            return found

    assert counted(tmp_path / "run[1]" / "*.parquet") == [1]
    assert counted(tmp_path / "run[12]" / "*.parquet") == [2]
    assert counted(tmp_path / "run[[]1]" / "p.parquet") == [1]
    write(tmp_path / "*.parquet", rows(4))
    assert counted(tmp_path / "*.parquet") == [1]
    write(tmp_path / "other.parquet", rows(5))
    said = raised(SourceError, lambda: counted(tmp_path / "*.parquet"))
    assert "other.parquet" in said
    assert "[*].parquet" in said
    assert counted(tmp_path / "[*].parquet") == [1]


HIDDEN = (
    "_temporary/0/p.parquet",
    ".staging/p.parquet",
    "_p.parquet",
    ".p.parquet",
    "p.parquet.part",
    "y/_t/p.parquet",
)


def test_what_is_not_finished_is_no_data(tmp_path: Path) -> None:
    """Names that begin with _ or ., folders too, and other files: below a folder, by a pattern, and of a spine."""
    data = tmp_path / "_data"  # above the source's own place a name means nothing
    (data / "y").mkdir(parents=True)
    write(data / "y" / "p.parquet", rows(1))
    for name in HIDDEN:
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        write(data / name, rows(2))
    for path in (data, data / "**" / "*.parquet", data / "*" / "*.parquet", tmp_path / "_d*"):
        view = FeatureView(
            "view", entity=THING, source=ParquetSource("rows", path, **WORDS), features={"n": Count(window="1d")}
        )
        with opened(view) as (store, _):
            assert trained(store, NOON, thing=[1])["view__n"].to_pylist() == [1]
    spines = tmp_path / "spine"
    (spines / "_temporary").mkdir(parents=True)
    write(spines / "p.parquet", spine(NOON, thing=[1]))
    write(spines / "_temporary" / "p.parquet", spine(NOON, thing=[2]))
    with opened(view) as (store, _):
        assert store.get_historical_features(spines, "service").to_arrow()["thing"].to_pylist() == [1]
        wanted = view.model_copy(
            update={"source": ParquetSource("rows", data / "_temporary" / "*" / "*.parquet", **WORDS)}
        )
        found = store.get_historical_features(spine(NOON, thing=[1]), [wanted]).to_arrow()
        assert found["view__n"].to_pylist() == [1]  # what somebody names is meant


@pytest.mark.parametrize(("kind", "marker"), [("Delta", "_delta_log/0.json"), ("Iceberg", "metadata/v1.metadata.json")])
@pytest.mark.parametrize("below", [".", "*.parquet", "day=1", "day=*/*.parquet", "**/*.parquet"])
def test_a_folder_with_a_log_of_its_own_is_refused(tmp_path: Path, kind: str, marker: str, below: str) -> None:
    """Some of its files are deleted rows: the error says what it is; a spine likewise."""
    lake = tmp_path / "lake"
    (lake / marker).parent.mkdir(parents=True)
    (lake / marker).write_text(json.dumps({}))
    (lake / "day=1").mkdir()
    for folder in (lake, lake / "day=1"):
        write(folder / "p.parquet", rows(1))
    source = ParquetSource("rows", lake / below, **WORDS)
    with opened() as (store, _):
        said = raised(
            SourceError, lambda: store.plan([FeatureView("view", entity=THING, source=source, features=["x"])])
        )
        assert f"{lake} is a {kind} table" in said
        assert "'rows'" in said
        with opened(FeatureView("view", entity=THING, source=ParquetSource("rows", lake / "p.parquet", **WORDS), features=["x"])) as (other, _):  # fmt: skip
            said = raised(SpineError, lambda: len(other.get_historical_features(lake, "service")))
            assert f"{lake} is a {kind} table" in said


def test_an_online_store_in_a_folder_with_signs_of_a_url_is_its_own(tmp_path: Path) -> None:
    """What is written in the file is a URL, and what the file lies in is a path."""
    for name in ("x%41", "xA", "q?map_size=1GiB", "h#t"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "featurestore.toml").write_text(
            'project = "a"\nonline = "lmdb://my%20values?map_size=1GiB"\n'
        )
    stores = [FeatureStore(load_config(tmp_path / name).root) for name in ("x%41", "xA", "q?map_size=1GiB", "h#t")]
    for number, store in enumerate(stores):
        store.online.write({b"a": str(number).encode()})
    assert [store.online.get([b"a"]).values for store in stores] == [[str(n).encode()] for n in range(4)]
    for store in stores:
        store.close()
        assert (store.config.root / "my values" / "data.mdb").is_file()


@pytest.mark.parametrize(
    "line",
    [
        'registry = "a\\u0000b"',
        'online = "lmdb://a\\u0000b"',
        'online = "lmdb://a%00b"',
        'logs = "a\\u0000b"',
        'definitions = ["a\\u0000b.py"]',
        'offline = {spill = "a\\u0000b"}',
        'offline = {tiles = "a\\u0000b"}',
        'serving_log = {folder = "a\\u0000b"}',
        'sources = {rows = "a\\u0000b"}',
    ],
)
def test_a_nul_in_the_configuration_is_refused_by_key(tmp_path: Path, line: str) -> None:
    """The operating system takes none in a path; it is said of the key, and not when the path is first used."""
    (tmp_path / "featurestore.toml").write_text(f'project = "odd"\n{line}\n')
    with pytest.raises(ConfigError, match=r"featurestore\.toml: [a-z_.0-9\[\]]+: must not hold a NUL"):
        load_config(tmp_path)


def test_what_is_no_path_is_an_error_that_shows_it(tmp_path: Path) -> None:
    """Wherever a caller names one: a NUL, nothing at all, a name that is too long, nobody's home."""
    nul = str(tmp_path / "a\0b.parquet")
    for place in (nul, None, 5, b"repo", "x" * 5000, "~nobody-of-the-name/repo"):
        with pytest.raises(ConfigError):
            FeatureStore(place)  # type: ignore[arg-type]  # the mistake
    for declare in (lambda: ParquetSource("rows", [nul]), lambda: TableSource("rows", nul, table="rows")):  # type: ignore[call-arg]  # the mistake
        with pytest.raises(DeclarationError, match=r"is no path: it holds a NUL \(.*test_paths\.py:\d+\)"):
            declare()
    write(tmp_path / "rows.parquet", rows(1))
    view = FeatureView(
        "view", entity=THING, source=ParquetSource("rows", tmp_path / "rows.parquet", **WORDS), features=["x"]
    )
    with FeatureStore.local(clock=ManualClock(NOON)) as store:
        frame = store.get_historical_features(spine(NOON, thing=[1]), [view])
        with pytest.raises(FeatureStoreError, match="holds a NUL"):
            frame.to_parquet(nul)
        with pytest.raises(SpineError, match="does not exist"):
            store.get_historical_features(nul, [view]).to_arrow()


def test_a_configuration_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "featurestore.toml").write_bytes(b"\xef\xbb\xbf" + b'project = "marked"\n')
    assert load_config(tmp_path).project == "marked"

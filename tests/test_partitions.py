"""The names of folders are columns where they lie below the source's own place, and never say more than the files do."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime
from decimal import Decimal as Number
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pytest

from featurestore import ARRIVAL, Count, Entity, FeatureStore, FeatureView, LastN, Latest, ManualClock, ParquetSource
from featurestore.errors import DeclarationError, FeatureStoreError, SourceError
from featurestore.types import Bool, Bytes, Date, Decimal, FeatureType, Float64, Int32, Int64, String, Timestamp
from tests.small import NOON, THING, both, hours, opened, raised, spine, table, trained, write

WORDS: dict[str, Any] = {"event_time": "at", "refresh": "1h"}


def rows(hour: float = -1, **columns: Sequence[Any]) -> pa.Table:
    return table(thing=[1], at=[hours(hour)], **columns)


def lay(folder: Path, *paths: str, **columns: Sequence[Any]) -> Path:
    """Files with a row each, the later ones newer."""
    for number, path in enumerate(paths):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        write(folder / path, rows(number - len(paths), x=[number], **columns))
    return folder


def latest(source: ParquetSource, *features: str) -> dict[str, Any]:
    """The newest row's values along both paths."""
    view = FeatureView("view", entity=THING, source=source, features=list(features))
    with opened(view) as (store, _):
        answer = both(store, thing=[1])
    return {name: answer[f"view__{name}"][0] for name in features}


def refused(source: ParquetSource, *features: str) -> str:
    view = FeatureView("view", entity=THING, source=source, features=list(features))
    with opened() as (store, _):
        return raised(FeatureStoreError, lambda: store.plan([view]))


def test_what_lies_above_a_source_says_nothing(tmp_path: Path) -> None:
    """A project below exp=3/, a file, a folder and a pattern: the column is the file's, and there is no other."""
    place = tmp_path / "exp=3" / "label=1"
    lay(place, "data/p.parquet", exp=[7])
    for path in (
        place,
        place / "data",
        place / "data" / "p.parquet",
        place / "data" / "*.parquet",
        place / "*" / "p.*",
    ):
        assert latest(ParquetSource("rows", path, **WORDS), "exp") == {"exp": 7}
        assert "no column 'label'" in refused(ParquetSource("rows", path, **WORDS), "label")
    (place / "featurestore.toml").write_text('project = "p"\ndefinitions = []\n')
    view = FeatureView("view", entity=THING, source=ParquetSource("rows", "data", **WORDS), features=["exp"])
    with FeatureStore(place, clock=ManualClock(NOON)) as store:
        found = store.get_historical_features(spine(NOON, thing=[1]), [view]).to_arrow()
        assert found["view__exp"].to_pylist() == [7]


def test_a_spine_has_no_partitions(tmp_path: Path) -> None:
    """Its own label and its own key come back as they were, whatever its folders are called."""
    data = lay(tmp_path, "rows.parquet") / "rows.parquet"
    place = tmp_path / "label=1" / "thing=2" / "more=3"
    place.mkdir(parents=True)
    asked = spine(NOON, thing=[1]).append_column("label", pa.array([0]))
    write(place / "s.parquet", asked)
    view = FeatureView("view", entity=THING, source=ParquetSource("rows", data, **WORDS), features=["x"])
    with opened(view) as (store, _):
        for path in (place / "s.parquet", place, tmp_path / "label=1"):
            found = store.get_historical_features(path, "service").to_arrow()
            assert found.column_names == ["thing", "event_timestamp", "label", "view__x"]
            assert [found[name].to_pylist() for name in ("thing", "label", "view__x")] == [[1], [0], [0]]


def test_a_files_own_column_is_never_replaced(tmp_path: Path) -> None:
    """Below date=2026-03-01/, files whose own `date` is the event_time: rows of that day count when they happened."""
    for day in (29, 30):
        folder = tmp_path / f"date=2024-04-{day}"
        folder.mkdir()
        at = datetime(2024, 4, day, 8, tzinfo=UTC)
        write(folder / "p.parquet", table(thing=[1, 1], date=[at, at.replace(hour=23)], x=[day, day + 100]))
    source = ParquetSource("rows", tmp_path, event_time="date", refresh="1h")
    view = FeatureView("view", entity=THING, source=source, features=["x", "date"])
    with opened(view) as (store, _):
        answer = both(store, thing=[1])
        assert answer["view__x"] == [130]
        assert trained(store, datetime(2024, 4, 30, 9, tzinfo=UTC), thing=[1])["view__x"].to_pylist() == [30]


@pytest.mark.parametrize(
    ("folder", "own", "same"),
    [
        ("exp=3", [3], True), ("exp=03", [3], True), ("exp=3", ["3"], True), ("exp=03", ["3"], False),
        ("exp=3", [7], False), ("exp=abc", [3], False), ("exp=3", pa.array([None], pa.int64()), False),
        ("exp=__HIVE_DEFAULT_PARTITION__", pa.array([None], pa.int64()), True), ("exp=2024-05-01", [NOON], True),
        ("exp=2024-05-02", [NOON], False), ("exp=1.5", [1.5], True), ("exp=true", [True], True),
        ("exp=2024-05-01", [NOON.date()], True), ("exp=a%2Fb", ["a/b"], True), ("Exp=3", [3], False),
    ],
)  # fmt: skip
def test_a_difference_between_file_and_folder_is_an_error(tmp_path: Path, folder: str, own: Any, same: bool) -> None:
    """It names both and says the way out; where they agree, the value is the file's."""
    lay(tmp_path, f"{folder}/p.parquet", exp=own)
    source = ParquetSource("rows", tmp_path, **WORDS)
    name = folder.partition("=")[0]
    without = latest(ParquetSource("rows", tmp_path, partitions={name: None}, **WORDS), "exp", "x")
    if same:
        assert latest(source, "exp", "x") == without
    else:
        said = refused(source, "exp")
        assert f"partitions={{{name!r}: None}}" in said
        assert folder.partition("=")[2] in said or name == "Exp"
        assert "exp" in said


def test_a_file_that_comes_later_and_differs_is_an_error(tmp_path: Path) -> None:
    """Not only the plan looks: a run and training refuse it by name, and lose nothing."""
    lay(tmp_path, "exp=3/p.parquet", exp=[3])
    view = FeatureView("view", entity=THING, source=ParquetSource("rows", tmp_path, **WORDS), features=["exp"])
    with opened(view) as (store, clock):
        assert both(store, thing=[1])["view__exp"] == [3]
        lay(tmp_path, "exp=4/p.parquet", exp=[5])
        clock.set(hours(2))
        for verb in (lambda: store.materialize(progress=False), lambda: trained(store, NOON, thing=[1])):
            said = raised(SourceError, verb)
            assert "exp=4" in said
            assert "'5'" in said
        lay(tmp_path, "exp=4/p.parquet", exp=[4])
        assert both(store, thing=[1])["view__exp"] == [4]


TYPED: list[tuple[FeatureType, str, Any]] = [
    (Int32, "01", 1), (Int32, "-7", -7), (Int64, str(2**62), 2**62), (String, "01", "01"), (String, "", ""),
    (Bool, "true", True), (Bool, "False", False), (Date, "2024-02-29", date(2024, 2, 29)), (Float64, "0.1", 0.1),
    (Decimal(10, 2), "1.50", Number("1.50")), (Timestamp, "2024-05-01 11%3A30%3A00", datetime(2024, 5, 1, 11, 30, tzinfo=UTC)),
    (Timestamp, "2024-05-01T13%3A30%3A00+02%3A00", datetime(2024, 5, 1, 11, 30, tzinfo=UTC)),
    (String, "a%2Fb%3Dc%20%C3%A9%25", "a/b=c é%"), (String, "a=b", "a=b"),
]  # fmt: skip


@pytest.mark.parametrize(("of", "text", "value"), TYPED)
def test_a_declared_type_reads_the_text(tmp_path: Path, of: FeatureType, text: str, value: Any) -> None:
    """Exactly, and null where the writer meant null; along both paths."""
    lay(tmp_path, "p=__HIVE_DEFAULT_PARTITION__/a.parquet", f"p={text}/a.parquet")
    source = ParquetSource("rows", tmp_path, partitions={"p": of}, **WORDS)
    view = FeatureView("view", entity=THING, source=source, features={"p": Latest("p"), "all": LastN("p", 2)})
    with opened(view) as (store, _):
        answer = both(store, thing=[1])
        assert (answer["view__p"], answer["view__all"]) == ([value], [[value, None]])


@pytest.mark.parametrize(
    ("of", "text"),
    [
        (Int32, "1.0"), (Int32, str(2**31)), (Int64, ""), (Int64, "1_0"), (Int64, " 1"), (Int64, "1e3"), (Int64, "٣"),
        (Bool, "1"), (Date, "2024-02-30"), (Date, "today"), (Float64, "1_0"), (Float64, "x"), (Decimal(4, 2), "1.505"),
        (Decimal(4, 2), "100.00"), (Timestamp, "noon"),
    ],
)  # fmt: skip
def test_a_text_that_is_none_of_its_type_is_an_error(tmp_path: Path, of: FeatureType, text: str) -> None:
    """It names the file, the text and the type."""
    lay(tmp_path, f"p={text}/a.parquet")
    said = refused(ParquetSource("rows", tmp_path, partitions={"p": of}, **WORDS), "p")
    assert all(part in said for part in (str(of), repr(text), f"p={text}"))


def test_what_is_not_declared_is_text_on_every_day(tmp_path: Path) -> None:
    """Months 10, 11 and 12 have the type that 01 has, so New Year changes nothing; a date that is a time is a Date."""
    lay(tmp_path, *(f"month={month}/p.parquet" for month in (10, 11, 12)))
    view = FeatureView("view", entity=THING, source=ParquetSource("rows", tmp_path, **WORDS), features=["month"])
    with opened(view) as (store, clock):
        assert both(store, thing=[1])["view__month"] == ["12"]
        write(lay(tmp_path, "month=01/p.parquet") / "month=01" / "p.parquet", rows(0.5, x=[4]))
        clock.set(hours(2))
        assert both(store, thing=[1])["view__month"] == ["01"]
    number = FeatureView("view", entity=Entity("m", key={"month": Int32}), source=view.source, features=["x"])
    with opened() as (store, _):
        assert "is String" in raised(DeclarationError, lambda: store.plan([number]))


def test_a_guess_that_was_relied_on_is_told_how_to_be_declared(tmp_path: Path) -> None:
    """An integer key from folders' names: the error says the words that make it one."""
    lay(tmp_path, "region=7/p.parquet", "region=8/p.parquet")

    def view(**words: Any) -> FeatureView:
        source = ParquetSource("rows", tmp_path, **WORDS, **words)
        return FeatureView("view", entity=THING, source=source, key={"thing": "region"}, features=["x"])

    with opened() as (store, _):
        assert 'partitions={"region": Int64}' in raised(DeclarationError, lambda: store.plan([view()]))
    with opened(view(partitions={"region": Int64})) as (store, _):
        assert both(store, thing=[7, 8, 9])["view__x"] == [0, 1, None]


def test_a_type_is_part_of_the_fingerprint_and_silence_is_not(tmp_path: Path) -> None:
    """A view over a partition of another type is another view; a source that says nothing is what it was."""
    lay(tmp_path, "p=1/a.parquet")

    def fingerprint(of: FeatureType | None) -> tuple[str, str]:
        words: dict[str, Any] = {} if of is None else {"partitions": {"p": of}}
        source = ParquetSource("rows", tmp_path, **WORDS, **words)
        with opened(FeatureView("view", entity=THING, source=source, features=["p"])) as (store, _):
            state = store._project.registry.current().document
            return state["views"]["view"]["fingerprint"], state["sources"]["rows"]["fingerprint"]

    silent, text, number = (fingerprint(of) for of in (None, String, Int32))
    assert silent[0] == text[0] != number[0]
    assert len({silent[1], text[1], number[1]}) == 3


def test_a_declaration_is_kept_by_the_registry(tmp_path: Path) -> None:
    """A process that opens the project without its files reads partitions as they were applied."""
    lay(tmp_path / "data", "month=02/skip=1/p.parquet")
    (tmp_path / "featurestore.toml").write_text('project = "p"\ndefinitions = []\n')
    source = ParquetSource("rows", "data", partitions={"month": Int32, "skip": None}, **WORDS)
    view = FeatureView("view", entity=THING, source=source, features=["month"])
    clock = ManualClock(NOON)
    with FeatureStore(tmp_path, clock=clock) as store:
        store.apply([view])
    with FeatureStore(tmp_path, clock=clock) as store:
        store.materialize(progress=False)
        assert store._project.view("view").raw["month"] == "INTEGER"
        assert store._project.view("view").source == source


@pytest.mark.parametrize(
    ("paths", "words", "says"),
    [
        (("a=1/p.parquet", "p.parquet"), {}, "partitions={'a': None}"),
        (("a=1/p.parquet", "b=1/p.parquet"), {}, "different partitions"),
        (("a=1/a=2/p.parquet",), {}, "two values of 'a'"),
        (("a=%FF/p.parquet",), {}, "not as UTF-8"),
        (("a=1/p.parquet",), {"partitions": {"aa": Int32}}, "Did you mean 'a'"),
        (("p.parquet",), {"partitions": {"a": Int32}}, "no folder 'a=…'"),
        (("a=1/p.parquet",), {"partitions": {"a": Timestamp}, "timezone": "Europe/Berlin"}, "Timestamp"),
        (("a=2024-05-01 10/p.parquet",), {"partitions": {"a": Timestamp}, "timezone": "Europe/Berlin"}, "no offset"),
    ],
)  # fmt: skip
def test_folders_that_do_not_fit_are_refused(tmp_path: Path, paths: tuple[str, ...], words: Any, says: str) -> None:
    """The message says what is odd, and where the source was declared."""
    lay(tmp_path, *paths)
    said = refused(ParquetSource("rows", tmp_path, **WORDS, **words), "x")
    assert says in said
    assert "test_partitions.py:" in said


@pytest.mark.parametrize("of", [Bytes, "Array(Int64)", "Array(Float32, 2)", "Int", 7])
def test_a_type_that_no_name_can_have_is_refused(of: Any) -> None:
    """By name, where it is declared."""
    with pytest.raises(DeclarationError, match="partitions"):
        ParquetSource("rows", "data", partitions={"p": of}, **WORDS)


def test_folders_that_arrow_writes_are_read_as_it_means_them(tmp_path: Path) -> None:
    """Slashes, spaces, percent signs, letters and nulls; counted by key, along both paths."""
    texts = ["a/b", "50%", "é ü", "x=y", None, "[1]*?"]
    given = table(
        thing=[1] * len(texts), at=[hours(-n - 1) for n in range(len(texts))], p=texts, x=list(range(len(texts)))
    )
    ds.write_dataset(given, tmp_path / "d", format="parquet", partitioning=ds.partitioning(pa.schema([("p", pa.string())]), flavor="hive"))  # fmt: skip
    source = ParquetSource("rows", tmp_path / "d", **WORDS)
    view = FeatureView("view", entity=Entity("e", key={"p": String}), source=source, features={"x": Latest("x"), "n": Count(window="1d")})  # fmt: skip
    with opened(view) as (store, _):
        known = [text for text in texts if text is not None]
        answer = both(store, p=known)
        assert answer["view__x"] == [texts.index(text) for text in known]
        assert answer["view__n"] == [1] * len(known)


def test_rows_that_arrive_keep_their_partitions(tmp_path: Path) -> None:
    """Where rows are known from their file's arrival, and with derived columns over what folders say."""
    lay(tmp_path, "month=4/p.parquet", "month=05/p.parquet")
    source = ParquetSource(
        "rows", tmp_path, known_at=ARRIVAL, partitions={"month": Int32}, derived={"next": "month + 1"}, **WORDS
    )
    view = FeatureView("view", entity=THING, source=source, where="month > 4", features=["month", "next"])
    with opened(view) as (store, clock):
        clock.set(hours(2))
        assert both(store, thing=[1])["view__next"] == [6]

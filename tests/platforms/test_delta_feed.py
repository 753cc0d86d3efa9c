"""Delta tables that say which rows a commit changed: each row is known from the commit that added it, wherever it was copied to since."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore import ARRIVAL, Count, DeltaSource, Entity, FeatureStore, FeatureView, ManualClock, Sum
from featurestore.errors import SourceError
from featurestore.types import String
from tests.draws import draws
from tests.platforms.conftest import Told
from tests.platforms.test_delta import added, commit, committed

USER = Entity("user", key={"user": String})
DAY = datetime(2026, 3, 8, tzinfo=UTC)
FEED_SWITCH = "delta.enableChangeDataFeed"
FEED = {FEED_SWITCH: "true"}
HOURS = 23

Row = tuple[str, int, str | None]
"""User, amount, city: all that a row has beside when it happened, which is the same for all."""


def orders(*rows: Row) -> pa.Table:
    columns = list(zip(*rows, strict=True)) or [(), (), ()]
    return pa.table(
        {
            "user": pa.array(columns[0], pa.string()),
            "at": pa.array([DAY - timedelta(days=1)] * len(rows), pa.timestamp("us", "UTC")),
            "amount": pa.array(columns[1], pa.int64()),
            "city": pa.array(columns[2], pa.string()),
        }
    )


def source(folder: Path) -> DeltaSource:
    return DeltaSource("orders", folder, event_time="at", known_at=ARRIVAL)


def known(store: FeatureStore, folder: Path, hours: list[int]) -> list[tuple[int | None, int | None]]:
    """Of Ann and Ben, at each of these hours of the day, how many rows training knows, and what their amounts add up to."""
    folds = {"n": Count(window="lifetime"), "sum": Sum("amount", window="lifetime")}
    view = FeatureView("rows", entity=USER, source=source(folder), refresh="continuous", features=folds)
    spine = pa.table(
        {
            "user": ["ann", "ben"] * len(hours),
            "event_timestamp": [DAY + timedelta(hours=hour) for hour in hours for _ in range(2)],
        }
    )
    found = store.get_historical_features(spine, [view]).to_arrow()
    return list(zip(found["rows__n"].to_pylist(), found["rows__sum"].to_pylist(), strict=True))


class Table:
    """A table, and beside it its rows with the hour from which each is known: what a naive replay of its changes says."""

    def __init__(self, folder: Path, partition_by: list[str]) -> None:
        self.folder, self.hour, self.rows = folder, 0, list[tuple[Row, int]]()
        self.past = dict[int, list[tuple[Row, int]]]()
        """By version what its rows were then."""
        self._partition_by = partition_by
        self.create([("ann", 0, None), ("ben", 1, "x")])

    def create(self, rows: list[Row]) -> None:
        """In place of the one that there was, if there was one."""
        if self.folder.exists():
            shutil.rmtree(self.folder)
        self.rows, self.past, self.is_told = [], {}, True
        self._words: dict[str, Any] = {"partition_by": self._partition_by, "configuration": FEED}
        self.append(*rows)
        self.past[0] = list(self.rows)

    @property
    def feed(self) -> bool:
        return DeltaTable(self.folder).metadata().configuration.get(FEED_SWITCH) == "true"

    def switch(self) -> None:
        """The feed off, or on again."""
        DeltaTable(self.folder).alter.set_table_properties({FEED_SWITCH: str(not self.feed).lower()})
        self._changed()

    def do(self, kind: str, of: Any) -> None:
        """One of its changes, of which it is noted whether the table says all that there is to know of it."""
        if kind in {"delete", "update", "merge", "overwrite_where"}:
            self.is_told = self.is_told and self.feed
        getattr(self, kind)(*([] if of is None else of if kind in {"append", "overwrite", "widen", "update"} else [of]))
        self.past[DeltaTable(self.folder).version()] = list(self.rows)

    def _changed(self, *, change: bool = True) -> None:
        self.hour += 1
        if change:
            committed(self.folder, self.hour)

    def append(self, *rows: Row) -> None:
        write_deltalake(self.folder, orders(*rows), mode="append", **self._words)
        self._words = {"schema_mode": "merge"}  # it may have been widened
        self._changed()
        self.rows += [(row, self.hour) for row in rows]

    def _after(self, change: Callable[[Row], Row | None]) -> None:
        """Each row as a change makes it, and known from now on where it does; none where it deletes it."""
        self._changed()
        kept = [(row, change(row), hour) for row, hour in self.rows]
        self.rows = [(new, hour if new == row else self.hour) for row, new, hour in kept if new is not None]

    def delete(self, amounts: set[int]) -> None:
        before = DeltaTable(self.folder).version()
        DeltaTable(self.folder).delete(f"amount IN ({', '.join(map(str, sorted(amounts)))})")
        if DeltaTable(self.folder).version() != before:
            self._after(lambda row: None if row[1] in amounts else row)

    def update(self, amounts: set[int], city: str | None) -> None:
        """Moves rows to another partition, where the table has these; rows that are written as they were are new all the same."""
        said = "NULL" if city is None else f"'{city}'"
        found = DeltaTable(self.folder).update(
            {"city": said, "amount": "amount + 100"}, predicate=f"amount IN ({', '.join(map(str, sorted(amounts)))})"
        )
        if found["num_updated_rows"]:
            self._after(lambda row: (row[0], row[1] + 100, city) if row[1] in amounts else row)

    def merge(self, rows: list[Row]) -> None:
        """Ann's rows of these amounts are deleted, Ben's become these, and what is new is inserted."""
        by_amount = {row[1]: row for row in rows}
        there = {row[1] for row, _ in self.rows}
        (
            DeltaTable(self.folder)
            .merge(orders(*by_amount.values()), predicate="t.amount = s.amount", source_alias="s", target_alias="t")
            .when_matched_delete(predicate="t.user = 'ann'")
            .when_matched_update({"amount": "s.amount + 1000"})
            .when_not_matched_insert_all()
            .execute()
        )

        def change(row: Row) -> Row | None:
            if row[1] not in by_amount:
                return row
            return None if row[0] == "ann" else (row[0], row[1] + 1000, row[2])

        self._after(change)
        self.rows += [(row, self.hour) for amount, row in by_amount.items() if amount not in there]

    def rewrite(self, amounts: set[int]) -> None:
        """An update after which each row is as it was."""
        before = DeltaTable(self.folder).version()
        DeltaTable(self.folder).update(
            {"amount": "amount", "city": "city"}, predicate=f"amount IN ({', '.join(map(str, sorted(amounts)))})"
        )
        if DeltaTable(self.folder).version() != before:
            self._changed()

    def overwrite(self, *rows: Row) -> None:
        write_deltalake(self.folder, orders(*rows), mode="overwrite", **self._words)
        self._changed()
        self.rows = [(row, self.hour) for row in rows]

    def overwrite_where(self, rows: list[Row]) -> None:
        """The rows of one amount by others of it."""
        amount = rows[0][1]
        rows = [(user, amount, city) for user, _, city in rows]
        said = f"amount = {amount}"
        write_deltalake(self.folder, orders(*rows), mode="overwrite", predicate=said, **self._words)
        self._changed()
        self.rows = [(row, hour) for row, hour in self.rows if row[1] != amount] + [(row, self.hour) for row in rows]

    def widen(self, *rows: Row) -> None:
        """Append rows with one more column."""
        more = pa.array([row[1] for row in rows], pa.int64())
        write_deltalake(self.folder, orders(*rows).append_column("more", more), mode="append", schema_mode="merge")
        self._changed()
        self.rows += [(row, self.hour) for row in rows]

    def restore(self, place: int) -> None:
        """A version that there was, unless it was vacuumed: its rows are those that they were, and came when they came."""
        newest = DeltaTable(self.folder).version()
        earlier = sorted(self.past.keys() - {newest})
        if not earlier:
            return
        version = earlier[place % len(earlier)]
        there = {file.relative_to(self.folder).as_posix() for file in self.folder.rglob("*.parquet")}
        adds = pa.table(DeltaTable(self.folder, version=version).get_add_actions())["path"].to_pylist()
        if {unquote(path) for path in adds} <= there:
            DeltaTable(self.folder).restore(version)
            self._changed(change=DeltaTable(self.folder).version() != newest)
            self.rows = list(self.past[version])

    def clean(self) -> None:
        """The log away, up to a checkpoint of now."""
        DeltaTable(self.folder).create_checkpoint()
        newest = DeltaTable(self.folder).version()
        for file in (self.folder / "_delta_log").glob("*.json"):
            if int(file.name[:20]) < newest:
                file.unlink()
        self.is_told, self.past = False, {}

    def compact(self) -> None:
        before = DeltaTable(self.folder).version()
        DeltaTable(self.folder).optimize.compact()
        if DeltaTable(self.folder).version() != before:
            self._changed()

    def vacuum(self) -> None:
        """Of what is not the newest version, the files of changed rows among them."""
        DeltaTable(self.folder).vacuum(0, dry_run=False, enforce_retention_duration=False)
        for file in (self.folder / "_change_data").rglob("*.parquet"):
            file.unlink()

    def expected(self, hours: list[int]) -> list[tuple[int | None, int | None]]:
        found: list[tuple[int | None, int | None]] = []
        for hour in hours:
            for user in ("ann", "ben"):
                amounts = [row[1] for row, since in self.rows if row[0] == user and since <= hour]
                found.append((len(amounts), sum(amounts)) if amounts else (None, None))
        return found


@pytest.fixture
def store() -> Iterator[FeatureStore]:
    with FeatureStore.local(clock=ManualClock(DAY + timedelta(days=1))) as store:
        yield store


@pytest.mark.parametrize("partition_by", [[], ["city"]])
def test_a_row_is_known_from_the_commit_that_added_it(
    partition_by: list[str], store: FeatureStore, tmp_path: Path, tell: Told
) -> None:
    """And not from one that copied it: a deletion, an update, a merge, a compaction; nor from a vacuum on."""
    table, compared = Table(tmp_path / "t", partition_by), 0
    cities = ["x", None]
    changes: list[Callable[[], None]] = [
        lambda: table.append(*[("ann", amount, cities[amount % 2]) for amount in range(2, 10)]),
        lambda: table.append(*[("ben", amount, cities[amount % 2]) for amount in range(10, 20)]),
        lambda: table.delete({2, 3, 15}),
        lambda: table.update({4, 16}, "x"),
        table.compact,
        lambda: table.merge([("ann", 5, "x"), ("ben", 17, None), ("ben", 40, "x")]),
        table.vacuum,
        lambda: table.delete({6}),
        lambda: table.update({104}, None),
        lambda: table.append(("ann", 50, "x")),
        table.vacuum,
    ]
    for change in changes:
        change()
        hours = list(range(table.hour + 1))
        assert known(store, table.folder, hours) == table.expected(hours)
        compared += 4 * len(hours)
    assert len({hour for _, hour in table.rows}) >= 5
    tell("delta", version=f"deltalake {version('deltalake')}", ran="each row known from its commit", compared=compared)


AMOUNTS = st.sets(st.integers(0, 12), min_size=1, max_size=4)
CITIES = st.sampled_from(["x", "y z", None])
ROWS = st.lists(st.tuples(st.sampled_from(["ann", "ben"]), st.integers(0, 12), CITIES), min_size=1, max_size=4)
CHANGES = st.one_of(
    *(st.tuples(st.just(kind), ROWS) for kind in ("append", "merge", "overwrite", "overwrite_where", "widen", "create")),
    *(st.tuples(st.just(kind), AMOUNTS) for kind in ("delete", "rewrite")),
    st.tuples(st.just("update"), st.tuples(AMOUNTS, CITIES)),
    *(st.tuples(st.just(kind), st.none()) for kind in ("compact", "vacuum", "switch", "clean")),
    st.tuples(st.just("restore"), st.integers(0, 12)),
)  # fmt: skip


@settings(max_examples=draws(20), deadline=None)
@given(changes=st.lists(CHANGES, min_size=2, max_size=9), partitioned=st.booleans(), looks=st.sets(st.integers(0, 8)))
def test_any_changes(changes: list[tuple[str, Any]], partitioned: bool, looks: set[int]) -> None:
    """Rows that are equal in all columns among them; a store that looks before each vacuum, and now and then. What the table says is
    answered, and what it does not say is answered the same or refused."""
    with (
        tempfile.TemporaryDirectory() as folder,
        FeatureStore.local(clock=ManualClock(DAY + timedelta(days=1))) as store,
    ):
        table = Table(Path(folder, "t"), ["city"] if partitioned else [])

        def look() -> None:
            if not table.rows:
                return
            hours = list(range(table.hour + 1))
            may_refuse = nullcontext() if table.is_told else suppress(SourceError)
            with may_refuse:
                assert known(store, table.folder, hours) == table.expected(hours)

        for number, (kind, of) in enumerate(changes):
            if kind in {"vacuum", "clean", "create"} or not table.feed:
                look()
            table.do(kind, of)
            if number in looks:
                look()
        look()


def test_what_is_not_said_is_refused(store: FeatureStore, tmp_path: Path) -> None:
    """A change without the feed, once something is journalled; one of rows of which others are equal, which the feed does not tell apart."""
    folder = tmp_path / "silent"
    table = Table(folder, [])
    DeltaTable(folder).alter.set_table_properties({"delta.enableChangeDataFeed": "false"})
    table._changed()
    hours = list(range(5))
    assert known(store, folder, hours) == table.expected(hours)
    table.append(("ann", 7, "x"))
    table.compact()
    table.delete({7})
    with pytest.raises(
        SourceError, match=r"known_at=ARRIVAL: version \d+ \(DELETE\) of its table wrote rows anew, into"
    ):
        known(store, folder, hours)
    folder = tmp_path / "equal"
    table = Table(folder, [])
    table.append(("ann", 7, "x"), ("ann", 7, "x"), ("ben", 8, "x"))
    with FeatureStore.local(clock=ManualClock(DAY + timedelta(days=1))) as other:
        assert known(other, folder, hours) == table.expected(hours)
        (add,) = [one for one in actions(folder) if "add" in one]
        (folder / "_change_data").mkdir()
        gone = orders(("ann", 7, "x")).append_column("_change_type", pa.array(["delete"]))
        pq.write_table(gone, folder / "_change_data" / "c.parquet")
        said = {"path": "_change_data/c.parquet", "partitionValues": {}, "dataChange": False}
        written = added(folder, "n.parquet", orders(("ann", 7, "x"), ("ben", 8, "x")), None, partitionValues={})
        removed = {"path": add["add"]["path"], "deletionTimestamp": 1, "dataChange": True}
        size = (folder / "_change_data" / "c.parquet").stat().st_size
        commit(
            folder,
            2,
            {"remove": removed},
            written,
            {"cdc": {**said, "size": size}},
            {"commitInfo": {"operation": "MERGE"}},
        )
        committed(folder, 4)
        with pytest.raises(
            SourceError, match=r"version 2 \(MERGE\) .* makes 1 row, and there are 2: of rows that are equal"
        ):
            known(other, folder, hours)


@pytest.mark.parametrize(
    ("amounts", "said"),
    [
        # The feed names 1 and 4: of 2 and 3 it says nothing, since each is among the rows before and after.
        ([1, 2, 2, 3], "makes 4 rows, and those that there are differ from these"),
        # And 0 and twice 2: one of the rows of 1 became another row of 2, and one was made of 0.
        ([1, 1, 0], "makes 4 rows, and there are 3"),
        ([1, 2, 3], None),
    ],
)
def test_rows_that_an_update_makes_to_others_that_were_there(
    amounts: list[int], said: str | None, store: FeatureStore, tmp_path: Path
) -> None:
    """Of an update the feed leaves out what it wrote as others were: these keep their arrival, where as many are there as before."""
    folder, hours = tmp_path / "t", [0, 1, 2]
    write_deltalake(folder, orders(*[("ann", amount, None) for amount in amounts]), configuration=FEED)
    committed(folder, 0)
    assert known(store, folder, [0])[::2] == [(len(amounts), sum(amounts))]
    DeltaTable(folder).update({"amount": "amount + 1"}, predicate="amount < 5")
    committed(folder, 1)
    if said is None:
        assert known(store, folder, hours)[::2] == [(2, 5), (3, 9), (3, 9)]
        DeltaTable(folder).update({"city": "'x'"}, predicate="amount = 3")
        committed(folder, 2)
        assert known(store, folder, hours)[::2] == [(1, 2), (2, 6), (3, 9)]
    else:
        for _ in range(2):
            with pytest.raises(SourceError, match=rf"known_at=ARRIVAL: .* version 1 \(UPDATE\) .* {said}: of rows"):
                known(store, folder, hours)


def test_columns_that_are_no_features_are_compared_too(store: FeatureStore, tmp_path: Path) -> None:
    """Structs, with lists and maps in them: the library writes the texts of rows that it copies or changes as views."""
    folder, hours = tmp_path / "t", [0, 1, 2]
    of = pa.struct([("texts", pa.list_(pa.string())), ("map", pa.map_(pa.string(), pa.string()))])
    more = pa.array([{"texts": ["a", None], "map": [("k", "v")]}, {"texts": ["a"], "map": None}, None], of)
    for hour in (0, 1):
        rows = orders(*[("ann", amount + hour, None) for amount in (10, 20, 30)]).append_column("more", more)
        write_deltalake(folder, rows, mode="append", configuration=FEED)
        committed(folder, hour)
    DeltaTable(folder).delete("amount IN (10, 20, 31)")
    committed(folder, 2)
    assert known(store, folder, hours)[::2] == [(1, 30), (3, 62), (3, 62)]
    DeltaTable(folder).delete("amount = 11")
    committed(folder, 3)
    assert known(store, folder, hours)[::2] == [(1, 30), (2, 51), (2, 51)]


def actions(folder: Path) -> list[dict[str, Any]]:
    """Those of the newest version."""
    newest = max((folder / "_delta_log").glob("*.json"))
    return [json.loads(line) for line in newest.read_text().splitlines()]


@pytest.mark.parametrize("feed", [True, False])
def test_rows_that_are_overwritten_by_their_values(feed: bool, store: FeatureStore, tmp_path: Path) -> None:
    """What else lay in their files is no newer than it was: so the feed says, and without it nobody does."""
    folder, hours = tmp_path / "t", list(range(6))
    table = Table(folder, [])
    DeltaTable(folder).alter.set_table_properties({"delta.enableChangeDataFeed": str(feed).lower()})
    table._changed()
    table.append(("ann", 7, "x"), ("ben", 8, "x"))
    assert known(store, folder, hours) == table.expected(hours)
    write_deltalake(folder, orders(("ben", 7, "y")), mode="overwrite", predicate="amount = 7")
    table._after(lambda row: None if row[1] == 7 else row)
    table.rows.append((("ben", 7, "y"), table.hour))
    if feed:
        assert known(store, folder, hours) == table.expected(hours)
    else:
        with pytest.raises(SourceError, match=r"known_at=ARRIVAL: version \d+ \(WRITE\) of its table wrote rows anew"):
            known(store, folder, hours)


@pytest.mark.parametrize("feed", [True, False])
def test_a_partition_goes_or_is_overwritten(feed: bool, store: FeatureStore, tmp_path: Path) -> None:
    """With or without the feed the rows of the other partitions stay as they were, though one commit wrote files of several."""
    table = Table(tmp_path / "t", ["city"])
    table.append(("ann", 2, "x"), ("ann", 3, "y z"), ("ben", 4, "x"), ("ben", 5, "y z"), ("ben", 6, None))
    table.delete({2, 3, 6})
    hours = list(range(7))
    assert known(store, table.folder, hours) == table.expected(hours)
    DeltaTable(table.folder).alter.set_table_properties({"delta.enableChangeDataFeed": str(feed).lower()})
    table._changed()
    DeltaTable(table.folder).delete("city = 'x'")
    table._after(lambda row: None if row[2] == "x" else row)
    assert known(store, table.folder, hours) == table.expected(hours)
    write_deltalake(table.folder, orders(("ann", 9, "y z")), mode="overwrite", predicate="city = 'y z'")
    table._after(lambda row: None if row[2] == "y z" else row)
    table.rows.append((("ann", 9, "y z"), table.hour))
    assert known(store, table.folder, hours) == table.expected(hours)
    assert {row for row, _ in table.rows} == {("ann", 0, None), ("ann", 9, "y z")}


@pytest.mark.parametrize("feed", [True, False])
@pytest.mark.parametrize("partition_by", [[], ["city"]])
def test_a_commit_that_changes_no_row_is_no_arrival(
    partition_by: list[str], feed: bool, store: FeatureStore, tmp_path: Path
) -> None:
    """An update or a merge that writes rows as they were writes files anew and, where nothing is said of rows, need not be refused: the
    rows are compared, partition by partition, and once that was seen a vacuum takes nothing away."""
    table, hours = Table(tmp_path / "t", partition_by), list(range(12))
    table.append(("ann", 7, "x"), ("ann", 7, "x"), ("ben", 8, None))
    DeltaTable(table.folder).alter.set_table_properties({"delta.enableChangeDataFeed": str(feed).lower()})
    table._changed()
    assert known(store, table.folder, hours) == table.expected(hours)
    for predicate in ("amount = 7", "user = 'ben'"):
        DeltaTable(table.folder).update({"amount": "amount", "city": "city"}, predicate=predicate)
        table._changed()
    table.compact()
    same = orders(("ann", 7, "x"))
    merge = DeltaTable(table.folder).merge(same, predicate="t.amount = s.amount", source_alias="s", target_alias="t")
    merge.when_matched_update({"amount": "s.amount"}).execute()
    if feed:  # a merge says of rows that it wrote as they were that it changed them: they are new
        table._after(lambda row: (row[0], -row[1], row[2]) if row[1] == 7 else row)
        table.rows = [((row[0], abs(row[1]), row[2]), hour) for row, hour in table.rows]
    else:
        table._changed()
    assert known(store, table.folder, hours) == table.expected(hours)
    table.vacuum()
    with FeatureStore.local(clock=ManualClock(DAY + timedelta(days=1))) as other:  # which has no copies
        assert known(other, table.folder, [11]) == table.expected([11])
    assert known(store, table.folder, hours) == table.expected(hours)
    if feed:
        return
    DeltaTable(table.folder).update({"amount": "15 - amount"}, predicate="amount IN (7, 8)")
    table._changed()
    with pytest.raises(SourceError, match=r"known_at=ARRIVAL: version \d+ \(UPDATE\) of its table wrote rows anew"):
        known(store, table.folder, hours)


def test_rows_that_change_places_between_partitions_have_changed(store: FeatureStore, tmp_path: Path) -> None:
    """Files that have the same rows, and other partitions: a column that no file has is compared too."""
    folder = tmp_path / "t"
    table = Table(folder, ["city"])
    DeltaTable(folder).alter.set_table_properties({"delta.enableChangeDataFeed": "false"})
    table._changed()
    table.append(("ann", 7, "x"), ("ann", 7, "x"), ("ann", 7, "y z"))
    assert known(store, folder, [0, 1, 2, 3]) == table.expected([0, 1, 2, 3])
    DeltaTable(folder).update({"city": "CASE WHEN city = 'x' THEN 'y z' ELSE 'x' END"}, predicate="amount = 7")
    table._changed()
    with pytest.raises(SourceError, match=r"known_at=ARRIVAL: version \d+ \(UPDATE\) of its table wrote rows anew"):
        known(store, folder, [0])


@pytest.mark.parametrize("partition_by", [[], ["city"]])
def test_a_version_that_is_restored(partition_by: list[str], store: FeatureStore, tmp_path: Path) -> None:
    """Its rows came when they came, those of files that a commit had written anew among them."""
    table = Table(tmp_path / "t", partition_by)
    table.do("append", [("ann", 7, "x"), ("ann", 8, "x"), ("ben", 8, None)])
    table.do("delete", {8})
    table.do("update", ({7}, "x"))
    wanted = DeltaTable(table.folder).version()
    table.do("delete", {107})
    hours = list(range(8))
    assert known(store, table.folder, hours) == table.expected(hours)
    table.do("restore", wanted)
    assert ("ann", 107, "x") in {row for row, _ in table.rows}
    assert known(store, table.folder, hours) == table.expected(hours)
    table.do("append", [("ann", 9, "x")])
    table.do("delete", {0})
    assert known(store, table.folder, hours) == table.expected(hours)
    table.do("restore", 1)
    assert table.is_told
    assert known(store, table.folder, hours) == table.expected(hours)


def test_of_what_came_before_the_oldest_commit_no_arrival_is_made_up(store: FeatureStore, tmp_path: Path) -> None:
    """Whose log is cleaned up to a checkpoint: files that were seen stay known from when they came; of others none is guessed."""
    table, hours = Table(tmp_path / "t", []), list(range(9))
    table.do("append", [("ann", 7, "x")])
    assert known(store, table.folder, hours) == table.expected(hours)
    table.do("clean", None)
    table.do("append", [("ann", 8, "x")])
    assert known(store, table.folder, hours) == table.expected(hours)
    table.do("compact", None)
    assert known(store, table.folder, hours) == table.expected(hours)
    table.do("clean", None)
    says = r"known_at=ARRIVAL: version \d+ \(OPTIMIZE\) of its table wrote rows anew"
    with pytest.raises(SourceError, match=says):  # the version before it is not to be had
        known(store, table.folder, hours)
    table.do("append", [("ann", 9, "x")])
    table.do("clean", None)
    says = r"known_at=ARRIVAL: version \d+ \(WRITE\) is the oldest of its table that is known any more, and an earlier one wrote part-"
    with pytest.raises(SourceError, match=says):
        known(store, table.folder, hours)
    with FeatureStore.local(clock=ManualClock(DAY + timedelta(days=1))) as other:  # to which nothing was known before
        assert known(other, table.folder, [table.hour]) == table.expected([table.hour])


def test_a_table_that_is_made_again_in_the_same_place(store: FeatureStore, tmp_path: Path) -> None:
    table, hours = Table(tmp_path / "t", []), list(range(8))
    table.do("delete", {0})
    assert known(store, table.folder, hours) == table.expected(hours)
    table.do("create", [("ann", 7, "x"), ("ben", 8, None)])
    table.do("update", ({7}, None))
    assert known(store, table.folder, hours) == table.expected(hours)


def test_a_feed_that_is_switched_off_and_on_again(store: FeatureStore, tmp_path: Path) -> None:
    """What it says, before and after, is taken; a commit between that changed rows is refused for as long as the table has its files."""
    table, hours = Table(tmp_path / "t", ["city"]), list(range(12))
    table.do("append", [("ann", 7, "x"), ("ann", 8, "y z"), ("ben", 8, "y z")])
    for change in (("switch", None), ("append", [("ann", 9, "x")]), ("switch", None), ("delete", {9})):
        table.do(*change)
        assert known(store, table.folder, hours) == table.expected(hours)
    for change in (("switch", None), ("update", ({7}, "x")), ("switch", None)):
        table.do(*change)
    for _ in range(2):
        with pytest.raises(SourceError, match=r"known_at=ARRIVAL: version \d+ \(UPDATE\) of its table wrote rows anew"):
            known(store, table.folder, hours)
        table.do("delete", {8})
    table.do("overwrite", [("ann", 1, None)])
    assert known(store, table.folder, hours) == table.expected(hours)


def test_an_update_of_one_decimal_to_another_changes_rows(store: FeatureStore, tmp_path: Path) -> None:
    """Of wide ones, of which the engine's own hash takes -0.01 for 0.00."""
    price = pa.array([Decimal("0.00")], pa.decimal128(20, 2))
    write_deltalake(tmp_path / "t", orders(("ann", 1, None)).append_column("price", price))
    committed(tmp_path / "t", 0)
    DeltaTable(tmp_path / "t").update({"price": "CAST(-0.01 AS DECIMAL(20, 2))"})
    committed(tmp_path / "t", 2)
    view = FeatureView("rows", entity=USER, source=source(tmp_path / "t"), refresh="continuous", features=["price"])
    at = [DAY + timedelta(hours=hour) for hour in (1, 2)]
    found = store.get_historical_features(pa.table({"user": ["ann"] * 2, "event_timestamp": at}), [view]).to_arrow()
    assert found["rows__price"].to_pylist() == [None, Decimal("-0.01")]

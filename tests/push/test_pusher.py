"""One pusher, step by step: what it leaves online and in the log, what the next one finds of one that died, and what it refuses."""

from __future__ import annotations

import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featurestore import FeatureService, FeatureStore, Latest, PushSource
from featurestore.clock import instant_of
from featurestore.errors import (
    LogBusyError,
    LogError,
    NotMaterializedError,
    OnlineStoreError,
    OnlineUnavailableError,
    PushError,
)
from featurestore.online.source_state import BEFORE, NEVER, SourceState, state_key
from featurestore.online.value_checksums import MARK
from featurestore.online.view_codec import pack_watermark, source_prefix
from featurestore.push import push_queue
from featurestore.push.deduplicate import IDENTITY
from featurestore.push.pusher import Pusher, TakenBack
from featurestore.sources.log import FileLog
from featurestore.sources.log.returns import Return
from tests.pushing import DyingStore, Killed, kept, put_back
from tests.small import NOON, raised
from tests.test_online_returns import Meddled, pusher_over
from tests.test_push import SCHEMA, SWIPES, logged, opened, push_together, row, served, view_over

FIRST = instant_of(NOON)
SECOND, WEEK = 1_000_000, 7 * 86_400_000_000  # the tolerance and the lateness, which are the usual ones
US = timedelta(microseconds=1)
PLAIN = {"last": Latest("x")}


def own(store: FeatureStore) -> Pusher:
    return store._project.pushing._pusher("swipes")


def state(store: FeatureStore) -> SourceState:
    return SourceState.unpack(store.online.get([state_key(store.config.project, SWIPES)]).values[0])


def write_state(store: FeatureStore, data: bytes | None) -> None:
    store.online.write({state_key(store.config.project, SWIPES): data})


def known(store: FeatureStore, part: str = "rows") -> list[int]:
    return [each["known_at"] for each in logged(store, part=part)]


def identities(store: FeatureStore) -> int:
    prefix = source_prefix(store.config.project, "swipes") + IDENTITY
    return sum(map(len, store.online.scan(prefix)))


def dying(store: FeatureStore, rows: Any, *, writes: int) -> None:
    """A push by a process that dies before its nth write online."""
    with pytest.raises(Killed):
        pusher_over(store, DyingStore(store.online, writes)).push("swipes", rows)


# --- one batch ----------------------------------------------------------------------------------------------------


def test_rows_are_known_one_after_the_other_after_all_that_was_said() -> None:
    """After the clock, and after the last row; the state says so, and when all of them had happened."""
    with opened(view_over()) as (store, clock):
        assert own(store).push([row(1), row(2), row(3)]) == (3, 0, 0)
        assert known(store) == [FIRST + 1, FIRST + 2, FIRST + 3]
        assert state(store) == SourceState(FIRST + 3, None, FIRST + 3, FIRST + 3)
        assert own(store).submit([row(4)]).result() == (1, 0, 0)
        assert known(store)[3:] == [FIRST + 4]
        clock.advance(timedelta(seconds=1))
        ahead = clock() + timedelta(milliseconds=500)
        now = instant_of(clock())
        own(store).push([row(5, at=ahead), row(6), row(7)])
        assert known(store)[4:] == [now + 1, now + 2, now + 3]
        assert state(store) == SourceState(instant_of(ahead), None, instant_of(ahead), now + 3)
        assert clock() == ahead
        own(store).push([{"id": number, "gone": True} for number in (1, 2)])
        assert state(store).applied == state(store).last == instant_of(ahead) + 2


def test_rows_are_known_after_what_was_answered_for() -> None:
    """Also where nothing online says so any more, as with a clock that is behind."""
    with opened(view_over()) as (store, clock):
        own(store).push(row(1))
        log = store.offline.log(SWIPES)
        with log.lock():
            log.confirm(served=FIRST + 70)
        own(store).push(row(2))
        with log.lock():
            log.confirm(written=FIRST + 90)
        own(store).push(row(3))
        assert known(store) == [FIRST + 1, FIRST + 71, FIRST + 91]
        clock.set(NOON)
        own(store).push(row(4))
        assert known(store)[3:] == [FIRST + 92]


def test_the_clock_that_rows_are_held_against_never_goes_back() -> None:
    """A row that has happened by what was applied is not ahead, whatever the clock says by now."""
    with opened(view_over()) as (store, clock):
        clock.advance(timedelta(hours=1))
        own(store).push(row(1))
        clock.set(NOON)
        assert own(store).push(row(2, at=NOON + timedelta(hours=1))) == (1, 0, 0)


def test_late_rows_are_numbered_on_their_own() -> None:
    with opened(view_over()) as (store, clock):
        late = NOON - timedelta(days=8)
        assert own(store).push([row(1, at=late), row(2, at=late)]) == (0, 0, 2)
        assert own(store).push(row(3, at=late)) == (0, 0, 1)
        clock.advance(timedelta(hours=1))
        own(store).push(row(4, at=late))
        assert known(store, "late") == [FIRST, FIRST + 1, FIRST + 2, instant_of(clock())]
        assert known(store) == []


def test_a_view_that_was_never_filled_is_not_made_complete_by_a_push() -> None:
    """Only before the first row is there nothing to fill it with."""
    with opened(view_over(features=PLAIN)) as (store, _):
        own(store).push(row(1))
        beside = view_over(name="beside", features=PLAIN)
        store.apply([view_over(features=PLAIN), beside, FeatureService("beside", features=[beside])])
        own(store).push(row(2))
        with pytest.raises(NotMaterializedError):
            store.get_online_features({"thing": 1}, "beside")
        store.materialize(progress=False)
        assert served(store, 1, service="beside")["beside__last"] == [1.0]


def test_a_pusher_that_died_after_it_made_empty_views_complete() -> None:
    with opened(view_over(features=PLAIN)) as (store, clock):
        clock.advance(timedelta(hours=1))
        dying(store, row(1), writes=1)
        assert state(store) == SourceState(NEVER, None, instant_of(clock()), None)
        assert store.get_online_features({"thing": 1}, "service").as_of == {"view": clock()}


@pytest.mark.parametrize("wrong", [[0], [6], [3, 5], [12], [0, 12]])
def test_the_first_row_for_which_an_expression_fails_is_named(wrong: list[int]) -> None:
    source = SWIPES.model_copy(update={"derived": {"number": "CAST(note AS INTEGER)"}})
    with opened(view_over(source, features={"last": Latest("number")})) as (store, _):
        rows = [row(n, note="none" if n in wrong else str(n)) for n in range(13)]
        assert f"row {wrong[0]}: " in (said := raised(PushError, lambda: own(store).push(rows)))
        assert "Could not convert string 'none' to INT32" in said
        assert logged(store) == []
        assert state(store).reserved is None
        answers = push_together(
            store, [[row(1, note="1")], [row(2, note="2"), row(3, note="c")], [row(4, note="d")], [row(5, note="5")]]
        )
        assert [str(each)[-3:] if isinstance(each, PushError) else each for each in answers][::3] == [
            (1, 0, 0),
            (1, 0, 0),
        ]
        assert "row 1: " in str(answers[1])
        assert "row 0: " in str(answers[2])
        assert [each["id"] for each in logged(store)] == [1, 5]


def test_each_is_told_of_its_own_rows_without_a_key() -> None:
    """Of those that are new, and of no others."""
    with opened(view_over()) as (store, _):
        own(store).push([row(1, None)])
        pushes = [[row(3, None), row(2)], [row(4)], [row(1, None), row(5, None), row(6, None)], [row(7)]]
        answers = push_together(store, pushes)
        assert [each.without_key for each in answers] == [1, 0, 2, 0]
        assert own(store).push([row(1, None)]).without_key == 0
        assert own(store).push([row(8)]).without_key == 0


def test_times_without_a_zone_are_told_to_who_sent_them() -> None:
    with opened(view_over()) as (store, _):
        answers = push_together(store, [[row(1)], [row(2, at=NOON.replace(tzinfo=None))]])
        assert [each.naive for each in answers] == [(), ("at",)]


def test_a_batch_that_fails_fails_nobody_who_waits_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless it waited for the log in vain, which all others did as long."""
    monkeypatch.setattr(push_queue, "BATCH_ROWS", 1)
    with opened(view_over()) as (store, _):
        own(store).push(row(0))
        append, failures = FileLog.append, [LogError("The disk is full.")]

        def failing(log: FileLog, batches: Any, *moves: Any) -> None:
            if failures:
                raise failures.pop()
            append(log, batches, *moves)

        with monkeypatch.context() as patch:
            patch.setattr(FileLog, "append", failing)
            with own(store).alone():
                answers = [own(store).submit(row(number)) for number in (1, 2)]
            with pytest.raises(LogError, match="The disk is full"):
                answers[0].result()
            assert answers[1].result() == (1, 0, 0)
        lock, busy = FileLog.lock, [LogBusyError("Somebody holds it.")]

        def held(log: FileLog, doing: str = "") -> Any:
            if busy and doing == "pushing rows":
                raise busy.pop()
            return lock(log, doing)

        with own(store).alone():
            answers = [own(store).submit(row(number)) for number in (3, 4)]
            monkeypatch.setattr(FileLog, "lock", held)
        for answer in answers:
            with pytest.raises(LogBusyError, match="Somebody holds it"):
                answer.result()
        assert [each["id"] for each in logged(store)] == [0, 2]


def test_columns_that_were_changed_are_no_longer_this_logs() -> None:
    with opened(view_over(features=PLAIN)) as (store, _):
        own(store).push(row(1))
        wider = PushSource(
            "swipes", schema={**SCHEMA, "more": SCHEMA["x"]}, event_time="at", identity="id", deleted="gone"
        )
        pusher = own(store)
        pusher._applied = lambda applied=pusher._applied: applied()._replace(source=wider)  # type: ignore[misc]  # mypy infers no type of a lambda with defaults
        assert "its columns were changed" in raised(PushError, lambda: pusher.push(row(2)))


# --- what is confirmed --------------------------------------------------------------------------------------------


def test_what_was_confirmed_long_enough_ago_is_confirmed_anew() -> None:
    with opened(view_over()) as (store, clock):
        own(store).confirm(older=1_000)
        assert state(store) == SourceState(NEVER, None, FIRST, None)
        own(store).push(row(1))
        clock.advance(timedelta(microseconds=999))
        own(store).confirm(older=1_000)
        assert state(store).confirmed == FIRST + 1
        clock.advance(US)
        own(store).confirm(older=1_000)
        assert state(store) == SourceState(FIRST + 1, None, FIRST + 1_001, FIRST + 1)
        clock.set(NOON)
        own(store).confirm(older=-WEEK)
        assert state(store).confirmed == FIRST + 1_001


def test_nothing_is_confirmed_while_somebody_works_on_the_log() -> None:
    """In this process or in another; nobody waits for him."""
    with opened(view_over()) as (store, clock):
        own(store).push(row(1))
        clock.advance(timedelta(seconds=1))
        confirming = threading.Thread(target=own(store).confirm, kwargs={"older": 0}, daemon=True)
        with own(store)._batch_lock:
            confirming.start()
            confirming.join(600)
            assert not confirming.is_alive()
        with store.offline.log(SWIPES).lock():
            own(store).confirm(older=0)
        assert state(store).confirmed == FIRST + 1
        own(store).confirm(older=0)
        assert state(store).confirmed == instant_of(clock())


# --- who died -----------------------------------------------------------------------------------------------------


def test_rows_of_a_dead_pusher_are_applied_and_the_store_did_not_come_back() -> None:
    """They are in the log, and what he had reserved is given up."""
    with opened(view_over()) as (store, clock):
        own(store).push(row(0))
        ahead = NOON + timedelta(milliseconds=500)
        dying(store, [row(1, at=ahead), row(2), row(3)], writes=1)
        assert state(store) == SourceState(FIRST + 1, FIRST + 2, FIRST + 1, FIRST + 1)
        own(store).repair()
        assert state(store) == SourceState(instant_of(ahead), None, instant_of(ahead), FIRST + 4)
        assert clock() == ahead
        assert store.offline.log(SWIPES).returns() == []
        assert served(store, 1)["view__count"] == [4]
        assert own(store).push([row(1, at=ahead), row(2), row(3)]) == (0, 3, 0)


def test_a_reservation_without_rows_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first that there ever was, and any other."""

    def dead(*_: Any) -> None:
        raise Killed

    with opened(view_over()) as (store, clock):
        for number in (1, 2):
            with monkeypatch.context() as patch:
                patch.setattr(FileLog, "append", dead)
                with pytest.raises(Killed):
                    pusher_over(store, store.online).push("swipes", row(number))
            before = state(store)
            assert before.reserved == before.confirmed + 1
            own(store).repair()
            assert state(store) == before._replace(reserved=None, confirmed=instant_of(clock()))
            assert own(store).push(row(number)) == (1, 0, 0)
        assert served(store, 1)["view__count"] == [2]


def test_a_store_that_came_back_older_is_noted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many pieces it lacks; and a view version that it brought back, which is applied no more, is taken away."""
    monkeypatch.setattr("featurestore.push.apply_log.missing_rows.__kwdefaults__", {"least": 1})
    with opened(view_over()) as (store, clock):
        mark = b"a version that is no more"
        own(store)._applied = lambda applied=own(store)._applied: applied()._replace(gone=lambda: [mark, b"none"])  # type: ignore[misc]  # mypy infers no type of a lambda with defaults
        store.online.write({mark: pack_watermark([FIRST])})
        own(store).push(row(1))
        own(store).repair()
        assert store.online.get([mark]).values != [None], "nothing came back, so nothing is looked for"
        before, complete = {**kept(store), mark: pack_watermark([FIRST])}, state(store).complete
        for number in (2, 3, 4):
            clock.advance(timedelta(seconds=1))
            own(store).push(row(number))
        put_back(store, before)
        own(store).repair()
        assert store.offline.log(SWIPES).returns() == [Return(complete, instant_of(clock()))]
        assert store.online.get([mark]).values == [None]
        assert served(store, 1)["view__count"] == [4]


def test_a_store_that_came_back_from_before_its_view_was_filled_is_noted() -> None:
    """And what came since is known again, so that it changes nothing when it is pushed again."""
    with opened(view_over()) as (store, clock):
        own(store).push(row(1))
        mark = own(store)._state.codec(store._project.registry.current().view("view")).watermark_key
        before, complete = {key: held for key, held in kept(store).items() if key != mark}, state(store).complete
        clock.advance(timedelta(seconds=1))
        own(store).push(row(2))
        put_back(store, before)
        own(store).repair()
        assert store.offline.log(SWIPES).returns() == [Return(complete, instant_of(clock()))]
        assert own(store).push([row(1), row(2)]) == (0, 2, 0)


def test_a_state_of_the_first_format_says_which_rows_it_has_by_what_is_applied() -> None:
    """All of the log, or all but what a dead pusher left."""
    with opened(view_over()) as (store, _):
        write_state(store, BEFORE.pack(1, FIRST, NEVER))
        own(store).repair()
        assert state(store).last is None
        write_state(store, None)
        own(store).push([row(1), row(2)])
        write_state(store, BEFORE.pack(1, FIRST + 2, NEVER))
        own(store).repair()
        assert state(store).last == FIRST + 2
        assert served(store, 1)["view__count"] == [2]
        dying(store, row(3), writes=1)
        write_state(store, BEFORE.pack(1, FIRST + 2, FIRST + 3))
        own(store).repair()
        assert state(store).last == FIRST + 3
        assert served(store, 1)["view__count"] == [3]


def test_records_that_have_rows_which_the_log_has_not() -> None:
    with opened(view_over()) as (store, _):
        write_state(store, SourceState(FIRST, None, FIRST, FIRST).pack())
        assert "is empty: it was filled from another log" in raised(OnlineStoreError, own(store).repair)
        write_state(store, None)
        own(store).push(row(1))
        ahead = state(store)._replace(last=FIRST + 2)
        write_state(store, ahead.pack())
        said = raised(OnlineStoreError, own(store).repair)
        assert "rows up to known_at 2024-05-01T12:00:00.000002+00:00" in said
        assert "ends at 2024-05-01T12:00:00.000001+00:00: it was filled from another log" in said


def test_a_state_that_another_pusher_wrote_is_told_apart_from_one_that_is_older() -> None:
    with opened(view_over()) as (store, _):
        own(store).push(row(1))
        other = state(store)._replace(reserved=FIRST + 9).pack()
        writes = iter([other, state(store)._replace(reserved=FIRST + 8).pack()])
        meddled = Meddled(store.online, dict.fromkeys((1, 3), lambda: write_state(store, next(writes))))
        assert "another pusher changed its state" in raised(
            OnlineStoreError, lambda: pusher_over(store, meddled).push("swipes", row(2))
        )
        emptied = Meddled(store.online, dict.fromkeys((1, 3), lambda: write_state(store, None)))
        with pytest.raises(OnlineUnavailableError, match="was emptied, or came back older"):
            pusher_over(store, emptied).push("swipes", row(3))
        own(store).repair()
        before = [state(store)._replace(applied=FIRST - by, confirmed=FIRST - by).pack() for by in (8, 9)]
        older = Meddled(store.online, dict.fromkeys((1, 2), lambda: write_state(store, before.pop(0))))
        with pytest.raises(OnlineUnavailableError, match="was emptied, or came back older"):
            pusher_over(store, older).push("swipes", row(3))


# --- after the online store was emptied ---------------------------------------------------------------------------


def test_rows_that_can_be_pushed_again_are_known_again_in_an_emptied_store() -> None:
    """However old they are, as they were before; and the last of them had happened by what is applied."""
    with opened(view_over()) as (store, clock):
        ahead = NOON + timedelta(milliseconds=500)
        own(store).push([row(1), row(2, at=ahead), row(3)])
        clock.advance(timedelta(days=8))
        put_back(store, {})
        own(store).repair()
        assert identities(store) == 3
        assert state(store) == SourceState(instant_of(ahead), None, instant_of(clock()), FIRST + 3)
        assert own(store).push([row(1), row(2, at=ahead)]) == (0, 2, 0)


@pytest.mark.parametrize("beyond", [0, 1])
def test_rows_of_long_before_the_last_are_not(beyond: int) -> None:
    """Segment by segment; what was known longer before the last row than lateness and tolerance cannot be pushed again."""
    with opened(view_over()) as (store, clock):
        own(store).push(row(1, at=NOON + timedelta(seconds=1)))
        store.offline.log(SWIPES).compact(everything=True, grace=0)
        clock.set(NOON + timedelta(microseconds=WEEK + SECOND - 1 + beyond))
        own(store).push(row(2, at=clock()))
        assert known(store) == [FIRST + 1, FIRST + WEEK + SECOND + beyond]
        put_back(store, {})
        own(store).repair()
        assert identities(store) == 2 - beyond
        assert state(store).last == known(store)[1]


def test_rows_that_were_forgotten_are_not_known_again() -> None:
    """Nothing is left of what they were."""
    with opened(view_over()) as (store, _):
        own(store).push([row(1), row(2, thing=2)])
        store.offline.log(SWIPES).erase(pa.array([FIRST + 1]), kept=())
        put_back(store, {})
        own(store).repair()
        assert identities(store) == 1


# --- forgetting ---------------------------------------------------------------------------------------------------


def test_what_is_known_of_rows_is_forgotten_when_they_are_older_than_the_lateness() -> None:
    with opened(view_over()) as (store, clock):
        assert own(store).forget() == 0
        own(store).push([row(1), row(2), row(3, at=NOON + US)])
        clock.set(NOON + timedelta(days=7))
        assert (own(store).forget(), identities(store)) == (0, 3)
        clock.advance(US)
        assert (own(store).forget(), identities(store)) == (2, 1)
        assert own(store).push([row(3, at=NOON + US)]) == (0, 1, 0)


def test_a_key_that_is_forgotten_has_what_was_pushed_since() -> None:
    """In every version that is filled; the number is that of the records that there were, damaged ones too."""
    whole, beside = view_over(), view_over(name="beside", features=PLAIN)
    with opened(whole) as (store, clock):
        own(store).push([row(1), row(2, thing=2), row(3, thing=3)])
        store.apply(
            [whole, beside, FeatureService("service", features=[whole]), FeatureService("beside", features=[beside])]
        )
        filled, empty = (store._project.registry.current().view(name) for name in ("view", "beside"))
        place = own(store)._state.codec(filled).key((2,))
        environment = store.online._environment  # type: ignore[attr-defined]  # of an LMDB store
        with environment.env.begin(write=True) as transaction:
            transaction.put(place, MARK + b"not what was written", db=environment.keys)
        store.offline.log(SWIPES).erase(pa.array([FIRST + 2]), kept=())
        clock.advance(timedelta(seconds=1))
        now, before = instant_of(clock()), sum(map(len, store.online.scan(b"")))
        found = own(store).forget_keys([(filled, [(1,), (2,), (9,)]), (empty, [(1,)])], at=FIRST)
        assert found == 2
        assert served(store, 1, 2, 3)["view__count"] == [1, None, 1]
        assert state(store) == SourceState(now, None, now, FIRST + 3)
        assert sum(map(len, store.online.scan(b""))) == before - 1
        assert store.offline.log(SWIPES).confirmed().served == now
        assert own(store).forget_keys([(filled, [])], at=now + 7) == 0
        assert store.offline.log(SWIPES).confirmed().served == now + 7


def test_forgetting_a_key_of_a_source_that_nothing_was_pushed_to_leaves_nothing() -> None:
    with opened(view_over()) as (store, _):
        filled = store._project.registry.current().view("view")
        before = kept(store)
        assert own(store).forget_keys([(filled, [(1,)])], at=FIRST) == 0
        assert kept(store) == before
        assert store.offline.log(SWIPES).confirmed().served == NEVER


def test_versions_that_are_forgotten_are_new_when_they_are_pushed_again() -> None:
    """With the last version of a row all of it is forgotten; before that, only what was erased."""
    with opened(view_over()) as (store, _):
        first, second = row(1, x=1.0), row(1, x=2.0)
        own(store).push([first, second, row(2), row(3)])
        log = store.offline.log(SWIPES).read()
        with own(store)._batch_lock:
            own(store).forget_rows(log.slice(0, 0))  # waits for nobody
        own(store).forget_rows(log.slice(0, 1))
        assert own(store).push([second, row(2), row(3)]) == (0, 3, 0)
        assert own(store).push([first]) == (1, 0, 0)
        own(store).forget_rows(log.slice(2, 1))
        assert identities(store) == 2
        own(store).forget_rows(log.slice(2, 1))
        assert own(store).push([row(2), row(3)]) == (1, 1, 0)


def test_without_an_identity_nothing_is_known_that_could_be_forgotten() -> None:
    source = PushSource("bare", schema=SWIPES.columns, event_time="at")
    with opened(view_over(source)) as (store, _):
        pusher = store._project.pushing._pusher("bare")
        pusher.push([row(1)])
        with pusher._batch_lock:
            pusher.forget_rows(store.offline.log(source).read())


# --- filling, and taking back -------------------------------------------------------------------------------------


def test_a_version_is_filled_in_batches_and_true_of_one_instant() -> None:
    """Records of keys that have no row any more go; what is confirmed goes on meanwhile."""
    with opened(view_over(features=PLAIN)) as (store, clock):
        own(store).push([row(n, thing=n) for n in range(5)])
        version = store._project.registry.current().view("view")
        left = own(store)._state.codec(version).key((9,))
        store.online.write({left: b"of one that is gone"})
        clock.advance(timedelta(seconds=1))
        upto, published = instant_of(clock()), list[int]()
        meddled = Meddled(store.online, {2: lambda: clock.advance(timedelta(seconds=1))})

        def publish(instant: int) -> dict[bytes, bytes | None]:
            published.append(instant)
            return {b"published": b"now"}

        assert pusher_over(store, meddled)._pusher("swipes").fill(version, publish, batch=2) == 5
        assert (published, meddled.writes) == ([upto], 5)
        assert state(store) == SourceState(upto, None, upto + SECOND, FIRST + 5)
        assert store.online.get([left, b"published"]).values == [None, b"now"]
        assert served(store, *range(5))["view__last"] == [1.0] * 5


def test_rows_are_taken_back_only_where_something_is_further_ahead_than_is_waited_for(tmp_path: Path) -> None:
    """Exactly so far is not further: then nothing is touched."""
    with opened(view_over()) as (store, clock):
        clock.advance(timedelta(hours=1))
        own(store).push([row(1), row(2)])
        before, last = kept(store), known(store)[-1]

        def take_back(ahead: int) -> TakenBack:
            return own(store).take_back(lambda now: tmp_path / f"{now}.parquet", ahead=ahead)

        assert take_back(0) == (0, None)
        assert take_back(1_000) == (0, None)
        clock.set(NOON)
        assert take_back(last - FIRST) == (0, None)
        assert kept(store) == before
        taken = take_back(last - FIRST - 1)
        assert taken == (2, tmp_path / f"{FIRST}.parquet")
        assert pq.read_table(taken.file)["id"].to_pylist() == [1, 2]
        assert known(store) == []
        assert state(store) == SourceState()
        assert identities(store) == 0
        assert take_back(0) == (0, None)


def test_rows_of_a_dead_pusher_that_are_ahead_are_taken_back(tmp_path: Path) -> None:
    """By what the log has, where nothing else says so."""
    with opened(view_over()) as (store, clock):
        clock.advance(timedelta(hours=1))
        dying(store, [row(1), row(2)], writes=2)
        reserved = state(store).reserved
        assert reserved is not None
        clock.set(NOON)
        taken = own(store).take_back(lambda now: tmp_path / f"{now}.parquet", ahead=reserved - 1 - FIRST)
        assert taken.rows == 2


def test_taking_back_beside_another_pusher_that_changes_the_state(tmp_path: Path) -> None:
    with opened(view_over()) as (store, clock):
        own(store).push(row(1))
        clock.set(NOON - timedelta(hours=1))
        other = state(store)._replace(reserved=FIRST + 9).pack()
        pusher = pusher_over(store, Meddled(store.online, {1: lambda: write_state(store, other)}))._pusher("swipes")
        said = raised(OnlineStoreError, lambda: pusher.take_back(lambda _: tmp_path / "taken.parquet", ahead=0))
        assert "another pusher changed its state" in said


# --- what the store holds is not what was written -----------------------------------------------------------------


def damage(store: FeatureStore, key: bytes) -> None:
    environment = store.online._environment  # type: ignore[attr-defined]  # of an LMDB store
    with environment.env.begin(write=True) as transaction:
        transaction.put(key, MARK + b"not what was written", db=environment.keys)


def test_a_damaged_record_is_folded_anew_by_the_next_push_to_its_key() -> None:
    """A batch that was logged could not be applied else, and nothing more could be pushed."""
    with opened(view_over()) as (store, clock):
        own(store).push([row(1, x=2.0), row(2, thing=2)])
        place = own(store)._state.codec(store._project.registry.current().view("view")).key((1,))
        damage(store, place)
        assert own(store).push([row(3, x=5.0), row(4, thing=3)]) == (2, 0, 0)
        assert served(store, 1, 2, 3)["view__total"] == [7.0, 1.0, 1.0]
        damage(store, place)
        clock.advance(timedelta(seconds=1))
        assert own(store).push(row(1, x=3.0)) == (1, 0, 0)
        assert served(store, 1)["view__total"] == [8.0]


@pytest.mark.parametrize("what", ["watermark", "state", "identity"])
def test_a_full_run_goes_on_from_what_is_damaged(what: str) -> None:
    """Of a source: the ordinary run says so, and what was pushed before is known again and changes nothing."""
    with opened(view_over(), view_over(name="beside", features=PLAIN)) as (store, clock):
        pushed = [row(1, x=2.0), row(2, thing=2), row(3, x=5.0)]
        own(store).push(pushed)
        before = served(store, 1, 2, 3)
        current = store._project.registry.current()
        prefix = source_prefix(store.config.project, "swipes") + IDENTITY
        keys = {
            "watermark": own(store)._state.codec(current.view("view")).watermark_key,
            "state": state_key(store.config.project, SWIPES),
            "identity": min(key for keys in store.online.scan(prefix) for key in keys),
        }
        damage(store, keys[what])
        said = raised(OnlineStoreError, lambda: own(store).push(pushed))
        assert "materialize --full" in said
        if what != "identity":
            assert said.startswith(raised(OnlineStoreError, lambda: store.materialize(progress=False)))
        assert {run.view for run in store.materialize(full=True, progress=False)} == {"view", "beside"}
        assert own(store).push(pushed) == (0, 3, 0)
        assert served(store, 1, 2, 3) == before
        clock.advance(timedelta(seconds=1))
        assert own(store).push(row(1, x=1.0)) == (1, 0, 0)
        assert served(store, 1, 2)["view__total"] == [6.0, 1.0]

"""What a Redis store does when a write's reply is lost, in every order of events."""

from __future__ import annotations

import threading
from contextlib import closing
from typing import Any

import pytest
import redis

from featurestore.errors import OnlineUnavailableError
from featurestore.online import Guard, open_online
from featurestore.online.redis import RedisStore
from featurestore.online.redis_server import UnansweredError
from featurestore.online.timed_connection import Deadline
from tests.servers import Front, patient

ONCE = "timeout=60&retries=1"


def test_a_batch_whose_reply_was_lost(redis_url: str) -> None:
    """The caller learns that it may have been applied; what was lost before the batch is simply sent again."""
    port = int(redis_url.rsplit(":", 1)[1].split("/", maxsplit=1)[0])
    with (
        redis.Redis.from_url(redis_url) as client,
        Front(port) as front,
        closing(open_online(f"redis://127.0.0.1:{front.port}?{ONCE}")) as store,
    ):
        client.flushall()
        store.write({b"g": b"0"})
        for batch, guard in [
            ({b"free": b"1"}, None),
            ({b"beside": b"1"}, Guard(b"g", b"0")),
            ({b"g": b"0", b"same": b"1"}, Guard(b"g", b"0")),
            ({b"g": b"1", b"changed": b"1"}, Guard(b"g", b"0")),
        ]:
            front.hang_up_after = b"EXEC"
            with pytest.raises(OnlineUnavailableError, match="may or may not have been applied") as caught:
                store.write(batch, guard=guard)
            assert caught.value.retry is True
            assert store.get(list(batch)).values == list(batch.values())
        front.hang_up_after = b"WATCH"
        assert store.write({b"g": b"2"}, guard=Guard(b"g", b"1")) is True
        front.hang_up_after = b"MGET"
        assert store.get([b"g"]).values == [b"2"]


class Scripted(RedisStore):
    """A store whose attempts at a write end as a script says, so that every order of events is tried."""

    def __init__(self, url: str, script: list[str]) -> None:
        super().__init__(url)
        self.script = script

    def _write_once(self, batch: bytes, replies: int, guard: Guard | None, deadline: Deadline, **words: Any) -> bool:
        event = self.script.pop(0)
        if event == "applied, unanswered":
            assert super()._write_once(batch, replies, guard, deadline, **words)
        if event.endswith("unanswered"):
            raise UnansweredError(redis.ConnectionError("gone"))
        if event == "not sent":
            raise redis.ConnectionError("gone")
        return super()._write_once(batch, replies, guard, deadline, **words)


@pytest.mark.parametrize(
    ("script", "changes_guard", "outcome"),
    [
        (["not sent", "sent"], True, True),
        (["not sent", "sent"], False, True),
        (["not sent", "not sent", "not sent"], True, "cannot be reached"),
        (["lost, unanswered", "sent"], True, True),
        (["lost, unanswered", "sent"], False, "may or may not"),
        (["applied, unanswered", "sent"], True, "may or may not"),
        (["applied, unanswered"], False, "may or may not"),
        (["lost, unanswered", "not sent", "not sent"], True, "may or may not"),
        (["not sent", "lost, unanswered", "sent"], True, True),
    ],
)
def test_what_is_sent_again(redis_url: str, script: list[str], changes_guard: bool, outcome: bool | str) -> None:
    """A batch that surely did not arrive is sent again; one that may have only if its guard key changes with it."""
    with redis.Redis.from_url(redis_url) as client, closing(Scripted(patient(redis_url), list(script))) as store:
        client.flushall()
        batch = {b"g" if changes_guard else b"h": b"1"}
        if outcome is True:
            assert store.write(batch, guard=Guard(b"g", None)) is True
            assert store.get(list(batch)).values == [b"1"]
        else:
            with pytest.raises(OnlineUnavailableError, match=str(outcome)):
                store.write(batch, guard=Guard(b"g", None))
        if changes_guard and outcome is not True:
            store.script = ["sent"]
            assert store.write({}, guard=Guard(b"g", b"1")) is (script[0] == "applied, unanswered")


def test_a_guard_key_that_is_rewritten_with_its_own_value_still_holds(redis_url: str) -> None:
    """Between the look at a guard and the batch somebody puts the same value again: the batch is applied."""
    with redis.Redis.from_url(redis_url) as client, closing(open_online(patient(redis_url))) as store:
        client.set("g", "1")
        stop = threading.Event()

        def rewrite() -> None:
            with redis.Redis.from_url(redis_url) as other:
                while not stop.is_set():
                    other.set("g", "1")

        thread = threading.Thread(target=rewrite)
        thread.start()
        try:
            assert all(store.write({b"x": b"%d" % turn}, guard=Guard(b"g", b"1")) for turn in range(100))
        finally:
            stop.set()
            thread.join()

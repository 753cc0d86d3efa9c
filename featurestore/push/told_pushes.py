"""Pushes as callers make them: each is in the trail of activity once it is kept, also where the caller gave up waiting."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

from featurestore.declare.problems import shown
from featurestore.errors import OnlineUnavailableError, RequestError
from featurestore.push.current_rows import CurrentRows
from featurestore.push.push_queue import PushAnswer
from featurestore.push.push_sources import Pushing
from featurestore.push.pushed import Pushed
from featurestore.registry.activity import PushTrail


class ToldPushes:
    """Pushes to the sources of a project. pushing: the pushers, opened when they are first needed. trail: what tells who pushed."""

    def __init__(self, pushing: Callable[[], Pushing], trail: PushTrail) -> None:
        self._pushing, self._trail = pushing, trail

    def push(
        self, source: str, rows: Any, *, json: bool, who: str | None, request_id: str | None, within_seconds: float
    ) -> Pushed:
        """Push and wait; see `FeatureStore.push`."""
        answer = self._pushing().submit(source, rows, json=json)
        with self._told_later(answer, source, who, request_id):
            pushed = answer.within(within_seconds)
        return self.told(source, pushed, who, request_id)

    async def apush(
        self, source: str, rows: Any, *, json: bool, who: str | None, request_id: str | None, within_seconds: float
    ) -> Pushed:
        """`push` for coroutines."""
        answer = await self._pushing().asubmit(source, rows, json=json)
        with self._told_later(answer, source, who, request_id):
            pushed = await answer.awaited(within_seconds)
        return self.told(source, pushed, who, request_id)

    def submit(
        self,
        source: str,
        rows: Any,
        *,
        json: bool,
        who: str | None,
        request_id: str | None,
        overwrite: bool | CurrentRows,
    ) -> PushAnswer:
        """Push and do not wait; see `FeatureStore.submit_push`."""
        if not isinstance(overwrite, bool | CurrentRows):
            raise RequestError(f"overwrite is True, False or the current rows of a key, and not {shown(overwrite)}")
        submitted = self._pushing().submit(source, rows, json=json, overwrite=overwrite)
        submitted.add_done_callback(self._teller(source, who, request_id))
        return submitted

    def told(self, source: str, pushed: Pushed, who: str | None = None, request_id: str | None = None) -> Pushed:
        """What was pushed, which the trail of activity has now; and the log may have grown enough to be compacted."""
        self._pushing().notice(source)
        counts = {"accepted": pushed.accepted, "unchanged": pushed.unchanged, "late": pushed.late}
        counts |= {"quarantined": pushed.quarantined} if pushed.quarantined else {}
        self._trail.pushed(source, counts, who=who, request=request_id)
        return pushed

    def _teller(self, source: str, who: str | None, request_id: str | None) -> Callable[[Future[Pushed]], None]:
        def tell(done: Future[Pushed]) -> None:
            if not done.cancelled() and done.exception() is None:
                self.told(source, done.result(), who, request_id)

        return tell

    @contextmanager
    def _told_later(self, answer: PushAnswer, source: str, who: str | None, request_id: str | None) -> Iterator[None]:
        """A caller that gives up waiting may have pushed all the same."""
        try:
            yield
        except OnlineUnavailableError:
            answer.add_done_callback(self._teller(source, who, request_id))
            raise

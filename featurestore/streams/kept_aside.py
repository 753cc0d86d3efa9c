"""The messages of a push source's stream that could not be taken: looked at, pushed again after a correction, or forgotten."""

from __future__ import annotations

from collections.abc import Sequence

from featurestore.declare.problems import shown
from featurestore.declare.push import PushSource
from featurestore.errors import DeposedError, NotFoundError, PushError, RequestError, did_you_mean
from featurestore.push.push_queue import Advance
from featurestore.push.pushed import Pushed
from featurestore.streams.consume import StreamProject, decoder_of, streamed
from featurestore.streams.decoder import Decoder
from featurestore.streams.poison import PoisonMessage

REPLAYED = "(replayed)"
"""Under which the log has the id of the message that was replayed last."""


class KeptAside:
    """The messages of one push source that are kept aside. NotFoundError where there is no such source, nor a message of one that
    there was."""

    def __init__(self, project: StreamProject, source: str) -> None:
        self._project, self._source = project, source
        known = [one.name for one in project.pushing.sources()]
        if source not in known and not project.poison.count(source):
            raise NotFoundError(
                f"No push source '{source}' was applied.{did_you_mean(source, known, noun='Push sources')}"
            )

    def messages(self, *, after: int = 0, most: int = 1_000) -> list[PoisonMessage]:
        """Those after an id, in the order in which they were kept aside."""
        return self._project.poison.messages(self._source, after=after, most=most)

    def replay(self, ids: Sequence[int] | None = None) -> dict[int, Pushed | PushError]:
        """Push messages again, as they are decoded by now; what became of each, by its id. Those that were taken are forgotten,
        one by one. ids: only these; by default all."""
        chosen = self._chosen(ids)
        (source,) = streamed(self._project.pushing, [self._source])
        decoder = decoder_of(self._project, source)
        became = ((one.id, self._pushed(source, decoder, one)) for one in chosen)
        return {number: answer for number, answer in became if answer is not None}

    def discard(self, ids: Sequence[int] | None = None) -> int:
        """Forget messages without pushing them; how many. ids: only these; by default all."""
        return self._project.poison.remove(self._source, [one.id for one in self._chosen(ids)])

    def _pushed(self, source: PushSource, decoder: Decoder, one: PoisonMessage) -> Pushed | PushError | None:
        """None where it was pushed before. The log keeps which was the last in the same append as its rows, so that none is taken
        twice."""
        project = self._project
        (rows,) = decoder.decoded([one.message])
        if isinstance(rows, PushError):
            return rows
        last = project.pushing.positions(source.name).get(REPLAYED)
        if last == str(one.id):  # the process that replayed it died before it was forgotten
            project.poison.remove(source.name, [one.id])
            return None
        advance = Advance({REPLAYED: last}, {REPLAYED: str(one.id)})
        try:
            pushed = project.pushing.submit(source.name, decoder.together([rows]), advance=advance).result()
        except DeposedError:
            raise PushError(
                f"{source.title}: another process replays messages that were kept aside; try again"
            ) from None
        except PushError as error:
            return error
        project.told(source.name, pushed)
        project.poison.remove(source.name, [one.id])
        return pushed

    def _chosen(self, ids: Sequence[int] | None) -> list[PoisonMessage]:
        if ids is not None and (not isinstance(ids, Sequence) or not all(type(one) is int for one in ids)):
            raise RequestError(f"ids is a list of numbers, by which `poison` lists messages, and not {shown(ids)}")
        found: list[PoisonMessage] = []
        while more := self.messages(after=found[-1].id if found else 0):
            found += more
        known = {one.id: one for one in found}
        for number in ids or ():
            if number not in known:
                raise NotFoundError(f"No message {number} of push source '{self._source}' is kept aside")
        return found if ids is None else [known[number] for number in sorted(ids)]

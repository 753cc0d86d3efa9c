"""Push logs: how much lies in each, how much of it is served, what came too late, and the messages that were kept aside."""

from __future__ import annotations

from featurestore.console.page import (
    PageKind,
    PageLink,
    PageModel,
    PageRequest,
    PageState,
    PageTable,
    about,
    instant,
    moment,
)
from featurestore.console.readable_store import ReadableStore
from featurestore.reports.status import PushStatus
from featurestore.streams.poison import PoisonMessage

MOST_MESSAGES = 100
"""Messages that were kept aside which a page shows."""

LONGEST_BYTES = 300
"""Bytes of a message that a page shows."""


def pushes(store: ReadableStore, asked: PageRequest) -> PageModel:
    """What `featurestore status` tells of logs and streams, and `featurestore poison list SOURCE` of one source."""
    source = asked.word("source")
    logs = {one.pushes.source: one.pushes for one in store.status() if one.pushes is not None}
    header = (
        "source",
        "rows",
        "bytes",
        "segments",
        "served up to",
        "not served yet",
        "too late, kept aside",
        "in quarantine",
        "messages kept aside",
    )
    read = ("source", "partition", "read up to", "by", "messages behind", "for", "taken", "lost")
    partitions = [
        (log.source, one.partition, one.place, one.consumer or "nobody now",
         "not known" if one.lag is None else one.lag, about(one.behind or 0), one.taken, one.lost)
        for log in logs.values() for one in log.partitions
    ]  # fmt: skip
    tables = [
        PageTable(
            "logs", "Push logs", header, [_row(log) for log in logs.values()], "No applied view reads pushed rows."
        ),
        PageTable("streams", "Streams that feed them", read, partitions, "No stream was read."),
    ]
    if source is not None:
        found = store.poison(source, most=MOST_MESSAGES)
        kept = ("id", "kept aside at", "stream", "partition", "offset", "what is wrong", "message")
        tables.append(
            PageTable("poison", f"Messages of {source} that were kept aside", kept, list(map(_message, found)))
        )
    return PageModel("pushes.html", "Pushes", {"source": source}, tables)


def _row(log: PushStatus) -> tuple[object, ...]:
    late = PageState(f"{log.late:,}", "warn") if log.late else 0
    poison = PageState(f"{log.poison:,}", "bad") if log.poison else 0
    where = PageLink(log.source, "pushes", "", {"source": log.source})
    aside = PageLink(f"{log.quarantined:,}", "quarantine", "", {"of": log.source}) if log.quarantined else 0
    pending = "not known" if log.pending is None else log.pending
    return where, log.rows, log.bytes, log.segments, instant(log.applied), pending, late, aside, poison


def _message(one: PoisonMessage) -> tuple[object, ...]:
    message = one.message
    value = b"" if message.value is None else message.value
    shown = value[:LONGEST_BYTES].decode("utf-8", "backslashreplace") + ("…" if len(value) > LONGEST_BYTES else "")
    return one.id, moment(one.kept), one.stream, message.partition, message.offset, one.reason, shown


PAGE = PageKind("pushes", "Pushes", pushes, group="How it is")

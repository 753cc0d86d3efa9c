"""Every error of the product, in one tree.

    FeatureStoreError
    ├── DeclarationError        a definition is wrong: entity, source, view, function or service
    ├── ConfigError             featurestore.toml or an environment variable is wrong
    ├── NotFoundError           a name that nothing declared or applied bears
    ├── SourceError             a source's files or columns are not what its definition says
    │   ├── FilesChangedError         a file was written anew, or vanished, while it was read
    │   └── ExpectationError          rows are not what is expected of them, and nothing was made of any
    ├── SpineError              the frame that asks for training rows is wrong
    ├── RequestError            a lookup's keys or request values are wrong
    ├── PushError               pushed rows are not what their source declares; nothing of them was kept
    │   ├── RowRefusedError           one of the rows is refused for what it says
    │   ├── RowsChangedError          the rows in place of which they were to be are not the current ones any more
    │   └── DeposedError              the stream that they come from was read on by another consumer
    ├── OnDemandError           an on-demand function raised or returned what it may not
    ├── FingerprintError        the definitions asked for are not the ones at hand
    ├── ManifestError           a manifest cannot be read, or is not what a training frame was written with
    ├── NotMaterializedError    a view has no values online yet
    ├── PlanOutdatedError       the plan shown is no longer what apply would do
    ├── RegistryError           the registry cannot be read or written
    │   └── RegistryUnavailableError  it cannot be reached just now, or others hold it
    ├── OnlineStoreError        the online store refused or answered nonsense
    │   ├── OnlineUnavailableError    it cannot be reached just now
    │   └── OnlineDamagedError        what it holds under a key is not what was written
    ├── MaterializeError        a run could not complete; what was served before still is
    ├── LogError                a push log cannot be read or written
    │   ├── LogBusyError              somebody else has held its lock for too long
    │   ├── LogUnavailableError       it cannot be reached just now
    │   └── LogDamagedError           bytes that were acknowledged have changed on the disk
    ├── BrokerError             a broker of streams refused, or holds what cannot be read
    │   ├── BrokerUnavailableError    it cannot be reached just now, or has no such stream yet
    │   ├── MessagesLostError         messages are gone that were not read
    │   └── StreamReplacedError       the stream is not the one that was read before
    ├── BackupError             a backup cannot be made or restored; nothing half of it is left
    ├── AccessError             a request to the service is not let in
    │   ├── UnauthenticatedError      it does not say who asks, or not truly
    │   ├── ForbiddenError            the principal may not do that
    │   └── AccessUnavailableError    who asks cannot be looked up just now
    ├── ServerError             the HTTP service failed, or is none
    │   └── ServerUnavailableError    it cannot be reached, or is too busy, just now
    └── MissingPackageError     an optional package that the call needs is not installed

A message says what happened, where it was declared, and what would be right. `retry` says whether
the same call may succeed later without anything being changed by hand.
"""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Any, Self, cast

from featurestore.plurals import plural

__all__ = [
    "AccessError", "AccessUnavailableError", "BackupError", "BrokerError", "BrokerUnavailableError", "ConfigError", "DeclarationError", "DeposedError", "ExpectationError", "FeatureStoreError",
    "FilesChangedError", "FingerprintError", "ForbiddenError", "LogBusyError", "LogDamagedError", "LogError", "LogUnavailableError",
    "ManifestError", "MaterializeError", "MessagesLostError", "MissingPackageError", "NotFoundError", "NotMaterializedError",
    "OnDemandError", "OnlineDamagedError", "OnlineStoreError", "OnlineUnavailableError", "PlanOutdatedError",
    "PushError", "RegistryError", "RegistryUnavailableError", "RequestError", "RowRefusedError", "RowsChangedError", "ServerError", "ServerUnavailableError",
    "SourceError", "SpineError", "StreamReplacedError", "UnauthenticatedError", "apply_first", "did_you_mean", "did_you_mean_of",
]  # fmt: skip


def _again(kind: type[FeatureStoreError], args: tuple[Any, ...], state: dict[str, Any]) -> FeatureStoreError:
    """An error as it was in another process, whatever its class is made of."""
    error = kind.__new__(kind, *args)
    vars(error).update(state)
    return error


class FeatureStoreError(Exception):
    """Whatever this product refuses to do; `retry` says whether trying again can help."""

    retry = False
    kept: str | None = None
    """Of a push that failed: "no" where none of its rows is kept, "yes" where they are all the same, "unknown" where nobody can
    tell; None of any other error."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (type(self), self.args, vars(self))

    def saying(self, message: str) -> Self:
        """The same error with other words: its class, and all else that it tells, stay."""
        return cast("Self", _again(type(self), (message,), vars(self)))


class DeclarationError(FeatureStoreError, ValueError):
    """A definition is wrong. problem: what is wrong with it; place: the file and line that declared it, with which the message ends, and
    "" where no file of the user's did."""

    def __init__(self, problem: str, place: str = "") -> None:
        super().__init__(f"{problem} ({place})" if place else problem)
        self.problem, self.place = problem, place


class ConfigError(FeatureStoreError, ValueError):
    """featurestore.toml, or a variable it reads, is wrong."""


class NotFoundError(FeatureStoreError, LookupError):
    """Nothing of that name was declared or applied."""


class SourceError(FeatureStoreError):
    """A source's files or columns are not what its definition says."""


class FilesChangedError(SourceError):
    """A file of a source was written anew, or vanished, each time that it was read."""

    retry = True


class ExpectationError(SourceError):
    """Rows of a source do not meet an expectation that refuses; nothing was trained on or published."""


class SpineError(FeatureStoreError, ValueError):
    """The frame of keys and times that asks for training rows is wrong."""


class RequestError(FeatureStoreError, ValueError):
    """A lookup's keys or request values are wrong."""


class PushError(FeatureStoreError, ValueError):
    """Pushed rows are not what their source declares; nothing of them was kept."""


class RowRefusedError(PushError):
    """A row of a push cannot be taken for what it says; nothing of the push was kept, and the other rows may be pushed.

    reasons: by number each row that is known to be such a one, and why.
    """

    def __init__(self, message: str, reasons: Mapping[int, str]) -> None:
        super().__init__(message)
        self.reasons = dict(reasons)


class DeposedError(PushError):
    """The rows come from a partition of a stream that another consumer has read on from, or was told to read; nothing was kept."""

    retry = True
    kept = "no"


class RowsChangedError(PushError):
    """The rows of a key that pushed ones were made from, and were to overwrite, were changed meanwhile; nothing was kept. Read
    them again."""

    retry = True
    kept = "no"


class OnDemandError(FeatureStoreError):
    """An on-demand function raised, or returned what its declared output does not allow."""


class FingerprintError(FeatureStoreError):
    """The definitions that were asked for are not the ones at hand.

    changes: what differs between them, as (field, what was asked for, what is applied), text, or None for a field that is not there;
    empty if unknown. The message shows them too.
    """

    def __init__(self, message: str, *, changes: Iterable[tuple[str, str | None, str | None]] = ()) -> None:
        super().__init__(message)
        self.changes = tuple(changes)


class ManifestError(FeatureStoreError, ValueError):
    """A manifest cannot be read, or is not what a training frame was written with."""


class NotMaterializedError(FeatureStoreError):
    """A view has no values online: it was never materialized, or its store was emptied."""

    retry = True


class PlanOutdatedError(FeatureStoreError):
    """Something changed between the plan that was shown and the call to apply it."""


class RegistryError(FeatureStoreError):
    """The registry cannot be read or written."""


class RegistryUnavailableError(RegistryError):
    """The registry cannot be reached just now, or others have been writing to it for too long."""

    retry = True


class OnlineStoreError(FeatureStoreError):
    """The online store refused a command or holds what this version cannot read."""


class OnlineUnavailableError(OnlineStoreError):
    """The online store cannot be reached just now."""

    retry = True
    retry_after_seconds: float | None = None
    """In how many seconds the store is asked again. None: that is not known."""


class OnlineDamagedError(OnlineStoreError):
    """What the online store holds under some keys is not what was written there."""

    keys: tuple[bytes, ...] = ()
    """The keys that are damaged; empty where they are not known."""

    def __init__(self, where: str, keys: Iterable[bytes]) -> None:
        self.keys = tuple(keys)
        others = f", and {len(self.keys) - 1} more {plural(len(self.keys) - 1, 'key')}" if len(self.keys) > 1 else ""
        super().__init__(
            f"{where} is damaged: what it holds under {self.keys[0]!r}{others} is not what was written. Nothing was removed; "
            "run featurestore materialize --full, which writes anew what is damaged of views and push sources. Where that fails too, restore it from a copy, or "
            "empty it and run featurestore materialize, which makes everything in it anew"
        )


class MaterializeError(FeatureStoreError):
    """A run could not complete; what was served before is still served."""

    retry = True


class LogError(FeatureStoreError):
    """A push log, or the serving log in an object store, cannot be read or written; what was acknowledged before is still there."""


class LogBusyError(LogError):
    """Somebody else has held the lock of a push log for longer than one waits; the message says who."""

    retry = True


class LogUnavailableError(LogError):
    """The push log cannot be reached just now. Where it went away while it was told to keep rows, `kept` says whether it did."""

    retry = True


class LogDamagedError(LogError):
    """Bytes of a push log that were acknowledged are not what was written; the message names file and offset."""


class BrokerError(FeatureStoreError):
    """A broker refused, or holds what cannot be read."""


class BrokerUnavailableError(BrokerError):
    """A broker cannot be reached just now, or does not have the stream yet."""

    retry = True


class MessagesLostError(BrokerError):
    """Messages after the last that was read are gone. partition, place: from where reading can go on; lost: how many are gone, None if
    unknown."""

    def __init__(self, message: str, *, partition: int, place: str, lost: int | None) -> None:
        super().__init__(message)
        self.partition, self.place, self.lost = partition, place, lost


class StreamReplacedError(BrokerError):
    """The stream is not the one that was read before: it was deleted and made again, or has lost its end. partition: of it."""

    def __init__(self, message: str, *, partition: int) -> None:
        super().__init__(message)
        self.partition = partition


class BackupError(FeatureStoreError):
    """A backup cannot be made or restored; the message names what is in the way, or damaged. Nothing half of it is left."""


class AccessError(FeatureStoreError):
    """A request to the service is not let in."""


class UnauthenticatedError(AccessError):
    """A request does not say who asks, or not truly; `challenge` is what WWW-Authenticate tells of that (RFC 6750)."""

    def __init__(self, message: str, *, challenge: str) -> None:
        super().__init__(message)
        self.challenge = challenge


class ForbiddenError(AccessError):
    """The principal may not do that; `scope` is the one that it takes."""

    def __init__(self, message: str, *, scope: str) -> None:
        super().__init__(message)
        self.scope = scope


class AccessUnavailableError(AccessError):
    """Who asks cannot be looked up just now: the registry, or the issuer of tokens, does not answer."""

    retry = True


class ServerError(FeatureStoreError):
    """The HTTP service answered what no service of this product answers, or failed."""


class ServerUnavailableError(ServerError):
    """The HTTP service cannot be reached, or refuses a request that is right, just now."""

    retry = True


class MissingPackageError(FeatureStoreError, ImportError):
    """An optional package that the call needs is not installed; the message says how to install it."""


NOT_APPLIED_YET = "It is declared, and not applied yet: run featurestore apply."


def apply_first(name: str, declared: Container[str]) -> str:
    """The end of an error about a name that was never applied, if the definitions at hand have it."""
    return f" {NOT_APPLIED_YET}" if name in declared else ""


def did_you_mean(name: str, known: Iterable[str], *, noun: str = "Known") -> str:
    """The end of an error message about an unknown name: the nearest known one, then all of them."""
    return did_you_mean_of(name, {noun: known})


def did_you_mean_of(name: str, known: Mapping[str, Iterable[str]], *, also: Iterable[str] = ()) -> str:
    """The same of names of several kinds, by what each kind is called; a kind without a name is left out. also: names that
    may be meant too and are not listed."""
    kinds = {noun: sorted(names) for noun, names in known.items()}
    every = [*itertools.chain(*kinds.values()), *also]
    near = difflib.get_close_matches(name, every, n=1, cutoff=0.7) or difflib.get_close_matches(
        name, [one for one in every if name in one or one in name], n=1, cutoff=0.6
    )
    hint = f" Did you mean '{near[0]}'?" if near else ""
    listed = [f"{noun}: {_listed(names)}." for noun, names in kinds.items() if names]
    return f"{hint} {' '.join(listed or [f'{noun}: none.' for noun in kinds])}"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:20]) + (f", … ({len(names)} in all)" if len(names) > 20 else "")

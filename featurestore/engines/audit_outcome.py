"""What an audit task found, as bytes of JSON: so it comes from a node to the process that asked, which runs nothing of what it reads."""

from __future__ import annotations

import json
from typing import Any, NamedTuple, Self

from featurestore import errors
from featurestore.errors import FeatureStoreError
from featurestore.reports.audit.audit_counts import AuditCounts
from featurestore.semantics.service import ResolvedService
from featurestore.typed_json import typed, untyped

FORMAT = 1
"""Of the JSON. Nobody keeps it: another one means that a node has another version of featurestore."""


class AuditOutcome(NamedTuple):
    """What a task found. damaged: files of the log → why. error: what ended it before all of its rows were compared. matched: the
    numbers of the spine's rows that its files have, where there is a spine; not_trained: how many of their rows that has not."""

    counts: AuditCounts
    damaged: dict[str, str]
    error: FeatureStoreError | FileNotFoundError | None
    matched: list[int]
    not_trained: int

    def to_bytes(self) -> bytes:
        """The outcome as `of_bytes` reads it."""
        error = None if self.error is None else _said_of(self.error)
        rest = {"damaged": self.damaged, "error": error, "matched": self.matched, "not_trained": self.not_trained}
        return json.dumps({"format": FORMAT, "counts": self.counts.plain(), **rest}).encode()

    @classmethod
    def of_bytes(cls, said: bytes, version: ResolvedService) -> Self:
        """What a task said of rows that were compared with a version. Raises RuntimeError where it is of another format."""
        told = json.loads(said)
        if told["format"] != FORMAT:
            raise RuntimeError(
                f"A node says what it found in format {told['format']}, and the driver reads {FORMAT}: install the same featurestore on every node"
            )
        error = None if told["error"] is None else _error_of(told["error"])
        return cls(
            AuditCounts.of(told["counts"], version), told["damaged"], error, told["matched"], told["not_trained"]
        )


def _said_of(error: FeatureStoreError | FileNotFoundError) -> dict[str, Any]:
    if isinstance(error, FileNotFoundError):
        named = [] if error.filename is None else [str(error.filename)]
        return {"kind": FileNotFoundError.__name__, "args": typed((*error.args, *named)), "state": typed({})}
    return {"kind": type(error).__name__, "args": typed(error.args), "state": typed(vars(error))}


def _error_of(said: dict[str, Any]) -> FeatureStoreError | FileNotFoundError:
    """The error that a task met, of the kind and with all that it told there."""
    args = untyped(said["args"])
    if said["kind"] == FileNotFoundError.__name__:
        return FileNotFoundError(*args)
    kind = vars(errors)[said["kind"]]
    if not (isinstance(kind, type) and issubclass(kind, FeatureStoreError)):
        raise ValueError(f"{said['kind']} is no kind of error")
    error: FeatureStoreError = kind.__new__(kind, *args)
    vars(error).update(untyped(said["state"]))
    return error

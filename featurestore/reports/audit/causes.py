"""The causes of differences between serving and training."""

from __future__ import annotations

CAUSES = {
    "history rewritten": "a file of its source was written anew or removed after the value was computed, or rows of a forgotten key were erased",
    "late data": "without the files that the store saw only after the value was computed, training says what was served",
    "definition changed": "it is what another version of the definition gives",
    "request value differed": "training used other keys or request values than the request brought",
    "quarantined": "training with the rows that do not meet what is expected says what was served",
    "type or encoding": "it is training's value, gone through a narrower type or a default",
    "online store went back": "it is what training says for the instant to which the online store was found to have gone back",
    "not materialized": "it is what the key had before: rows that were known did not reach the online store",
    "as_of untrue": "it is what training says for another instant than the one that it was served for",
    "expiry": "serving and training judge differently whether the value has expired",
    "on-demand code or library changed": "the function gives another value now for what it was given then",
    "unexplained": "none of these",
}
"""Why a served value is not training's, and how that is told."""

REWRITTEN = frozenset({"history rewritten", "late data"})
"""The causes that lie in the rows: they are others now than when the value was computed."""

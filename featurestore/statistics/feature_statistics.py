"""What the features of a training frame, a run of materialize or an hour of serving were like, as it is kept and read again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from math import isfinite
from typing import Any, Literal

import orjson

from featurestore.clock import to_datetime
from featurestore.plurals import plural
from featurestore.report import Report, Reported, ReportTable, plain_fields, shown_instant
from featurestore.statistics.column_statistics import ColumnStatistics, Lengths, NumberStatistics, TextStatistics
from featurestore.statistics.histogram import Bucket, Histogram
from featurestore.types import Bytes, Float64, from_json, to_json

Kind = Literal["training_set", "run", "hour"]
"""Of what statistics are: of the rows of a training frame, of the keys of a run of materialize, of the values that were served within an hour."""

DAY_US = 86_400_000_000


@dataclass(frozen=True)
class FeatureStatistics(Reported):
    """Of the values of one feature."""

    feature: str
    """Its name: "view:feature", or an on-demand feature's own."""
    column: ColumnStatistics
    """Under the name of its column."""

    @property
    def null_rate(self) -> float | None:
        """The share of rows in which it is null, 0 to 1; None of no rows."""
        return self.column.missing / self.column.rows if self.column.rows else None

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON; with the share of nulls, and all that is known of the column."""
        return {"feature": self.feature, **plain_fields(self, "null_rate"), **self.column.to_dict()}

    def report(self) -> Report:
        """A line, and the tables of quantiles and of the most frequent values."""
        return Report("", [_table([self])])


@dataclass(frozen=True)
class KeptStatistics(Reported):
    """Of all features of one training frame, run or hour."""

    kind: Kind
    subject: str
    """The service; of a run the view."""
    fingerprint: str
    at: datetime
    """When the frame was written; the instant that a run computed; the beginning of the hour."""
    rows: int
    training_set: str | None
    """Where the frame was written. None: it is of no frame."""
    run: int | None
    """The number of the run. None: it is of no run."""
    features: tuple[FeatureStatistics, ...]

    def feature(self, name: str) -> FeatureStatistics:
        """Those of one feature; KeyError where there is none of the name."""
        return {feature.feature: feature for feature in self.features}[name]

    def report(self) -> Report:
        """A title, and a line for each feature."""
        return Report(self._title(), [_table(self.features)])

    def _title(self) -> str:
        at, version = shown_instant(self.at), f"'{self.subject}' ({self.fingerprint[:12]})"
        if self.kind == "training_set":
            return f"Training frame {self.training_set} of service {version}, written {at}: {self.rows} {plural(self.rows, 'row')}"
        if self.kind == "run":
            return f"Run {self.run} of view {version} as of {at}: {self.rows} {plural(self.rows, 'key')}"
        return f"Served by service {version} within the hour from {at}: {self.rows} {plural(self.rows, 'row')}"


@dataclass(frozen=True)
class Statistics(Reported):
    """What was asked for, the newest first."""

    found: tuple[KeptStatistics, ...]

    def report(self) -> Report:
        """One after the other."""
        if not self.found:
            return Report("No statistics are kept of that")
        return Report("", [kept.report() for kept in self.found])


def write_features(features: Sequence[FeatureStatistics]) -> str:
    """Features as compact JSON, which `read_features` reads."""
    said = [{"feature": one.feature, "column": _column_said(one.column)} for one in features]
    return orjson.dumps(said, default=partial(to_json, Bytes)).decode()


def _column_said(column: ColumnStatistics) -> dict[str, Any]:
    """The fields of a column, of which JSON has all forms but that of bytes; records are lists."""
    said = {**vars(column), "numbers": _numbers_said(column.numbers), "norms": _numbers_said(column.norms)}
    return said if column.lengths is None else {**said, "lengths": tuple(column.lengths)}


def _numbers_said(numbers: NumberStatistics | None) -> dict[str, Any] | None:
    if numbers is None:
        return None
    buckets: list[Any] = [*map(list, numbers.histogram.buckets)]
    for place in {0, len(buckets) - 1} if buckets else ():  # those of infinities, which are texts
        low, high, values = buckets[place]
        if not isfinite(low):
            buckets[place] = [to_json(Float64, low), to_json(Float64, high), values]
    return {**vars(numbers), "histogram": {"buckets": buckets, "nan": numbers.histogram.nan}}


def read_features(text: str) -> tuple[FeatureStatistics, ...]:
    """What `write_features` wrote. Raises KeyError, TypeError and ValueError where it is something else."""
    return tuple(FeatureStatistics(one["feature"], _column(one["column"])) for one in orjson.loads(text))


def _column(said: Mapping[str, Any]) -> ColumnStatistics:
    lengths, texts = said["lengths"], said["texts"]
    return ColumnStatistics(
        said["name"], said["type"], said["rows"], said["missing"], None if lengths is None else Lengths(*lengths),
        _numbers(said["numbers"]), None if texts is None else _texts(texts, are_bytes="Bytes" in said["type"]),
        _numbers(said["norms"]), said["sampled_rows"],
    )  # fmt: skip


def _numbers(said: Mapping[str, Any] | None) -> NumberStatistics | None:
    if said is None:
        return None
    histogram = said["histogram"]
    buckets = tuple(Bucket(_number(low), _number(high), values) for low, high, values in histogram["buckets"])
    told = {
        "quantiles": tuple(said["quantiles"]), "histogram": Histogram(buckets, histogram["nan"]),
        "frequent": tuple((value, count) for value, count in said["frequent"]),
    }  # fmt: skip
    return NumberStatistics(**{**said, **told})


def _number(value: Any) -> Any:
    """A number, of which only infinities are texts."""
    return from_json(Float64, value) if isinstance(value, str) else value


def _texts(said: Mapping[str, Any], *, are_bytes: bool) -> TextStatistics:
    frequent = tuple((from_json(Bytes, word) if are_bytes else word, count) for word, count in said["frequent"])
    return TextStatistics(**{**said, "frequent": frequent})


HEADER = (
    "feature", "type", "rows", "null", "least", "median", "mean", "greatest", "deviation", "different", "most frequent",
)  # fmt: skip


def _table(features: Sequence[FeatureStatistics]) -> ReportTable:
    return ReportTable(HEADER, [_row(feature) for feature in features])


def _row(feature: FeatureStatistics) -> tuple[object, ...]:
    column = feature.column
    numbers = column.norms or column.numbers
    of = column.type if column.norms is None else "Float64"
    nulls = "-" if feature.null_rate is None else f"{100 * feature.null_rate:.4g} %"
    told: tuple[object, ...] = ("",) * 5
    if numbers is not None and numbers.values and column.type != "Bool":
        median = numbers.quantiles[len(numbers.quantiles) // 2]
        shown = [_shown(value, of) for value in (numbers.least, median, numbers.mean, numbers.greatest)]
        told = (*shown, f"{numbers.deviation:.6g}")
    different = numbers.unique if numbers is not None else column.texts.unique if column.texts is not None else ""
    about = "about " if column.sampled_rows is not None else ""
    kind = f"norms of {column.type}" if column.norms is not None else column.type
    frequent = ""
    if column.texts is not None and column.texts.frequent:
        word, count = column.texts.frequent[0]
        frequent = f"{word!r} ({count})"
    elif numbers is not None and numbers.frequent and numbers.frequent[0][1] > 1:
        value, count = numbers.frequent[0]
        frequent = f"{_shown(value, of)} ({count})"
    return (
        feature.feature,
        kind,
        column.rows,
        nulls,
        *told,
        f"{about}{different}",
        f"{about}{frequent}" if frequent else "",
    )


def _shown(value: float | None, of: str) -> str:
    """A number as it is read best: a count of days or µs as what it stands for."""
    if value is None:
        return ""
    if of in {"Date", "Array(Date)", "Timestamp", "Array(Timestamp)"}:
        try:
            moment = to_datetime(round(value * DAY_US) if "Date" in of else round(value))
        except (OverflowError, ValueError):
            return str(value)
        return moment.date().isoformat() if "Date" in of else shown_instant(moment)
    return str(value) if isinstance(value, int) else f"{value:.6g}"

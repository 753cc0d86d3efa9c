"""What a lookup answers: values, statuses, and the instant that each view's values are true for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import numpy.typing as npt

from featurestore.clock import to_datetime
from featurestore.declare.arguments import checked, named
from featurestore.elsewhere import counterparts
from featurestore.lazy import pa, pd
from featurestore.report import Report, ReportTable, cell, shown_instant
from featurestore.semantics.service import ResolvedService, ServiceColumn
from featurestore.semantics.status import Status
from featurestore.semantics.values import canonical, chosen_columns, matrix_of, own_lists, to_pandas
from featurestore.serving.repeated_keys import Repeats
from featurestore.types import FeatureType

NAMES = tuple(status.name for status in Status)
USUAL_FIRST = (Status.PRESENT, *(status for status in Status if status != Status.PRESENT))


class Judged(NamedTuple):
    """A status for each row of several columns. lists: those that differ; places: of each column, which of them it has."""

    lists: Sequence[list[Status]]
    places: tuple[int, ...]

    def columns(self) -> list[list[Status]]:
        """The statuses of each column."""
        return [self.lists[place] for place in self.places]


class PartAnswer(NamedTuple):
    """What one view's answer has beside its values: the statuses of its columns, which are named, the as_of served (µs; None: they are
    UNAVAILABLE), and whether it is late."""

    names: Sequence[str]
    judged: Judged
    as_of: int | None
    stale: bool

    @property
    def statuses(self) -> dict[str, list[Status]]:
        """By column a status a row."""
        return dict(zip(self.names, self.judged.columns(), strict=True))

    def spread(self, repeats: Repeats) -> PartAnswer:
        """The answer for all rows, of one for those that are unlike; columns that shared their statuses still do."""
        return self._replace(judged=Judged(list(map(repeats.spread, self.judged.lists)), self.judged.places))


class PlainService(NamedTuple):
    """What a result that came from elsewhere says of its service: from another process, or over HTTP."""

    name: str
    fingerprint: str
    columns: tuple[ServiceColumn, ...]
    inputs: Mapping[str, FeatureType]


@counterparts
@dataclass(eq=False, repr=False, slots=True)
class OnlineResult:
    """The features of a lookup, in the service's order, in whichever form a model takes them."""

    service: ResolvedService
    """The service version that was asked."""
    columns: dict[str, Sequence[Any]]
    """By name the values of the rows."""
    inputs: Mapping[str, Sequence[Any]]
    """What the request brought, likewise."""
    parts: Mapping[str, PartAnswer]
    """What is said of each view beside its values."""
    now: int
    """When it was answered (µs)."""
    hidden: Mapping[str, Sequence[Any]]
    """By column the features that only on-demand features read."""
    judged: Judged
    """The statuses of `columns`; those of on-demand features are PRESENT, or UNAVAILABLE as all else."""
    request: str | None = None
    """The id under which it is logged, None where it is not."""
    work_seconds: float = 0.0
    """How long it took to work on what was read, functions included."""

    def __reduce__(self) -> tuple[Any, ...]:
        """As plain data, without the definitions of the service, whose functions and frames belong to this process."""
        columns = tuple(replace(column, on_demand=None) for column in self.service.columns)
        plain = PlainService(self.service.name, self.service.fingerprint, columns, dict(self.service.inputs))
        return OnlineResult, (
            plain,
            self.columns,
            self.inputs,
            self.parts,
            self.now,
            self.hidden,
            self.judged,
            self.request,
        )

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    @named
    def to_dict(self) -> dict[str, list[Any]]:
        """Column → list of Python values, the request's inputs first, then the features in order."""
        types = {**self.service.inputs, **self._types()}
        return {name: own_lists(values, types[name]) for name, values in {**self.inputs, **self.columns}.items()}

    def to_arrow(self) -> pa.Table:
        """The features as an Arrow table."""
        return pa.table(self._arrays())

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """The Arrow PyCapsule interface: `polars.DataFrame(result)` and the like."""
        return self.to_arrow().__arrow_c_stream__(requested_schema)

    @checked
    def to_pandas(self, *, dtypes: Literal["arrow", "numpy"] = "arrow") -> pd.DataFrame:
        """A pandas frame: the request's inputs, then the features."""
        inputs = {name: canonical(pa.array(values, of.arrow), of) for (name, of), values in
                  zip(self.service.inputs.items(), self.inputs.values(), strict=True)}  # fmt: skip
        features = to_pandas(self._arrays(), self._types(), dtypes=dtypes)
        if not inputs:
            return features
        frame: pd.DataFrame = pd.concat([to_pandas(inputs, self.service.inputs, dtypes=dtypes), features], axis=1)
        return frame

    @property
    def features(self) -> pd.DataFrame:
        """The service's columns alone: the same columns, order and dtypes as a training frame's `features`."""
        return to_pandas(self._arrays(), self._types())

    @checked
    def to_numpy(
        self, dtype: npt.DTypeLike | None = None, *, columns: Sequence[str] | None = None, expand: bool = False
    ) -> npt.NDArray[Any]:
        """A matrix (rows, features) of the service's columns; null is NaN. float64 unless `dtype` says otherwise.

        columns: only these, in this order. expand: an array of fixed length n is n columns.
        """
        if columns is None and not expand:
            return matrix_of(self.columns, (column.type for column in self.service.columns), dtype)
        chosen, types = chosen_columns(self.columns, columns), self._types()
        return matrix_of(chosen, [types[name] for name in chosen], dtype, expand=expand, rows=len(self))

    @property
    def statuses(self) -> dict[str, list[str]]:
        """Column → each row's status: PRESENT, MISSING, EXPIRED, OVERFLOW, WITHHELD or UNAVAILABLE; on-demand ones are PRESENT, or
        UNAVAILABLE as all else."""
        return {name: texts.copy() for name, texts in zip(self.columns, self._status_texts(), strict=True)}

    def status_counts(self) -> list[int]:
        """How many values of all rows have each status, in the order of `Status`."""
        counts = [0] * len(NAMES)
        for number, times in _columns_of(self.judged.places):
            _add_counts(counts, self.judged.lists[number], times)
        return counts

    def _status_texts(self) -> list[list[str]]:
        """Of each column the names of its statuses; columns that share their statuses share these."""
        texts = [[NAMES[each] for each in statuses] for statuses in self.judged.lists]
        return [texts[place] for place in self.judged.places]

    @property
    def as_of(self) -> dict[str, datetime]:
        """View → the instant that its values are true for; without those that are UNAVAILABLE."""
        return {name: to_datetime(answer.as_of) for name, answer in self.parts.items() if answer.as_of is not None}

    @property
    def is_unavailable(self) -> bool:
        """Whether the online store could not be reached, so that the values are defaults."""
        return None in [answer.as_of for answer in self.parts.values()]

    @property
    def stale(self) -> dict[str, bool]:
        """View → whether its values are older than its refresh asks for."""
        return {name: answer.stale for name, answer in self.parts.items()}

    def _types(self) -> dict[str, Any]:
        return {column.name: column.type for column in self.service.columns}

    def _arrays(self) -> dict[str, pa.Array]:
        return {
            column.name: canonical(pa.array(self.columns[column.name], column.type.arrow), column.type)
            for column in self.service.columns
        }

    def __repr__(self) -> str:
        as_of = {name: f"{instant:%Y-%m-%d %H:%M:%S}Z" for name, instant in self.as_of.items()}
        return f"OnlineResult(service={self.service.name!r}, rows={len(self)}, columns={list(self.columns)}, as_of={as_of})"

    def report(self) -> Report:
        """A table of the rows, of one row a line for each column, and how old the values are."""
        columns, statuses = self.to_dict(), self.statuses
        if len(self) == 1:
            header: Sequence[str] = ("name", "value", "status")
            rows: list[Any] = [(name, value[0], statuses.get(name, ["given"])[0]) for name, value in columns.items()]
        else:
            header = list(columns)
            rows = [
                [_marked(name, values[row], statuses, row) for name, values in columns.items()]
                for row in range(len(self))
            ]
        as_of = [
            f"{name} as of {shown_instant(instant)}{', stale' if self.stale[name] else ''}"
            for name, instant in self.as_of.items()
        ]
        as_of += ["the online store could not be reached"] if self.is_unavailable else []
        return Report(f"Service {self.service.name}", (ReportTable(header, rows), *as_of))

    def _repr_html_(self) -> str:
        return self.report().html()


@lru_cache(maxsize=1_000)
def _columns_of(places: tuple[int, ...]) -> list[tuple[int, int]]:
    """Each place, and how many columns have it."""
    return list(Counter(places).items())


def _add_counts(counts: list[int], statuses: Sequence[Status], times: int) -> None:
    """Add how often each status is there, so many times."""
    left = len(statuses)
    for status in USUAL_FIRST:
        found = statuses.count(status)
        counts[status] += found * times
        left -= found
        if not left:
            return


def _marked(name: str, value: Any, statuses: Mapping[str, Sequence[str]], row: int) -> str:
    """A value, and its status where that is not the usual one."""
    usual = name not in statuses or statuses[name][row] == Status.PRESENT.name
    return cell(value) if usual else f"{cell(value)} ({statuses[name][row]})"

"""The SageMaker SDK's names for data sets, over our store: `create_dataset(…).with_feature_group(…).point_in_time_accurate_join()`.

Each row of the base comes back once, with the values as of its time. Words that lose rows, double them or let later values in are
refused, each with what to do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, Self

from featurestore.declare.problems import shown
from featurestore.declare.views import Selection
from featurestore.errors import RequestError, did_you_mean
from featurestore.integrations.rows import called, pandas_of
from featurestore.lazy import pa, pd
from featurestore.store import FeatureStore
from featurestore.training.manifest import load_manifest
from featurestore.training.training_frame import TrainingFrame
from featurestore.types import FIRST_MICRO, LAST_MICRO


def create_dataset(
    *, base: Any, store: FeatureStore, record_identifier_feature_name: str, event_time_identifier_feature_name: str,
    included_feature_names: Sequence[str] | None = None, output_path: str | None = None, kms_key_id: str | None = None,  # noqa: ARG001
) -> DatasetBuilder:  # fmt: skip
    """A data set that begins with the rows of `base`: a frame of any library, or the path of a CSV or Parquet file.

    record_identifier_feature_name: the column that is the key of a view where it names no other. event_time_identifier_feature_name: the
    times of the rows; text (ISO 8601) and numbers (seconds since 1970) are read as times. included_feature_names: of the base's columns,
    by default all. The last two words are not needed: nothing is written.
    """
    included = None if included_feature_names is None else listed(included_feature_names)
    return DatasetBuilder(base, store, record_identifier_feature_name, event_time_identifier_feature_name, included)


def _refused(word: str, why: str) -> Callable[..., NoReturn]:
    def refused(self: DatasetBuilder, *args: Any, **words: Any) -> NoReturn:  # noqa: ARG001
        raise RequestError(f"There is no {word}() here: {why}")

    refused.__doc__ = f"Is refused: {why}."
    return refused


@dataclass
class DatasetBuilder:
    """What `create_dataset` began, a feature group at a time."""

    base: Any
    store: FeatureStore
    record_identifier: str
    event_time: str
    included: Sequence[str] | None
    groups: list[Selection] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)
    """By the training frame's columns those of the data set."""
    is_accurate: bool = False

    def with_feature_group(
        self, feature_group: Any, target_feature_name_in_base: str | Sequence[str] | None = None,
        included_feature_names: Sequence[str] | None = None, feature_name_in_target: str | None = None,
        join_comparator: Any = "=", join_type: Any = "LEFT JOIN",
    ) -> Self:  # fmt: skip
        """Join a view: its name, or what has one. Its features are called `fare.1` for those of the first group, as there.

        target_feature_name_in_base: the base's column of its key, or several in the order of its entity. included_feature_names: of
        its features, by default all. The other words take what means the same: the key, `=`, a left join.
        """
        name = getattr(feature_group, "feature_group_name", None) or getattr(feature_group, "name", feature_group)
        if not isinstance(name, str):
            raise RequestError(f"with_feature_group() takes the name of a view, or what has one, and not {shown(name)}")
        view = self.store.catalog.view(name)
        title, entity = f"with_feature_group('{view.name}')", list(view.entity.key)
        said = self.record_identifier if target_feature_name_in_base is None else target_feature_name_in_base
        keys = list(listed(said))
        if len(keys) != len(entity):
            raise RequestError(f"{title}: target_feature_name_in_base is {keys}, and its keys are {entity}")
        if feature_name_in_target is not None and [feature_name_in_target] != entity:
            raise RequestError(
                f"{title}: feature_name_in_target is {shown(feature_name_in_target)}, and a view is found by its key, {entity}"
            )
        comparator, joined = getattr(join_comparator, "value", join_comparator), getattr(join_type, "value", join_type)
        if comparator != "=":
            raise RequestError(
                f"{title}: join_comparator is {shown(comparator)}; a key is equal to another, or is another one"
            )
        if joined != "LEFT JOIN":
            raise RequestError(
                f"{title}: join_type is {shown(joined)}, which loses rows of the base or adds some; each of them comes back once, and those "
                "without features are dropped with dropna()"
            )
        place = len(self.groups) + 1
        whole = view.alias(f"group{place}", key=dict(zip(entity, keys, strict=True)))
        group = whole if included_feature_names is None else whole[list(listed(included_feature_names))]
        self.groups.append(group)
        self.names |= {
            column: f"{feature}.{place}" for column, feature in zip(group.columns, group.features, strict=True)
        }
        return self

    def point_in_time_accurate_join(self) -> Self:
        """Take the values as of each row's time. A data set without it is refused."""
        self.is_accurate = True
        return self

    def to_training_frame(self) -> TrainingFrame:
        """The training frame, with its manifest and the store's own names. Raises RequestError, and what
        `get_historical_features` raises."""
        if not self.is_accurate:
            raise RequestError(
                "point_in_time_accurate_join() was not called: without it each row gets the values of every time, later ones too"
            )
        if not self.groups:
            raise RequestError("with_feature_group() was not called: there is nothing to join")
        rows = self._rows()
        with called("base"):
            return self.store.get_historical_features(rows, self.groups, timestamp=self.event_time)

    def to_dataframe(self) -> tuple[pd.DataFrame, str]:
        """A pandas frame, the rows of the base in their order; and, in place of their query, service and fingerprint of the features."""
        frame = self.to_training_frame()
        whole = frame.to_pandas().rename(columns=self.names)
        own = list(whole.columns[: -len(self.names)])
        if both := [name for name in own if name in self.names.values()]:
            raise RequestError(f"base: it has a column '{both[0]}', which is what a feature is to be called; rename it")
        for name in self.included or ():
            if name not in own:
                known = did_you_mean(name, map(str, own), noun="There are")
                raise RequestError(f"included_feature_names: the base has no column '{name}'.{known}")
        wanted = own if self.included is None else list(self.included)
        return whole[[*wanted, *self.names.values()]], str(load_manifest(frame))

    as_of = _refused("as_of", "each row has what was known at its own time; leave later rows out of the base")
    with_event_time_range = _refused(
        "with_event_time_range", "how far back a row counts is the view's ttl, in training and in serving"
    )
    include_duplicated_records = _refused(
        "include_duplicated_records", "a row of the base would come back once for each record; the last learned counts"
    )
    include_deleted_records = _refused("include_deleted_records", "what had been deleted by then was not served either")
    with_number_of_recent_records_by_record_identifier = _refused(
        "with_number_of_recent_records_by_record_identifier",
        "it keeps so many rows of the base for each key, and drops the others",
    )
    with_number_of_records_from_query_results = _refused(
        "with_number_of_records_from_query_results", "rows come in the order of the base; take its first ones"
    )
    to_csv_file = _refused("to_csv_file", "to_training_frame().to_parquet(path) writes types and the manifest too")

    def _rows(self) -> pd.DataFrame:
        rows = self._read() if isinstance(self.base, (str, Path)) else pandas_of(self.base, "base")
        if self.event_time not in rows.columns:
            return rows  # which the store refuses, with the columns that there are
        times = rows[self.event_time]
        try:
            if pd.api.types.is_bool_dtype(times):
                raise TypeError("true and false are no times")
            if pd.api.types.is_numeric_dtype(times):
                times = _of_seconds(times.astype("float64"))
            elif not pd.api.types.is_datetime64_any_dtype(times):
                times = pd.to_datetime(times, format="ISO8601", utc=True)
        except (TypeError, ValueError) as error:
            told = str(error).splitlines()[0]
            raise RequestError(f"base: '{self.event_time}' is no column of times: {told}") from None
        return rows.assign(**{self.event_time: times})

    def _read(self) -> pd.DataFrame:
        """The file, the keys in a CSV as what they are: '007' is no 7."""
        path = Path(self.base)
        try:
            return self._of_file(path)
        except (OSError, ValueError, pa.ArrowException) as error:
            if isinstance(error, RequestError):
                raise
            why = "there is no such file" if isinstance(error, FileNotFoundError) else str(error).splitlines()[0]
            raise RequestError(f"base: {path} cannot be read: {why}") from error

    def _of_file(self, path: Path) -> pd.DataFrame:
        if path.suffix == ".parquet":
            return pd.read_parquet(path, dtype_backend="pyarrow")
        if path.suffix != ".csv":
            raise RequestError(
                f"base is {shown(str(path))}, and must be a frame or the path of a .csv or .parquet file"
            )
        types = {
            column: pd.ArrowDtype(group.view.entity.key[key].arrow)
            for group in self.groups
            for key, column in group.key.items()
        }
        return pd.read_csv(path, dtype=types, dtype_backend="pyarrow")


def listed(names: str | Sequence[str]) -> Sequence[str]:
    """One name, or several; RequestError where they are anything else."""
    found = (names,) if isinstance(names, str) else names
    if not isinstance(found, (list, tuple)) or not all(isinstance(name, str) for name in found):
        raise RequestError(f"Columns are named by a text, or by a list of texts, and not by {shown(names)}")
    return found


def _of_seconds(seconds: pd.Series) -> pd.Series:
    """Instants of numbers of seconds since 1970; ValueError where one lies outside the years 1 to 9999, as where they are milliseconds."""
    wrong = seconds[(seconds < FIRST_MICRO / 1e6) | (seconds > LAST_MICRO / 1e6)]
    if len(wrong):
        raise ValueError(
            f"{wrong.iloc[0]:.15g} seconds since 1970 lie outside the years 1 to 9999; are they of another unit?"
        )
    return pd.to_datetime((seconds * 1e6).round(), unit="us", utc=True)

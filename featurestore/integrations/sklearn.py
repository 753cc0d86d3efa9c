"""A scikit-learn transformer: keys in, features out, as of each row's time while a model learns and as of now while it serves."""

from __future__ import annotations

from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from featurestore.declare.frames import is_pandas
from featurestore.errors import FingerprintError, RequestError
from featurestore.integrations.opened import StorePath, opened, path_of
from featurestore.integrations.rows import called, names_of, taken
from featurestore.lazy import pd
from featurestore.serving.lookup import no_input
from featurestore.store import FeatureStore
from featurestore.training.snapshot import TIMESTAMP


class FeatureTransformer(TransformerMixin, BaseEstimator):  # type: ignore[misc]  # the base class has no types
    """Turns rows of keys and request values into features of a store.

    Rows with a column `timestamp` get the values as of their times, as `get_historical_features` has them; rows without it
    those of now, as `get_online_features` has them. `fit` takes rows with their times alone. timestamp=None: those of now
    always. Every kind of frame is taken, and columns that no feature asks for are left out.

    What it was fitted with is what it answers with: its fingerprint is kept, and FingerprintError raised where the
    definitions are others by then. store: a FeatureStore, or the path of a project, opened once in each process; a store goes to
    another process, or into a file, as its path. features: as for the store's verbs. dtypes: of the pandas frame, "numpy"
    (null is NaN, NaT or None) or "arrow"; `set_output` makes it another one.
    """

    def __init__(
        self, store: FeatureStore | StorePath, features: Any, *, timestamp: str | None = TIMESTAMP,
        dtypes: Literal["numpy", "arrow"] = "numpy", env: str | None = None,
    ) -> None:  # fmt: skip
        self.store = store
        self.features = features
        self.timestamp = timestamp
        self.dtypes = dtypes
        self.env = env

    def fit(self, X: Any, y: object = None) -> Self:  # noqa: ARG002, N803  their signature
        """Note the features that the rows would get, and their fingerprint. Rows without times are refused, unless timestamp=None."""
        rows = taken(X, "X")
        if self._has_times(rows):
            self._historical(rows[:1])
        elif self.timestamp is not None:
            raise RequestError(
                f"X has no column '{self.timestamp}', which says as of when a model learns; it has "
                f"{', '.join(map(str, names_of(rows))) or 'none'}. timestamp= names another column, and timestamp=None takes values of now"
            )
        else:
            service = opened(self.store, self.env).lookup(self.features).service
            if missing := [name for name in service.inputs if name not in names_of(rows)]:
                raise no_input("X", missing[0], names_of(rows))
            self._note(rows, [column.name for column in service.columns], service.fingerprint)
        return self

    def fit_transform(self, X: Any, y: object = None, **_: object) -> pd.DataFrame:  # noqa: ARG002, N803
        """`fit`, and then `transform`, with values as of the rows' times computed once."""
        rows = taken(X, "X")
        return self._historical(rows) if self._has_times(rows) else self.fit(rows).transform(rows)

    def transform(self, X: Any) -> pd.DataFrame:  # noqa: N803
        """The features of the rows; a pandas frame's index is kept. Errors are those of the store's verbs."""
        check_is_fitted(self, "fingerprint_")
        rows = taken(X, "X")
        if self._has_times(rows):
            return self._historical(rows, self.fingerprint_)
        store = opened(self.store, self.env)
        with called("X"):
            found = store.get_online_features(rows, self.features, fingerprint=self.fingerprint_)
        return self._shown(found.to_pandas(dtypes=self.dtypes), rows)

    def get_feature_names_out(self, input_features: object = None) -> npt.NDArray[Any]:  # noqa: ARG002
        """The names of the features, in their order."""
        check_is_fitted(self, "fingerprint_")
        return np.array(self._features_out, dtype=object)

    def _historical(self, rows: Any, fingerprint: str | None = None) -> pd.DataFrame:
        """The features as of the rows' times. fingerprint: those that are to be given; without it whichever there are, and
        these are noted."""
        assert self.timestamp is not None
        store = opened(self.store, self.env)
        with called("X"):
            found = store.get_historical_features(rows, self.features, timestamp=self.timestamp)
        here = found.manifest["fingerprint"]
        if fingerprint is None:
            self._note(rows, list(found.types), here)
        elif fingerprint != here:
            raise FingerprintError(
                f"The transformer was fitted with features of fingerprint {fingerprint}, and those at hand have {here}; fit it "
                "again, or take the definitions that it was fitted with"
            )
        return self._shown(found.to_pandas(dtypes=self.dtypes), rows)

    def _note(self, rows: Any, names: list[str], fingerprint: str) -> None:
        self.feature_names_in_ = np.array(names_of(rows), dtype=object)
        self.n_features_in_ = len(self.feature_names_in_)
        self._features_out, self.fingerprint_ = names, fingerprint

    def _shown(self, frame: pd.DataFrame, rows: Any) -> pd.DataFrame:
        shown = frame[self._features_out]
        if is_pandas(rows):
            shown.index = rows.index.copy()
        return shown

    def _has_times(self, rows: Any) -> bool:
        return self.timestamp is not None and self.timestamp in names_of(rows)

    def __sklearn_clone__(self) -> FeatureTransformer:
        """One that is not fitted, over the same store: a store has no copies."""
        return FeatureTransformer(**self.get_params(deep=False))

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__()
        env = self.store.config.environment if isinstance(self.store, FeatureStore) else self.env
        return {**state, "store": path_of(self.store), "env": env}

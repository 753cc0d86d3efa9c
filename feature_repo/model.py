"""Will this flight land more than a quarter of an hour late? The same model for every way of making its features.

scikit-learn's gradient boosting with its defaults, the same for both sides: the two differ in their features and in nothing else.
"""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd


@dataclass(frozen=True)
class Model:
    """A fitted classifier with the encoding that it was trained on.

    `categories` holds, for each column of text, its values in the order of their codes. A value that training has not seen is
    encoded as a missing one is, so that a batch of one row gets the codes that the whole year got.
    """

    classifier: Any
    columns: tuple[str, ...]
    categories: dict[str, tuple[str, ...]]

    def score(self, frame: pd.DataFrame) -> np.ndarray:
        """Return the probability (0 to 1) of each row to be late. The frame has the columns of training, in its order."""
        if tuple(frame.columns) != self.columns:
            raise ValueError(
                f"The model was trained on {list(self.columns)}, in this order, and got {list(frame.columns)}."
            )
        with _one_thread():
            return self.classifier.predict_proba(_encode(frame, self.categories))[:, 1]


class Quality(NamedTuple):
    """How well scores rank: the area under the ROC curve, and the share of late flights in the tenth scored highest."""

    auc: float
    precision: float


def fit(frame: pd.DataFrame, labels: Any) -> Model:
    """Fit on the features of `frame`, Arrow-backed or numpy, and boolean labels without nulls, one a row.

    Takes about 3 s for 300,000 rows on one core, and gives the same model again for the same rows.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier

    categories = {
        column: _values(frame[column]) for column in frame.columns if not pd.api.types.is_numeric_dtype(frame[column])
    }
    classifier = HistGradientBoostingClassifier(
        categorical_features=[column in categories for column in frame.columns], random_state=0
    )
    with _one_thread():
        classifier.fit(_encode(frame, categories), _booleans(labels))
    return Model(classifier, tuple(frame.columns), categories)


def evaluate(model: Model, frame: pd.DataFrame, labels: Any) -> Quality:
    """Score the frame and measure against boolean labels, one a row."""
    return measure(model.score(frame), labels)


def measure(scores: np.ndarray, labels: Any) -> Quality:
    """Measure scores that were collected before, such as those of a replay, against boolean labels, one a row."""
    from sklearn.metrics import roc_auc_score

    late = _booleans(labels)
    top = np.argsort(-scores, kind="stable")[: len(scores) // 10]
    return Quality(float(roc_auc_score(late, scores)), float(late[top].mean()))


def _one_thread() -> AbstractContextManager[Any]:
    """On few cores, OpenMP threads that wait for each other by spinning take ten times as long as one that works."""
    from threadpoolctl import threadpool_limits

    return threadpool_limits(1, user_api="openmp")


def _values(column: pd.Series) -> tuple[str, ...]:
    return tuple(sorted(column.dropna().unique()))


def _encode(frame: pd.DataFrame, categories: dict[str, tuple[str, ...]]) -> np.ndarray:
    """Make one matrix of doubles: numbers as they are, text as its code in training, null and unseen text as NaN."""
    matrix = np.empty(frame.shape, dtype=np.float64)
    for position, name in enumerate(frame.columns):
        if name in categories:
            codes = pd.Index(categories[name]).get_indexer(frame[name].to_numpy(dtype=object, na_value=None))  # type: ignore[arg-type]  # an array serves
            matrix[:, position] = np.where(codes < 0, np.nan, codes)
        else:
            matrix[:, position] = frame[name].to_numpy(dtype=np.float64, na_value=np.nan)
    return matrix


def _booleans(labels: Any) -> np.ndarray:
    series = pd.Series(labels)
    if series.isna().any():
        raise ValueError(f"{int(series.isna().sum())} labels are null. Keep the flights that arrived.")
    return series.to_numpy(dtype=bool)

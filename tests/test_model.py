"""The demonstration's model: encoding is fixed by training, whatever the frame is made of."""

import numpy as np
import pandas as pd
import pytest

from feature_repo.model import Quality, evaluate, fit, measure


@pytest.fixture(scope="module")
def rows():
    random = np.random.default_rng(7)
    count = 2_000
    carrier = random.choice(["UA", "AA", None], count, p=[0.5, 0.4, 0.1])
    delay = random.normal(0, 20, count)
    late = (delay + np.where(carrier == "UA", 20, 0)) > 10
    frame = pd.DataFrame({"hour": random.integers(5, 23, count), "carrier": carrier, "delay": delay})
    frame.loc[::11, "delay"] = np.nan
    return frame, late


def test_arrow_and_numpy_frames_give_one_model(rows):
    """Arrow-backed frames, nulls among their text included, are encoded as numpy-backed ones are."""
    frame, late = rows
    arrow = frame.convert_dtypes(dtype_backend="pyarrow")
    assert str(arrow["carrier"].dtype).endswith("[pyarrow]")
    ours, theirs = fit(frame, late), fit(arrow, pd.Series(late, dtype="bool[pyarrow]"))
    assert np.array_equal(ours.score(arrow), theirs.score(frame))
    assert evaluate(ours, arrow, late).auc > 0.9


def test_a_row_alone_is_scored_as_among_others(rows):
    """The codes come from training, so that a batch of one row, or of one carrier, means the same."""
    frame, late = rows
    model = fit(frame, late)
    scores = model.score(frame)
    for place in range(0, 200, 17):
        assert model.score(frame.iloc[[place]])[0] == scores[place]


def test_an_unknown_carrier_is_scored_as_a_missing_one(rows):
    """A value that training has not seen is no error and takes no other value's code."""
    frame, late = rows
    model = fit(frame, late)
    unknown, missing = frame.head(5).assign(carrier="ZZ"), frame.head(5).assign(carrier=None)
    assert np.array_equal(model.score(unknown), model.score(missing))


def test_other_columns_are_refused(rows):
    """Columns in another order are an error that names both, never a silent swap."""
    frame, late = rows
    model = fit(frame, late)
    with pytest.raises(ValueError, match=r"'hour', 'carrier', 'delay'.*got.*'delay', 'carrier', 'hour'"):
        model.score(frame[["delay", "carrier", "hour"]])


def test_null_labels_are_refused(rows):
    """A flight that never arrived has no label, and is not taken for a punctual one."""
    frame, late = rows
    labels = pd.Series(late, dtype="bool[pyarrow]")
    labels[3] = None
    with pytest.raises(ValueError, match="1 labels are null"):
        fit(frame, labels)


def test_quality_is_measured_on_the_top_tenth():
    """Of 20 scores the highest two are looked at; ties keep the order of the rows."""
    scores = np.array([0.9, 0.8, 0.8, *[0.1] * 17])
    assert measure(scores, [True, False, True, *[False] * 17]) == Quality(auc=pytest.approx(35.5 / 36), precision=0.5)  # type: ignore[arg-type]  # equal, nearly

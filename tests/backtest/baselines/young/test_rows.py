"""Rows of the past at an age: what a naive loop finds."""

import numpy as np
import pytest
from young_world import HORIZON, naive_label, naive_row, young_returns

from maml_jax.backtest.baselines.young.rows import features_by_age, known_labels, make_history

RETURNS, DONORS, AGES = young_returns(), [0, 1, 2, 3], np.array([0, 1, 7, 100])


def test_rows_and_labels_are_those_of_a_naive_loop():
    history = make_history(RETURNS, horizon=HORIZON, donors=DONORS)
    found, labels = features_by_age(history, AGES), known_labels(history)
    for asset in (0, 2, 4):
        for t in (0, 5, 61, 199, 202, 208, 300, 301, 418):
            expected = naive_label(RETURNS, asset, t)
            assert labels[asset, t] == pytest.approx(expected, nan_ok=True)
            for place, age in enumerate(AGES):
                row = naive_row(RETURNS, DONORS, asset, t, age)
                if row is None:
                    assert np.isnan(found[place, asset, t]).all()
                    continue
                expected = [*row[:5], *row[5:8][::-1]]
                steps = np.subtract(expected[:-1], expected[1:])
                wanted = [*steps, row[7] - np.log(0.01), *row[8:]]
                np.testing.assert_allclose(found[place, asset, t], wanted, rtol=1e-9, atol=1e-9)


def test_a_price_that_rests_has_the_floor_and_no_label():
    returns = np.zeros((2, 40))
    returns[1] = 0.01
    history = make_history(returns, horizon=2)
    features = features_by_age(history, np.array([30]))[0, 0, 35]
    np.testing.assert_allclose(features[4], np.log(1e-6) - np.log(0.01), rtol=1e-9)
    assert np.isnan(history.label[0]).all()


@pytest.mark.parametrize(
    ("returns", "settings", "message"),
    [
        (np.zeros(5), {"horizon": 1}, r"\[asset, time\]"),
        (np.full((2, 3), np.inf), {"horizon": 1}, "asset 0 at bar 0 is infinite"),
        (np.zeros((2, 3)), {"horizon": 0}, "at least 1 bar"),
        (np.zeros((2, 3)), {"horizon": 1, "donors": [0, 2]}, "from 0 to 1"),
        (np.zeros((2, 3)), {"horizon": 1, "donors": [0, 0]}, "distinct"),
        (np.zeros((2, 3)), {"horizon": 1, "donors": []}, "no donor"),
    ],
)
def test_impossible_returns_are_refused(returns, settings, message):
    with pytest.raises(ValueError, match=message):
        make_history(returns, **settings)

"""One regression for each age: what a library finds on the same cuts."""

import numpy as np
import pytest
from young_world import HORIZON, naive_label, naive_row, weighted_fit, young_returns

from maml_jax.backtest.baselines.young import Cuts, age_regression, realised_ahead

RETURNS, DONORS, FIRST = young_returns(), [0, 1, 2, 3], 330


def test_with_all_cuts_it_is_the_regression_on_all_rows():
    setting = Cuts(every=40, clip=None, quadratic=False)
    found = age_regression(
        RETURNS, horizon=HORIZON, ages=[9], first=FIRST, donors=DONORS, setting=setting
    )[0]
    for asset, t in ((4, 345), (1, 371)):
        fit = t - (t - FIRST) % 40
        rows = [(d, s) for d in DONORS if d != asset for s in range(fit - HORIZON + 1)]
        x = [naive_row(RETURNS, DONORS, d, s, 9) for d, s in rows]
        y = [naive_label(RETURNS, d, s) for d, s in rows]
        kept = [i for i in range(len(rows)) if x[i] is not None and np.isfinite(y[i])]
        beta = weighted_fit([x[i] for i in kept], [y[i] for i in kept], np.ones(len(kept)))
        expected = beta[0] + naive_row(RETURNS, DONORS, asset, t, 9) @ beta[1:]
        assert found[asset, t] == pytest.approx(expected, abs=2e-5)


def test_cuts_are_drawn_by_the_seed():
    def forecast(**setting):
        return age_regression(
            RETURNS, horizon=HORIZON, ages=[9], first=FIRST, setting=Cuts(count=400, **setting)
        )

    np.testing.assert_array_equal(forecast(seed=1), forecast(seed=1))
    assert np.nanmean(np.abs(forecast(seed=1) - forecast(seed=2))) > 1e-3


def test_more_of_an_asset_known_is_a_better_forecast():
    returns = young_returns(assets=12, times=900, gaps=False, seed=5)
    found = age_regression(
        returns, horizon=HORIZON, ages=[0, 2, 40], first=600, donors=range(9), targets=[9, 10, 11]
    )
    assert np.isnan(found[:, :9]).all()
    error = np.nanmean((found - realised_ahead(returns, HORIZON)) ** 2, axis=(1, 2))
    assert error[0] > 1.05 * error[1] > 1.05 * 1.05 * error[2]


def test_impossible_settings_are_refused():
    with pytest.raises(ValueError, match="at least 1 cut"):
        age_regression(RETURNS, horizon=1, ages=[1], first=9, setting=Cuts(count=0))

"""The refitted pooled regression: what a loop over its fits finds."""

import numpy as np
import pytest
from young_world import HORIZON, naive_label, naive_row, weighted_fit, young_returns

from maml_jax.backtest.baselines.young import Refit, refitted_har
from maml_jax.backtest.baselines.young.random_intercept import add_intercept, mean_errors
from maml_jax.backtest.baselines.young.rows import make_history

RETURNS = young_returns()
DONORS, AGES, FIRST = [0, 1, 2, 3], [0, 4, 30], 250


def naive_har(asset, t, age, setting):
    """Fit on all rows one by one, and forecast."""
    fit = t - (t - FIRST) % setting.every
    stop = fit - HORIZON + 1
    rows = []
    for s in range(stop - setting.window, stop):
        for donor in DONORS:
            if donor != asset:
                rows += [(donor, s, each, 1.0) for each in (AGES if setting.pool_ages else [age])]
        back = np.isfinite(RETURNS[asset, s + 1 : fit + 1]).sum()
        reached = [each for each in AGES if each <= age - (setting.every - 1) - back]
        if setting.own and reached:
            rows.append((asset, s, reached[-1], setting.own))
    used = 10 if setting.pool_ages else 8
    every = [naive_row(RETURNS, DONORS, a, s, each) for a, s, each, _ in rows]
    x = [row if row is None else row[:used] for row in every]
    y = [naive_label(RETURNS, a, s) for a, s, _, _ in rows]
    kept = [i for i in range(len(rows)) if x[i] is not None and np.isfinite(y[i])]
    beta = weighted_fit([x[i] for i in kept], [y[i] for i in kept], [rows[i][3] for i in kept])
    return beta[0] + naive_row(RETURNS, DONORS, asset, t, age)[:used] @ beta[1:]


@pytest.mark.slow
@pytest.mark.parametrize("pool_ages", [False, True])
@pytest.mark.parametrize("own", [0.0, 5.0])
def test_forecasts_are_those_of_a_loop_over_rows(own, pool_ages):
    setting = Refit(every=10, window=45, own=own, clip=None, pool_ages=pool_ages)
    found = refitted_har(
        RETURNS, horizon=HORIZON, ages=AGES, first=FIRST, donors=DONORS, setting=setting
    )
    assert np.isnan(found[:, :, :FIRST]).all()
    for asset, t in ((4, 257), (2, 270), (3, 309)):
        for place, age in enumerate(AGES):
            expected = naive_har(asset, t, age, setting)
            assert found[place, asset, t] == pytest.approx(expected, abs=2e-5)


def test_own_rows_count_only_from_an_age_that_has_some():
    with_own, without = (
        refitted_har(
            RETURNS, horizon=HORIZON, ages=AGES, first=FIRST, setting=Refit(every=5, own=own)
        )
        for own in (3.0, 0.0)
    )
    np.testing.assert_array_equal(with_own[:2], without[:2])
    assert np.nanmean(np.abs(with_own[2] - without[2])) > 1e-3


def test_mean_errors_are_those_of_a_loop():
    rng = np.random.default_rng(1)
    history = make_history(RETURNS, horizon=HORIZON)
    ages, rows = np.array([0, 3, 10, 40]), 12
    error = np.where(history.known, rng.standard_normal((4, *RETURNS.shape)), np.nan)
    error[:, 0, 100:110] = np.nan
    found = mean_errors(error, history, ages, rows)
    for asset, t in ((0, 1), (0, 20), (0, 112), (2, 210), (3, 302), (1, 64)):
        own = np.flatnonzero(history.known[asset, : t + 1])
        for place, age in enumerate(ages):
            seen = []
            for back in range(HORIZON, min(HORIZON + rows - 1, age) + 1):
                if back < len(own):
                    slot = np.flatnonzero(ages <= age - back)[-1]
                    seen.append(error[slot, asset, own[-1 - back]])
            known = [e for e in seen if np.isfinite(e)]
            expected = np.mean(known) if known else np.nan
            assert found[place, asset, t] == pytest.approx(expected, nan_ok=True)


def test_the_intercept_is_shrunk_by_the_share_of_errors_that_lasts():
    """Errors are a level of each asset plus noise: the factor is that of the normal means."""
    rng = np.random.default_rng(2)
    assets, times, rows, noise = 60, 500, 5, 0.8
    returns = np.exp(rng.standard_normal((assets, times)))
    history = make_history(returns, horizon=1)
    level = rng.standard_normal((assets, 1))
    error = level + noise * rng.standard_normal((assets, times))
    forecast = np.stack([history.label - error] * 2)
    ages, spans = np.array([0, 100]), np.array([[450, 0, 449]])
    added = (add_intercept(forecast, history, ages, rows, spans) - forecast)[1]
    assert not added[:, 10:450].any()
    mean = mean_errors(np.stack([error] * 2), history, ages, rows)[1]
    lasting = (np.sum(level**2) - level**2) / (assets - 1)
    expected = np.broadcast_to(lasting / (lasting + noise**2 / rows), (assets, 49))
    np.testing.assert_allclose((added / mean)[:, 450:-1], expected, atol=0.02)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"setting": Refit(every=0)}, "every 0"),
        ({"setting": Refit(window=0)}, "on 0"),
        ({"setting": Refit(own=-1.0)}, "at least 0"),
        ({"setting": Refit(clip=0.0)}, "positive number of deviations"),
        ({"ages": [5, 5]}, "increasing"),
        ({"targets": [9]}, "from 0 to 4"),
    ],
)
def test_impossible_settings_are_refused(change, message):
    settings = {"horizon": HORIZON, "ages": AGES, "first": FIRST, **change}
    with pytest.raises(ValueError, match=message):
        refitted_har(RETURNS, **settings)

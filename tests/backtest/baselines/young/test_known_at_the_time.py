"""No forecast knows later bars, nor those of an asset before its listing."""

import numpy as np
import pytest
from young_world import HORIZON, young_returns

from maml_jax.backtest.baselines.young import (
    Cuts,
    Filter,
    Nearest,
    Refit,
    age_regression,
    ewma_at_age,
    filtered_historical_simulation,
    garch_t,
    garch_t_tails,
    historical_simulation,
    nearest_donors,
    refitted_har,
)

RETURNS = young_returns()
AGES = [0, 5, 21, 60]
FIRST, AGE = 270, 60
REGRESSION = {"horizon": HORIZON, "ages": AGES, "first": FIRST, "donors": range(4)}
EVERYTHING = Refit(every=10, window=150, quadratic=True, own=3.0, intercept=20)
POOLED = EVERYTHING._replace(pool_ages=True)


def stack(tail):
    return np.concatenate([tail.var, tail.es])


FORECASTS = {
    "har": lambda r: refitted_har(r, **REGRESSION, setting=EVERYTHING),
    "har, ages pooled": lambda r: refitted_har(r, **REGRESSION, setting=POOLED),
    "each age": lambda r: age_regression(r, **REGRESSION, setting=Cuts(count=300, every=15)),
    "nearest": lambda r: nearest_donors(
        r, **REGRESSION, targets=[2, 4], setting=Nearest(count=40, every=5, stride=7)
    ),
    "ewma": lambda r: ewma_at_age(r, ages=AGES),
    "garch": lambda r: garch_t(
        r, horizon=HORIZON, ages=[250], refit=20, first=FIRST, targets=[2, 4]
    ),
    "garch tails": lambda r: stack(
        garch_t_tails(r, horizon=HORIZON, window=250, refit=20, first=FIRST, targets=[2, 4])
    ),
    "history": lambda r: stack(historical_simulation(r, horizon=HORIZON, window=AGE)),
    "filtered": lambda r: stack(
        filtered_historical_simulation(
            r, horizon=HORIZON, window=AGE, first=330, setting=Filter(paths=50)
        )
    ),
    "garch filtered": lambda r: stack(
        filtered_historical_simulation(
            r, horizon=HORIZON, window=250, first=FIRST, targets=[2, 4],
            setting=Filter(kind="garch", paths=50, refit=20),
        )
    ),
}  # fmt: skip
CASES = [
    pytest.param(name, marks=[pytest.mark.long] * ("garch" in name or name == "nearest"))
    for name in FORECASTS
]
"""Those that take a second or more are left out of the quick run."""


@pytest.mark.parametrize("name", CASES)
def test_later_bars_change_no_forecast(name):
    full = FORECASTS[name](RETURNS)
    assert np.isfinite(full[-1, 4]).any()
    t = 345
    changed = RETURNS.copy()
    changed[:, t + 1 :] *= np.random.default_rng(0).uniform(0, 9, changed[:, t + 1 :].shape)
    changed[0, t + 2 :] = np.nan
    for other in (changed, RETURNS[:, : t + 1]):
        found = FORECASTS[name](other)
        np.testing.assert_allclose(found[..., : t + 1], full[..., : t + 1], rtol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_returns_before_the_listing_change_no_forecast(name):
    """Of an asset that is no donor, at the last age that is forecast."""
    age, t = (250, 345) if "garch" in name else (AGE, 345)
    full = FORECASTS[name](RETURNS)
    changed = RETURNS.copy()
    changed[4, : t - age + 1] *= np.random.default_rng(0).uniform(0.1, 9, t - age + 1)
    found = FORECASTS[name](changed)
    assert np.isfinite(full[-1, 4, t])
    np.testing.assert_allclose(found[..., 4, t][-1], full[-1, 4, t], rtol=1e-7)
    if "filtered" in name or name == "history":
        np.testing.assert_allclose(found[:, 4, t], full[:, 4, t], rtol=1e-7)
    assert (found[-1, 4, : t - 30] != full[-1, 4, : t - 30]).any()

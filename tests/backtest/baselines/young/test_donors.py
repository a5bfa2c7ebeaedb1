"""Regression on the nearest histories: what brute force finds."""

import math

import numpy as np
import pytest
from young_world import (
    HORIZON,
    naive_label,
    naive_row,
    naive_volatility,
    weighted_fit,
    young_returns,
)

from maml_jax.backtest.baselines.young import Nearest, nearest_donors, warping_distance

RETURNS, DONORS = young_returns(), [0, 1, 2, 3]


def naive_warping(p, q, band):
    """The recursion, cell by cell."""
    cost = {(-1, -1): 0.0}
    for i in range(len(p)):
        for j in range(len(q)):
            if abs(i - j) <= band:
                before = [(i - 1, j), (i, j - 1), (i - 1, j - 1)]
                cost[i, j] = (p[i] - q[j]) ** 2 + min(cost.get(b, math.inf) for b in before)
    return math.sqrt(cost[len(p) - 1, len(q) - 1])


@pytest.mark.parametrize("band", [0, 1, 4, 30])
def test_warping_is_the_recursion_cell_by_cell(band):
    rng = np.random.default_rng(band)
    path, others = rng.standard_normal(17), rng.standard_normal((6, 17))
    found = warping_distance(path, others, band=band)
    np.testing.assert_allclose(found, [naive_warping(path, q, band) for q in others])
    if band == 0:
        np.testing.assert_allclose(found, np.sqrt(((path - others) ** 2).sum(axis=1)))


def naive_path(returns, age, length):
    """Volatility over the last 5 returns, or all since the listing, at the last bars."""
    seen = returns[len(returns) - age :]
    return [naive_volatility(seen[:m][-5:], 5) for m in range(max(age - length, 0) + 1, age + 1)]


@pytest.mark.parametrize("age", [1, 12, 40])
def test_forecasts_are_those_of_brute_force(age):
    setting = Nearest(count=25, every=20, stride=3, length=30, own=2.0, clip=None)
    t, asset = 340, 2
    found = nearest_donors(
        RETURNS, horizon=HORIZON, ages=[age], first=300, donors=DONORS, targets=[asset],
        setting=setting,
    )  # fmt: skip
    assert np.flatnonzero(np.isfinite(found[0, asset])).tolist() == [*range(300, 420, 20)]
    bars = {a: np.flatnonzero(np.isfinite(RETURNS[a, : t + 1])) for a in range(5)}
    path = naive_path(RETURNS[asset, bars[asset]], age, 30)
    candidates = []
    for donor in DONORS:
        last = np.searchsorted(bars[donor], t - HORIZON, side="right")
        for stop in range(last, age - 1, -3):
            if donor != asset and math.isfinite(naive_label(RETURNS, donor, bars[donor][stop - 1])):
                other = naive_path(RETURNS[donor, bars[donor][:stop]], age, 30)
                near = naive_warping(path, other, math.ceil(0.1 * len(path)))
                candidates.append((near, donor, stop))
    nearest = sorted(candidates)[:25]
    weights = np.exp(-np.array([c[0] for c in nearest]) / np.mean([c[0] for c in nearest]))
    rows = [
        (donor, stop - back, age - back, weight)
        for (_, donor, stop), weight in zip(nearest, weights / weights.mean(), strict=True)
        for back in range(min(age, 30))
    ]
    rows += [(asset, len(bars[asset]) - back, age - back, 2.0) for back in range(age + 1)]
    x, y, w = [], [], []
    for a, stop, then, weight in rows:
        s = bars[a][stop - 1]
        if s + HORIZON <= t and math.isfinite(naive_label(RETURNS, a, s)):
            x.append(naive_row(RETURNS, DONORS, a, s, then))
            y.append(naive_label(RETURNS, a, s))
            w.append(weight)
    beta = weighted_fit(x, y, w)
    expected = beta[0] + naive_row(RETURNS, DONORS, asset, t, age) @ beta[1:]
    assert found[0, asset, t] == pytest.approx(expected, abs=1e-4)


def test_the_nearest_are_of_the_assets_own_kind():
    """Of donors with fast and with slow swings of volatility it finds those of its own kind."""
    rng = np.random.default_rng(0)
    pace = np.where(np.arange(10)[:, None] % 2, 15, 3)
    level = np.sin(np.arange(520) / pace + rng.uniform(0, 6, (10, 1))) - 4.5
    returns = np.exp(level + 0.1 * rng.standard_normal(level.shape))
    near, every = (
        nearest_donors(
            returns, horizon=5, ages=[30], first=400, donors=range(8), targets=[8, 9],
            setting=Nearest(count=count, stride=3, own=0.0),
        )
        for count in (40, 10_000)
    )  # fmt: skip
    bars = np.arange(400, 515, 21)
    ahead = level[8:, bars[:, None] + np.arange(1, 6)]
    truth = 0.5 * np.log(np.mean(np.exp(2 * ahead), axis=-1))
    errors = [np.std(found[0, 8:][:, bars] - truth) for found in (near, every)]
    assert errors[0] < 0.6 * errors[1]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (Nearest(count=0), "at least 1"),
        (Nearest(band=2.0), "share of the path"),
        (Nearest(own=-1.0), "own rows"),
    ],
)
def test_impossible_settings_are_refused(setting, message):
    with pytest.raises(ValueError, match=message):
        nearest_donors(RETURNS, horizon=1, ages=[1], first=9, setting=setting)


def test_paths_of_other_lengths_are_refused():
    with pytest.raises(ValueError, match="a path of 3 bars"):
        warping_distance(np.zeros(3), np.zeros((2, 4)), band=1)
    with pytest.raises(ValueError, match="at least 0 bars"):
        warping_distance(np.zeros(3), np.zeros((2, 3)), band=-1)

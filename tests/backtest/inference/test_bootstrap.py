import numpy as np
import pandas as pd
import pytest

from maml_jax.backtest import metrics
from maml_jax.backtest.inference.bootstrap import (
    block_length,
    bootstrap_differences,
    bootstrap_intervals,
    draws,
    quantiles,
)
from maml_jax.backtest.inference.bootstrap_metrics import figures

YEAR = 252

NAMED = {
    "Return [%]": lambda r: 100 * metrics.total_return(r),
    "CAGR [%]": lambda r: 100 * metrics.cagr(r, YEAR),
    "Mean Return (Ann.) [%]": lambda r: 100 * r.mean() * YEAR,
    "Volatility (Ann.) [%]": lambda r: 100 * metrics.annual_volatility(r, YEAR),
    "Sharpe Ratio": lambda r: metrics.sharpe_ratio(r, YEAR),
    "Sortino Ratio": lambda r: metrics.sortino_ratio(r, YEAR),
    "Calmar Ratio": lambda r: metrics.calmar_ratio(r, YEAR),
    "Omega Ratio": metrics.omega_ratio,
    "Max. Drawdown [%]": lambda r: 100 * metrics.max_drawdown(r),
    "VaR 5 % [%]": lambda r: 100 * metrics.value_at_risk(r),
    "CVaR 5 % [%]": lambda r: 100 * metrics.conditional_value_at_risk(r),
    "Win Rate (Bars) [%]": lambda r: 100 * metrics.win_rate(r),
}


def odd_series(rng, length):
    """Columns that are usual, flat, constant, mostly flat, ruined, always won, and far from 0."""
    usual = rng.standard_t(4, length) * 0.01
    rare = np.where(rng.random(length) < 0.05, usual, 0.0)
    ruined = usual.copy()
    ruined[length // 2] = -1.2
    constant = np.full(length, 0.001)
    return np.stack(
        [usual, np.zeros(length), constant, rare, ruined, np.abs(usual), usual + 5], axis=1
    )


@pytest.mark.parametrize("length", [1, 2, 3, 21, 250])
def test_figures_of_samples_are_the_metrics_of_each_sample(length):
    rng = np.random.default_rng(length)
    returns = odd_series(rng, length)
    alone = rng.integers(length, size=(15, length))
    bars = np.concatenate([alone, *draws(length, 15, max(length / 6, 1), rng)])
    found = figures(returns, bars, YEAR)
    assert found.keys() == NAMED.keys()
    for name, metric in NAMED.items():
        for sample, drawn in enumerate(bars):
            for column in range(returns.shape[1]):
                expected = metric(returns[drawn, column])
                assert found[name][sample, column] == pytest.approx(
                    expected, rel=1e-7, abs=1e-9, nan_ok=True
                ), (name, sample, column)


def test_what_is_not_finite_has_no_figure_and_leaves_the_others_alone():
    rng = np.random.default_rng(0)
    net = pd.DataFrame(rng.normal(size=(100, 2)) * 0.01, columns=["a", "b"])
    spoilt = net.assign(c=np.nan, d=np.where(np.arange(100) == 50, np.inf, 0.01))
    table = bootstrap_intervals(spoilt, YEAR, seed=3, samples=50).set_index(["strategy", "figure"])
    alone = bootstrap_intervals(net, YEAR, seed=3, samples=50).set_index(["strategy", "figure"])
    pd.testing.assert_frame_equal(table.loc[["a", "b"]], alone)
    assert table.loc[["c", "d"], ["value", "low", "high"]].isna().all(axis=None)


@pytest.mark.parametrize("length", [1, 2, 5])
def test_a_few_bars_have_a_table_and_no_bars_an_empty_one(length):
    net = pd.DataFrame({"a": np.linspace(-0.01, 0.02, length)})
    table = bootstrap_intervals(net, YEAR, seed=0, samples=20)
    assert list(table.columns) == ["strategy", "figure", "value", "low", "high"]
    assert len(table) == len(NAMED)
    assert bootstrap_intervals(net.iloc[:0], YEAR, seed=0).empty
    assert bootstrap_differences(net.iloc[:0].assign(b=0.0), "a", ["b"], YEAR, seed=0).empty


def test_values_are_those_of_the_series_and_lie_between_bounds_that_a_seed_decides():
    rng = np.random.default_rng(1)
    net = pd.DataFrame(rng.normal(0.0005, 0.01, size=(600, 3)), columns=["x", "y", "z"])
    table = bootstrap_intervals(net, YEAR, seed=7, samples=300)
    assert table["strategy"].unique().tolist() == ["x", "y", "z"]
    assert table.equals(bootstrap_intervals(net, YEAR, seed=7, samples=300))
    assert not table.equals(bootstrap_intervals(net, YEAR, seed=8, samples=300))
    sharpe = table[table["figure"] == "Sharpe Ratio"].set_index("strategy")
    for name in net:
        assert sharpe["value"][name] == pytest.approx(metrics.sharpe_ratio(net[name], YEAR))
    assert (sharpe["low"] < sharpe["value"]).all() and (sharpe["value"] < sharpe["high"]).all()
    # Two samples of a normal distribution hold 95 % within 1.96 standard errors, year / sqrt(n).
    width = (sharpe["high"] - sharpe["low"]).mean()
    assert width == pytest.approx(2 * 1.96 * np.sqrt(YEAR / 600), rel=0.15)


def test_samples_string_blocks_together_on_a_circle():
    length, block = 50, 5.0
    bars = np.concatenate(list(draws(length, 4000, block, np.random.default_rng(0))))
    assert bars.shape == (4000, length) and bars.min() == 0 and bars.max() == length - 1
    goes_on = (np.diff(bars, axis=1) % length) == 1
    # A new block begins at any bar, the next one too.
    assert goes_on.mean() == pytest.approx(1 - 1 / block + 1 / block / length, abs=0.005)
    share = np.bincount(bars.ravel()) / bars.size
    assert share == pytest.approx(np.full(length, 1 / length), rel=0.05)


def test_the_variance_of_a_mean_is_that_of_politis_and_romano():
    rng = np.random.default_rng(2)
    length, block = 120, 8.0
    x = np.convolve(rng.normal(size=length + 6), np.ones(7), "valid")
    means = np.concatenate([x[b].mean(axis=1) for b in draws(length, 20_000, block, rng)])
    centred, keep = x - x.mean(), 1 - 1 / block
    circular = [np.mean(centred * np.roll(centred, -lag)) for lag in range(length)]
    lags = np.arange(1, length)
    weights = 2 * (1 - lags / length) * keep**lags
    expected = (circular[0] + weights @ circular[1:]) / length
    assert means.var() == pytest.approx(expected, rel=0.05)


def test_blocks_are_long_where_returns_depend_on_each_other():
    rng = np.random.default_rng(3)
    noise = rng.normal(size=(2000, 1))
    persistent = np.zeros_like(noise)
    for t in range(1, len(noise)):
        persistent[t] = 0.9 * persistent[t - 1] + noise[t]
    least = 2000 ** (1 / 3)
    assert block_length(noise) == pytest.approx(least)
    assert 2 * least < block_length(persistent) < 2000 / 3
    spoilt = np.concatenate([persistent, np.full_like(noise, np.nan), np.zeros_like(noise)], axis=1)
    assert block_length(spoilt) == block_length(persistent)
    assert block_length(np.zeros((5, 2))) == pytest.approx(5 ** (1 / 3))


def test_a_sharpe_ratio_lies_in_its_interval_about_as_often_as_is_said():
    rng = np.random.default_rng(4)
    mean, deviation, worlds = 0.0004, 0.01, 300
    # 300 worlds are 300 columns of one table whose samples share their bars.
    net = pd.DataFrame(mean + deviation * rng.standard_t(6, (500, worlds)) / np.sqrt(1.5))
    table = bootstrap_intervals(net, YEAR, seed=0, samples=400)
    rows = table[table["figure"] == "Sharpe Ratio"]
    true = mean / deviation * np.sqrt(YEAR)
    covered = ((rows["low"] <= true) & (true <= rows["high"])).mean()
    assert 0.91 < covered < 0.98


def test_differences_of_what_moves_together_are_narrow():
    rng = np.random.default_rng(5)
    common, own = rng.normal(0, 0.01, 1000), rng.normal(0, 0.001, 1000)
    net = pd.DataFrame({"a": common + 0.0002, "b": common + own, "c": rng.normal(0, 0.01, 1000)})
    table = bootstrap_differences(net, "a", ["a", "b", "c", "b"], YEAR, seed=0, samples=300)
    rows = table[table["figure"] == "Mean Return (Ann.) [%]"].set_index("other")
    assert rows.index.tolist() == ["b", "c"]
    assert rows["value"]["b"] == pytest.approx(100 * YEAR * (net["a"] - net["b"]).mean())
    width = rows["high"] - rows["low"]
    assert width["b"] < 0.2 * width["c"]
    assert rows["low"]["b"] > 0 > rows["low"]["c"]
    same = bootstrap_differences(net.assign(d=net["a"]), "a", ["d"], YEAR, seed=0, samples=50)
    assert (same[["value", "low", "high"]] == 0).all(axis=None)


def test_bounds_are_nan_where_a_figure_is_often_not_determined():
    column = np.where(np.arange(100) < 10, np.nan, 1.0)
    low, high = quantiles(np.stack([column, np.ones(100)], axis=1), 0.95)
    assert np.isnan([low[0], high[0]]).all() and low[1] == high[1] == 1
    with pytest.raises(ValueError, match="between 0 and 1"):
        quantiles(np.ones((3, 1)), 1.0)
    with pytest.raises(ValueError, match="at least one sample"):
        bootstrap_intervals(pd.DataFrame({"a": [0.1, 0.2]}), YEAR, seed=0, samples=0)

"""Metrics on the vectors that empyrical publishes in its tests, with NaN and on tables.

Vectors and expected values: quantopian/empyrical, empyrical/tests/test_stats.py (Apache 2.0).
"""

import numpy as np
import pandas as pd
import pytest

from maml_jax.backtest import metrics
from maml_jax.backtest.inference.significance import probabilistic_sharpe
from maml_jax.errors import ConfigError, ShapeError


def per_cent(*values, freq="D"):
    index = pd.date_range("2000-01-30", periods=len(values), freq=freq)
    return pd.Series(np.array(values, float) / 100, index)


MIXED = per_cent(np.nan, 1, 10, -4, 2, 3, 2, 1, -10)
FROM_ZERO = per_cent(0, 1, 10, -4, 2, 3, 2, 1, -10)
POSITIVE = per_cent(1, 2, 1, 1, 1, 1, 1, 1, 1)
NEGATIVE = per_cent(0, -6, -7, -1, -9, -2, -6, -8, -5)
BENCHMARK = per_cent(0, 1, 0, 1, 0, 1, 0, 1, 0)
FLAT = per_cent(*[1] * 9)
ONE, EMPTY = per_cent(1), per_cent()
TABLE = pd.DataFrame(
    {
        "one": [-0.00171614, 0.01322056, 0.03063862, -0.01422057,
                -0.00489779, 0.01268925, -0.03357711, 0.01797036],
        "two": [0.01846232, 0.00793951, -0.01448395, 0.00422537,
                -0.00339611, 0.03756813, 0.0151531, 0.03549769],
    }
)  # fmt: skip
D, W, M = 252, 52, 12
NAN = np.nan

VECTORS = {
    metrics.total_return: [
        ((EMPTY,), NAN), ((ONE,), 0.01), ((MIXED,), 0.038931091700480147),
        ((NEGATIVE,), -0.36590730349873601),
    ],
    metrics.max_drawdown: [
        ((EMPTY,), NAN), ((ONE,), 0.0), ((BENCHMARK,), 0.0), ((MIXED,), -0.1), ((POSITIVE,), 0.0),
        ((NEGATIVE,), -0.36590730349873601), ((per_cent(10, -10, 10),), -0.1),
    ],
    metrics.cagr: [
        ((EMPTY, D), NAN), ((ONE, D), 11.274002099240244), ((MIXED, D), 1.9135925373194231),
        ((FLAT, D), 11.274002099240256), ((per_cent(3, 3, 3), 1), 0.03),
        ((FROM_ZERO, W), 0.24690830513998208), ((FROM_ZERO, M), 0.052242061386048144),
    ],
    metrics.annual_volatility: [
        ((FLAT, D), 0.0), ((MIXED, D), 0.9136465399704637),
        ((FROM_ZERO, W), 0.38851569394870583), ((FROM_ZERO, M), 0.18663690238892558),
    ],
    metrics.calmar_ratio: [
        ((EMPTY, D), NAN), ((ONE, D), NAN), ((MIXED, D), 19.135925373194233),
        ((FROM_ZERO, W), 2.4690830513998208), ((FROM_ZERO, M), 0.52242061386048144),
    ],
    metrics.omega_ratio: [((EMPTY,), NAN), ((ONE,), NAN)],
    metrics.sharpe_ratio: [
        ((EMPTY, D), NAN), ((ONE, D), NAN), ((MIXED - MIXED, D), NAN),
        ((MIXED, D), 1.7238613961706866), ((MIXED - BENCHMARK, D), 0.34111411441060574),
        ((POSITIVE, D), 52.915026221291804), ((NEGATIVE, D), -24.406808633910085),
    ],
    metrics.sortino_ratio: [
        ((EMPTY, D), NAN), ((ONE, D), NAN), ((MIXED - MIXED, D), NAN),
        ((MIXED, D), 2.605531251673693), ((MIXED - FLAT, D), -1.3934779588919977),
        ((NEGATIVE, D), -13.532743075043401), ((FROM_ZERO, W), 1.1158901056866439),
        ((FROM_ZERO, M), 0.53605626741889756),
        ((TABLE, D), [3.0639640966566306, 38.090963117002495]),
        ((TABLE, W), [1.3918264112070571, 17.303077589064618]),
        ((TABLE, M), [0.6686117809312383, 8.3121296084492844]),
    ],
    metrics.tail_ratio: [((EMPTY,), NAN), ((ONE,), 1.0), ((MIXED,), 0.9556962025316452)],
    metrics.beta: [
        ((EMPTY, BENCHMARK), NAN), ((ONE, ONE), NAN), ((MIXED, FLAT), NAN), ((MIXED, MIXED), 1.0),
        ((2 * MIXED, -MIXED), -2.0), ((MIXED, NEGATIVE[1:]), -0.71296296296296313),
    ],
    metrics.alpha: [
        ((EMPTY, BENCHMARK, D), NAN), ((ONE, ONE, D), NAN), ((MIXED, FLAT, D), NAN),
        ((MIXED, MIXED, D), 0.0), ((MIXED, -MIXED, D), 0.0),
        ((MIXED, NEGATIVE[1:], D), -8.306666666666668),  # of versions that did not compound it
    ],
}  # fmt: skip


@pytest.mark.parametrize("metric", VECTORS, ids=lambda each: each.__name__)
def test_the_vectors_that_empyrical_publishes(metric):
    for arguments, expected in VECTORS[metric]:
        np.testing.assert_allclose(metric(*arguments), expected, atol=1e-8, err_msg=str(arguments))


def test_cumulated_returns_are_those_that_empyrical_publishes():
    expected = [0.0, 0.01, 0.111, 0.066559, 0.08789, 0.12052, 0.14293, 0.15436, 0.03893]
    np.testing.assert_allclose(metrics.equity_curve(MIXED) - 1, expected, atol=1e-5)
    expected = [0.0, -0.06, -0.1258, -0.13454, -0.21243, -0.22818, -0.27449, -0.33253, -0.36590]
    np.testing.assert_allclose(metrics.equity_curve(NEGATIVE) - 1, expected, atol=1e-5)


def test_where_we_say_that_we_differ_empyrical_does():
    """Infinity on series without a loss, and alpha compounded."""
    import empyrical

    with np.errstate(all="ignore"):
        assert empyrical.sharpe_ratio(FLAT) == empyrical.sortino_ratio(POSITIVE) == np.inf
        compounded = (1 + metrics.alpha(MIXED, NEGATIVE[1:], 1)) ** D - 1
        assert empyrical.alpha(MIXED, NEGATIVE[1:]) == pytest.approx(compounded)
        assert compounded == pytest.approx(-0.9997853834885004)
    assert np.isnan([metrics.sharpe_ratio(FLAT, D), metrics.sortino_ratio(POSITIVE, D)]).all()


OF_ONE = {
    "sharpe": lambda r: metrics.sharpe_ratio(r, D),
    "sortino": lambda r: metrics.sortino_ratio(r, D),
    "volatility": lambda r: metrics.annual_volatility(r, D),
    "total": metrics.total_return,
    "max drawdown": metrics.max_drawdown,
    "omega": metrics.omega_ratio,
    "tail": metrics.tail_ratio,
    "var": lambda r: metrics.value_at_risk(r, 0.1),
    "cvar": lambda r: metrics.conditional_value_at_risk(r, share=0.1),
    "win rate": metrics.win_rate,
    "profit factor": metrics.profit_factor,
    "turnover": lambda r: metrics.annual_turnover(r.abs(), D),
    "geometric": metrics.geometric_mean,
    "quality": metrics.system_quality,
    "kelly": metrics.kelly_criterion,
    "beta": lambda r: metrics.beta(r, r**2),
    "alpha": lambda r: metrics.alpha(r, r**2, D),
    "break-even": lambda r: metrics.break_even_cost(r, r.abs()),
    "probabilistic": lambda r: (
        r.apply(probabilistic_sharpe) if r.ndim == 2 else probabilistic_sharpe(r)
    ),
}


@pytest.mark.parametrize("name", OF_ONE)
def test_nan_is_skipped_and_tables_are_measured_by_column(name):
    metric, rng = OF_ONE[name], np.random.default_rng(5)
    prices = pd.DataFrame(np.exp(np.cumsum(0.01 * rng.standard_normal((80, 3)), axis=0)))
    returns = prices.pct_change()
    returns = returns.mask(rng.random(returns.shape) < 0.1).set_axis(["A", "B", "A"], axis=1)
    found = metric(returns)
    assert list(found.index) == ["A", "B", "A"]
    for place in range(3):
        own = returns.iloc[:, place]
        assert np.isfinite(metric(own))
        assert metric(own) == pytest.approx(metric(own.dropna()), rel=1e-12)
        assert found.iloc[place] == metric(own)
    assert np.isnan(metric(returns.iloc[:, 0] * np.nan))


def test_curves_keep_the_bars_of_their_table():
    table = pd.DataFrame({"a": MIXED, "b": NEGATIVE})
    for curve in (metrics.equity_curve, metrics.drawdown):
        found = curve(table)
        assert found.index.equals(table.index)
        np.testing.assert_array_equal(found["a"], curve(MIXED))
        assert len(curve(MIXED)) == len(MIXED)


def test_a_benchmark_is_joined_by_date_and_may_be_a_table():
    later = MIXED.shift(freq="3D")
    assert metrics.beta(MIXED, later) == metrics.beta(MIXED[3:], later[:-3])
    table = pd.DataFrame({"a": MIXED, "b": NEGATIVE})
    assert metrics.beta(table, -table).tolist() == pytest.approx([-1, -1])
    assert metrics.alpha(BENCHMARK, table, D)["b"] == metrics.alpha(BENCHMARK, NEGATIVE, D)
    with pytest.raises(ShapeError, match="same columns"):
        metrics.beta(table, table[["a"]])
    with pytest.raises(ShapeError, match="same bars"):
        metrics.beta(np.zeros(3), np.zeros(4))
    with pytest.raises(ShapeError, match="one series"):
        metrics.sharpe_ratio(np.zeros((3, 2)), D)


@pytest.mark.parametrize("share", [5, 95, 0, -0.1, NAN])
def test_a_share_is_no_per_cent(share):
    for metric in (metrics.value_at_risk, metrics.conditional_value_at_risk):
        with pytest.raises(ConfigError, match=r"0\.05 is 5 %"):
            metric(MIXED, share)

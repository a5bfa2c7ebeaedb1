"""Labels of regimes: what they are made of, what they must not see, and truth that is known."""

import numpy as np
import pandas as pd
import pytest
from features.markets import BARS, MARKETS
from helpers import random_bars, random_market

from maml_jax.data.synthetic import Regime, regime_bars
from maml_jax.errors import DataError
from maml_jax.features import Feature, check_feature
from maml_jax.features.signals.regimes import (
    REGIMES,
    label_regimes,
    market_log_returns,
    market_regimes,
    regime_warm_up,
)

SHORT = {"trend_window": 12, "volatility_window": 6, "history": 40}
WARM_UP = 45
PLACE = {name: place for place, name in enumerate(REGIMES)}


def bars_of(closes):
    closes = np.asarray(closes, float)
    return pd.DataFrame({"close": closes}, index=random_bars(count=len(closes)).index)


def slow_label(closes, trend_window, volatility_window, history, trend=1.0, low=0.2, high=0.8):
    """Label the last of a list of closes, in the words of the module."""
    returns = np.diff(np.log(closes))
    last = returns[-trend_window:]
    z = last.sum() / (np.std(last, ddof=1) * trend_window**0.5)
    ends = range(len(returns) - history + 1, len(returns) + 1)
    deviations = [np.std(returns[e - volatility_window : e], ddof=1) for e in ends]
    rank = np.mean([d < deviations[-1] for d in deviations[:-1]])
    if abs(z) > trend:
        return "bull" if z > 0 else "bear"
    if rank >= high:
        return "high_volatility"
    return "low_volatility" if rank <= low else "ranging"


def as_feature(market=False):
    def compute(bars):
        labels = market_regimes({"own": bars}, **SHORT) if market else label_regimes(bars, **SHORT)
        return labels.astype(float).where(labels >= 0)

    return Feature("regime", compute, WARM_UP)


def test_labels_are_those_of_the_slow_form():
    bars = random_bars(3, 400)
    labels = label_regimes(bars, **SHORT)
    assert labels.dtype == np.int8 and labels.index.equals(bars.index)
    assert (labels.iloc[:WARM_UP] == -1).all() and set(labels.iloc[WARM_UP:]) == set(range(5))
    for t in range(WARM_UP, len(bars)):
        assert REGIMES[labels.iloc[t]] == slow_label(bars["close"].iloc[: t + 1], **SHORT)


def test_the_warm_up_is_that_of_what_reaches_back_farthest():
    assert regime_warm_up(**SHORT) == WARM_UP == 6 + 40 - 1
    assert regime_warm_up(trend_window=90, volatility_window=5, history=10) == 90
    labels = label_regimes(random_bars(count=300))
    assert (labels.iloc[: regime_warm_up()] == -1).all()
    assert (labels.iloc[regime_warm_up() :] >= 0).all()
    assert (label_regimes(random_bars(count=30)) == -1).all()


@pytest.mark.parametrize("market", MARKETS)
@pytest.mark.parametrize("of_all", [False, True])
def test_a_label_knows_neither_later_bars_nor_where_the_series_begins(market, of_all):
    check_feature(as_feature(of_all), BARS[market])  # finite after the warm-up, too


def test_the_market_s_label_changes_with_later_bars_of_no_asset():
    bars = random_market(200, 3)
    bars["A1"] = bars["A1"].iloc[30:].drop(bars["A1"].index[100:104])
    whole = market_regimes(bars, **SHORT)
    end = bars["A0"].index[150]
    cut = market_regimes({name: b.loc[:end] for name, b in bars.items()}, **SHORT)
    pd.testing.assert_series_equal(cut, whole.loc[:end])
    wild = {name: b.copy() for name, b in bars.items()}
    wild["A2"].iloc[151:] *= 50
    pd.testing.assert_series_equal(market_regimes(wild, **SHORT).loc[:end], whole.loc[:end])
    in_another_order = dict(reversed(bars.items()))
    pd.testing.assert_series_equal(market_regimes(in_another_order, **SHORT), whole)


def test_the_market_is_the_equal_weighted_index():
    bars = {"a": bars_of([10, 11, 11, 11]), "b": bars_of([4, 4, 2, 4]).iloc[1:]}
    found = np.exp(market_log_returns(bars)) - 1
    np.testing.assert_allclose(found, [np.nan, 0.1, (0.0 - 0.5) / 2, (0 + 1) / 2])
    alone = random_bars(5, 300)
    pd.testing.assert_series_equal(market_regimes({"a": alone}), label_regimes(alone))


@pytest.mark.parametrize("name", ["constant", "all constant"])
def test_a_price_that_rests_is_ranging(name):
    labels = label_regimes(BARS[name], **SHORT)
    assert (labels.iloc[WARM_UP:] == PLACE["ranging"]).all()


def test_a_lone_move_is_no_trend():
    closes = np.full(200, 3.3)
    closes[100:] += 0.1  # its trend is 1 but for rounding
    labels = label_regimes(bars_of(closes), **SHORT).iloc[WARM_UP:]
    assert not labels.isin([PLACE["bull"], PLACE["bear"]]).any()


def test_prices_that_move_evenly_have_a_trend():
    up, down = (bars_of(100 * np.exp(s * 0.01 * np.arange(200))) for s in (1, -1))
    for bars, name in ((up, "bull"), (down, "bear")):
        assert (label_regimes(bars, **SHORT).iloc[WARM_UP:] == PLACE[name]).all()


def test_a_masked_bar_hides_what_would_read_it_and_no_more():
    bars = random_bars(7, 260)
    masked = bars.copy()
    masked.iloc[120] = np.nan
    labels, whole = label_regimes(masked, **SHORT), label_regimes(bars, **SHORT)
    assert (labels.iloc[120:133] == -1).all()  # returns of bars 120 and 121, in 12 windows each
    assert (labels.iloc[133:] >= 0).all()
    pd.testing.assert_series_equal(labels.iloc[:120], whole.iloc[:120])
    reach = 120 + WARM_UP + 1
    pd.testing.assert_series_equal(labels.iloc[reach:], whole.iloc[reach:])
    masked.iloc[60:90] = np.nan  # most of what volatility is ranked among
    assert (label_regimes(masked, **SHORT).iloc[60:110] == -1).all()


CLEAR = {
    "bull": Regime(drift=0.01, volatility=0.01, bars=200),
    "bear": Regime(drift=-0.01, volatility=0.01, bars=200),
    "high_volatility": Regime(volatility=0.05, bars=40),
    "low_volatility": Regime(volatility=0.002, bars=40),
    "ranging": Regime(volatility=0.01, reversion=0.5, bars=200),
}


def test_clear_regimes_are_found():
    market = regime_bars(6000, regimes=CLEAR, seed=1, assets=2)
    for name, bars in market.bars.items():
        labels = label_regimes(bars, trend_window=15, volatility_window=10, history=500)
        truth = market.truth[name].cat.codes
        for place in range(5):
            inside = (truth.rolling(25).min() == place) & (truth.rolling(25).max() == place)
            found = labels[inside & (labels >= 0)].value_counts(normalize=True)
            # A walk without a trend seems to have one in a third of all windows.
            assert found.idxmax() == place and found.max() > 0.5, (REGIMES[place], found)


def test_what_is_impossible_is_refused():
    bars = random_bars()
    for name in ("trend_window", "volatility_window", "history"):
        for wrong in (1, 2.5, True):
            with pytest.raises(ValueError, match=name):
                label_regimes(bars, **{name: wrong})
            with pytest.raises(ValueError, match=name):
                regime_warm_up(**{name: wrong})
    with pytest.raises(ValueError, match="ranks must be"):
        label_regimes(bars, low=0.8, high=0.8)
    with pytest.raises(ValueError, match="standard errors"):
        market_regimes({"a": bars}, trend=-1)
    with pytest.raises(DataError, match="at least one asset"):
        market_regimes({})

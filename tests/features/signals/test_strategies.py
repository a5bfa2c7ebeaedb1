"""Rules give the sides that their formulas say, from the past alone; pairs earn what they hold."""

import numpy as np
import pandas as pd
import pytest
from features.markets import BARS, MARKETS, one_tick_bars
from helpers import random_bars, random_market

from maml_jax.errors import DataError
from maml_jax.features import Feature, check_feature
from maml_jax.features.signals.strategies import (
    STRATEGIES,
    arbitrage,
    breakout,
    choose_pairs,
    make_rule,
    mean_reversion,
    momentum,
    spread_bars,
    spread_market,
    unit_root_statistic,
)


def bars_of(closes, **columns):
    index = random_bars(count=len(closes)).index
    return pd.DataFrame({"close": np.asarray(closes, float), **columns}, index=index)


def test_momentum_follows_the_last_return():
    sides = momentum(bars_of([5, 6, 7, 6, 5, 6, 6]), window=2)
    assert sides.dtype == np.int8
    assert sides.tolist() == [0, 0, 1, 0, -1, 0, 1]


def test_mean_reversion_trades_against_what_is_far_from_the_mean():
    # Windows of three, of deviations 0, 1 / sqrt(3) and so on; z of the last bar beside it.
    closes = [4, 4, 4, 5, 4, 4, 1, 3]
    #  z:              0, 1.15, -.58, -.58, -1.15, .22
    assert mean_reversion(bars_of(closes), 3, 1.0).tolist() == [0, 0, 0, -1, 0, 0, 1, 0]
    assert mean_reversion(bars_of(closes), 3, 0.5).tolist() == [0, 0, 0, -1, 1, 1, 1, 0]
    assert mean_reversion(bars_of(closes), 3, 1.2).tolist() == [0] * 8


def test_breakout_follows_the_latest_way_out_of_the_channel():
    closes = [5, 5, 6, 6, 6, 6, 4, 7]
    assert breakout(bars_of(closes), 2, 1).tolist() == [0, 0, 1, 0, 0, 0, -1, 1]
    assert breakout(bars_of(closes), 2, 3).tolist() == [0, 0, 0, 0, 1, 0, -1, 1]
    high, low = np.add(closes, 1), np.subtract(closes, 1)
    wide = bars_of(closes, high=high, low=low)
    assert breakout(wide, 2, 1).tolist() == [0, 0, 0, 0, 0, 0, -1, 0]


def test_breakout_against_a_loop():
    bars, window, hold = random_bars(4, 200), 15, 6
    sides = breakout(bars, window, hold)
    for t in range(window + hold - 1, 200):
        expected = 0
        for s in range(t, t - hold, -1):
            past = bars.iloc[s - window : s]
            if bars["close"].iloc[s] > past["high"].max():
                expected = 1
            elif bars["close"].iloc[s] < past["low"].min():
                expected = -1
            if expected:
                break
        assert sides.iloc[t] == expected
    assert set(sides) == {-1, 0, 1}


@pytest.mark.parametrize("market", MARKETS)
@pytest.mark.parametrize("name", STRATEGIES)
def test_a_side_knows_neither_later_bars_nor_where_the_series_begins(name, market):
    rule = STRATEGIES[name]
    assert rule.name == name
    check_feature(Feature(name, rule.side, rule.warm_up), BARS[market])
    sides = rule.side(BARS[market])
    assert sides.index.equals(BARS[market].index) and sides.dtype == np.int8
    assert set(sides) <= {-1, 0, 1} and (sides.iloc[: rule.warm_up] == 0).all()


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_rule_has_a_side_at_the_first_bar_after_its_warm_up(name):
    settings = {"momentum": {}, "breakout": {"hold": 1}}.get(name, {"entry": 0.0})
    rule = make_rule(name, window=5, **settings)
    for closes in (1 + 0.1 * np.arange(30), 9 - 0.1 * np.arange(30)):
        assert rule.side(bars_of(closes)).iloc[rule.warm_up] != 0


@pytest.mark.parametrize("name", STRATEGIES)
def test_masked_bars_have_no_side_and_pass(name):
    bars, rule = BARS["random"], STRATEGIES[name]
    masked = bars.copy()
    masked.iloc[150] = np.nan
    sides, whole = rule.side(masked), rule.side(bars)
    assert sides.iloc[150] == 0
    pd.testing.assert_series_equal(sides.iloc[:150], whole.iloc[:150])
    reach = 150 + rule.warm_up + 1
    pd.testing.assert_series_equal(sides.iloc[reach:], whole.iloc[reach:])


def test_a_price_that_rests_has_no_side():
    for rule in STRATEGIES.values():
        assert (rule.side(BARS["constant"]) == 0).all()


def test_arbitrage_is_mean_reversion_with_other_windows():
    bars = random_bars(count=200)
    pd.testing.assert_series_equal(arbitrage(bars), mean_reversion(bars, 60, 1.5))
    assert make_rule("arbitrage", window=90).warm_up == 89


def test_rules_refuse_what_is_impossible():
    with pytest.raises(ValueError, match="unknown strategy 'luck'; expected one of momentum"):
        make_rule("luck")
    with pytest.raises(ValueError, match="'momentum' has no such setting.*hold"):
        make_rule("momentum", hold=3)
    for name, settings in (
        ("momentum", {"window": 0}),
        ("mean_reversion", {"window": 1}),
        ("mean_reversion", {"entry": -1}),
        ("breakout", {"hold": 0}),
        ("arbitrage", {"window": 2.5}),
    ):
        with pytest.raises(ValueError, match=next(iter(settings))):
            make_rule(name, **settings)


def test_a_pair_returns_half_the_difference():
    a, b = random_bars(1, 50), random_bars(2, 60).drop(random_bars(2, 60).index[[20, 21]])
    pair = spread_bars(a, b)
    assert pair.columns.tolist() == ["close"] and pair.index.name == "timestamp"
    assert pair.index.equals(a.index.drop(a.index[[20, 21]])) and pair["close"].iloc[0] == 100
    ra, rb = (x.loc[pair.index, "close"].pct_change() for x in (a, b))
    np.testing.assert_allclose(pair["close"].pct_change(), (ra - rb) / 2, rtol=1e-9, atol=1e-14)
    np.testing.assert_allclose(spread_bars(a, a)["close"], 100)


def test_a_pair_passes_over_masked_bars():
    a, b = random_bars(1, 50), random_bars(2, 50)
    a.iloc[10], b.iloc[30] = np.nan, np.nan
    pair = spread_bars(a, b)["close"]
    assert pair.index[pair.isna()].tolist() == [a.index[10], a.index[30]]
    left = a.index.drop([a.index[10], a.index[30]])
    expected = spread_bars(a.loc[left], b.loc[left])["close"]
    pd.testing.assert_series_equal(pair.dropna(), expected)


def test_a_pair_that_loses_all_is_refused_by_date():
    a, b = bars_of([1, 1, 1, 1]), bars_of([1, 1, 3, 3])
    with pytest.raises(DataError, match="X against Y: at 2020-01-03.* return 0 and 2 in one bar"):
        spread_bars(a, b, names=("X", "Y"))
    with pytest.raises(DataError, match="X and Y have no bar in common"):
        spread_bars(a.iloc[:2], b.iloc[2:], names=("X", "Y"))


def test_pairs_are_those_that_move_together():
    bars = random_market(200, 3)
    closes = bars["A0"]["close"] * np.exp(0.001 * np.sin(np.arange(200)))
    bars["B0"] = bars["A0"].assign(close=closes)
    bars["C0"] = bars["A2"].assign(close=bars["A2"]["close"] * closes**0.1)
    assert choose_pairs(bars, 2) == [("A0", "B0"), ("A2", "C0")]
    assert choose_pairs(dict(reversed(bars.items())), 2) == [("A0", "B0"), ("A2", "C0")]
    assert choose_pairs(bars, 1, by="cointegration") == [("A0", "B0")]
    market = spread_market(bars, [("A0", "B0"), ("A1", "C0")])
    assert list(market) == ["A0-B0", "A1-C0"]
    pd.testing.assert_frame_equal(market["A1-C0"], spread_bars(bars["A1"], bars["C0"]))
    with pytest.raises(DataError, match="bars of Z9"):
        spread_market(bars, [("A0", "Z9")])


def test_what_returns_to_its_mean_comes_before_what_moves_together_and_drifts_apart():
    rng = np.random.default_rng(0)
    common = np.cumsum(0.02 * rng.standard_normal((2, 600)), axis=1)
    near = 0.02 * rng.standard_normal((2, 600))
    apart = np.cumsum(0.002 * rng.standard_normal((2, 600)), axis=1)
    logs = {"a": common[0] + near[0], "b": common[0] + near[1]}
    logs |= {"c": common[1] + apart[0], "d": common[1] + apart[1]}
    bars = {name: bars_of(100 * np.exp(values)) for name, values in logs.items()}
    assert choose_pairs(bars, 1, by="correlation") == [("c", "d")]
    assert choose_pairs(bars, 1, by="cointegration") == [("a", "b")]


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_the_unit_root_statistic_is_that_of_statsmodels():
    adfuller = pytest.importorskip("statsmodels.tsa.stattools").adfuller
    for seed in range(3):
        values = np.log(random_bars(seed, 150)["close"].to_numpy())
        expected = adfuller(values, maxlag=1, regression="c", autolag=None)[0]
        assert unit_root_statistic(values) == pytest.approx(expected, rel=1e-9)
    assert np.isnan(unit_root_statistic(np.full(50, 7.3)))


def test_pairs_that_cannot_be_told_are_left_out():
    bars = random_market(100, 3)
    bars["short"], bars["still"] = bars["A0"].iloc[:20], bars["A0"].assign(close=1.0)
    bars["tick"] = one_tick_bars().iloc[:100]
    assert len(choose_pairs(bars, 6)) == 6
    with pytest.raises(DataError, match="7 pairs are requested.* 6 assets only 6 pairs"):
        choose_pairs(bars, 7)
    with pytest.raises(ValueError, match="count"):
        choose_pairs(bars, 0)
    with pytest.raises(ValueError, match="'correlation' or 'cointegration'"):
        choose_pairs(bars, 1, by="luck")

import numpy as np
import pandas as pd
import pytest
from helpers import random_bars

from maml_jax.backtest import has_ended, make_market, place_orders
from maml_jax.errors import ConfigError, DataError, ShapeError

INDEX = pd.date_range("2024-01-01", periods=6, tz="UTC", name="timestamp")
GAP = np.nan


def market_of(**closes):
    bars = {
        name: pd.DataFrame({"close": pd.Series(values, INDEX).dropna()})
        for name, values in closes.items()
    }
    return make_market(bars, INDEX)


def table(**columns):
    return pd.DataFrame(columns, INDEX, dtype="float64")


def test_a_market_is_laid_out_on_all_bars():
    bars = {"B": random_bars(count=5), "A": random_bars(count=5, start="2020-01-04")}
    bars["A"] = bars["A"].drop(columns=["open", "volume"])
    market = make_market(bars)
    assert list(market.close.columns) == ["B", "A"]
    assert len(market.close) == 8
    assert (market.close.dtypes == "float64").all()
    for name in ("high", "low", "close"):
        laid_out = getattr(market, name)
        for asset in bars:
            np.testing.assert_array_equal(laid_out[asset].dropna(), bars[asset][name])
    assert market.open["A"].isna().all()
    assert market.open["B"].notna().sum() == 5
    part = make_market(bars, pd.DatetimeIndex(bars["B"].index[1:3]))
    assert part.close.shape == (2, 2)


def test_bars_that_are_no_market_are_refused():
    bars = random_bars(count=5)
    with pytest.raises(DataError, match="none"):
        make_market({})
    with pytest.raises(DataError, match="A: bars need column 'close'"):
        make_market({"A": bars[["open"]]})
    with pytest.raises(DataError, match="A: two bars at 2020-01-03"):
        make_market({"A": bars.iloc[[0, 1, 2, 2]]})
    with pytest.raises(DataError, match="ascending"):
        make_market({"A": bars}, pd.DatetimeIndex(bars.index[::-1]))


@pytest.mark.parametrize("fill", ["next_open", "next_close"])
def test_what_is_decided_at_a_close_is_executed_in_the_next_own_bar(fill):
    market = market_of(A=[1, 1, 1, 1, 1, 1], B=[GAP, 1, GAP, GAP, 1, 1])
    decisions = table(A=[1, 0, -1, GAP, 0.5, 0.7], B=[9, 0.2, 9, 9, 0.3, 0.4])
    orders = place_orders(decisions, market, fill)
    assert orders["A"].tolist() == [0, 1, 0, -1, 0, 0.5]
    np.testing.assert_array_equal(orders["B"], [GAP, 0, GAP, GAP, 0.2, 0.3])


def test_with_the_close_it_is_executed_at_once():
    market = market_of(A=[1, 1, 1, 1, 1, 1], B=[GAP, 1, GAP, GAP, 1, 1])
    decisions = table(A=[1, 0, -1, GAP, 0.5, 0.7], B=[9, 0.2, 9, 9, 0.3, 0.4])
    orders = place_orders(decisions, market, "close")
    assert orders["A"].tolist() == [1, 0, -1, 0, 0.5, 0.7]
    np.testing.assert_array_equal(orders["B"], [GAP, 0.2, GAP, GAP, 0.3, 0.4])


def test_decisions_may_stand_at_other_bars_and_in_another_order():
    market = market_of(A=[1, 1, 1, 1, 1, 1], B=[1, 1, 1, 1, 1, 1])
    decisions = table(B=[0.1] * 6, A=[0.2] * 6, C=[0.3] * 6).iloc[[2, 4]]
    orders = place_orders(decisions, market, "close")
    assert list(orders.columns) == ["A", "B"]
    assert orders["A"].tolist() == [0, 0, 0.2, 0, 0.2, 0]


@pytest.mark.parametrize("step", [1, 10])
def test_later_decisions_and_bars_move_no_order(step):
    rng = np.random.default_rng(0)
    # The steps between bars grow as time goes on.
    days = np.cumsum(step * np.repeat([1, 2, 3, 4], 20))
    index = pd.Timestamp("2024-01-01", tz="UTC") + pd.to_timedelta(days, unit="D")
    closes = pd.DataFrame(np.where(rng.random((80, 2)) < 0.3, np.nan, 1.0), index, ["A", "B"])
    closes.iloc[20:60, 1] = np.nan
    decisions = pd.DataFrame(rng.standard_normal((80, 2)), index, ["A", "B"])

    def placed(count):
        bars = {name: closes[[name]].iloc[:count].set_axis(["close"], axis=1) for name in closes}
        market = make_market(bars, index[:count])
        return place_orders(decisions.iloc[:count], market, "next_close")

    whole = placed(80)
    for count in (1, 7, 40, 58):
        pd.testing.assert_frame_equal(placed(count), whole.iloc[:count], check_freq=False)


def test_an_asset_without_bars_for_thirty_days_has_ended():
    index = pd.date_range("2024-01-01", periods=70, tz="UTC")
    bars = pd.DataFrame({"close": 1.0}, index)
    late, early, back = bars.iloc[40:], bars.iloc[:10], bars.drop(index[5:60])
    market = make_market({"late": late, "early": early, "back": back}, index)
    ended = has_ended(market)
    assert not ended["late"].any()  # what has not begun has not ended
    assert ended["early"].tolist() == [False] * 40 + [True] * 30
    assert ended["back"].tolist() == [False] * 35 + [True] * 25 + [False] * 10
    orders = place_orders(pd.DataFrame(1.0, index, ["late", "early", "back"]), market, "close")
    assert (orders["early"].iloc[40:] == 0).all()
    assert orders["early"].iloc[10:40].isna().all()
    assert orders["back"].iloc[60:].tolist() == [1.0] * 10


def test_monthly_bars_do_not_end_an_asset():
    index = pd.date_range("2020-01-01", periods=24, freq="MS", tz="UTC")
    bars = pd.DataFrame({"close": 1.0}, index)
    market = make_market({"A": bars, "B": bars.iloc[:3]}, index)
    ended = has_ended(market)
    assert not ended["A"].any()
    assert ended["B"].tolist()[:9] == [False] * 9
    assert ended["B"].tolist()[10:] == [True] * 14


def test_decisions_that_do_not_fit_are_refused():
    market = market_of(A=[1] * 6, B=[1] * 6)
    with pytest.raises(ShapeError, match="no decisions for .'B'."):
        place_orders(table(A=[1] * 6), market, "close")
    with pytest.raises(ConfigError, match="fill must be one of"):
        place_orders(table(A=[1] * 6, B=[1] * 6), market, "open")
    with pytest.raises(ShapeError, match="infinite"):
        place_orders(table(A=[np.inf] * 6, B=[1] * 6), market, "close")

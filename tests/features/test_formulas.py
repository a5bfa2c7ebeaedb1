"""Each feature against its textbook formula, one bar at a time in plain Python."""

import math
from statistics import fmean, stdev

import numpy as np
import pytest
from features.markets import BARS, BUILT_IN, MARKETS
from helpers import random_bars

from maml_jax.features import compute_features, lag_feature
from maml_jax.features.technical import exponential_average

N = 20


class History:
    """The bars of one asset as lists, and what its market did, from their definitions."""

    def __init__(self, market):
        bars = market["own"]
        self.times = list(bars.index)
        columns = (bars[c].tolist() for c in ("open", "high", "low", "close", "volume"))
        self.o, self.h, self.low, self.c, self.v = columns
        self.r = [math.nan] + [b / a - 1 for a, b in zip(self.c, self.c[1:], strict=False)]
        closes = [frame["close"].tolist() for frame in market.values()]
        self.all = [[]] + [[c[t] / c[t - 1] - 1 for c in closes] for t in range(1, len(self.c))]
        self.m = [fmean(each) if each else math.nan for each in self.all]
        self.move = [
            fmean(abs(math.log1p(r)) for r in each) if each else math.nan for each in self.all
        ]

    def last(self, values, t, count=N):
        return values[t - count + 1 : t + 1]


def average(values, t, span):
    total = weight = 0.0
    for age in range(3 * span):
        share = (1 - 2 / (span + 1)) ** age
        total, weight = total + share * values[t - age], weight + share
    return total / weight


def rsi(x, t):
    rises = falls = 0.0
    for s in range(t - N + 1, t + 1):
        rises += max(x.c[s] - x.c[s - 1], 0)
        falls += max(x.c[s - 1] - x.c[s], 0)
    if rises + falls == 0:
        return 50
    return 100 if falls == 0 else 100 - 100 / (1 + rises / falls)


def bands(x, t):
    last = x.last(x.c, t)
    return 0 if stdev(last) == 0 else (x.c[t] - fmean(last)) / (2 * stdev(last))


def volume_ratio(x, t):
    mean = fmean(x.last(x.v, t))
    return 1 if mean == 0 else x.v[t] / mean


def true_range(x, t):
    gaps = abs(x.h[t] - x.c[t - 1]), abs(x.low[t] - x.c[t - 1])
    return max(x.h[t] - x.low[t], *gaps)


def garman_klass(x, t):
    total = 0.0
    for s in range(t - N + 1, t + 1):
        up, down = math.log(x.h[s] / x.o[s]), math.log(x.low[s] / x.o[s])
        total += 0.5 * (up - down) ** 2 - (2 * math.log(2) - 1) * math.log(x.c[s] / x.o[s]) ** 2
    return math.sqrt(total / N)


def parkinson(x, t):
    squares = [math.log(x.h[s] / x.low[s]) ** 2 for s in range(t - N + 1, t + 1)]
    return math.sqrt(sum(squares) / (4 * N * math.log(2)))


def range_position(x, t):
    high, low = max(x.last(x.h, t)), min(x.last(x.low, t))
    if high == low:
        return 0
    williams = -100 * (high - x.c[t]) / (high - low)
    return (williams + 50) / 50


def volume_zscore(x, t):
    last = x.last(x.v, t)
    return 0 if stdev(last) == 0 else (x.v[t] - fmean(last)) / stdev(last)


def mfi(x, t):
    up = down = 0.0
    for s in range(t - N + 1, t + 1):
        now = (x.h[s] + x.low[s] + x.c[s]) / 3
        before = (x.h[s - 1] + x.low[s - 1] + x.c[s - 1]) / 3
        up += now * x.v[s] if now > before else 0
        down += now * x.v[s] if now < before else 0
    return 50 if up + down == 0 else 100 * up / (up + down)


def rank(x, t):
    others = len(x.all[t]) - 1
    below = sum(each < x.r[t] for each in x.all[t])
    above = sum(each > x.r[t] for each in x.all[t])
    return (below - above) / others if others else 0


def beta(x, t):
    own, market = x.last(x.r, t), x.last(x.m, t)
    if stdev(market) <= 1e-6 * stdev(own):
        return 1
    mean, base = fmean(own), fmean(market)
    products = [(r - mean) * (m - base) for r, m in zip(own, market, strict=True)]
    return math.fsum(products) / math.fsum((m - base) ** 2 for m in market)


def root_mean_square(returns):
    return math.sqrt(fmean(r**2 for r in returns))


def log_volatility(count, falls=False):
    def compute(x, t):
        logs = [math.log1p(r) for r in x.r[1 : t + 1]]
        wanted = [min(r, 0) for r in logs] if falls else logs
        floor = root_mean_square(logs[-22:]) / 10
        return math.log(max(root_mean_square(wanted[-count:]), floor, 1e-6))

    return compute


def market_volatility(count):
    return lambda x, t: math.log(max(fmean(x.move[t - count + 1 : t + 1]), 1e-6))


def wave(function, share):
    return lambda x, t: function(2 * math.pi * share(x.times[t]))


SLOW = {
    "return_1": lambda x, t: x.r[t],
    "return_5": lambda x, t: (x.c[t] - x.c[t - 5]) / x.c[t - 5],
    "return_10": lambda x, t: (x.c[t] - x.c[t - 10]) / x.c[t - 10],
    "sma_ratio": lambda x, t: x.c[t] / fmean(x.last(x.c, t)),
    "ema_ratio": lambda x, t: x.c[t] / average(x.c, t, N),
    "volatility": lambda x, t: stdev(x.last(x.r, t)),
    "momentum": lambda x, t: (x.c[t] - x.c[t - N]) / x.c[t - N],
    "rsi": rsi,
    "macd": lambda x, t: (average(x.c, t, 12) - average(x.c, t, 26)) / x.c[t],
    "bb_position": bands,
    "volume_ratio": volume_ratio,
    "trange": lambda x, t: true_range(x, t) / x.c[t - 1],
    "natr": lambda x, t: fmean(true_range(x, s) for s in range(t - N + 1, t + 1)) / x.c[t],
    "garman_klass": garman_klass,
    "parkinson": parkinson,
    "range_position": range_position,
    "overnight_gap": lambda x, t: (x.o[t] - x.c[t - 1]) / x.c[t - 1],
    "bop": lambda x, t: 0 if x.h[t] == x.low[t] else (x.c[t] - x.o[t]) / (x.h[t] - x.low[t]),
    "volume_zscore": volume_zscore,
    "mfi": mfi,
    "hour_sin": wave(math.sin, lambda time: (60 * time.hour + time.minute) / 1440),
    "hour_cos": wave(math.cos, lambda time: (60 * time.hour + time.minute) / 1440),
    "weekday_sin": wave(math.sin, lambda time: (time.isoweekday() - 1) / 7),
    "weekday_cos": wave(math.cos, lambda time: (time.isoweekday() - 1) / 7),
    "month_sin": wave(math.sin, lambda time: (time.month - 1) / 12),
    "month_cos": wave(math.cos, lambda time: (time.month - 1) / 12),
    "market_return": lambda x, t: x.m[t],
    "return_rank": rank,
    "beta": beta,
    "log_volatility_1": log_volatility(1),
    "log_volatility_5": log_volatility(5),
    "log_volatility_22": log_volatility(22),
    "log_volatility_60": log_volatility(60),
    "log_downside_22": log_volatility(22, falls=True),
    "market_volatility_5": market_volatility(5),
    "market_volatility_22": market_volatility(22),
    "log_volatility_24": log_volatility(24),
    "log_volatility_168": log_volatility(168),
    "market_volatility_24": market_volatility(24),
}
HISTORIES = {name: History(market) for name, market in MARKETS.items()}
PLACES = [90, 109, 110, 111, 112, 129, 130, 139, 140, 141, 160, 170, 171, 172, 201, 215, 259]


def test_every_feature_has_its_formula():
    """Those of young assets have theirs in `test_young.py`."""
    assert list(SLOW) == [name for name in BUILT_IN if not name.startswith("young_")]


@pytest.mark.parametrize("name", SLOW)
@pytest.mark.parametrize("market", MARKETS)
def test_a_feature_is_what_its_formula_says(name, market):
    values = BUILT_IN[name].compute(BARS[market])
    earlier = lag_feature(BUILT_IN[name], 3).compute(BARS[market])
    for t in [place for place in PLACES if place >= BUILT_IN[name].warm_up + 3]:
        expected = SLOW[name](HISTORIES[market], t)
        assert values.iloc[t] == pytest.approx(expected, rel=1e-6, abs=1e-12), t
        assert earlier.iloc[t] == values.iloc[t - 3]


def test_the_exponential_average_is_close_to_the_infinite_one():
    close = BARS["random"]["close"]
    finite = exponential_average(close, N).iloc[100:]
    np.testing.assert_allclose(finite, close.ewm(span=N).mean().iloc[100:], rtol=2e-3)


def test_the_calendar_is_that_of_utc_to_the_minute():
    bars = random_bars(count=260, start="2023-12-30 22:30", step="367min")
    names = [name for name in SLOW if name.endswith(("_sin", "_cos"))]
    table = compute_features(bars, [BUILT_IN[name] for name in names])
    for name in names:
        for t in (0, 1, 77, 259):
            expected = SLOW[name](History({"own": bars}), t)
            assert table[name].iloc[t] == pytest.approx(expected, abs=1e-12)

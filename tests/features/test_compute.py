"""Tables of features, lags, and what is said about features that break their promises."""

import numpy as np
import pandas as pd
import pytest
from features.markets import BUILT_IN
from helpers import random_bars

from maml_jax.errors import DataError
from maml_jax.features import (
    Feature,
    check_feature,
    compute_features,
    lag_feature,
    longest_warm_up,
    technical_features,
)

CATALOGUE = technical_features()
BARS = random_bars()


def feature_of(compute, warm_up=0, columns=("close",)):
    return Feature("mine", compute, warm_up, columns)


def test_a_price_that_rests_gives_finite_features():
    bars = BARS.copy()
    bars.iloc[100:200, :4] = bars["close"].iloc[100]
    bars.iloc[100:200, 4] = 0.0
    table = compute_features(bars, list(CATALOGUE.values()))
    assert table.iloc[longest_warm_up(list(CATALOGUE.values())) :].notna().all(axis=None)
    assert table["rsi"].iloc[150] == 50
    assert table["bb_position"].iloc[150] == 0
    assert table["volume_ratio"].iloc[150] == 1


def test_rows_are_whole_or_absent():
    broken = feature_of(lambda b: b["close"].where(np.arange(len(b)) != 50, np.inf))
    huge = broken._replace(
        name="huge", compute=lambda b: b["close"] * np.where(np.arange(len(b)) == 60, 1e30, 1)
    )
    table = compute_features(BARS, [CATALOGUE["return_5"], broken, huge])
    absent = table.isna()
    assert (absent.any(axis=1) == absent.all(axis=1)).all()
    assert np.flatnonzero(absent["mine"]).tolist() == [0, 1, 2, 3, 4, 50, 60]


def test_a_column_that_is_needed_and_missing_is_named():
    with pytest.raises(DataError, match=r"XY: feature 'volume_ratio' needs column 'volume'"):
        compute_features(random_bars(columns="close"), list(CATALOGUE.values()), asset="XY")
    with pytest.raises(DataError, match=r"XY: feature 'beta' compares several .*'market_return'"):
        compute_features(BARS, [BUILT_IN["rsi"], BUILT_IN["beta"]], asset="XY")


def test_a_lag_is_the_feature_some_bars_ago():
    feature = lag_feature(CATALOGUE["rsi"], 3)
    assert (feature.name, feature.warm_up) == ("rsi_lag_3", CATALOGUE["rsi"].warm_up + 3)
    table = compute_features(BARS, [CATALOGUE["rsi"], feature])
    pd.testing.assert_series_equal(
        table["rsi_lag_3"].iloc[26:], table["rsi"].shift(3).iloc[26:], check_names=False
    )
    array = lag_feature(feature_of(lambda b: b["close"].to_numpy()), 2)
    assert array.compute(BARS).iloc[2:].tolist() == BARS["close"].iloc[:-2].tolist()
    for lag in (0, -1):
        with pytest.raises(ValueError, match="at least 1 bar"):
            lag_feature(CATALOGUE["rsi"], lag)


WRONG = {
    "raises": (lambda b: b["nothing"], r"failed: KeyError: 'nothing'"),
    "gives nothing": (lambda b: None, r"one number for each of the 300 bars.*NoneType"),
    "gives one number": (lambda b: 1.0, r"gave float of shape \(\)"),
    "gives a table": (lambda b: b[["close"]], r"DataFrame of shape \(300, 1\)"),
    "is too short": (lambda b: b["close"].iloc[1:], r"Series of shape \(299,\)"),
    "is on another index": (lambda b: b["close"].reset_index(drop=True), r"gave one on another"),
    "gives text": (lambda b: ["up"] * len(b), r"failed: ValueError: could not convert"),
}


@pytest.mark.parametrize("fault", WRONG)
def test_a_function_that_gives_something_wrong_is_named(fault):
    compute, message = WRONG[fault]
    with pytest.raises(DataError, match=f"XY: feature 'mine' .*{message}"):
        compute_features(BARS, [feature_of(compute)], asset="XY")
    if fault != "is on another index":
        with pytest.raises(DataError, match=r"XY: feature 'mine_lag_1'"):
            compute_features(BARS, [lag_feature(feature_of(compute), 1)], asset="XY")


def test_a_function_that_changes_its_bars_changes_nobody_elses():
    def careless(bars):
        bars["close"] = bars["close"].diff()
        bars.iloc[:, 0] = 0.0
        return bars["close"]

    bars = BARS.copy()
    table = compute_features(bars, [feature_of(careless, 1), CATALOGUE["return_1"]])
    pd.testing.assert_frame_equal(bars, BARS)
    pd.testing.assert_series_equal(
        table["return_1"], compute_features(BARS, [CATALOGUE["return_1"]])["return_1"]
    )


def test_the_check_passes_what_keeps_its_promises():
    check_feature(feature_of(lambda b: b["close"].rolling(5).mean(), 4), BARS)
    check_feature(feature_of(lambda b: b["close"].ewm(span=4).mean(), 60), BARS)
    check_feature(feature_of(lambda b: np.log(b["close"].to_numpy())), BARS)


BROKEN = {
    "the next close": (lambda b: b["close"].shift(-1).ffill(), 0, r"looks ahead: .* 2020-01-02"),
    "a mean of all": (lambda b: b["close"] / b["close"].mean(), 0, "looks ahead"),
    "a mean around": (
        lambda b: b["close"].rolling(5, center=True, min_periods=1).mean(), 4, "looks ahead"
    ),
    "how many bars there are": (lambda b: b["close"] * len(b), 0, "looks ahead"),
    "an event that these bars do not hold": (
        lambda b: (b["close"][::-1].cummax()[::-1] > 1.2 * b["close"].iloc[:5].max()) * 1.0, 0,
        "looks ahead",
    ),
    "a sum of all before": (lambda b: b["volume"].cumsum(), 0, "depends on where the bars begin"),
    "too long a memory": (
        lambda b: b["close"].ewm(span=20).mean(), 20, "depends on where the bars begin"
    ),
    "too short a warm-up": (
        lambda b: b["close"].rolling(5).mean(), 3, r"is nan at 2020-01-04 .*, bar 3, after its warm"
    ),
    "infinite": (lambda b: 1 / (b["close"] - b["close"].iloc[7]).abs(), 0, r"is inf at .*, bar 7"),
}  # fmt: skip


@pytest.mark.parametrize("fault", BROKEN)
def test_the_check_tells_which_promise_is_broken_and_where(fault):
    compute, warm_up, message = BROKEN[fault]
    with pytest.raises(DataError, match=f"XY: feature 'mine' {message}"):
        check_feature(feature_of(compute, warm_up, ()), BARS, asset="XY")


def test_the_check_needs_bars():
    with pytest.raises(DataError, match=r"needs at least 23 bars \(warm-up 20 \+ 3\), and there"):
        check_feature(CATALOGUE["rsi"], BARS.iloc[:22])
    check_feature(CATALOGUE["rsi"], BARS.iloc[:23])
    with pytest.raises(DataError, match=r"needs column 'close'"):
        check_feature(CATALOGUE["rsi"], BARS[["volume"]])


@pytest.mark.parametrize(
    "options", [{"window": 1}, {"fast": 26, "slow": 26}, {"returns": (0,)}, {"fast": 0}]
)
def test_windows_that_cannot_be_are_refused(options):
    with pytest.raises(ValueError):
        technical_features(**options)

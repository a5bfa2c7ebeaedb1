"""An asset among others: who takes part when, and that nobody's later bars matter."""

import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pytest
from helpers import random_bars, random_market
from hypothesis import given, settings
from market import MARKET, SMALL

from maml_jax.errors import DataError
from maml_jax.experiment import load_config
from maml_jax.experiment.learning.adapt import adapt
from maml_jax.experiment.learning.checkpoint import Checkpoint
from maml_jax.experiment.preparation.prepare import Fitted, prepare
from maml_jax.features import add_cross_section, compute_features, find_features

COLUMNS = ["market_return", "return_rank", "market_move"]
FEATURES = find_features(["cross_section"], window=5)


def ragged_market(seed=0, count=60):
    """Three assets: all bars, a late start, and bars missing here and there."""
    bars = random_market(count)
    kept = np.random.default_rng(seed).random(count) < 0.7
    return {"full": bars["A0"], "late": bars["A1"].iloc[25:], "holes": bars["A2"][kept]}


def one_by_one(bars):
    """The columns from their definitions, one time and asset after the other."""
    moves: dict = {}
    for name, frame in bars.items():
        closes = frame["close"].tolist()
        for place in range(1, len(frame)):
            own = closes[place] / closes[place - 1] - 1
            if not np.isnan(own):
                moves.setdefault(frame.index[place], {})[name] = own
    rows = {}
    for name, frame in bars.items():
        for time in frame.index:
            present = moves.get(time, {})
            mean = sum(present.values()) / len(present) if present else np.nan
            rank = np.nan
            if name in present:
                others = [v for other, v in present.items() if other != name]
                wins = [np.sign(present[name] - other) for other in others]
                rank = sum(wins) / len(wins) if wins else 0.0
            sizes = [abs(np.log1p(value)) for value in present.values()]
            move = sum(sizes) / len(sizes) if sizes else np.nan
            rows[name, time] = (mean, rank, move)
    return rows


@pytest.mark.parametrize("seed", range(3))
def test_the_market_is_made_of_those_who_have_a_return(seed):
    bars = ragged_market(seed)
    bars["holes"].iloc[20] = np.nan
    bars["late"].iloc[10, 3] = bars["late"].iloc[9, 3]
    bars["twin"] = bars["full"].copy()
    expected = one_by_one(bars)
    for name, frame in add_cross_section(bars).items():
        assert list(frame.columns) == [*bars[name].columns, *COLUMNS]
        pd.testing.assert_frame_equal(frame[bars[name].columns], bars[name])
        found = frame[COLUMNS].to_numpy()
        wanted = np.array([expected[name, time] for time in frame.index])
        np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-15)


@settings(max_examples=25)
@given(
    seed=st.integers(0, 3), last=st.integers(0, 58), factor=st.floats(1e-3, 1e3), cut=st.booleans()
)
def test_later_bars_of_no_asset_change_what_was_before(seed, last, factor, cut):
    bars = ragged_market(seed)
    time = bars["full"].index[last]
    changed = {}
    for name, frame in bars.items():
        frame = frame.copy()
        frame.loc[frame.index > time] *= factor
        changed[name] = frame.loc[:time] if cut else frame
    changed = {name: frame for name, frame in changed.items() if len(frame)}
    full, other = add_cross_section(bars), add_cross_section(changed)
    for name in changed:
        pd.testing.assert_frame_equal(other[name].loc[:time], full[name].loc[:time])


@pytest.mark.parametrize("first", [10, 30])
def test_earlier_bars_do_not_matter_once_every_asset_has_had_a_return(first):
    bars = ragged_market()
    begun = {name: frame.loc[bars["full"].index[first] :] for name, frame in bars.items()}
    ready = max(frame.index[1] for name, frame in begun.items() if len(frame) < len(bars[name]))
    full, late = add_cross_section(bars), add_cross_section(begun)
    for name in bars:
        pd.testing.assert_frame_equal(late[name].loc[ready:], full[name].loc[ready:])
        beyond = late[name].loc[ready:].index[5:]
        found = compute_features(late[name], FEATURES).loc[beyond]
        pd.testing.assert_frame_equal(found, compute_features(full[name], FEATURES).loc[beyond])


def test_the_order_of_assets_does_not_matter():
    bars = random_market(1000, 7)
    back = add_cross_section(dict(reversed(bars.items())))
    for name, frame in add_cross_section(bars).items():
        assert frame.equals(back[name])


def test_an_asset_alone_is_its_market():
    bars = random_bars(count=60)
    table = compute_features(add_cross_section({"A": bars})["A"], FEATURES).dropna()
    np.testing.assert_allclose(table["beta"], 1)
    assert (table["return_rank"] == 0).all()


def test_the_betas_of_all_assets_have_the_mean_one():
    market = add_cross_section(random_market(80, 4))
    betas = [compute_features(frame, FEATURES)["beta"].dropna() for frame in market.values()]
    np.testing.assert_allclose(np.mean(betas, axis=0), 1)


def test_a_market_that_cancels_rests():
    up = random_bars(count=80)
    down = up.copy()
    down["close"] = 100 * (1 - up["close"].pct_change().fillna(0.0)).cumprod()
    beta = compute_features(add_cross_section({"A": up, "B": down})["A"], FEATURES)["beta"]
    assert (beta.dropna() == 1).all()


NAMES = {"features": {**SMALL["features"], "names": ["rsi", "cross_section", "return_rank_lag_2"]}}
ASKED = ["rsi", "market_return", "return_rank", "beta", "return_rank_lag_2"]


def test_a_run_computes_them_on_all_assets_in_use():
    prepared = prepare(load_config({**SMALL, **NAMES}), MARKET)
    assert list(prepared.panel.feature_names) == ASKED
    market = add_cross_section(MARKET)
    expected = compute_features(market["A3"], find_features(ASKED, window=5))
    place, scaler = prepared.panel.assets.index("A3"), prepared.scaler
    found = np.asarray(prepared.panel.features[place])[20:]
    np.testing.assert_allclose(found, scaler.transform(expected).iloc[20:], atol=1e-4)


def test_a_backtest_later_sees_the_same_market():
    apart = {"train_assets": ["A0", "A1"], "test_assets": ["A2", "A3"]}
    settings_ = {**SMALL, **NAMES, "data": {**SMALL["data"], **apart}}
    first = prepare(load_config(settings_), MARKET)
    again = prepare(first.config, MARKET, Fitted(first.scaler))
    assert list(again.bars) == ["A2", "A3"]
    for name in again.bars:
        one, other = (p.panel.features[p.panel.assets.index(name)] for p in (first, again))
        np.testing.assert_array_equal(one, other)


def test_a_learner_that_reads_them_is_not_used_on_one_asset_alone():
    prepared = prepare(load_config({**SMALL, **NAMES}), MARKET)
    checkpoint = Checkpoint("maml", prepared.config, prepared.scaler, {}, pd.Timedelta("1D"))
    with pytest.raises(DataError, match=r"reads \['market_return', .* cannot be used on the bars"):
        adapt(checkpoint, MARKET["A0"])

"""From predictions to decisions: the rule, sides and the largest weight that settings name."""

from functools import lru_cache

import numpy as np
import pandas as pd
import pytest
from market import MARKET, SMALL

from maml_jax.backtest.strategy_names import BUY_AND_HOLD, FOLLOW, RANDOM
from maml_jax.errors import ConfigError
from maml_jax.experiment import load_config
from maml_jax.experiment.evaluation.accounts import (
    market_of_test_span,
    trade_assets,
    trade_decisions,
)
from maml_jax.experiment.evaluation.baselines import baseline_forecasts
from maml_jax.experiment.evaluation.decisions import decide, random_positions
from maml_jax.experiment.evaluation.predicted import Predicted, on_test_span
from maml_jax.experiment.learning import tasks as learning_tasks
from maml_jax.experiment.learning.tasks import find_test_supports
from maml_jax.experiment.preparation.prepare import Fitted, prepare
from maml_jax.features import fill_returns

pytestmark = pytest.mark.long

DATA = {**SMALL["data"], "test_assets": ["A1", "A2", "A3"]}


@lru_cache
def _prepared(text):
    return prepare(load_config({**SMALL, "data": DATA}, eval(text)), MARKET)  # noqa: S307


def prepared_with(**changes):
    return _prepared(repr(changes))


def predicted_for(prepared, seed=0, size=0.2, std=None):
    index = prepared.panel.timestamps[prepared.test_first : prepared.test_last + 1]
    rng = np.random.default_rng(seed)
    shape = (len(index), len(prepared.test_assets))
    mean = pd.DataFrame(size * rng.standard_normal(shape), index, prepared.test_assets)
    mean.iloc[:3, 0] = np.nan
    return Predicted(mean, None if std is None else mean * 0 + std)


def returns_of(prepared):
    bars = {asset: prepared.bars[asset] for asset in prepared.test_assets}
    index = prepared.panel.timestamps[prepared.test_first : prepared.test_last + 1]
    return fill_returns(bars, prepared.config.target.fill).reindex(index)


def decided_with(predicted=None, **changes):
    prepared = prepared_with(**changes)
    predicted = predicted_for(prepared) if predicted is None else predicted
    return predicted.mean, decide(prepared, {"maml": predicted}, returns_of(prepared))


def test_levels_are_taken_beyond_the_two_thresholds():
    mean, decided = decided_with(
        **{"backtest.positions": "levels", "backtest.threshold": 0.05}
    )  # the strong one is 0.15
    expected = np.sign(mean) * np.where(mean.abs() > 0.15, 1.0, np.where(mean.abs() > 0.05, 0.5, 0))
    pd.testing.assert_frame_equal(decided["maml"], expected.fillna(0.0))
    assert set(np.unique(decided["maml"])) == {-1, -0.5, 0, 0.5, 1}


def test_proportional_positions_are_whole_at_the_scale():
    mean, decided = decided_with(
        **{"backtest.positions": "proportional", "backtest.scale": 0.4, "backtest.limit": 0.5}
    )
    expected = (mean / 0.4).clip(-0.5, 0.5).fillna(0.0)
    pd.testing.assert_frame_equal(decided["maml"], expected)


def test_long_only_stays_out_where_short_is_wanted_with_every_strategy():
    mean, decided = decided_with(**{"backtest.sides": "long_only"})
    pd.testing.assert_frame_equal(decided["maml"], (mean > 0).astype(float))
    assert all((table >= 0).all(axis=None) for table in decided.values())
    assert (decided[RANDOM] > 0).any(axis=None)


def test_neutral_decisions_sum_to_zero_also_at_random_times():
    mean, decided = decided_with(**{"backtest.sides": "market_neutral", "backtest.max_weight": 0.3})
    for name in ("maml", RANDOM):
        np.testing.assert_allclose(decided[name].sum(axis=1), 0, atol=1e-12)
        assert decided[name].abs().max(axis=None) == pytest.approx(0.9)  # of a third of the capital
    sides = np.sign(mean)
    unequal = sides.max(axis=1) > sides.min(axis=1)
    assert (decided["maml"].abs().sum(axis=1) > 0)[unequal].all()
    assert (decided[BUY_AND_HOLD] == 1).all(axis=None)


def test_the_largest_weight_is_of_the_whole_capital():
    _, decided = decided_with(**{"backtest.max_weight": 0.2})
    np.testing.assert_allclose(np.unique(decided["maml"].abs()), [0.0, 0.6])


def test_what_is_not_finite_takes_no_position():
    for rule, std in (("threshold", None), ("proportional", None), ("kelly", 1.0)):
        prepared = prepared_with(**{"backtest.positions": rule, "learner.methods": ["alpaca"]})
        predicted = predicted_for(prepared, std=std)
        for place, value in enumerate((np.inf, -np.inf, np.nan), start=10):
            predicted.mean.iloc[place] = value
        if std:
            predicted.std.iloc[20] = np.inf
        decided = decide(prepared, {"alpaca": predicted}, returns_of(prepared))["alpaca"]
        quiet = [10, 11, 12, *([20] if std else [])]
        assert not decided.iloc[quiet].to_numpy().any()
        assert decided.iloc[21:].to_numpy().any()
        assert np.isfinite(decided).all(axis=None)


@pytest.mark.parametrize("rule", ["kelly", "confident"])
def test_a_rule_that_needs_a_deviation_refuses_predictions_without_one(rule):
    with pytest.raises(ConfigError, match=f"'{rule}' needs a predicted deviation, and maml predic"):
        decided_with(**{"backtest.positions": rule})


def test_random_positions_are_those_of_the_first_method_at_another_time():
    prepared = prepared_with()
    first, second = (predicted_for(prepared, seed) for seed in (1, 2))
    returns = returns_of(prepared)
    decided = decide(prepared, {"maml": first, "fomaml": second}, returns)
    again = decide(prepared, {"maml": first}, returns)
    pd.testing.assert_frame_equal(again[RANDOM], decided[RANDOM])
    drawn = [random_positions(prepared, decided["maml"], returns, draw=d) for d in range(30)]
    pd.testing.assert_frame_equal(drawn[0], decided[RANDOM])
    assert len({tuple(table.to_numpy().ravel()) for table in drawn}) > 15
    own = decided["maml"].to_numpy()
    for table in drawn:
        (lag,) = [k for k in range(len(own)) if np.array_equal(np.roll(own, k, axis=0), table)]
        # Features look back 10 bars, the target ahead 4: so much is kept away from.
        assert 14 <= lag <= len(own) - 14
    other = prepared_with(seed=5)
    assert not decide(other, {"maml": first}, returns)[RANDOM].equals(decided[RANDOM])


def test_baselines_are_those_that_settings_name():
    assert RANDOM not in decided_with(**{"backtest.baselines": ["momentum"]})[1]


RULES = {"task.family": "strategy", "task.strategies": ["momentum", "breakout"], "task.query": 2}


def test_sides_hold_for_rules_too_and_for_what_follows_them_all():
    prepared = prepared_with(**RULES, **{"backtest.sides": "long_only", "task.support": 5})
    predicted = predicted_for(prepared)
    decided = decide(prepared, {"maml": predicted}, returns_of(prepared))
    sides = pd.DataFrame({name: prepared.sides[name] for name in prepared.test_assets})
    sides = sides.reindex(predicted.mean.index).fillna(0.0).astype(float)
    assert (sides < 0).any(axis=None)
    taken = ((predicted.mean > 0) & (sides > 0)).astype(float)
    pd.testing.assert_frame_equal(decided["maml"], taken, check_names=False)
    pd.testing.assert_frame_equal(decided[FOLLOW], sides.clip(lower=0), check_names=False)


CLOSES = {asset: bars[["close"]] for asset, bars in MARKET.items()}


@pytest.mark.parametrize(
    ("changes", "bars", "message"),
    [
        ({"backtest.stop_loss": 0.02}, CLOSES, r"backtest.stop_loss.*A1 has only \['close'\]"),
        ({"backtest.take_profit": 0.04}, CLOSES, "backtest.take_profit"),
        ({"backtest.trailing_stop": 0.04}, CLOSES, "backtest.trailing_stop"),
        ({"backtest.range_slippage": 0.1}, CLOSES, "backtest.range_slippage"),
        (
            {"backtest.sides": "market_neutral", "data.test_assets": ["A3"]},
            MARKET,
            "backtest.sides.*at least 2 assets, and A3",
        ),
        ({**RULES, "backtest.sides": "market_neutral"}, MARKET, "backtest.sides.*sides of rules"),
    ],
)
def test_what_cannot_be_traded_is_refused_before_anything_is_trained(changes, bars, message):
    settings = {**SMALL, "data": DATA}
    with pytest.raises(ConfigError, match=message):
        prepare(load_config(settings, changes), bars)


def test_bars_without_highs_are_named_among_those_that_have_them():
    mixed = {**MARKET, "A2": MARKET["A2"].assign(high=np.nan)}
    settings = load_config({**SMALL, "data": DATA}, {"backtest.stop_loss": 0.02})
    with pytest.raises(ConfigError, match="A2 has only .*without high;"):
        prepare(settings, mixed)
    prepare(load_config({**SMALL, "data": DATA}), mixed)


def test_whole_bars_may_have_stops():
    assert prepared_with(**{"backtest.stop_loss": 0.02}).config.backtest.stops() == ["stop_loss"]


NAMES = ["ridge regression", "momentum", "gradient-boosted trees"]
KINDS = {
    "returns": {},
    "directions": {"target.kind": "direction", "target.flat": 0.2},
    "growing windows": {"backtest.window": "growing", "learner.methods": ["alpaca"]},
    "a cross-section": {"task.support_from": "cross_section"},
    "regimes": {"task.support": 5, "backtest.same_regime": True, "regimes.history": 20},
    "sequences": {"model.kind": "gru", "model.length": 4},
    "rules": {**RULES, "task.support": 5},
    "sizes by deviations": {
        "backtest.positions": "kelly",
        "backtest.limit": 1000.0,
        "learner.methods": ["alpaca"],
    },
}


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("changes", KINDS.values(), ids=KINDS)
def test_every_baseline_predicts_where_learners_do(changes, monkeypatch):
    pytest.importorskip("sklearn")
    changes = {**changes, "backtest.baselines": ["trees", "ridge", "momentum", "random"]}
    prepared = prepared_with(**changes)
    supports = find_test_supports(prepared)
    monkeypatch.setattr(learning_tasks, "find_supports", None)  # they are found once
    found, notes = baseline_forecasts(prepared, supports)
    assert list(found) == NAMES and notes == ()
    due = on_test_span(prepared, supports.due) > 0
    assert due.to_numpy().sum() > 50
    for mean, std in found.values():
        pd.testing.assert_frame_equal(np.isfinite(mean), due)
        assert np.nanstd(mean) > 0.01
        if prepared.config.backtest.positions == "kelly":
            pd.testing.assert_frame_equal(std > 0, due)
        else:
            assert std is None
    decided = decide(prepared, found, returns_of(prepared))
    assert {*NAMES, RANDOM, BUY_AND_HOLD} <= {*decided}
    assert all(decided[name].to_numpy().any() for name in NAMES)
    if changes.get("backtest.positions") == "kelly":
        assert len(np.unique(decided[NAMES[0]])) > 50


def test_a_volatility_has_no_momentum_and_says_so():
    prepared = prepared_with(**{"target.kind": "volatility"})
    found, notes = baseline_forecasts(prepared, find_test_supports(prepared))
    assert "momentum" not in found
    assert any("momentum left out: a volatility" in note.text for note in notes)
    logarithms = found["ridge regression"].mean.to_numpy()
    logarithms = logarithms[np.isfinite(logarithms)]
    assert len(logarithms) > 200 and (np.abs(logarithms + 5) < 3).all()  # of 1 % a bar
    decided = decide(prepared, found, returns_of(prepared))
    assert (decided[RANDOM] >= 0).all(axis=None) and decided[RANDOM].to_numpy().any()


def test_trees_are_left_out_where_their_bars_are_not_given():
    """As in the backtest of what was trained, on other assets alone."""
    pytest.importorskip("sklearn")
    settings = {**SMALL, "data": {**DATA, "test_assets": ["A3"]}}
    settings["backtest"] = {"baselines": ["trees"]}
    first = prepare(load_config(settings), MARKET)
    fitted = Fitted(first.scaler)
    company = prepare(first.config, MARKET, fitted)
    alone = prepare(first.config, {"A3": MARKET["A3"]}, fitted)
    whole, again = (
        baseline_forecasts(each, find_test_supports(each))[0][NAMES[2]].mean
        for each in (first, company)
    )
    pd.testing.assert_frame_equal(whole, again)
    found, notes = baseline_forecasts(alone, find_test_supports(alone))
    assert found == {} and "no bars of meta-training" in notes[0].text


@pytest.mark.long
def test_buying_and_holding_knows_no_stops_and_no_limits():
    plain = prepared_with()
    bound = prepared_with(
        **{
            "backtest.stop_loss": 0.01,
            "backtest.take_profit": 0.01,
            "backtest.max_gross": 0.5,
            "backtest.max_turnover": 0.1,
            "backtest.rebalance": "always",
        }
    )
    accounts, held = [], []
    for prepared in (plain, bound):
        market = market_of_test_span(prepared)
        decided = decide(prepared, {"maml": predicted_for(prepared)}, returns_of(prepared))
        traded = trade_decisions(prepared, market, decided)
        assert list(traded.accounts) == list(decided)
        accounts.append(traded)
        alone = dict(trade_assets(prepared, market, decided))
        assert all(list(each) == list(decided) for each in alone.values())
        held.append(alone["A2"][BUY_AND_HOLD].equity)
    free, kept = (each.accounts for each in accounts)
    pd.testing.assert_series_equal(free[BUY_AND_HOLD].net, kept[BUY_AND_HOLD].net)
    pd.testing.assert_series_equal(*held)
    sizes = [each["maml"].weights.abs().sum(axis=1) for each in (free, kept)]
    assert sizes[0].max() > 0.9 and sizes[1].max() < 0.55
    assert {"stop loss", "take profit"} <= {*kept["maml"].trades["reason"]}

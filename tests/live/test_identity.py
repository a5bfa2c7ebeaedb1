"""What is decided and traded bar by bar is what a backtest of the same bars decides and trades."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from helpers import random_market
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from market import SMALL

from maml_jax.experiment import backtest, run, train
from maml_jax.experiment.evaluation.evaluate import net_returns
from maml_jax.experiment.evaluation.forecasts import Forecasts
from maml_jax.experiment.evaluation.predicted import predict_test_span
from maml_jax.experiment.learning.tasks import find_test_supports
from maml_jax.experiment.learning.train import make_learner
from maml_jax.experiment.preparation.prepare import prepare
from maml_jax.live.state import advance, begin
from maml_jax.live.strategy import decide_span, strategy_of

pytestmark = pytest.mark.long

START = "2020-06-09"


def make_bars(freq="D"):
    """Make bars with a gap, a listing and a delisting within the test, and ragged ends."""
    bars = random_market(count=260, assets=5)
    times = pd.date_range("2020-01-01", periods=260, freq=freq, tz="UTC", name="timestamp")
    bars = {name: frame.set_axis(times) for name, frame in bars.items()}
    first = int(times.searchsorted(times[160]))
    bars["A1"] = bars["A1"].drop(times[first + 12 : first + 15])
    bars["A2"] = bars["A2"].iloc[: first + 40]
    bars["A3"] = bars["A3"].iloc[first - 10 :]
    bars["A0"] = bars["A0"].iloc[:-2]
    return bars


def settings_of(kind, bars):
    times = bars["A4"].index
    data = {
        "train_assets": ["A0", "A1", "A2"],
        "test_assets": ["A0", "A1", "A2", "A3", "A4"],
        "train_end": str(times[159]),
        "test_start": str(times[160]),
    }
    common = {**SMALL, "data": data, "learner": {"methods": ["maml"], "inner_steps": 2}}
    return {
        "returns": common | {"target": {**SMALL["target"], "fill": "next_open"}},
        "close": common | {"target": {**SMALL["target"], "fill": "close"}},
        "volatility": common
        | {
            "target": {**SMALL["target"], "kind": "volatility"},
            "learner": {"methods": ["alpaca"]},
            "backtest": {"samples": 50, "window": "growing"},
        },
        "regimes": common
        | {
            "task": {"support": 10, "query": 5, "min_support": 2},
            "regimes": {"trend_window": 8, "volatility_window": 5, "history": 20},
            "backtest": {"samples": 50, "same_regime": True},
        },
        "online": common
        | {"online": {"variants": ["online"], "every": 20, "steps": 1, "meta_batch": 2}},
    }[kind]


@pytest.fixture(
    scope="module",
    params=[
        "returns",
        "volatility",
        *(pytest.param(each, marks=pytest.mark.slow) for each in ("close", "regimes")),
    ],
)
def trained(request):
    bars = make_bars("h" if request.param == "close" else "D")
    return train(settings_of(request.param, bars), bars=bars), bars


CHANGES = st.fixed_dictionaries(
    {},
    optional={
        "positions": st.sampled_from(["threshold", "levels", "proportional", "volatility_target"]),
        "stop_loss": st.sampled_from([0.01, 0.03]),
        "take_profit": st.sampled_from([0.02, 0.05]),
        "trailing_stop": st.sampled_from([0.02, 0.04]),
        "band": st.sampled_from([0.05, 0.3]),
        "max_turnover": st.sampled_from([0.1, 0.5]),
        "max_gross": st.sampled_from([0.5, 2.0]),
        "rebalance": st.sampled_from(["changes", "always"]),
        "borrow": st.sampled_from([0.05]),
        "sides": st.sampled_from(["long_only", "market_neutral"]),
        "fee": st.sampled_from([0.0, 0.002]),
    },
)


def replay(result, bars, cuts, **options):
    """Trade bars as they come: now and then somebody looks, and takes what is new."""
    strategy = strategy_of(result, bars, **options)
    capital = result.config.backtest.capital
    times = bars["A4"].index
    state, equity, decided = begin(strategy, capital), [], []
    for cut in [*sorted(cuts), len(times)]:
        end = times[160] + cut * (times[1] - times[0])
        so_far = {name: frame.loc[frame.index < end] for name, frame in bars.items()}
        state, step = advance(strategy, state, so_far, every=True)
        if step is not None:
            equity.append(step.traded.equity)
            decided.append(step.decisions.weights.reindex(step.times))
    found = pd.concat(equity)
    return found / found.shift(1).fillna(capital) - 1, pd.concat(decided)


def test_a_replay_is_the_backtest(trained):
    result, bars = trained
    has_rule = result.config.target.kind == "return"
    changes = {"stop_loss": 0.02, "band": 0.1, "rebalance": "always", "max_turnover": 0.4}
    changes |= {"positions": "proportional"} if has_rule else {}
    tested = backtest(result, bars=bars, backtest={"baselines": [], **changes})
    returns, decided = replay(tested, bars, [1, 2, 30, 31, 77])
    expected = tested.returns[next(iter(result.checkpoints))]
    np.testing.assert_allclose(returns.reindex(expected.index), expected, atol=1e-9)
    rows = tested.predictions[tested.predictions["strategy"] == expected.name]
    wanted = rows.pivot_table("position", "timestamp", "asset", dropna=False)
    given = (5 * decided).reindex(wanted.index)[wanted.columns]
    np.testing.assert_allclose(given.where(wanted.notna()), wanted, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["online"])
def test_a_method_that_goes_on_learning_is_replayed_as_well(kind):
    bars = make_bars()
    tested = run(settings_of(kind, bars), bars=bars)
    returns, _ = replay(tested, bars, [40], method="maml online")
    expected = tested.returns["maml online"]
    assert not np.allclose(expected, tested.returns["maml"])
    np.testing.assert_allclose(returns.reindex(expected.index), expected, atol=1e-9)


@pytest.fixture(scope="module")
def forecast(trained):
    """What the backtest predicts, once for all rules of trading."""
    result, bars = trained
    checkpoint = next(iter(result.checkpoints.values()))
    prepared = prepare(result.config, bars, checkpoint.fitted)
    supports = find_test_supports(prepared)
    learner = make_learner(result.config, checkpoint.method)
    steps = 2 if checkpoint.method == "maml" else None
    options = (prepared, supports, checkpoint.method, learner, checkpoint.params)
    return Forecasts({checkpoint.method: predict_test_span(*options, steps=steps)})


def agrees(trained, forecast, changes, cuts):
    result, bars = trained
    [method] = forecast.predicted
    if result.config.target.kind == "volatility":
        changes.pop("positions", None)
    config = result.config.changed(backtest={"baselines": (), **changes})
    prepared = prepare(config, bars, result.checkpoints[method].fitted)
    expected = net_returns(prepared, forecast)[method]
    returns, _ = replay(replace(result, config=config), bars, cuts)
    np.testing.assert_allclose(returns.reindex(expected.index), expected, atol=1e-9)


CUTS = st.lists(st.integers(1, 99), max_size=2, unique=True)


@settings(max_examples=3, suppress_health_check=list(HealthCheck))
@given(changes=CHANGES, cuts=CUTS)
def test_any_rules_of_trading_are_those_of_the_backtest(trained, forecast, changes, cuts):
    agrees(trained, forecast, changes, cuts)


@pytest.mark.slow
@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(changes=CHANGES, cuts=CUTS)
def test_many_rules_of_trading_are_those_of_the_backtest(trained, forecast, changes, cuts):
    agrees(trained, forecast, changes, cuts)


@pytest.mark.slow
def test_bar_by_bar_is_the_backtest(trained, forecast):
    agrees(trained, forecast, {"stop_loss": 0.02, "band": 0.05}, range(1, 100))


def test_the_last_row_is_that_of_a_longer_history(trained):
    result, bars = trained
    strategy = strategy_of(result, bars)
    times = bars["A4"].index
    whole = decide_span(strategy, bars, times[160])
    for place in (161, 185, 220, 259):
        cut = {name: frame.loc[: times[place]] for name, frame in bars.items()}
        last = decide_span(strategy, cut, times[place])
        for table, other in ((whole.weights, last.weights), (whole.mean, last.mean)):
            there = other.loc[times[place]].notna()
            np.testing.assert_allclose(
                other.loc[times[place]][there], table.loc[times[place]][there], atol=1e-9
            )

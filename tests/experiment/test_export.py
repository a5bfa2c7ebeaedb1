"""What other tools are given: orders, weights, figures under the names that people know."""

import numpy as np
import pandas as pd
import pytest

from maml_jax.errors import ConfigError, RunError
from maml_jax.experiment import load

pytestmark = pytest.mark.long


def test_orders_tell_what_changes_and_where_it_is_filled(saved):
    result, _ = saved
    for strategy in ("maml", "buy and hold"):
        orders = result.orders(strategy)
        assert list(orders) == ["A2", "A3"]
        assert orders.index.equals(result.returns.index)
        table = result.evaluation.weights
        own = table[table["strategy"] == strategy]
        wanted = own.pivot_table("order", "timestamp", "asset", dropna=False)
        filled = orders.ffill().fillna(0.0)
        np.testing.assert_allclose(filled, wanted.ffill().fillna(0.0))
        given = orders.notna() & (orders == orders.ffill().shift(1).fillna(0.0))
        assert not given.any(axis=None)  # nothing is ordered twice
    # Bought once, at the close of the second bar, by what was decided at the close of the first.
    assert list(result.orders("buy and hold")["A2"].dropna()) == [0.5]
    assert result.orders("buy and hold")["A2"].first_valid_index() == result.returns.index[1]


def test_weights_are_what_is_held(saved):
    result, _ = saved
    weights = result.weights("fomaml")
    exposure = result.evaluation.exposure["fomaml"]
    np.testing.assert_allclose(weights.abs().sum(axis=1), exposure, atol=1e-12)


def test_stats_are_ours_under_their_names(saved):
    result, path = saved
    stats = result.to_stats()
    names = list(stats.index)
    assert names[:3] == ["Start", "End", "Duration"]
    assert names[-3:] == ["_strategy", "_equity_curve", "_trades"]
    for name in ("Return [%]", "Sharpe Ratio", "Max. Drawdown [%]", "# Trades", "Win Rate [%]"):
        assert stats[name] == pytest.approx(result.stats.loc[name, "maml"], nan_ok=True)
    held = result.stats.loc["Return [%]", "buy and hold"]
    assert stats["Buy & Hold Return [%]"] == pytest.approx(held)
    assert stats["_strategy"] == "maml"
    other = load(path).to_stats("fomaml")
    assert other["Return [%]"] == pytest.approx(result.stats.loc["Return [%]", "fomaml"])


def test_the_equity_curve_and_the_trades_agree_with_the_figures(saved):
    result, _ = saved
    for strategy in result.stats:
        stats = result.to_stats(strategy)
        curve, trades = stats["_equity_curve"], stats["_trades"]
        assert curve["Equity"].iloc[-1] == pytest.approx(stats["Equity Final [$]"])
        assert -100 * curve["DrawdownPct"].max() == pytest.approx(stats["Max. Drawdown [%]"])
        longest = curve["DrawdownDuration"].max()
        assert longest == stats["Max. Drawdown Duration"] or curve["DrawdownPct"].max() == 0
        assert len(trades) == stats["# Trades"]
        index = result.returns.index
        assert list(index[trades["EntryBar"]]) == list(trades["EntryTime"])
        assert list(index[trades["ExitBar"]]) == list(trades["ExitTime"])
        # All money that was made or lost is that of trades.
        assert trades["PnL"].sum() == pytest.approx(curve["Equity"].iloc[-1] - 10_000.0)


def test_an_unknown_strategy_is_refused_by_name(saved):
    for call in (saved[0].orders, saved[0].weights, saved[0].to_stats):
        with pytest.raises(ConfigError, match="no strategy 'mamba'.*'maml'"):
            call("mamba")


def test_a_directory_without_weights_says_so(saved):
    result, _ = saved
    old = result.evaluation._replace(weights=pd.DataFrame())
    bare = type(result)(result.config, result.checkpoints, result.history, (), old)
    with pytest.raises(RunError, match="without weights"):
        bare.orders()
    assert bare.to_stats()["# Trades"] == result.stats.loc["# Trades", "maml"]

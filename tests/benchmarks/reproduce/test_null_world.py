import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from benchmarks.reproduce import NULL_WORLD, null_series, null_world, reproduce
from benchmarks.reproduce.null_bars import DELAY, follow_the_signal, simulate_walks, traded_returns
from maml_jax.errors import ConfigError
from maml_jax.experiment import run
from maml_jax.experiment.evaluation.verdict import is_significant
from maml_jax.features import fill_returns


@pytest.mark.parametrize("ic", [0.0, 0.1, 0.5])
def test_the_signal_knows_as_much_of_the_traded_return_as_is_said(ic):
    world = simulate_walks(ic, seed=1, bars=20_000)
    outcome = traded_returns(world)
    for asset, bars in world.items():
        found = np.log(bars["volume"]).corr(outcome[asset])
        assert found == pytest.approx(ic, abs=3 / np.sqrt(20_000))
        assert bars["close"].pct_change().std() == pytest.approx(0.01, rel=0.05)
    for earlier in range(1, DELAY):  # nothing is known before
        moved = world["WALK1"]["close"].pct_change().shift(-earlier)
        assert abs(np.log(world["WALK1"]["volume"]).corr(moved)) < 3 / np.sqrt(20_000)
    followed = follow_the_signal(world, outcome.index)
    assert followed.mean() == pytest.approx(0.01 * ic * np.sqrt(2 / np.pi), abs=3e-4)


def test_the_traded_return_is_that_of_a_fill_at_the_next_close():
    world = simulate_walks(0.3, seed=2, bars=50)
    earned = fill_returns(world, "next_close")
    decided = traded_returns(world)
    for asset in world:
        held = pd.Series(earned[asset]).shift(-DELAY)
        assert held.dropna().to_numpy() == pytest.approx(decided[asset].dropna().to_numpy())


def test_prices_are_martingales_where_nothing_is_known():
    ends = [
        bars["close"].iloc[-1] for seed in range(80) for bars in simulate_walks(0.0, seed).values()
    ]
    # 700 bars of 1 % make a deviation of about 27 %.
    assert np.mean(ends) == pytest.approx(100, abs=3 * 27 / np.sqrt(len(ends)))


@pytest.mark.parametrize("market", null_series.MARKETS)
def test_strategies_without_an_edge_earn_nothing_on_a_market_of_one_volatility(market):
    net = null_series.simulate_without_edge(market, 40_000, np.random.default_rng(3))
    assert list(net) == [*null_series.STRATEGIES, null_series.MARKET]
    assert net[null_series.MARKET].std() == pytest.approx(0.01, rel=0.15)
    own = net[null_series.MARKET].autocorr()
    assert own == pytest.approx(0.2 if market.startswith("AR") else 0.0, abs=0.05)
    for name in null_series.STRATEGIES[:4]:
        # The mean of an autocorrelated series has half as much more deviation.
        assert abs(net[name].mean()) < 4.5 * net[name].std() / np.sqrt(len(net))
    assert (net[null_series.STRATEGIES[2]] != 0).mean() == pytest.approx(0.05, abs=0.01)


def test_rejections_are_counted(monkeypatch):
    def tests(net, benchmark, *, seed, samples):
        low = SimpleNamespace(p_value=0.01 if seed % 3 == 0 else 0.9)
        return dict.fromkeys(net, low)

    monkeypatch.setattr(null_series, "alpha_tests", tests)
    advanced = []
    found = null_series.count_rejections(null_series.MARKETS[0], 50, 7, 0, advanced.append)
    assert found.worlds == 7 and set(found.rejected.values()) == {3} and sum(advanced) == 7


def test_the_table_of_the_test_is_made_once_and_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(null_world, "LENGTHS", (60,))
    (table,) = reproduce(NULL_WORLD, parts=["test"], worlds=3, out=tmp_path)
    assert len(table.rows) == len(null_series.MARKETS)
    assert all(len(row) == len(null_series.STRATEGIES) + 1 for row in table.rows)
    monkeypatch.setattr(null_world, "count_rejections", None)  # would fail if called again
    assert reproduce(NULL_WORLD, parts=["test"], worlds=3, out=tmp_path) == [table]
    kept = json.loads((tmp_path / "null-world.json").read_text())
    assert len(kept["test"]) == len(null_series.MARKETS)
    assert table.title in (tmp_path / "null-world.md").read_text()


def test_the_table_of_runs_counts_what_is_called_significant(tmp_path, monkeypatch):
    def judged(ic, seed, settings, advance):
        assert settings["training"]["steps"] == 2
        found = {"significant": seed % 2 == 0, "known": ic > 0, "p": 0.1, "alpha": 1.0}
        return {**found, "ic": ic / 2, "bars": 280}

    monkeypatch.setattr(null_world, "_judge_world", judged)
    (table,) = reproduce(NULL_WORLD, parts=["pipeline"], worlds=4, quick=True, out=tmp_path)
    assert table.title.startswith("QUICK")
    assert table.rows[0][:4] == ("none", "4", "50.0 (6.8 to 93.2)", "0.0 (0.0 to 60.2)")
    assert table.rows[-1][0] == "IC 0.1" and table.rows[-1][3].startswith("100.0")
    assert table.rows[-1][4] == "0.050"


def test_options_that_are_impossible_are_named(tmp_path):
    with pytest.raises(ConfigError, match="--part power: no such part"):
        reproduce(NULL_WORLD, parts=["power"], out=tmp_path)
    with pytest.raises(ConfigError, match="--worlds"):
        reproduce(NULL_WORLD, worlds=0, out=tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("ic", [0.0, 0.9])
def test_what_is_judged_of_a_world_is_what_the_verdict_of_a_run_says(ic):
    settings = {
        **null_world._SETTINGS,
        "training": {"meta_batch": 4, "steps": 20},
        "backtest": {**null_world._SETTINGS["backtest"], "samples": 99},
    }
    found = null_world._judge_world(ic, 5, settings, lambda done: None)
    result = run(bars=simulate_walks(ic, 5), seed=5, **settings)
    assert result.evaluation is not None
    assert found["p"] == result.evaluation.significance["p_value"].iloc[0]
    assert found["significant"] == is_significant(result.evaluation)
    assert found["bars"] == len(result.returns)
    assert found["known"] == (ic > 0)
    assert found["ic"] == pytest.approx(result.stats.loc["Correlation", "maml"], abs=0.1)

"""Task families, rules and position rules from settings to results."""

import numpy as np
import pandas as pd
import pytest
from market import MARKET, SMALL

from maml_jax.errors import ConfigError, DataError
from maml_jax.experiment import load, load_config, run
from maml_jax.experiment.families import classes, online_windows, supports, training_windows
from maml_jax.experiment.needs import target_of
from maml_jax.experiment.prepare import SIDE, prepare
from maml_jax.experiment.result import verdict
from maml_jax.experiment.series import make_series
from maml_jax.features import STRATEGIES, compute_target, spread_bars

RULES = ["mean_reversion", "breakout", "arbitrage"]
RULED = {"task.family": "strategy", "task.strategies": RULES, "task.pairs": 1}
REGIMES = {"trend_window": 10, "volatility_window": 5, "history": 20}


def prepared_with(**changes):
    return prepare(load_config({**SMALL, "regimes": REGIMES}, changes), MARKET)


def test_series_follow_rules_and_learn_what_these_pay():
    prepared = prepared_with(**RULED)
    tested = [f"{rule}:A{i}" for rule in RULES[:2] for i in (2, 3)]
    assert prepared.test_assets[:4] == ["mean_reversion:A2", "mean_reversion:A3"] + tested[2:]
    (pair,) = [name for name in prepared.test_assets if name.startswith("arbitrage")]
    assert pair == "arbitrage:A2-A3"
    pd.testing.assert_frame_equal(prepared.bars[pair], spread_bars(MARKET["A2"], MARKET["A3"]))
    assert prepared.panel.feature_names[-1] == SIDE
    for place, name in enumerate(prepared.panel.assets):
        rule = name.partition(":")[0]
        side = STRATEGIES[rule].side(prepared.bars[name])
        target, _ = compute_target(prepared.bars[name], target_of(prepared.config))
        pays = (side * target).reindex(prepared.panel.timestamps)
        valid = np.asarray(prepared.panel.valid[place])
        known = valid & (np.asarray(prepared.panel.label_end[place]) < len(pays))
        np.testing.assert_allclose(
            np.asarray(prepared.panel.targets[place])[known], pays[known], atol=1e-5
        )
        assert (side.reindex(prepared.panel.timestamps).fillna(0)[valid] != 0).all()
    assert len(set(training_windows(prepared).group)) == len(
        {name.partition(":")[0] for name in prepared.train_assets}
    )


def test_a_rule_is_followed_where_it_is_expected_to_pay_and_never_against(tmp_path):
    result = run(SMALL, bars=MARKET, out=tmp_path / "run", **RULED)
    assert list(result.stats)[-2:] == ["follow every rule", "buy and hold"]
    own = result.predictions.query("strategy == 'maml'")
    sides = prepared_with(**RULED).sides
    for row in own.itertuples():
        side = sides[row.asset][row.timestamp]
        assert row.position == (side if row.prediction > 0 else 0)
    followed = result.trades.query("strategy == 'follow every rule'")
    assert set(followed["side"]) == {1, -1}
    again = load(tmp_path / "run")
    assert again.config.task.pairs == (("A2", "A3"),) or len(again.config.task.pairs) > 0
    pd.testing.assert_frame_equal(again.regimes, result.regimes)


def test_pairs_of_the_test_are_chosen_on_the_meta_training_span():
    later = {asset: bars.copy() for asset, bars in MARKET.items()}
    for asset in later:
        later[asset].iloc[200:] = later[asset].iloc[200:].sample(frac=1, random_state=1).to_numpy()
    config = load_config(SMALL, RULED)
    span = slice(None, MARKET["A0"].index[150])
    one, other = (
        make_series(config, bars, ["A0", "A1"], ["A1", "A2", "A3"], span, [])
        for bars in (MARKET, later)
    )
    assert one.pairs == other.pairs


@pytest.mark.parametrize(
    "family", ["regime", "month", "quarter", "year", {"asset": 1.0, "month": 2.0}], ids=str
)
@pytest.mark.parametrize("origin", ["asset", "cross_section", "mixed"])
def test_families_and_supports_are_one_line_of_the_settings(family, origin):
    sizes = {"task.support": 4, "task.query": 2}
    prepared = prepared_with(**{"task.family": family, "task.support_from": origin, **sizes})
    windows = training_windows(prepared)
    assert windows.sizes == ((2, 2) if origin == "mixed" else (4,))
    assert windows.known.max() <= prepared.train_last
    assert online_windows(prepared).known.max() > prepared.train_last
    assert (supports(prepared)["labels"] is not None) == (family == "regime")


def test_classes_part_the_cross_section():
    prepared = prepared_with(**{"data.classes": {"A0": "x", "A1": "x", "A2": "y"}})
    assert len(set(classes(prepared))) == 3
    assert classes(prepared_with()) is None


def test_a_position_rule_needs_what_it_is_made_of():
    with pytest.raises(ConfigError, match="'kelly' needs methods that predict a deviation.*maml"):
        run(SMALL, bars=MARKET, backtest={"positions": "kelly"})
    with pytest.raises(ConfigError, match="a volatility has no side"):
        load_config(SMALL, {"target.kind": "volatility", "backtest.positions": "threshold"})
    with pytest.raises(ConfigError, match="prototypes tell up from down"):
        load_config(SMALL, {"target.kind": "volatility", "learner.methods": ["prototypes"]})
    with pytest.raises(ConfigError, match="predicts what a rule pays"):
        load_config(SMALL, {"target.kind": "volatility", **RULED})
    with pytest.raises(ConfigError, match="goes on with joint_training"):
        load_config(SMALL, {"online.variants": ["incremental"]})
    with pytest.raises(ConfigError, match="each once"):
        load_config(SMALL, {"task.strategies": ["momentum", "luck"]})
    with pytest.raises(ConfigError, match="growing windows take in all rows"):
        load_config(SMALL, {"backtest.window": "growing", "task.support_from": "mixed"})
    with pytest.raises(ConfigError, match="compare several assets"):
        prepared_with(**RULED, **{"features.names": ["return_1", "return_rank"]})


@pytest.mark.parametrize("rule", ["confident", "kelly", "volatility_target"])
def test_position_rules_size_what_is_predicted(rule):
    settings = {**SMALL, "learner": {"methods": ["alpaca"], "features": 4}}
    result = run(settings, bars=MARKET, backtest={"positions": rule, "confidence": 0.05})
    own = result.predictions.query("strategy == 'alpaca'")
    mean, std, position = (own[name] for name in ("prediction", "std", "position"))
    if rule == "confident":
        np.testing.assert_array_equal(position, np.sign(mean) * (mean.abs() > 0.05 * std))
    else:
        assert (np.sign(position) == np.sign(mean)).all()
        assert position.abs().max() <= 1
    assert {"NLL", "CRPS", "Coverage 90 % [%]"} <= {*result.stats.index}


def test_volatility_is_predicted_in_its_own_units_and_sizes_positions():
    settings = {**SMALL, "learner": {"methods": ["alpaca"], "features": 4}}
    result = run(settings, bars=MARKET, target={"kind": "volatility", "horizon": 5})
    assert {"trailing volatility", "ewma"} <= {*result.stats}
    own = result.predictions.query("strategy == 'trailing volatility' and asset == 'A2'")
    bars = MARKET["A2"]
    r = np.log(bars["close"]).diff()
    window = result.config.target.volatility_window
    trailing = np.log(np.sqrt((r**2).rolling(window).mean()))
    outcome = np.log(np.sqrt((r**2).rolling(5).mean())).shift(-5)
    own = own.set_index("timestamp")
    np.testing.assert_allclose(own["prediction"], trailing.reindex(own.index), atol=1e-5)
    known = own["target"].notna()
    assert known.sum() > 20
    np.testing.assert_allclose(
        own["target"][known], outcome.reindex(own.index)[known], rtol=1e-4, atol=0.02
    )
    years = result.stats.loc["Bars per Year", "alpaca"]
    expected = (0.15 / (np.exp(own["prediction"]) * np.sqrt(years))).clip(upper=1)
    np.testing.assert_allclose(own["position"], expected, rtol=1e-4)
    assert result.stats.loc["R2"].notna().sum() >= 4
    assert "log volatility by alpaca had an R2 of" in verdict(result)


def test_an_asset_without_history_in_the_span_is_told_by_name():
    bars = {**MARKET, "A3": MARKET["A3"].iloc[:20]}
    with pytest.raises(DataError, match="A3"):
        run(SMALL, bars=bars, **RULED)

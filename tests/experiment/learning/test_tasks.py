"""Task families, rules and position rules from settings to results."""

import numpy as np
import pandas as pd
import pytest
from helpers import random_market
from market import MARKET, SMALL

from maml_jax.backtest import summarise_by_regime
from maml_jax.errors import ConfigError, DataError
from maml_jax.experiment import backtest, load, load_config, run, train
from maml_jax.experiment.learning.tasks import (
    classes,
    find_test_supports,
    online_windows,
    training_windows,
)
from maml_jax.experiment.preparation.prepare import SIDE, prepare
from maml_jax.experiment.preparation.regimes import regimes_of_report
from maml_jax.experiment.preparation.requirements import target_of
from maml_jax.experiment.preparation.series import make_series
from maml_jax.features import STRATEGIES, compute_target, fill_returns, spread_bars

pytestmark = pytest.mark.long

RULES = ["mean_reversion", "breakout", "arbitrage"]
RULED = {"task.family": "strategy", "task.strategies": RULES, "task.pairs": 1}
LEAN = {"learner.methods": ["maml"], "backtest.baselines": []}
"""No more strategies than a test looks at."""

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


@pytest.mark.slow
def test_a_rule_is_followed_where_it_is_expected_to_pay_and_never_against(tmp_path, no_page):
    result = run(SMALL, bars=MARKET, out=tmp_path / "run", **RULED, **LEAN)
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
@pytest.mark.parametrize("origin", ["cross_section", "mixed"])
def test_families_and_supports_are_one_line_of_the_settings(family, origin):
    sizes = {"task.support": 4, "task.query": 2}
    prepared = prepared_with(**{"task.family": family, "task.support_from": origin, **sizes})
    windows = training_windows(prepared)
    assert windows.sizes == ((2, 2) if origin == "mixed" else (4,))
    assert windows.known.max() <= prepared.train_last
    assert online_windows(prepared).known.max() > prepared.train_last
    supports = find_test_supports(prepared)
    assert supports.layout.sizes == windows.sizes
    tested = [asset in prepared.test_assets for asset in prepared.panel.assets]
    assert supports.due.any(axis=1).tolist() == tested


def test_classes_part_the_cross_section():
    prepared = prepared_with(**{"data.classes": {"A0": "x", "A1": "x", "A2": "y"}})
    assert len(set(classes(prepared))) == 3
    assert classes(prepared_with()) is None


def test_a_position_rule_needs_what_it_is_made_of():
    with pytest.raises(ConfigError, match="'kelly' needs methods that predict a deviation.*maml"):
        run(SMALL, bars=MARKET, backtest={"positions": "kelly"})
    with pytest.raises(ConfigError, match="a volatility forecast has no direction"):
        load_config(SMALL, {"target.kind": "volatility", "backtest.positions": "threshold"})
    with pytest.raises(ConfigError, match="prototypical_networks are classifiers"):
        load_config(
            SMALL, {"target.kind": "volatility", "learner.methods": ["prototypical_networks"]}
        )
    with pytest.raises(ConfigError, match="predicts what a rule pays"):
        load_config(SMALL, {"target.kind": "volatility", **RULED})
    with pytest.raises(ConfigError, match="goes on with joint_training"):
        load_config(SMALL, {"online.variants": ["incremental"]})
    with pytest.raises(ConfigError, match="without repeats"):
        load_config(SMALL, {"task.strategies": ["momentum", "luck"]})
    with pytest.raises(ConfigError, match="growing windows take in all rows"):
        load_config(SMALL, {"backtest.window": "growing", "task.support_from": "mixed"})
    with pytest.raises(ConfigError, match="compare several assets"):
        prepared_with(**RULED, **{"features.names": ["return_1", "return_rank"]})


@pytest.mark.long
@pytest.mark.parametrize(
    "rule",
    [
        "kelly",
        *(pytest.param(r, marks=pytest.mark.slow) for r in ("confident", "volatility_target")),
    ],
)
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


@pytest.mark.long
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
    # A mean of squares lies above that of logarithms: the distance is taken away.
    distance = own["prediction"] - trailing.reindex(own.index)
    np.testing.assert_allclose(distance, distance.iloc[0], atol=1e-5)
    assert -0.3 < distance.iloc[0] < 0
    known = own["target"].notna()
    assert known.sum() > 20
    np.testing.assert_allclose(
        own["target"][known], outcome.reindex(own.index)[known], rtol=1e-4, atol=0.02
    )
    years = result.stats.loc["Bars per Year", "alpaca"]
    expected = (0.15 / (np.exp(own["prediction"]) * np.sqrt(years))).clip(upper=1)
    np.testing.assert_allclose(own["position"], expected, rtol=1e-4)
    assert result.stats.loc["R2"].notna().sum() >= 4
    assert "log volatility by alpaca had an R2 of" in result.verdict()


def test_an_asset_without_history_in_the_span_is_told_by_name():
    bars = {**MARKET, "A3": MARKET["A3"].iloc[:20]}
    with pytest.raises(DataError, match="A3"):
        run(SMALL, bars=bars, **RULED)


SPANS_ASSETS = {
    "cross-section": {"task.support_from": "cross_section"},
    "market": {"backtest.same_regime": True, "regimes.of": "market"},
    "chain": {"backtest.same_regime": True, "regimes.kind": "markov", "regimes.history": 20},
    "online": {"online": {"variants": ["online"], "every": 20, "steps": 1, "meta_batch": 4}},
    "rules": {**RULED, "task.support_from": "mixed", "task.support": 4, "task.query": 2},
    "volatility": {"target.kind": "volatility"},
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [pytest.param(each, id=name) for name, each in SPANS_ASSETS.items()],
)
def test_a_run_is_training_and_then_a_backtest(changes):
    """What is adapted on beside the tested assets is there again, and nothing is fitted anew."""
    settings = {**SMALL, "regimes": REGIMES, "data": {**SMALL["data"], "train_start": "2020-01-20"}}
    whole = run(settings, bars=MARKET, **changes)
    again = backtest(train(settings, bars=MARKET, **changes), bars=MARKET)
    pd.testing.assert_frame_equal(whole.predictions, again.predictions, atol=1e-5)
    pd.testing.assert_frame_equal(whole.returns, again.returns, atol=1e-6)
    assert list(whole.stats) == list(again.stats)


@pytest.mark.long
def test_a_chain_needs_the_market_that_it_was_fitted_to():
    changes = SPANS_ASSETS["chain"]
    trained = train({**SMALL, "regimes": REGIMES}, bars=MARKET, **changes)
    with pytest.raises(DataError, match="the bars of A0, A1 are not given"):
        backtest(trained, bars={name: MARKET[name] for name in ("A2", "A3")})
    plain = train({**SMALL, "regimes": {**REGIMES, "kind": "markov"}}, bars=MARKET)
    with pytest.raises(ConfigError, match="was not fitted when this was trained"):
        backtest(plain, bars=MARKET, **{"backtest.same_regime": True})


@pytest.mark.slow
def test_tested_assets_may_miss_bars_that_others_have():
    gaps = MARKET["A3"].index[[180, 200, 201]]
    bars = {a: b.drop(gaps) if a in ("A2", "A3") else b for a, b in MARKET.items()}
    for changes in (RULED, {"target.kind": "volatility"}, {"task.support_from": "mixed"}):
        result = run(SMALL, bars=bars, **changes, **LEAN)
        assert not result.returns.index.isin(gaps).any()


def test_the_cross_section_needs_few_bars_of_each_asset():
    sizes = {"task.support": 140, "task.query": 10, "task.support_from": "cross_section"}
    assert training_windows(prepared_with(**sizes)).sizes == (140,)


def test_regimes_of_a_report_are_known_when_positions_are_decided():
    """A random walk tells no regime by its own return, whichever price orders are filled at."""
    market = random_market(count=3000, assets=2)
    for frame in market.values():
        frame["open"] = frame["close"].shift(1).fillna(frame["close"])
    config = load_config({}, {"data.path": "memory", "target.fill": "next_open"})
    returns = fill_returns(market, "next_open").mean(axis=1)
    known = regimes_of_report(config, market)
    table = summarise_by_regime(returns.to_frame("held"), known, 365.0).set_index("regime")
    assert (table.loc[["bull", "bear"], "bars"] > 150).all()
    spread = table.loc["bull", "Sharpe Ratio"] - table.loc["bear", "Sharpe Ratio"]
    assert abs(spread) < 6  # one bar later it is 16


@pytest.mark.slow
def test_what_diverges_is_no_forecast():
    diverging = {
        "learner.inner_learning_rate": 0.5,
        "backtest.inner_steps": 20,
        "target.kind": "volatility",
        "training.steps": 1,
    }
    result = run(SMALL, bars=MARKET, **diverging, **LEAN)
    assert result.predictions["position"].between(0, 1).all()


@pytest.mark.slow
def test_holding_assets_spends_the_whole_capital_beside_pairs():
    plain, ruled = (run(SMALL, bars=MARKET, **changes, **LEAN) for changes in ({}, RULED))
    pd.testing.assert_series_equal(
        plain.gross["buy and hold"], ruled.gross["buy and hold"], atol=1e-6
    )
    pd.testing.assert_frame_equal(
        plain.regimes.query("strategy == 'buy and hold'")[["regime", "bars"]].reset_index(
            drop=True
        ),
        ruled.regimes.query("strategy == 'buy and hold'")[["regime", "bars"]].reset_index(
            drop=True
        ),
    )


@pytest.mark.slow
def test_settings_are_resolved_and_told_by_name(tmp_path):
    result = run(SMALL, bars=MARKET, out=tmp_path / "run", **{"data.classes": {"A.0": "x"}}, **LEAN)
    again = load(tmp_path / "run").config
    assert again == result.config
    assert (again.backtest.positions, again.backtest.same_regime) == ("threshold", False)
    assert again.data.classes == {"A.0": "x"}
    assert any("A.0" in note.text for note in result.notes)
    (tmp_path / "run" / "regimes.parquet").unlink()  # as of a run that told none
    load(tmp_path / "run").report(tmp_path / "report.html")


@pytest.mark.parametrize("family", ["regimes", ["asset"], {"week": 1.0}, {"asset": 0}, {}], ids=str)
def test_a_wrong_family_is_told_once(family):
    with pytest.raises(ConfigError) as told:
        load_config({**SMALL, "task": {"family": family}})
    assert str(told.value).count("key ") == 1
    assert "'task.family'" in str(told.value)


def test_a_table_replaces_what_was_there():
    config = load_config({"task": {"family": {"asset": 2.0, "regime": 1.0}}}, {})
    assert load_config(config, {"task.family": {"month": 1.0}}).task.family == {"month": 1.0}
    assert load_config(config, {"task.family": "year"}).task.family == "year"
    assert load_config(config, {"task.family.asset": 3.0}).task.families()["asset"] == 3.0


def test_what_does_nothing_is_told():
    notes = prepared_with(**{"backtest.same_regime": True, "regimes.history": 5000}).notes
    assert any("No regime is known at" in note.text for note in notes)
    with pytest.raises(DataError, match="no regime is known in the meta-training span"):
        prepared_with(**{"task.family": "regime", "regimes.history": 5000})
    notes = prepared_with(**{**RULED, "task.pairs": [["A2", "ZZ"]]}).notes
    assert sum("No pairs with ZZ" in note.text for note in notes) == 1
    with pytest.raises(ConfigError, match="among the train assets"):
        prepared_with(**{**RULED, "task.strategies": ["arbitrage"], "task.pairs": [["A2", "A3"]]})
    with pytest.raises(ConfigError, match="two assets, not of A2 twice"):
        load_config(SMALL, {"task.pairs": [["A2", "A2"]]})
    with pytest.raises(ConfigError, match="arbitrage.*closes alone.*next_open"):
        prepared_with(**RULED, **{"target.fill": "next_open"})
    with pytest.raises(ConfigError, match="^key 'backtest.positions': the Kelly rule"):
        load_config(SMALL, {"target.kind": "direction", "backtest.positions": "kelly"})


def test_assets_are_predicted_from_the_fewest_rows_that_the_settings_name():
    """With no rows from their first row of features, where whole sets begin 12 rows later."""
    sizes = {"task.support": 12, "task.query": 2, "data.train_end": None}
    whole, young = (
        find_test_supports(prepared_with(**sizes, **more))
        for more in ({}, {"task.min_support": 0, "task.forget": 0.9})
    )
    assert whole.counts is None and (whole.due <= young.due).all()
    assert (young.counts[whole.due] == 12).all()
    with pytest.raises(ConfigError, match=r"min_support \(13\) must not exceed support \(12\)"):
        prepared_with(**sizes, **{"task.min_support": 13})
    with pytest.raises(ConfigError, match="growing windows weigh all rows equally"):
        prepared_with(**{"task.forget": 0.9, "backtest.window": "growing"})

"""What looks ahead is caught and named; what does not passes."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from lookahead import MARKET, config_for

import maml_jax.experiment.accounts as accounts
import maml_jax.experiment.lookahead_walk as walk
import maml_jax.experiment.prepare as preparing
from maml_jax.errors import ConfigError
from maml_jax.experiment import LookAheadReport, check_lookahead, train
from maml_jax.features import fit_scaler
from maml_jax.features.targets import Target
from maml_jax.tasks.pools import Pool

QUICK = {
    "backtest.baselines": (),
    "features.names": ("momentum", "rsi"),
    "learner.inner_steps": 1,
    "model.hidden": (4,),
}


def trained(fill="next_close", **changes):
    return train(config_for(fill, **{**QUICK, **changes}), bars=MARKET)


@pytest.fixture(scope="module")
def result():
    return trained()


def check(result, **options) -> LookAheadReport:
    return check_lookahead(result, bars=MARKET, **{"cuts": 1, **options})


def found(report) -> set[tuple[str, str]]:
    return {(row.what, row.name) for row in report.findings.itertuples(index=False)}


def test_the_clean_pipeline_passes(result):
    report = check(result, cuts=2)
    assert report.clean and report.findings.empty
    assert report.verdict().startswith("Nothing in this run looks ahead")
    assert list(report.recursive.index) == ["momentum", "rsi"]
    assert (report.recursive.iloc[:, 1:] < 1e-6).all(axis=None)
    assert "maml, no adaptation, from scratch" in report.checked[-1]
    assert report.notes == ()


def test_the_same_seed_finds_the_same(result, monkeypatch):
    plant_complete(monkeypatch)
    pd.testing.assert_frame_equal(check(result).findings, check(result).findings)


def plant_scaler(monkeypatch):
    """Fit the scaling on all bars."""
    tables, compute = {}, preparing.compute_features

    def remember(bars, features, *, asset="the asset"):
        tables[asset] = compute(bars, features, asset=asset)
        return tables[asset]

    def fit_on_everything(_, *, clip=5.0):
        return fit_scaler(tables.values(), clip=clip)

    monkeypatch.setattr(preparing, "compute_features", remember)
    monkeypatch.setattr(preparing, "fit_scaler", fit_on_everything)


def test_a_scaler_fitted_on_everything_is_named(result, monkeypatch):
    plant_scaler(monkeypatch)
    report = check(result)
    assert {("scaler", "momentum"), ("scaler", "rsi")} <= found(report)
    assert report.findings.iloc[0]["what"] == "scaler"
    assert "altered" in report.findings.iloc[0]["how"]


def test_a_scaler_that_was_fitted_on_everything_is_found_afterwards(monkeypatch):
    with monkeypatch.context() as planted:
        plant_scaler(planted)
        result = trained()
    report = check(result)
    assert found(report) == {("scaler", "momentum"), ("scaler", "rsi")}
    assert report.findings["how"].str.startswith("the run's own").all()


def test_orders_executed_in_the_bar_that_decided_them_are_named(result, monkeypatch):
    place = accounts.place_orders
    monkeypatch.setattr(accounts, "place_orders", lambda d, m, fill: place(d, m, "close"))
    report = check(result)
    assert ("order", "every strategy") in found(report)
    assert set(report.findings["what"]) == {"order"}


def test_a_fill_at_the_deciding_close_is_told_as_such():
    report = check(trained("close"))
    assert found(report) == {("order", "every strategy")}
    assert 'target.fill = "close"' in report.verdict()


def test_labels_that_overlap_are_named(result, monkeypatch):
    monkeypatch.setattr(Target, "label_delay", property(lambda self: 1))
    names = found(check(result))
    assert {("target", "end of the label"), ("target", "label")} <= names
    assert {
        ("task", "support of meta-training"),
        ("task", "query of meta-training"),
        ("task", "labels of meta-training"),
        ("task", "support of the walk-forward"),
        ("prediction", "maml"),
    } <= names


def plant_complete(monkeypatch):
    """Take rows into support sets two bars before their labels are complete."""
    complete = Pool.complete
    monkeypatch.setattr(
        Pool, "complete", lambda self, lane, time: complete(self, lane, np.asarray(time) + 2)
    )


def test_supports_that_reach_past_the_prediction_are_named(result, monkeypatch):
    plant_complete(monkeypatch)
    report = check(result)
    assert ("task", "support of the walk-forward") in found(report)
    assert ("prediction", "maml") in found(report)
    assert ("prediction", "no adaptation") not in found(report)
    row = report.findings.set_index("name").loc["support of the walk-forward"]
    assert (row["size"], row["unit"]) == (2.0, "bars")


def test_a_rule_of_positions_that_looks_ahead_is_named(result, monkeypatch):
    decide = walk.decide

    def by_tomorrow(prepared, predicted, returns):
        decided = decide(prepared, predicted, returns)
        return {**decided, "maml": decided["maml"].shift(-1).fillna(0.0)}

    monkeypatch.setattr(walk, "decide", by_tomorrow)
    assert found(check(result)) == {("position", "maml"), ("order", "maml")}


def test_ranks_by_tomorrows_prices_are_named(monkeypatch):
    result = trained(**{"features.names": ("return_rank", "momentum")})
    assert check(result).clean
    add = preparing.add_cross_section

    def by_tomorrow(bars):
        ranks = pd.DataFrame({a: b["close"].pct_change().shift(-1) for a, b in bars.items()})
        ranks = ranks.rank(axis="columns").fillna(0.0)
        return {a: b.assign(return_rank=ranks[a]) for a, b in add(bars).items()}

    monkeypatch.setattr(preparing, "add_cross_section", by_tomorrow)
    names = found(check(result))
    assert ("scaled feature", "return_rank") in names
    assert not any(name == "momentum" for _, name in names)


def test_what_the_run_wrote_down_is_compared(result):
    """A record that its checkpoints do not make of the bars is told."""
    walked = record_of(result)
    honest = replace(result, evaluation=walked)
    assert check(honest).clean
    walked.predictions["prediction"] += 0.1
    assert found(check(replace(result, evaluation=walked))) == {("record", "maml")}


def record_of(result):
    from types import SimpleNamespace

    prepared = preparing.prepare(result.config, MARKET, result.checkpoints["maml"].fitted)
    params = {"maml": result.checkpoints["maml"].params}
    mean = walk.predict_all(prepared, params).predicted["maml"].mean
    table = mean.rename_axis("timestamp").reset_index().melt("timestamp", var_name="asset")
    table = table.rename(columns={"value": "prediction"}).assign(strategy="maml")
    return SimpleNamespace(predictions=table)


def test_impossible_requests_are_refused(result):
    with pytest.raises(ConfigError, match="at least 1"):
        check(result, cuts=0)
    with pytest.raises(ConfigError, match="handed over in memory"):
        check_lookahead(result)

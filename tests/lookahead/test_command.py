"""What looks ahead is caught and named; what does not passes."""

import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from helpers import random_market
from lookahead import MARKET, config_for

import maml_jax.experiment.evaluation.accounts as accounts
import maml_jax.experiment.preparation.feature_tables as computing
import maml_jax.experiment.preparation.prepare as preparing
import maml_jax.lookahead.walk as walk
from maml_jax.cli import main as cli
from maml_jax.errors import ConfigError
from maml_jax.experiment import run, train
from maml_jax.features import fit_scaler, register_feature
from maml_jax.features import registry as own
from maml_jax.features.targets import Target
from maml_jax.lookahead import LookAheadReport, check_lookahead
from maml_jax.tasks.pools import Pool

pytestmark = pytest.mark.long

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
    assert report.verdict().startswith("No look-ahead found")
    assert list(report.recursive.index) == ["momentum", "rsi"]
    assert (report.recursive.iloc[:, 1:] < 1e-6).all(axis=None)
    assert "maml, no adaptation, from scratch" in report.checked[-1]
    assert report.notes == ()


@pytest.mark.slow
def test_the_same_seed_finds_the_same(result, monkeypatch):
    plant_complete(monkeypatch)
    pd.testing.assert_frame_equal(check(result).findings, check(result).findings)


def plant_scaler(monkeypatch):
    """Fit the scaling on all bars."""
    tables, compute = {}, computing.compute_features

    def remember(bars, features, *, asset="the asset"):
        tables[asset] = compute(bars, features, asset=asset)
        return tables[asset]

    def fit_on_everything(_, *, clip=5.0):
        return fit_scaler(tables.values(), clip=clip)

    monkeypatch.setattr(computing, "compute_features", remember)
    monkeypatch.setattr(preparing, "fit_scaler", fit_on_everything)


def test_a_scaler_fitted_on_everything_is_named(result, monkeypatch):
    plant_scaler(monkeypatch)
    report = check(result)
    assert {("scaler", "momentum"), ("scaler", "rsi")} <= found(report)
    assert report.findings.iloc[0]["what"] == "scaler"
    assert "altered" in report.findings.iloc[0]["how"]


@pytest.mark.slow
def test_a_scaler_that_was_fitted_on_everything_is_found_afterwards(monkeypatch):
    with monkeypatch.context() as planted:
        plant_scaler(planted)
        result = trained()
    report = check(result)
    assert found(report) == {("scaler", "momentum"), ("scaler", "rsi")}
    assert report.findings["how"].str.startswith("the run's own").all()


def plant_same_bar(monkeypatch):
    """Execute orders at the close that decided them."""
    place = accounts.place_orders
    monkeypatch.setattr(
        accounts, "place_orders", lambda d, m, fill, **given: place(d, m, "close", **given)
    )


def test_orders_executed_in_the_bar_that_decided_them_are_named(result, monkeypatch):
    plant_same_bar(monkeypatch)
    report = check(result)
    assert ("order", "every strategy") in found(report)
    assert set(report.findings["what"]) == {"order"}


@pytest.mark.slow
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


@pytest.mark.slow
def test_supports_that_reach_past_the_prediction_are_named(result, monkeypatch):
    plant_complete(monkeypatch)
    report = check(result)
    assert ("task", "support of the walk-forward") in found(report)
    assert ("prediction", "maml") in found(report)
    assert ("prediction", "no adaptation") not in found(report)
    row = report.findings.set_index("name").loc["support of the walk-forward"]
    assert (row["size"], row["unit"]) == (2.0, "bars")


@pytest.mark.slow
def test_a_rule_of_positions_that_looks_ahead_is_named(result, monkeypatch):
    decide = walk.decide

    def by_tomorrow(prepared, predicted, returns):
        decided = decide(prepared, predicted, returns)
        return {**decided, "maml": decided["maml"].shift(-1).fillna(0.0)}

    monkeypatch.setattr(walk, "decide", by_tomorrow)
    assert found(check(result)) == {("position", "maml"), ("order", "maml")}


@pytest.mark.slow
def test_ranks_by_tomorrows_prices_are_named(monkeypatch):
    result = trained(**{"features.names": ("return_rank", "momentum")})
    assert check(result).clean
    add = computing.add_cross_section

    def by_tomorrow(bars):
        ranks = pd.DataFrame({a: b["close"].pct_change().shift(-1) for a, b in bars.items()})
        ranks = ranks.rank(axis="columns").fillna(0.0)
        return {a: b.assign(return_rank=ranks[a]) for a, b in add(bars).items()}

    monkeypatch.setattr(computing, "add_cross_section", by_tomorrow)
    names = found(check(result))
    assert ("scaled feature", "return_rank") in names
    assert not any(name == "momentum" for _, name in names)


@pytest.mark.slow
def test_what_the_run_wrote_down_is_compared(result):
    """A record that its checkpoints do not make of the bars is told."""
    walked = record_of(result)
    honest = replace(result, evaluation=walked)
    assert check(honest).clean
    walked.predictions["prediction"] += 0.1
    assert found(check(replace(result, evaluation=walked))) == {("record", "maml")}


def record_of(result):
    prepared = preparing.prepare(result.config, MARKET, result.checkpoints["maml"].fitted)
    params = {"maml": result.checkpoints["maml"].params}
    mean = walk.predict_all(prepared, params).predicted["maml"].mean
    table = mean.rename_axis("timestamp").reset_index().melt("timestamp", var_name="asset")
    table = table.rename(columns={"value": "prediction"}).assign(strategy="maml")
    return SimpleNamespace(predictions=table, weights=pd.DataFrame())


@pytest.mark.slow
def test_orders_that_the_run_wrote_down_are_compared(monkeypatch):
    """A run that filled orders in the bar that decided them is found out afterwards."""
    settings = config_for("next_close", **QUICK, **{"backtest.samples": 20})
    assert check(run(settings, bars=MARKET)).clean
    with monkeypatch.context() as planted:
        plant_same_bar(planted)
        result = run(settings, bars=MARKET)
    report = check(result)
    assert ("order", "maml") in found(report)
    assert set(report.findings["what"]) == {"order"}
    assert report.findings["how"].str.startswith("written down").all()


def test_impossible_requests_are_refused(result):
    with pytest.raises(ConfigError, match="at least 1"):
        check(result, cuts=0)
    with pytest.raises(ConfigError, match="passed in memory"):
        check_lookahead(result)


@pytest.mark.slow
def test_folds_are_looked_at_one_by_one(monkeypatch):
    changes = {"data.train_end": None, "data.test_start": None, "folds.kind": "rolling"}
    sizes = {"folds.train_size": 90, "folds.test_size": 35}
    result = trained(**changes, **sizes)
    report = check(result)
    assert report.clean, report.findings
    told = "\n".join(report.checked)
    assert "fold 0 of 3: predictions" in told and "fold 2 of 3: scaling" in told
    plant_scaler(monkeypatch)
    assert ("scaler", "rsi") in found(check(result))


@pytest.mark.slow
def test_combinatorial_folds_are_told_as_such():
    changes = {"data.train_end": None, "data.test_start": None, "folds.kind": "combinatorial"}
    result = trained(**changes, **{"folds.groups": 3, "folds.test_groups": 1})
    report = check(result)
    assert found(report) == {("fold", "every fold")}
    assert "combinatorial" in report.verdict() and "Not checked" in report.notes[0]


def register(monkeypatch, compute, warm_up=1):
    monkeypatch.setattr(own, "_registered", {})
    register_feature("mine", compute, warm_up=warm_up)


@pytest.mark.slow
def test_a_feature_that_looks_ahead_after_its_trial_is_named(monkeypatch):
    """What is refused at once is tried on the first 300 bars alone."""

    def compute(bars):
        returns = bars["close"].pct_change()
        sly = bars.index >= pd.Timestamp("2021-01-01", tz="UTC")
        return returns.where(~sly, returns.shift(-1)).fillna(0.0)

    market = random_market(count=500, assets=2)
    register(monkeypatch, compute)
    data = {"train_assets": ["A0"], "test_assets": ["A1"], "train_end": "2020-11-30"}
    config = config_for("next_close", **QUICK)
    settings = {**config.model_dump(), "data": {"path": "memory", **data}}
    result = train(settings, bars=market, features={"names": ["mine", "momentum"]})
    report = check_lookahead(result, bars=market, cuts=1)
    row = report.findings.iloc[0]
    assert (row["what"], row["name"]) == ("feature", "mine")
    assert row["bar"] >= pd.Timestamp("2021-01-01", tz="UTC")
    assert not (report.findings["name"] == "momentum").any()


def test_a_feature_that_no_panel_is_made_of_is_a_finding(monkeypatch):
    register(monkeypatch, lambda bars: bars["close"].pct_change())
    result = trained(**{"features.names": ("mine", "momentum")})
    register(monkeypatch, lambda bars: bars["close"].pct_change().shift(-1))
    report = check(result)
    assert found(report) == {("feature", "mine")}
    assert "refused while the panel was made" in report.findings.iloc[0]["how"]
    assert "Not checked" in report.notes[0]


@pytest.mark.slow
def test_bars_dropped_with_hindsight_are_named():
    market = {asset: bars.copy() for asset, bars in MARKET.items()}
    market["A0"].iloc[70, :4] *= 10
    result = train(config_for("next_close", **QUICK, **{"data.policies": "drop"}), bars=market)
    report = check_lookahead(result, bars=market, cuts=1)
    assert found(report) == {("bars", "bad_tick")}
    assert report.findings.iloc[0]["bar"] == market["A0"].index[70]


def call(monkeypatch, capsys, *arguments):
    """Run the command line in this process; return exit code, standard output and error."""
    monkeypatch.setattr(sys, "argv", ["maml-jax", "check-lookahead", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        cli.main()
        raise SystemExit(0)
    captured = capsys.readouterr()
    return end.value.code or 0, captured.out, captured.err


@pytest.mark.slow
def test_the_command_says_what_it_found_by_its_exit_code(tmp_path, monkeypatch, capsys):
    """A module of features is imported again; a leak on late dates is found in its run."""
    monkeypatch.setattr(own, "_registered", {})
    (tmp_path / "mine.py").write_text(MODULE)
    bars, path = tmp_path / "bars.csv", tmp_path / "run"
    market = random_market(count=420, assets=2)
    pd.concat(market, names=["symbol"]).reset_index().to_csv(bars, index=False)
    settings = {
        **config_for("next_close", **QUICK).model_dump(),
        "data": {"path": str(bars), "train_end": "2020-11-30", "train_assets": ["A0"]},
        "features": {"modules": [str(tmp_path / "mine.py")], "names": ["honest"], "window": 5},
    }
    train(settings, out=path)
    code, out, err = call(monkeypatch, capsys, path, "--cuts", 1)
    assert (code, err) == (0, "")
    assert "No look-ahead found" in out and "checked: 1 feature of" in out
    assert "no feature depends on where the bars begin" in out

    settings["features"]["names"] = ["honest", "sly", "forgetful"]
    train(settings, out=tmp_path / "other")
    code, out, err = call(monkeypatch, capsys, tmp_path / "other", "--cuts", 1, "--bars", bars)
    assert (code, err) == (1, "")
    (line,) = [each for each in out.splitlines() if each.startswith("Look-ahead found")]
    assert "feature 'sly'" in line and "2021-0" in line
    assert "forgetful" in out and "honest" not in out
    assert "effect of where the bars begin" in out


MODULE = """
import pandas as pd
from maml_jax.features import register_feature


def sly(bars):
    returns = bars["close"].pct_change()
    late = bars.index >= pd.Timestamp("2021-01-15", tz="UTC")
    return returns.where(~late, returns.shift(-1)).fillna(0.0)


def forgetful(bars):
    return bars["close"] / bars["close"].ewm(span=10).mean()


register_feature("honest", lambda bars: bars["close"].pct_change(3), warm_up=3)
register_feature("sly", sly, warm_up=1)
register_feature("forgetful", forgetful, warm_up=10)
"""


def test_the_command_ends_with_two_where_there_is_no_run(tmp_path, monkeypatch, capsys):
    code, out, err = call(monkeypatch, capsys, tmp_path / "none")
    assert code == 2 and err.startswith("error: ") and out == ""

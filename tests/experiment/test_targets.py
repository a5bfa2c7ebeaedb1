"""Other targets than the return, from the settings to predictions in units of their own."""

import json
import shutil
import tomllib

import numpy as np
import pandas as pd
import pytest
import tomli_w
from market import MARKET, SMALL

from maml_jax.errors import ConfigError
from maml_jax.experiment import load, load_config, run
from maml_jax.experiment.preparation.prepare import prepare, target_of
from maml_jax.features import compute_target


def settings_for(**target):
    target = {**SMALL["target"], **target}
    learner = {"methods": ["alpaca", "maml"], "inner_steps": 2}
    return {**SMALL, "target": target, "learner": learner}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "volatility"
    return run(settings_for(kind="volatility"), bars=MARKET, out=path), path


def test_the_panel_holds_standardised_log_volatilities():
    config = load_config({**settings_for(kind="volatility"), "data": SMALL["data"]})
    prepared = prepare(config, MARKET)
    panel, scaler = prepared.panel, prepared.scaler
    for i, asset in enumerate(panel.assets):
        known = np.asarray(panel.label_end[i]) < len(panel.timestamps)
        expected = compute_target(MARKET[asset], target_of(config))[0].to_numpy()
        restored = scaler.restore_target(np.asarray(panel.targets[i], float))
        np.testing.assert_allclose(restored[known], expected[known], rtol=1e-5)
        places = np.flatnonzero(known)
        assert (np.asarray(panel.label_end[i])[known] == places + config.target.horizon).all()
    train = [panel.assets.index(a) for a in prepared.train_assets]
    complete = np.asarray(panel.label_end)[train] <= prepared.train_last
    assert abs(np.asarray(panel.targets)[train][complete].mean()) < 0.1
    assert np.asarray(panel.targets)[train][complete].std() == pytest.approx(1, abs=0.1)


def test_bars_after_the_span_change_nothing_that_is_trained_on():
    config = load_config(settings_for(kind="volatility"))
    changed = {a: b.copy() for a, b in MARKET.items()}
    for bars in changed.values():
        bars.loc["2020-06-09":] *= 1.7
    first, second = (prepare(config, bars) for bars in (MARKET, changed))
    assert first.scaler[3:] == second.scaler[3:]
    panel, other = first.panel, second.panel
    trained_on = np.asarray(panel.label_end) <= first.train_last
    assert trained_on.sum() > 300
    np.testing.assert_array_equal(trained_on, np.asarray(other.label_end) <= second.train_last)
    for name in ("features", "targets"):
        one, two = (np.asarray(getattr(each, name))[trained_on] for each in (panel, other))
        np.testing.assert_array_equal(one, two)


@pytest.mark.slow
def test_a_loaded_learner_predicts_log_volatilities(trained):
    result, path = trained
    seen = MARKET["A3"].loc[:"2020-08-20"]
    adapted, again = result.adapt(seen), load(path).adapt(seen)
    scaler = again.checkpoint.scaler
    assert scaler[3:] == adapted.checkpoint.scaler[3:] != (0.0, 1.0)
    prediction = again.predict(seen)
    pd.testing.assert_frame_equal(prediction, adapted.predict(seen), rtol=1e-5)
    assert prediction["mean"].between(-7, -2).all()  # bars of random_bars move by 1 %
    standardised = (prediction["mean"].iloc[-1] - scaler.target_mean) / scaler.target_std
    walked = result.predictions.query(
        "strategy == 'alpaca' and asset == 'A3' and timestamp == @seen.index[-1]"
    )
    in_units = {standardised, prediction["mean"].iloc[-1]}
    assert any(walked["prediction"].item() == pytest.approx(each, abs=1e-4) for each in in_units)
    plain = load(path).adapt(seen, method="maml").predict(seen)
    assert plain.between(-7, -2).all()


@pytest.mark.slow
@pytest.mark.long
def test_checkpoints_from_before_targets_were_scaled_load(trained, tmp_path):
    run_folder = shutil.copytree(trained[1], tmp_path / "run")
    (run_folder / "about.json").unlink()  # nor were there digests
    for file in run_folder.glob("checkpoints/*/about.json"):
        record = json.loads(file.read_text())
        del record["parameters"]
        for key in ("target_mean", "target_std"):
            del record["scaler"][key]
        for key in ("kind", "flat", "estimator"):
            del record["config"]["target"][key]
        file.write_text(json.dumps(record))
    settings = tomllib.loads((run_folder / "config.toml").read_text())
    settings["target"] = record["config"]["target"]
    (run_folder / "config.toml").write_text(tomli_w.dumps(settings))
    adapted = load(run_folder).adapt(MARKET["A3"], method="maml")
    assert adapted.checkpoint.scaler[3:] == (0.0, 1.0)
    assert adapted.checkpoint.config.target.kind == "return"


@pytest.mark.slow
def test_directions_run_with_regressors_and_classifiers():
    settings = settings_for(kind="direction", flat=0.2)
    settings["learner"] = {"methods": ["maml", "prototypical_networks"], "inner_steps": 1}
    result = run(settings, bars=MARKET)
    assert set(result.predictions["target"].dropna()) == {-1.0, 0.0, 1.0}
    predictions = result.predictions.query("strategy == 'prototypical_networks'")["prediction"]
    assert predictions.between(-1, 1).all()
    assert predictions.std() > 0


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ({"flat": 0.5}, "flat applies only to kind"),
        ({"kind": "direction", "estimator": "garman_klass"}, "estimator applies only to kind"),
        ({"kind": "variance"}, "target.kind"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(target, message):
    with pytest.raises(ConfigError, match=message):
        load_config(settings_for(**target))

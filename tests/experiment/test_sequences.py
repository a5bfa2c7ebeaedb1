"""Sequence models and growing windows, from settings to predictions."""

import sys
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from helpers import random_bars
from market import MARKET, SMALL

from maml_jax import MetaLearner
from maml_jax.errors import ConfigError, DataError
from maml_jax.experiment import backtest, load, load_config, run, train
from maml_jax.experiment.config.learning import ModelConfig
from maml_jax.experiment.learning.methods import network


class Losses(NamedTuple):
    support_loss_before: jax.Array
    support_loss_after: jax.Array


LENGTH = 6
GRU = {**SMALL, "model": {"kind": "gru", "length": LENGTH, "hidden": [5]}}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "gru"
    settings = {**GRU, "learner": {"methods": ["maml"], "inner_steps": 2}}
    return run(settings, bars=MARKET, out=path), path


@pytest.mark.slow
def test_a_run_with_a_sequence_model_is_saved_loaded_and_walked_forward_again(
    saved, tmp_path, no_page
):
    result, path = saved
    loaded = load(path)
    assert loaded.config.model.kind == "gru"
    assert loaded.config.model.length == LENGTH
    own = result.predictions.query("strategy == 'maml'")
    assert own["prediction"].notna().all()
    assert len(own) == 2 * len(result.returns)
    again = backtest(path, bars=MARKET, out=tmp_path / "again")
    pd.testing.assert_frame_equal(again.predictions, result.predictions)


@pytest.mark.slow
def test_adapting_predicts_what_the_walk_forward_predicted(saved):
    result, path = saved
    for when in ("2020-07-01", "2020-08-20"):
        seen = MARKET["A3"].loc[:when]
        adapted = load(path).adapt(seen)
        assert len(adapted.support) == 10
        assert list(adapted.support)[-1] == "target"
        walked = result.predictions.query(
            "strategy == 'maml' and asset == 'A3' and timestamp == @seen.index[-1]"
        )
        predicted = adapted.predict(seen)
        assert predicted.iloc[-1] == pytest.approx(walked["prediction"].item(), abs=1e-5)
        assert len(predicted) == len(seen) - 14 - (LENGTH - 1)


@pytest.mark.slow
def test_the_bars_of_a_sequence_are_counted_among_those_needed(saved):
    few = random_bars(seed=9, count=40)
    adapted = saved[0].adapt(few.iloc[:24])
    assert len(adapted.support) == 1
    sequence = "warm-up 14 \\+ earlier bars of a sequence 5"
    with pytest.raises(DataError, match=rf"adapting needs at least 24 bars \({sequence} .* are 23"):
        saved[0].adapt(few.iloc[:23])
    assert len(adapted.predict(few.iloc[:20])) == 1
    with pytest.raises(DataError, match=rf"prediction needs at least 20 bars \({sequence} .* 19"):
        adapted.predict(few.iloc[:19])
    with pytest.raises(
        DataError, match=rf"A0: meta-training needs at least 41 bars .*\({sequence}"
    ):
        train({**GRU, "data": {"train_end": "2020-02-09", "test_start": "2020-03-01"}}, bars=MARKET)
    enough = {**GRU, "data": {"train_end": "2020-02-10", "test_start": "2020-03-01"}}
    assert len(train(enough, bars=MARKET).history) == 8
    short = MARKET | {"A3": MARKET["A3"].iloc[-32:]}
    with pytest.raises(DataError, match=rf"A3: walk-forward needs at least 33 bars .*\({sequence}"):
        train(GRU, bars=short)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["mlp", "gru", "temporal_convolution", "transformer"])
def test_every_kind_of_network_is_built_as_the_settings_say(kind):
    settings = ModelConfig.model_validate({"kind": kind, "hidden": (6, 6)})
    assert settings.length == (None if kind == "mlp" else 16)
    bars = () if settings.length is None else (settings.length,)
    x = jnp.ones((2, *bars, 3))
    for outputs in (1, 6):
        model = network(settings, outputs)
        params = model.init(jax.random.key(0), x)
        assert model.apply(params, x).shape == (2, outputs)
    widths = {leaf.shape[-1] for leaf in jax.tree.leaves(params)}
    assert 6 in widths


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["temporal_convolution", "transformer"])
def test_other_kinds_are_trained_too(kind):
    model = {"kind": kind, "length": 4, "hidden": [4, 4]}
    settings = {**SMALL, "model": model, "learner": {"methods": ["maml"], "inner_steps": 1}}
    trained = train(settings, bars=MARKET)
    assert np.isfinite(trained.history["loss"]).all()
    assert trained.adapt(MARKET["A3"]).predict(MARKET["A3"]).notna().all()


FAULTS = {
    "length of an mlp": ({"model.length": 16}, r"key 'model.length': an mlp reads one bar.*got 16"),
    "length of one": ({"model.kind": "gru", "model.length": 1}, r"'model.length': a gru .*2 bars"),
    "no length": ({"model.kind": "gru", "model.length": 0}, r"'model.length'.*got 0"),
    "unknown kind": ({"model.kind": "lstm"}, r"key 'model.kind'.*'gru'"),
    "no layers": ({"model.kind": "gru", "model.hidden": []}, r"'model': hidden .* of a gru"),
    "widths of a transformer": (
        {"model.kind": "transformer", "model.hidden": [32, 16]},
        r"'model': hidden must name one even width .* it is \[32, 16\]",
    ),
    "unknown window": ({"backtest.window": "growning"}, r"'backtest.window'.*'growing'"),
    "steps of a growing window": (
        {"backtest.window": "growing", "backtest.inner_steps": 0},
        r"key 'backtest': growing windows take in each row once",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_settings_that_cannot_be_are_refused_by_name(fault):
    values, message = FAULTS[fault]
    with pytest.raises(ConfigError, match=message):
        load_config(values)


def test_the_length_is_written_as_resolved(tmp_path):
    config = load_config({"model.kind": "transformer"})
    (tmp_path / "config.toml").write_text(config.to_toml())
    assert "length = 16" in config.to_toml()
    assert load_config(tmp_path / "config.toml") == config
    assert "length" not in load_config({}).to_toml()


def test_growing_windows_are_refused_before_training_where_a_method_cannot_update():
    with pytest.raises(ConfigError, match=r"'backtest.window': .* maml, fomaml of 'learner.method"):
        run(SMALL, bars=MARKET, backtest={"window": "growing"})


@pytest.mark.slow
@pytest.mark.long
def test_growing_windows_from_settings_to_adapted_predictions(monkeypatch):
    """With a learner whose prediction is the mean of all targets that it has seen."""

    def update(adapted, batch):
        return adapted[0] + batch.y.sum(), adapted[1] + len(batch.y)

    learner = MetaLearner(
        lambda key, x: jnp.zeros(()),
        lambda start, support, steps=None: update((start, jnp.zeros(())), support),
        lambda adapted, x: jnp.full((len(x), 1), adapted[0] / jnp.maximum(adapted[1], 1)),
        lambda start, task, step: (jnp.square(start), Losses(start, start)),
        update,
    )
    learning = ("learning.train", "learning.adapt", "learning.checkpoint", "learning.step_errors")
    for name in (*learning, "evaluation.forecasts", "run"):
        module = sys.modules[f"maml_jax.experiment.{name}"]
        monkeypatch.setattr(module, "make_learner", lambda *_: learner)
    trained = run(
        {**SMALL, "learner": {"methods": ["maml"]}}, bars=MARKET, backtest={"window": "growing"}
    )
    seen = MARKET["A3"].loc[:"2020-08-20"]
    adapted = trained.adapt(seen)
    assert len(adapted.support) > 100
    walked = trained.predictions.query(
        "strategy == 'maml' and asset == 'A3' and timestamp == @seen.index[-1]"
    )
    assert adapted.predict(seen).iloc[-1] == pytest.approx(walked["prediction"].item(), abs=1e-5)
    start = trained.predictions.query("strategy == 'no adaptation'")["prediction"]
    assert (start == 0).all()

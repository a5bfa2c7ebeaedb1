"""Adapting to a new asset: judged as computed by hand, saved, and loaded again."""

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from helpers import random_bars
from market import MARKET, SMALL

from maml_jax.errors import ConfigError, DataError, RunError
from maml_jax.experiment import load_config
from maml_jax.experiment.learning.adapt import adapt, load_adapted
from maml_jax.experiment.learning.checkpoint import Checkpoint
from maml_jax.experiment.learning.methods import METHODS
from maml_jax.experiment.learning.step_errors import adaptation_table
from maml_jax.experiment.learning.train import initial_params, make_learner
from maml_jax.experiment.preparation.prepare import choose_features, prepare, target_of
from maml_jax.features import compute_features, compute_target

pytestmark = pytest.mark.long

RATE = 0.05
NEW = {"A0": random_bars(seed=9, count=120)}


def checkpoint_of(method, target=None, **learner):
    """Return a checkpoint of untrained parameters, other than those of the settings' seed."""
    settings = SMALL["learner"] | {"methods": [method], "inner_learning_rate": RATE} | learner
    config = load_config(SMALL | {"learner": settings} | ({} if target is None else target))
    prepared = prepare(config, MARKET)
    other = prepared.config.changed(seed=5)
    width = len(prepared.panel.feature_names)
    params = initial_params(other, make_learner(config, method), width)
    return Checkpoint(method, prepared.config, prepared.scaler, params, pd.Timedelta(days=1))


def by_hand(checkpoint):
    """Return support and query, found row by row."""
    (frame,) = NEW.values()
    config, target = checkpoint.config, target_of(checkpoint.config)
    features = checkpoint.scaler.transform(
        compute_features(frame, choose_features(config, NEW), asset="A")
    )
    values, _ = compute_target(frame, target, asset="A")
    rows = [
        place
        for place in range(len(frame))
        if features.iloc[place].notna().all() and np.isfinite(values.iloc[place])
    ]
    query = rows[-config.task.query :]
    known = [place for place in rows if place + target.label_delay <= query[0]]
    support = known[-config.task.support :]
    return tuple(
        (features.to_numpy()[part], values.to_numpy()[part], frame.index[part])
        for part in (support, query)
    )


@pytest.mark.long
def test_the_table_is_what_descent_by_hand_comes_to():
    checkpoint = checkpoint_of("maml")
    judged = adaptation_table(checkpoint, NEW, steps=3)
    table = judged.table
    assert table.index.tolist() == [0, 1, 2, 3]
    (x, y, times), (ask, truth, asked) = by_hand(checkpoint)
    assert judged.support == (times[0], times[-1], 10)
    assert judged.query == (asked[0], asked[-1], 5)
    learner = make_learner(checkpoint.config, "maml")

    def loss(params):
        return jnp.mean((learner.predict(params, jnp.asarray(x, jnp.float32))[:, 0] - y) ** 2)

    scratch = initial_params(checkpoint.config, learner, x.shape[1])
    for prefix, params in (("", checkpoint.params), ("scratch_", scratch)):
        for step in range(4):
            predicted = np.asarray(learner.predict(params, jnp.asarray(ask, jnp.float32)))[:, 0]
            row = table.loc[step]
            expected = np.mean((predicted - truth) ** 2)
            assert row[f"{prefix}error"] == pytest.approx(expected, rel=1e-4)
            correlation = pd.Series(predicted).corr(pd.Series(truth))
            assert row[f"{prefix}correlation"] == pytest.approx(correlation, abs=1e-3)
            params = jax.tree.map(lambda p, g: p - RATE * g, params, jax.grad(loss)(params))


def test_the_trailing_volatility_is_judged_on_the_same_rows():
    settings = {"kind": "volatility", "horizon": 3, "volatility_window": 12}
    judged = adaptation_table(checkpoint_of("maml", {"target": settings}), NEW)
    (frame,) = NEW.values()
    returns = np.log(frame["close"]).diff()
    first, last, _ = judged.query
    trailing = 0.5 * np.log((returns**2).rolling(12).mean())
    ahead = 0.5 * np.log((returns**2).rolling(3).mean()).shift(-3)
    error = (trailing - ahead).loc[first:last]
    assert len(error) == judged.query.rows
    assert judged.trailing_error == pytest.approx((error**2).mean(), rel=1e-6)
    assert np.isnan(adaptation_table(checkpoint_of("maml"), NEW).trailing_error)


def test_no_support_label_reaches_into_the_query():
    checkpoint = checkpoint_of("maml")
    judged = adaptation_table(checkpoint, NEW)
    (frame,) = NEW.values()
    last, first = judged.support.last, judged.query.first
    delay = target_of(checkpoint.config).label_delay
    apart = frame.index.get_loc(first) - frame.index.get_loc(last)
    assert apart == delay
    assert judged.table.index.tolist() == [0, 1, 2]  # as the settings have it


def test_a_closed_form_is_judged_before_and_after():
    checkpoint = checkpoint_of("alpaca")
    table = adaptation_table(checkpoint, NEW).table
    assert table.index.tolist() == ["before", "after"]
    _, (ask, truth, _) = by_hand(checkpoint)
    learner = make_learner(checkpoint.config, "alpaca")
    posterior = learner.adapt(checkpoint.params, by_hand_batch(checkpoint))
    for name, params in (("after", posterior),):
        mean = np.asarray(learner.predict(params, jnp.asarray(ask, jnp.float32)).mean)[:, 0]
        assert table.loc[name, "error"] == pytest.approx(np.mean((mean - truth) ** 2), rel=1e-4)
    # The prior mean is zero before training.
    assert table.loc["before", "error"] == pytest.approx(np.mean(truth**2), rel=1e-5)
    assert np.isnan(table.loc["before", "correlation"])


def by_hand_batch(checkpoint):
    from maml_jax import Batch

    (x, y, _), _ = by_hand(checkpoint)
    return Batch(jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.float32)[:, None])


def test_without_a_prior_nothing_is_said_of_before():
    table = adaptation_table(checkpoint_of("matching_networks"), NEW).table
    assert np.isnan(table.loc["before"]).all()
    assert np.isfinite(table.loc["after", "error"])


FAST = ("maml", "alpaca", "matching_networks")


@pytest.mark.parametrize(
    "method",
    [m if m in FAST else pytest.param(m, marks=pytest.mark.slow) for m in METHODS],
)
def test_what_is_saved_predicts_the_same_numbers(tmp_path, method):
    rate = {} if METHODS[method].takes_steps else {"inner_learning_rate": None}
    adapted = adapt(checkpoint_of(method, **rate), NEW)
    path = adapted.save(tmp_path / "new" / "kept")
    again = load_adapted(path)
    assert again.asset == adapted.asset
    assert again.checkpoint.method == method
    pd.testing.assert_frame_equal(again.support, adapted.support, check_freq=False)
    later = {"A0": random_bars(seed=9, count=150)}
    expected, found = adapted.predict(later), again.predict(later)
    np.testing.assert_array_equal(np.asarray(found), np.asarray(expected))
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == ["kept"]
    with pytest.raises(RunError, match="exists already"):
        adapted.save(path)


@pytest.mark.long
def test_a_sequence_model_is_kept_too(tmp_path):
    model = {"kind": "gru", "length": 4, "hidden": [4]}
    config = load_config(SMALL | {"model": model, "learner": {"methods": ["maml"]}})
    prepared = prepare(config, MARKET)
    learner = make_learner(config, "maml")
    params = initial_params(config, learner, len(prepared.panel.feature_names))
    checkpoint = Checkpoint("maml", prepared.config, prepared.scaler, params, pd.Timedelta(days=1))
    adapted = adapt(checkpoint, NEW)
    again = load_adapted(adapted.save(tmp_path / "kept"))
    np.testing.assert_array_equal(again.predict(NEW), adapted.predict(NEW))
    assert np.isfinite(adaptation_table(checkpoint, NEW, steps=1).table).to_numpy().all()


def test_too_few_bars_are_counted():
    checkpoint = checkpoint_of("maml")
    with pytest.raises(DataError, match="judging adaptation needs at least") as told:
        adaptation_table(checkpoint, {"A0": NEW["A0"].iloc[:20]})
    needed = int(str(told.value).split("at least ")[1].split()[0])
    adaptation_table(checkpoint, {"A0": NEW["A0"].iloc[:needed]})
    with pytest.raises(DataError, match=f"at least {needed} bars .* there are {needed - 1}"):
        adaptation_table(checkpoint, {"A0": NEW["A0"].iloc[: needed - 1]})


def test_what_cannot_be_judged_is_refused():
    checkpoint = checkpoint_of("maml")
    with pytest.raises(ConfigError, match="give the bars of one asset, not of 4"):
        adaptation_table(checkpoint, MARKET)
    weekly = {"A0": NEW["A0"].iloc[::7]}
    with pytest.raises(DataError, match="interval|every"):
        adaptation_table(checkpoint, weekly)
    with pytest.raises(ConfigError, match="--steps: must not be negative"):
        adaptation_table(checkpoint, NEW, steps=-1)
    with pytest.raises(ConfigError, match="alpaca fits its support set without steps"):
        adaptation_table(checkpoint_of("alpaca"), NEW, steps=2)


def test_a_folder_without_adapted_parameters_is_refused(tmp_path):
    for path in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(RunError, match="holds no adapted parameters"):
            load_adapted(path)
    kept = adapt(checkpoint_of("maml"), NEW).save(tmp_path / "kept")
    (kept / "support.parquet").write_text("spoilt")
    with pytest.raises(RunError, match="support.parquet: is not the file that was written"):
        load_adapted(kept)

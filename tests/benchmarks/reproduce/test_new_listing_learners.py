"""Learners of young assets: corrections of a network, weakened losses, the part from end to end."""

import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from helpers import random_market

import benchmarks.reproduce.new_listing_learners as learners
from benchmarks.reproduce import NEW_LISTING, reproduce
from benchmarks.reproduce.new_listing_learner_rows import (
    LEARNERS,
    Corrected,
    by_count,
    correct,
    qlike_of,
)
from benchmarks.reproduce.new_listing_market import MARKETS
from maml_jax.backtest.inference import qlike
from maml_jax.learners import alpaca
from maml_jax.meta import Batch, Task, gaussian_nll, mean_squared_error
from maml_jax.models import mlp


@pytest.mark.long
def test_a_corrected_head_is_a_head_with_a_mean_function():
    network, features = mlp((5, 1)), mlp((6, 3))
    whole = alpaca(features, heteroscedastic=True, mean_function=network)
    ours = correct(alpaca(features, heteroscedastic=True), network)
    rng = np.random.default_rng(0)
    x, y = (jnp.asarray(rng.normal(size=(12, k)), jnp.float32) for k in (4, 1))
    params = whole.init(jax.random.key(0), x)
    own = Corrected(params.mean_function, params._replace(mean_function=None))
    weight = jnp.asarray(rng.random(8) > 0.3, jnp.float32)
    task = Task(Batch(x[:8], y[:8], weight), Batch(x[8:], y[8:]))
    expected, found = (
        each.predict(each.adapt(p, task.support), task.query.x)
        for each, p in ((whole, params), (ours, own))
    )
    np.testing.assert_allclose(found.mean, expected.mean, rtol=2e-5, atol=1e-6)
    np.testing.assert_allclose(found.std, expected.std, rtol=2e-5)
    loss, slopes = jax.value_and_grad(lambda p: ours.loss(p, task)[0])(own)
    np.testing.assert_allclose(loss, whole.loss(params, task)[0], rtol=1e-5)
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(slopes.mean))
    assert any((leaf != 0).any() for leaf in jax.tree.leaves(slopes.own))


def test_losses_are_what_they_say():
    rng = np.random.default_rng(1)
    mean, y = (jnp.asarray(0.3 * rng.normal(size=(40, 1)), jnp.float32) for _ in range(2))
    weight = jnp.asarray([1.0] * 10 + [0.0] * 30)
    found = qlike_of(0.6)(mean, y, weight)
    expected = qlike(0.6 * np.asarray(mean[:10]).T, 0.6 * np.asarray(y[:10]).T)
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert np.isfinite(qlike_of(0.6)(mean - 300, y, weight))
    plain = mean_squared_error(mean, y, weight)
    np.testing.assert_allclose(by_count(mean_squared_error, 30)(mean, y, weight), plain / 4)
    assert by_count(gaussian_nll, 5).max_inner_norm == gaussian_nll.max_inner_norm


@pytest.mark.slow
def test_the_part_compares_learners_on_assets_they_never_saw(tmp_path, monkeypatch):
    bars = random_market(960, 8, columns="close")
    days = [f"{bars['A0'].index[place]:%Y-%m-%d}" for place in (300, 360, 600)]
    market = replace(MARKETS["stocks"], key="tiny", start=days[2], end=None)
    monkeypatch.setitem(MARKETS, "tiny", replace(market, validation=tuple(days[:2])))
    kept = [row for row in LEARNERS if row.key in ("network", "head", "ridge", "maml-start")]
    monkeypatch.setattr(learners, "LEARNERS", [replace(r, grid=r.grid[:1]) for r in kept])
    path = tmp_path / "bars.csv"
    frames = [frame.assign(symbol=name) for name, frame in bars.items()]
    pd.concat(frames).reset_index().to_csv(path, index=False)
    options = {"bars": path, "market": "tiny", "weights": "stocks-daily", "parts": ["learners"]}
    made = tmp_path / "out"
    [table] = reproduce(NEW_LISTING, out=made, seeds=1, steps=1, **options)
    assert [row[0] for row in table.rows][-1].startswith("mean of the head and MAML")
    assert "4 assets before" in table.note and "(A4, A5)" in table.note
    record = json.loads((made / "new-listing-tiny-learners.json").read_text())["learners"]
    for figures in record.values():
        assert np.mean(list(figures["r2"].values())) == pytest.approx(figures["mean"])
    gain = record["ridge"]["gain"]["value"]
    assert gain == pytest.approx(record["ridge"]["mean"] - record["head"]["mean"], abs=1e-6)

"""The pipeline of risk: nothing of later bars; today is what every bar would have said."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from risk_markets import make_market, small_model

from maml_jax.learners import ridge
from maml_jax.models import mlp
from maml_jax.risk.ages import forecast_at_age
from maml_jax.risk.forecast import (
    forecast_listings,
    forecast_tails,
    forecast_volatility,
    root_variance,
)
from maml_jax.risk.histories import make_histories
from maml_jax.risk.training import risk_learner

pytestmark = pytest.mark.long

FIELDS = ("mean", "std")


def forecast(frames, **options):
    return forecast_volatility(small_model(), make_histories(frames), horizon=5, **options)


@pytest.mark.parametrize("t", [9, 330])
def test_later_bars_change_nothing(t):
    frames = make_market(seed=3, count=420)
    frames["A1"] = frames["A1"].iloc[60:]  # listed later
    cut = frames["A0"].index[t + 60]
    altered = {name: frame.copy() for name, frame in frames.items()}
    rng = np.random.default_rng(t)
    for frame in altered.values():
        later = frame.index > cut
        frame.loc[later, "close"] *= np.exp(rng.normal(0, 0.3, later.sum()))
    whole, other = forecast(frames), forecast(altered)
    short = forecast({name: frame.loc[:cut] for name, frame in frames.items()})
    levels = (0.01, 0.05, 0.975)
    tails = [forecast_tails(small_model(), each, levels) for each in (whole, other, short)]
    for asset, name in enumerate(frames):
        bars = (frames[name].index <= cut).sum() - 1
        for each in (other, short):
            for field in FIELDS:
                expected = getattr(whole[asset], field)[:bars]
                np.testing.assert_allclose(getattr(each[asset], field)[:bars], expected, rtol=1e-6)
        for each in tails[1:]:
            for level in range(len(levels)):
                expected = tails[0][asset][level].quantile[:bars]
                np.testing.assert_allclose(each[asset][level].quantile[:bars], expected, rtol=1e-6)


def test_the_last_bars_alone_are_those_of_the_whole():
    frames = make_market(seed=5, count=600)
    for whole, last in zip(forecast(frames), forecast(frames, bars=30), strict=True):
        assert len(last.mean) == 30 and last.age[-1] == 599
        for field in FIELDS:
            expected = getattr(whole, field)[-30:]
            np.testing.assert_allclose(getattr(last, field), expected, rtol=1e-5)


def test_an_imagined_listing_is_a_file_that_begins_there():
    frames = make_market(seed=7, count=400)
    histories = make_histories(frames)
    mean, std = forecast_listings(
        small_model(), histories, 0, np.array([120]), horizon=5, rows=200, others=[1, 2, 3]
    )
    real = {**frames, "A0": frames["A0"].iloc[120:]}
    whole = forecast(real)[0]
    np.testing.assert_allclose(mean[0, 1:200], whole.mean[:199], rtol=1e-6)
    np.testing.assert_allclose(std[0, 1:200], whole.std[:199], rtol=1e-6)


def test_tails_are_ordered_and_bounds_hold_the_forecast():
    frames = make_market(seed=9)
    found = forecast(frames)
    for each, tails in zip(
        found, forecast_tails(small_model(), found, (0.01, 0.05, 0.95, 0.99)), strict=True
    ):
        quantiles = np.stack([tail.quantile for tail in tails])
        assert (np.diff(quantiles, axis=0) > 0).all()
        assert (tails[0].mean <= tails[0].quantile).all()
        assert (tails[3].mean >= tails[3].quantile).all()
        volatility, low, high = root_variance(small_model(), each)
        assert (low < volatility).all() and (volatility < high).all()


@pytest.mark.slow
def test_any_learner_can_be_asked_at_an_age():
    """The rows that a closed form slides over are those that tasks are made of."""
    model = small_model()
    learner = risk_learner(model.network, model.mean_network, model.heteroscedastic)
    like = learner.init(jax.random.key(0), jnp.zeros((1, 14)))
    params = jax.tree_util.tree_map_with_path(
        lambda path, leaf: model.members[0][jax.tree_util.keystr(path, simple=True, separator="/")],
        like,
    )
    histories = make_histories(make_market(seed=7, count=400))
    bars = np.array([150, 220])
    alone = model._replace(members=model.members[:1])
    for age in (1, 7, 60):
        mean, _ = forecast_at_age(
            learner, params, model.scaling, histories, 0, bars, age=age, horizon=5
        )
        expected, _ = forecast_listings(
            alone, histories, 0, bars - age, horizon=5, rows=age + 1, others=[1, 2, 3]
        )
        np.testing.assert_allclose(mean, expected[:, age], rtol=1e-4)


def test_a_learner_without_deviations_can_be_asked_too():
    model, histories = small_model(), make_histories(make_market(seed=7, count=300))
    learner = ridge(mlp((4,)))
    params = learner.init(jax.random.key(0), jnp.zeros((1, 14)))
    mean, std = forecast_at_age(
        learner, params, model.scaling, histories, 0, np.array([150]), age=40, horizon=5
    )
    assert np.isfinite(mean).all() and np.isnan(std).all()

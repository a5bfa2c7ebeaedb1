import itertools

import numpy as np
import pandas as pd
import pytest
from scipy.stats import rankdata

from maml_jax.backtest import metrics
from maml_jax.backtest.inference.overfitting import overfitting_probability


def naive(net, blocks):
    parts = np.array_split(np.arange(len(net)), blocks)
    logits = []
    for chosen in itertools.combinations(range(blocks), blocks // 2):
        others = [b for b in range(blocks) if b not in chosen]
        inside = net.iloc[np.concatenate([parts[b] for b in chosen])]
        outside = net.iloc[np.concatenate([parts[b] for b in others])]
        before = [metrics.sharpe_ratio(inside[c], 1) for c in net]
        after = [metrics.sharpe_ratio(outside[c], 1) for c in net]
        omega = rankdata(after)[int(np.argmax(before))] / (net.shape[1] + 1)
        logits.append(np.log(omega / (1 - omega)))
    return np.array(logits)


@pytest.mark.parametrize("blocks", [2, 4, 6])
def test_logits_are_those_of_a_loop(blocks):
    rng = np.random.default_rng(blocks)
    net = pd.DataFrame(rng.standard_t(4, (blocks * 11, 5)) * 0.01)
    found = overfitting_probability(net, blocks)
    assert found.logits == pytest.approx(naive(net, blocks))
    assert found.probability == np.mean(naive(net, blocks) <= 0)


def test_choosing_among_equals_overfits_half_of_the_time_and_the_better_one_never():
    rng = np.random.default_rng(0)
    worlds = [pd.DataFrame(rng.normal(size=(640, 10)) * 0.01) for _ in range(60)]
    among_equals = [overfitting_probability(net, 8).probability for net in worlds]
    assert np.mean(among_equals) == pytest.approx(0.5, abs=0.1)
    better = worlds[0].assign(better=rng.normal(0.01, 0.01, 640))
    found = overfitting_probability(better)
    assert found.probability == found.loss_probability == 0
    assert len(found.logits) == 12_870


def test_what_fitted_noise_is_told():
    """Strategies that hold either half of the bars: the best of one half is worst in the other."""
    rng = np.random.default_rng(1)
    net = pd.DataFrame(rng.normal(size=(400, 20)) * 0.01)
    net -= net.mean()  # what is earned in one half is lost in the other
    found = overfitting_probability(net, 10)
    assert found.probability > 0.9 and found.loss_probability > 0.95 and found.slope < -0.5


def test_what_the_data_do_not_determine_is_nan():
    rng = np.random.default_rng(2)
    one = pd.DataFrame({"a": rng.normal(size=100)})
    cases = [
        one,
        one.assign(b=0.0, c=np.nan, d=0.01),
        one.assign(b=one["a"] + 1).iloc[:31],
        one.iloc[:0].assign(b=0.0),
    ]
    for net in cases:
        found = overfitting_probability(net)
        assert np.isnan(found.probability) and not len(found.logits)
    spoilt = pd.DataFrame(rng.normal(size=(100, 3))).assign(b=0.0, c=np.nan)
    assert overfitting_probability(spoilt).probability == (
        overfitting_probability(spoilt[[0, 1, 2]]).probability
    )
    for blocks in (3, 0, 22):
        with pytest.raises(ValueError, match="even number"):
            overfitting_probability(one, blocks)

"""The market of switching regimes is made as its formula says, and tells nothing too early."""

from itertools import product

import numpy as np
import pytest

from maml_jax.features import market_regimes
from maml_jax.worlds.known_answer import World, compute_signals, signal_variance
from maml_jax.worlds.switching import (
    SwitchingWorld,
    detect_regimes,
    switching_bars,
    switching_panel,
)

LARGE = {"assets": 8, "bars": 6000}


@pytest.fixture(scope="module")
def market():
    world = SwitchingWorld(snr=0.5, regimes=3, stay=50.0)
    return world, *switching_panel(world, 1, **LARGE)


def test_the_panel_is_as_panels_are(market):
    _, panel, truth = market
    bars = len(panel.timestamps)
    assert panel.features.shape == (8, bars, 10) and panel.assets[:2] == ("A0", "A1")
    assert np.asarray(panel.valid).all()
    ends = np.asarray(panel.label_end)
    assert (ends == np.arange(1, bars + 1)).all()  # the last has no label: the axis' length
    assert (np.asarray(panel.targets)[:, -1] == 0).all()
    assert all(np.isfinite(np.asarray(leaf)).all() for leaf in panel[:3])
    x = np.asarray(panel.features)
    np.testing.assert_allclose((x.mean(), x.std()), (0, 1), atol=0.01)


def test_targets_are_the_truth_and_noise(market):
    world, panel, truth = market
    noise = (np.asarray(panel.targets) - truth.expected)[:, :-1]
    np.testing.assert_allclose(noise.var(), 1 / world.snr, rtol=0.03)
    assert abs(np.corrcoef(noise.ravel(), truth.expected[:, :-1].ravel())[0, 1]) < 0.02
    signals = np.asarray(compute_signals(World(world.snr), panel.features))
    for t in (0, 17, 4321):
        z = truth.coefficients[truth.regime[t]]
        np.testing.assert_allclose(
            truth.expected[:, t], (signals[:, t] * z).sum(axis=-1), rtol=1e-4, atol=1e-5
        )


def test_the_truth_has_the_variance_of_all_worlds():
    world = SwitchingWorld(regimes=300, stay=1.0)
    _, truth = switching_panel(world, 0, assets=20, bars=2000)
    assert truth.expected.var() == pytest.approx(signal_variance(), rel=0.1)


def test_what_is_earned_is_what_was_predicted_a_bar_before(market):
    world, panel, truth = market
    returns, targets = truth.returns, np.asarray(panel.targets)
    assert (returns[:, 0] == 0).all()
    usual = (signal_variance() + 1 / world.snr) ** 0.5
    expected = truth.volatility[truth.regime] * targets / usual
    np.testing.assert_allclose(returns[:, 1:], expected[:, :-1], rtol=1e-5)
    for state, deviation in enumerate(truth.volatility):
        found = returns[:, 1:][:, truth.regime[:-1] == state].std()
        assert found == pytest.approx(deviation, rel=0.2)
    closes = {
        name: bars["close"].pct_change() for name, bars in switching_bars(panel, truth).items()
    }
    np.testing.assert_allclose(closes["A3"].iloc[1:], returns[3, 1:], rtol=1e-4, atol=1e-9)


def test_stays_last_as_long_as_asked_and_regimes_come_back(market):
    world, _, truth = market
    regime = truth.regime
    lengths = np.diff(np.flatnonzero(np.diff(regime)))
    assert lengths.mean() == pytest.approx(world.stay, rel=0.2)
    np.testing.assert_allclose(np.bincount(regime) / len(regime), 1 / 3, atol=0.1)


def test_since_and_visit_against_a_loop(market):
    regime, since, visit = market[2].regime, market[2].since, market[2].visit
    visits, last = {}, None
    for t, state in enumerate(regime):
        if t == 0 or state != regime[t - 1]:
            visits[state] = visits.get(state, -1) + 1
            last = t if t else None
        assert since[t] == (-1 if last is None else t - last) and visit[t] == visits[state]


def test_more_bars_and_more_assets_change_nothing():
    world = SwitchingWorld(own=0.5, new_regimes=1, noise="student_t", stay=20.0)
    short = switching_panel(world, 3, assets=2, bars=300, new_from=100)
    long = switching_panel(world, 3, assets=3, bars=400, new_from=100)
    np.testing.assert_array_equal(short[0].features, long[0].features[:2, :300])
    np.testing.assert_array_equal(short[1].returns, long[1].returns[:2, :300])
    np.testing.assert_array_equal(short[0].targets[:, :-1], long[0].targets[:2, :299])
    np.testing.assert_array_equal(short[1].expected, long[1].expected[:2, :300])
    for name in ("regime", "since", "visit"):
        np.testing.assert_array_equal(getattr(short[1], name), getattr(long[1], name)[:300])


def test_new_regimes_begin_where_they_may():
    world = SwitchingWorld(regimes=2, new_regimes=2, stay=20.0)
    panel, truth = switching_panel(world, 0, assets=2, bars=3000, new_from=1500)
    assert set(truth.regime[:1500]) == {0, 1} and set(truth.regime[1500:]) == {0, 1, 2, 3}
    assert len(truth.volatility) == 4 and len(np.unique(truth.volatility)) == 4
    assert truth.coefficients.shape == (4, 2, 3)
    changed = SwitchingWorld(regimes=2, new_regimes=2, stay=20.0, retire=True)
    _, later = switching_panel(changed, 0, assets=2, bars=3000, new_from=1500)
    np.testing.assert_array_equal(later.regime[:1500], truth.regime[:1500])
    assert set(later.regime[1500:]) == {2, 3} and later.since[1500] == 0
    assert np.diff(np.flatnonzero(np.diff(later.regime[1500:]))).mean() == pytest.approx(
        20, rel=0.3
    )
    with pytest.raises(ValueError, match="new_from must be given"):
        switching_panel(world, 0)
    with pytest.raises(ValueError, match="new_from must be given where.*only there"):
        switching_panel(SwitchingWorld(), 0, new_from=10)


@pytest.mark.parametrize("other", [False, True])
def test_new_directions_are_not_seen_along_the_old(other):
    world = SwitchingWorld(regimes=1, new_regimes=1, stay=1.0, new_directions=other)
    panel, truth = switching_panel(world, 0, assets=1, bars=4000, new_from=1)
    signals = np.asarray(compute_signals(world.world, panel.features))[0]
    for state, share in ((0, 1.0), (1, 0.5 if other else 1.0)):
        rows = truth.regime == state
        weights = np.linalg.lstsq(signals[rows], truth.expected[0, rows], rcond=None)[0]
        rest = truth.expected[0, rows] - signals[rows] @ weights
        explained = 1 - rest.var() / truth.expected[0, rows].var()
        assert explained > 0.999 if share == 1 else explained < share


def test_assets_share_coefficients_as_far_as_asked():
    z = {
        own: switching_panel(SwitchingWorld(regimes=400, own=own), 0, assets=2, bars=2)[1]
        for own in (0.0, 0.3, 1.0)
    }
    for own, truth in z.items():
        a, b = truth.coefficients.transpose(1, 0, 2).reshape(2, -1)
        assert np.corrcoef(a, b)[0, 1] == pytest.approx(1 - own, abs=0.08)
        assert np.var(a) == pytest.approx(1, rel=0.1)


def test_the_regimes_of_the_panel_are_told_late_and_then_right(market):
    world, panel, truth = market
    labels = panel.regimes[0]
    assert (panel.regimes == labels).all() and labels[0] == -1
    right = labels == truth.regime
    assert right[truth.since == 0].mean() < 0.05  # what it has earned nothing in cannot be told
    assert right[truth.since >= 5].mean() > 0.95
    returns = truth.returns.copy()
    early = detect_regimes(world, truth.volatility, returns[:, :1000])
    np.testing.assert_array_equal(early, labels[:1000])
    returns[:, 1000:] *= 3
    later = detect_regimes(world, truth.volatility, returns)[:1000]
    np.testing.assert_array_equal(later, labels[:1000])


def test_the_filter_against_bayes_rule_over_all_paths():
    world = SwitchingWorld(regimes=2, stay=3.0)
    volatility, bars = np.array([0.01, 0.02]), 7
    returns = 0.015 * np.random.default_rng(0).standard_normal((2, bars))
    labels = detect_regimes(world, volatility, returns)
    for t in range(1, bars):
        weight = np.zeros(2)
        for path in product((0, 1), repeat=t + 1):  # regimes of bars 0 .. t
            chance = 0.5
            for s in range(t):
                chance *= 2 / 3 if path[s + 1] == path[s] else 1 / 3
                sigma = volatility[path[s]]
                chance *= np.prod(np.exp(-0.5 * (returns[:, s + 1] / sigma) ** 2) / sigma)
            weight[path[t]] += chance
        assert labels[t] == weight.argmax()


def test_labels_from_prices_tell_something_of_the_regime(market):
    _, panel, truth = market
    labels = market_regimes(switching_bars(panel, truth), trend=100.0)
    wild, calm = truth.volatility.argmax(), truth.volatility.argmin()
    settled = (truth.since >= 20) & (labels >= 0).to_numpy()
    for state, place, other in ((wild, 2, 3), (calm, 3, 2)):
        found = labels[settled & (truth.regime == state)]
        assert (found == place).mean() > 3 * (found == other).mean()


def test_what_is_impossible_is_refused():
    for wrong in (
        {"snr": 0.0}, {"link": "sine"}, {"noise": "none"}, {"regimes": 0}, {"new_regimes": -1},
        {"retire": True}, {"stay": 0.5}, {"own": 1.5}, {"volatility": (0.02, 0.01)},
    ):  # fmt: skip
        with pytest.raises(ValueError, match=next(iter(wrong)).split("_")[-1].rstrip("s")):
            SwitchingWorld(**wrong)
    for wrong in ({"seed": -1}, {"assets": 0}, {"bars": 1}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            switching_panel(SwitchingWorld(), **{"seed": 0, **wrong})

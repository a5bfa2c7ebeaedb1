"""A market with a known answer whose regime changes at times that nobody announces."""

from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from maml_jax.tasks.panel import Panel
from maml_jax.worlds.known_answer import FEATURES, World, compute_signals, signal_variance

_STREAMS = ("chain", "shared", "volatility", "own", "features", "noise")
"""What has random numbers of its own, drawn in the order of time, asset by asset."""

_OTHER = FEATURES // 2
"""By how many columns features are shifted to make directions that no old regime has."""


@dataclass(frozen=True)
class SwitchingWorld:
    r"""How a market of switching regimes comes about.

    $$y_{i,t} = f_{i,t} + \epsilon_{i,t}, \qquad
      f_{i,t} = c \sum_{k=1}^{3} z_{i,k}(S_t)\, g(x_{i,t} \cdot b_k), \qquad
      z_i(s) = \sqrt{1 - o}\, Z(s) + \sqrt{o}\, U_i(s)$$

    with features x, directions b, link g, noise and signal-to-noise ratio of a `World`. All assets
    are in the regime $S_t$, a Markov chain of stays of one mean length; each of the others is
    equally likely to come next. Z and U are standard normal and belong to a regime, so that
    coefficients come back with it. The return of bar t + 1 is $\sigma(S_t)\, y_{i,t}$, scaled to
    the volatility $\sigma$ of the regime in force at t: it reveals the regime, a few bars late.

    Attributes:
        snr: inverse variance of the noise.
        regimes: how many recur from the first bar on.
        new_regimes: how many more take part from a later bar on.
        retire: whether the first ones end for good when new ones begin; otherwise they go on to
            come back.
        stay: mean length of a stay, in bars.
        own: o in [0, 1], the share of the variance of coefficients that is an asset's own.
        new_directions: whether new regimes have hidden directions of their own, which what was
            learned before does not look at; otherwise new coefficients alone.
        volatility: the least and the greatest of the regimes' volatilities, per bar; the others lie
            between in even ratios, in an order that is drawn.
        link: as a `World` has it.
        noise: likewise.

    Raises:
        ValueError: if a setting is unknown or impossible.
    """

    snr: float = 0.3
    regimes: int = 4
    new_regimes: int = 0
    retire: bool = False
    stay: float = 120.0
    own: float = 0.0
    new_directions: bool = False
    volatility: tuple[float, float] = (0.005, 0.02)
    link: str = "tanh"
    noise: str = "gaussian"

    def __post_init__(self):
        _ = self.world  # refuses what it cannot be made of
        if self.regimes < 1:
            raise ValueError(f"regimes must be at least 1, got {self.regimes}")
        if self.new_regimes < 0:
            raise ValueError(f"new_regimes must not be negative, got {self.new_regimes}")
        if self.retire and not self.new_regimes:
            raise ValueError("regimes can only retire where new_regimes take their place")
        if not 1 <= self.stay < np.inf:
            raise ValueError(f"stay must be at least 1 bar, and finite, got {self.stay}")
        if not 0 <= self.own <= 1:
            raise ValueError(f"own must lie in [0, 1], got {self.own}")
        least, greatest = self.volatility
        if not 0 < least <= greatest < 0.1:
            raise ValueError(f"volatility must be 0 < least <= greatest < 0.1: {self.volatility}")

    @property
    def world(self) -> World:
        """The world that each regime is a task of."""
        return World(self.snr, link=self.link, noise=self.noise)


class SwitchingTruth(NamedTuple):
    """What only the simulator knows.

    Attributes:
        expected: the noiseless f, `[asset, time]`.
        regime: in force at each bar, `[time]`; new regimes have the highest numbers.
        since: bars since the last switch, 0 at a regime's first bar, `[time]`; -1 before the first
            switch. So many labels of each asset are complete that stem from the regime in force.
        visit: how often the regime in force was in force before this stay, `[time]`.
        coefficients: z, `[regime, asset, direction]`.
        volatility: standard deviation of the returns per bar in each regime, `[regime]`.
        returns: of each bar, earned by a position decided at the bar before, `[asset, time]`.
    """

    expected: Float[np.ndarray, "asset time"]
    regime: Int[np.ndarray, " time"]
    since: Int[np.ndarray, " time"]
    visit: Int[np.ndarray, " time"]
    coefficients: Float[np.ndarray, "regime asset direction"]
    volatility: Float[np.ndarray, " regime"]
    returns: Float[np.ndarray, "asset time"]


def switching_panel(
    world: SwitchingWorld,
    seed: int,
    *,
    assets: int = 20,
    bars: int = 3000,
    new_from: int | None = None,
) -> tuple[Panel, SwitchingTruth]:
    """Simulate a market of switching regimes.

    More bars continue a market of fewer, and more assets leave the others as they are.

    Args:
        world: where returns come from.
        seed: decides everything but the hidden directions; at least 0.
        assets: how many, called A0, A1 and so on.
        bars: of each asset; days from 2000-01-01 on.
        new_from: index of the first bar at which a new regime may begin, or does where the others
            retire. Needed where there are new regimes.

    Returns:
        The panel: a decision taken at the close of t earns the return of t + 1, and there its label
        is complete; the last bar has none. Its regimes are those detected from returns
        (`detect_regimes`); the true ones are in the truth, the second value.

    Raises:
        ValueError: if a setting is impossible.

    >>> panel, truth = switching_panel(SwitchingWorld(), 0, assets=2, bars=500)
    >>> panel.features.shape, truth.expected.shape
    ((2, 500, 10), (2, 500))
    """
    for name, value, least in (("seed", seed, 0), ("assets", assets, 1), ("bars", bars, 2)):
        if value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")
    if (new_from is None) == (world.new_regimes > 0):
        raise ValueError(
            f"new_from must be given where there are new regimes, and only there; there are "
            f"{world.new_regimes} of them, and new_from is {new_from}"
        )
    regime = _chain(world, seed, bars, bars if new_from is None else new_from)
    coefficients = _coefficients(world, seed, assets)
    volatility = _volatilities(world, seed)
    x = np.stack([_generator(seed, "features", i).standard_normal((bars, FEATURES))
                  for i in range(assets)]).astype(np.float32)  # fmt: skip
    expected = _expected(world, x, regime, coefficients)
    noise = np.stack([_noise(world, seed, i, bars) for i in range(assets)])
    y = (expected + noise / world.snr**0.5).astype(np.float32)
    usual = (signal_variance() + 1 / world.snr) ** 0.5
    returns = np.zeros_like(y)
    returns[:, 1:] = (volatility[regime] * y / usual)[:, :-1]
    y[:, -1] = 0.0
    ends = np.minimum(np.arange(1, bars + 1), bars)
    panel = Panel(
        features=jnp.asarray(x),
        targets=jnp.asarray(y),
        valid=jnp.ones((assets, bars), bool),
        label_end=jnp.asarray(np.broadcast_to(ends, (assets, bars)).astype(np.int32)),
        timestamps=pd.date_range("2000-01-01", periods=bars, tz="UTC", name="timestamp", unit="us"),
        assets=tuple(f"A{i}" for i in range(assets)),
        feature_names=tuple(f"x{i}" for i in range(FEATURES)),
        regimes=np.broadcast_to(detect_regimes(world, volatility, returns), (assets, bars)),
    )
    since, visit = _stays(regime)
    truth = SwitchingTruth(expected, regime, since, visit, coefficients, volatility, returns)
    return panel, truth


def switching_bars(panel: Panel, truth: SwitchingTruth) -> dict[str, pd.DataFrame]:
    """Return the panel's market as bars of closes alone, for what reads prices.

    Labels made from them, as by `market_regimes`, are known at the bar that they stand at.
    """
    closes = 100 * np.cumprod(1 + truth.returns.astype(float), axis=1)
    return {
        name: pd.DataFrame({"close": row}, index=panel.timestamps)
        for name, row in zip(panel.assets, closes, strict=True)
    }


def detect_regimes(
    world: SwitchingWorld,
    volatility: Float[np.ndarray, " regime"],
    returns: Float[np.ndarray, "asset time"],
) -> Int[np.ndarray, " time"]:
    r"""Detect the regime at each bar from the returns of all assets up to it, as well as possible.

    Hamilton's filter that knows the volatilities and how long stays last, and of the rest of the
    truth nothing: with $q_{t,s}$ the probability of regime s at t,

    $$q_{t,s} \propto \sum_{s'} P(s \mid s')\, q_{t-1,s'}
      \prod_i N(r_{i,t};\, 0, \sigma(s')^2)$$

    since the returns of t were earned in the regime of t - 1. It takes expected returns for noise.
    New regimes are taken to be possible from the first bar on.

    Args:
        world: where the returns come from.
        volatility: of the returns in each regime, as the truth has it.
        returns: of each bar, as the truth has them.

    Returns:
        The most probable regime at each bar; -1 at the first, where nothing is known.
    """
    count = len(volatility)
    squares = (returns.astype(float) ** 2).sum(axis=0)[:, None]
    logs = -0.5 * squares / volatility**2 - len(returns) * np.log(volatility)
    likelihoods = np.exp(np.maximum(logs - logs.max(axis=1, keepdims=True), -600))
    leave = 1 / world.stay if count > 1 else 0.0
    transition = np.full((count, count), leave / max(1, count - 1))
    np.fill_diagonal(transition, 1 - leave)
    labels = np.full(len(likelihoods), -1, np.int32)
    belief = np.full(count, 1 / count)
    for t in range(1, len(likelihoods)):
        belief = (belief * likelihoods[t]) @ transition
        belief /= belief.sum()
        labels[t] = belief.argmax()
    return labels


def _generator(seed: int, stream: str, asset: int = 0) -> np.random.Generator:
    key = (_STREAMS.index(stream), asset)
    return np.random.default_rng(np.random.SeedSequence(int(seed), spawn_key=key))


def _chain(world: SwitchingWorld, seed: int, bars: int, new_from: int) -> Int[np.ndarray, " time"]:
    """Draw the regime in force at each bar."""
    leaves, picks = _generator(seed, "chain").random((bars, 2)).T
    states = np.empty(bars, np.int32)
    states[0] = int(picks[0] * world.regimes)
    for t in range(1, bars):
        here = states[t - 1]
        first = world.regimes if world.retire and t >= new_from else 0
        stop = world.regimes + (world.new_regimes if t >= new_from else 0)
        ended, others = here < first, stop - first - (here >= first)
        states[t] = here
        if ended or (others and leaves[t] * world.stay < 1):
            pick = first + int(picks[t] * others)
            states[t] = pick + (pick >= here and not ended)
    return states


def _coefficients(world: SwitchingWorld, seed: int, assets: int):
    count = world.regimes + world.new_regimes
    shared = _generator(seed, "shared").standard_normal((count, 1, 3))
    own = np.stack([_generator(seed, "own", i).standard_normal((count, 3)) for i in range(assets)])
    return (1 - world.own) ** 0.5 * shared + world.own**0.5 * np.swapaxes(own, 0, 1)


def _volatilities(world: SwitchingWorld, seed: int) -> Float[np.ndarray, " regime"]:
    levels = np.geomspace(*world.volatility, world.regimes + world.new_regimes)
    return _generator(seed, "volatility").permutation(levels)


def _expected(world: SwitchingWorld, x, regime, coefficients) -> Float[np.ndarray, "asset time"]:
    z = np.swapaxes(coefficients[regime], 0, 1)  # [asset, time, direction]
    signals = np.asarray(compute_signals(world.world, jnp.asarray(x)))
    if world.new_directions and world.new_regimes:
        # The same directions over other features: as long as the old, and others than these.
        shifted = np.asarray(compute_signals(world.world, jnp.asarray(np.roll(x, _OTHER, axis=-1))))
        signals = np.where((regime >= world.regimes)[:, None], shifted, signals)
    return (signals * z).sum(axis=-1)


def _noise(world: SwitchingWorld, seed: int, asset: int, bars: int) -> Float[np.ndarray, " time"]:
    draw = _generator(seed, "noise", asset)
    if world.noise == "gaussian":
        return draw.standard_normal(bars)
    return draw.standard_t(4, bars) / 2**0.5


def _stays(regime) -> tuple[Int[np.ndarray, " time"], Int[np.ndarray, " time"]]:
    """Return bars since the last switch, and the earlier stays of the regime in force."""
    time = np.arange(len(regime))
    switched = np.concatenate([[False], regime[1:] != regime[:-1]])
    since = time - np.maximum.accumulate(np.where(switched, time, 0))
    since[: int(switched.argmax()) if switched.any() else len(time)] = -1
    begins = switched | (time == 0)
    visits = np.zeros(len(regime), np.int64)
    for state in np.unique(regime):
        mine = regime == state
        visits[mine] = np.cumsum(begins & mine)[mine] - 1
    return since, visits

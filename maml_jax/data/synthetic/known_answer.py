"""A market of bars with a known answer: lagged returns decide what return to expect.

The world of `maml_jax.worlds.known_answer` as bars: the same directions, links and noise, with the
last ten returns as inputs.
"""

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from maml_jax.data.synthetic.market import Market, Simulated

LAGS = 10
"""Returns that the expected return depends on."""

LINKS: dict[str, Callable] = {
    "tanh": np.tanh,
    "softsign": lambda u: u / (1 + np.abs(u)),
    "step": np.sign,
}
"""g of u = x . b. Bounded ones alone: under others returns that feed on returns run away."""

# fmt: off
DIRECTIONS = np.array([
    [0.517331839, 0.265887290, 0.006996200],
    [-0.167372033, -0.217136189, -0.344016999],
    [-0.398398161, 0.507112384, -0.301581770],
    [-0.128332496, -0.067866363, -0.535125494],
    [-0.417549580, 0.318312109, -0.215728074],
    [-0.518733263, -0.406355947, 0.488914281],
    [0.424173951, -0.056724247, 0.421712339],
    [-0.163714528, 0.171462536, 0.060713686],
    [0.461699635, 0.478128672, 0.341352969],
    [-0.333961725, -0.136673555, -0.196231604],
])
# fmt: on
"""The hidden directions `[lag, direction]`, newest return first; the same in all markets."""


def known_answer_bars(
    count: int,
    *,
    snr: float = 0.1,
    link: str = "tanh",
    noise: str = "gaussian",
    drift: float = 1.0,
    volatility: ArrayLike = 0.01,
    **market,
) -> Simulated:
    r"""Simulate a market whose best possible prediction is known.

    $$r_{t+1} = \sigma\, \frac{f_t + \epsilon_{t+1}}{d_t}, \qquad
      f_t = c \sum_{k=1}^{3} z_{k,t}\, g(x_t \cdot b_k), \qquad
      x_t = (r_t, \dots, r_{t-9}) / \sigma, \qquad \mathrm{Var}\, \epsilon = 1 / \mathrm{snr}$$

    The hidden directions $b_k$ are shared by all assets; the coefficients $z$ are standard normal
    and an asset's own; c makes the variance of f that of the tasks. The deviation
    $d_t^2 = 1 / \mathrm{snr} + \mathrm{Var}(f_t | z_t)$, of standard normal x, keeps x at variance
    1. Since x is made of returns it is only nearly normal and independent: at an snr of 0.1 its
    variance is that within a few per cent for most assets; at an snr of 1 a strong z makes returns
    so persistent that it may be twice as large or more.

    Time is a loop over all assets at once, some five microseconds a bar.

    Args:
        count: bars of each asset.
        snr: inverse variance of the noise.
        link: g; `tanh`, `softsign` u / (1 + |u|) or `step` sign(u).
        noise: `gaussian`, or `student_t` with four degrees of freedom.
        drift: correlation of a coefficient from one bar to the next; 1 keeps it for good.
        volatility: $\sigma$, standard deviation of the log return per bar; one number, or one per
            asset.
        **market: the other settings of a `Market`.

    Returns:
        Bars, and as truth $\sigma f_t / d_t$: the log return of the next bar that is expected at
        each bar's close.

    Raises:
        ValueError: if a setting is unknown or impossible.
    """
    setting = Market(count, **market)
    _validate(snr, link, drift)
    if noise not in ("gaussian", "student_t"):
        raise ValueError(f"noise must be one of ('gaussian', 'student_t'), got {noise!r}")
    sigma = setting.per_asset("volatility", volatility, above=0)
    epsilon, scale = setting.noise(4.0 if noise == "student_t" else None)
    powers = _powers(link)
    z = _amplitude(link) * _coefficients(setting, drift)
    deviation = np.sqrt(1 / snr + np.einsum("taj,jk,tak->ta", z, powers, z))
    weights = z / deviation[..., None]
    shocks = epsilon.T / snr**0.5 / deviation[:-1]
    g, directions = LINKS[link], DIRECTIONS[::-1].T.copy()  # lags oldest first, as time runs
    path = np.empty((LAGS + count, len(epsilon)))
    path[:LAGS] = setting.normals("past", LAGS).T
    expected = np.empty((count + 1, len(epsilon)))
    weights = np.ascontiguousarray(np.moveaxis(weights, 2, 1))
    for t in range(count + 1):
        signals = g(directions @ path[t : t + LAGS])
        signals *= weights[t]
        np.add.reduce(signals, axis=0, out=expected[t])
        if t < count:
            np.add(expected[t], shocks[t], out=path[t + LAGS])
    spread = sigma * scale / (snr**0.5 * deviation[:-1].T)
    bars = setting.bars(sigma * path[LAGS:].T, spread, sigma)
    return Simulated(bars, setting.table(sigma * expected[1:].T))


def known_answer_oracle(
    bars: Mapping[str, pd.DataFrame],
    *,
    snr: float = 0.1,
    link: str = "tanh",
    drift: float = 1.0,
    volatility: ArrayLike = 0.01,
    window: int = 20,
) -> pd.DataFrame:
    r"""Predict each next return as well as the last `window` bars allow.

    Bayesian regression that knows everything but the coefficients: a Gaussian process with the
    kernel

    $$k((x, s), (x', t)) = \phi(x) \cdot \phi(x')\, \rho^{|s - t|}, \qquad
      \phi_k(x) = c\, g(x \cdot b_k)$$

    conditioned on the returns that followed the last `window` x and are known at the bar. Its
    correlation with the truth is what a learner's is to be compared with. Under Student's noise it
    is the best *linear* predictor only.

    Args:
        bars: of `known_answer_bars`.
        snr: as the bars were made; so are link, drift and volatility.
        link: g.
        drift: $\rho$.
        volatility: $\sigma$, one number or one per asset.
        window: returns to learn from.

    Returns:
        Expected log returns of the next bar `[time, asset]`; NaN in the first `window` + 10 bars.

    Raises:
        ValueError: if a setting is unknown or impossible.
    """
    _validate(snr, link, drift)
    if window < 1:
        raise ValueError(f"window must be at least 1, got {window}")
    scales = np.broadcast_to(np.asarray(volatility, float), len(bars))
    result = {}
    for (name, frame), sigma in zip(bars.items(), scales, strict=True):
        returns = np.diff(np.log(frame["close"].to_numpy())) / sigma
        predicted = np.full(len(frame), np.nan)
        if len(returns) >= LAGS + window:
            x = np.lib.stride_tricks.sliding_window_view(returns, LAGS)[:, ::-1]
            phi = _amplitude(link) * LINKS[link](x @ DIRECTIONS)
            predicted[LAGS + window :] = sigma * _regress(phi, returns[LAGS:], snr, drift, window)
        result[name] = pd.Series(predicted, index=frame.index)
    return pd.DataFrame(result)


def _regress(phi, following, snr, drift, window, chunk=10_000) -> np.ndarray:
    """Predict what follows each row of phi after the first `window`, from that many before it."""
    view = np.lib.stride_tricks.sliding_window_view
    rows = np.moveaxis(view(phi[:-1], window, axis=0), 2, 1)  # [time, window, direction]
    known, asked = view(following, window), phi[window:]
    ages = np.arange(window, 0, -1)
    memory, fading = drift ** np.abs(ages[:, None] - ages), drift**ages
    predicted = []
    for start in range(0, len(asked), chunk):  # bounds the memory
        part = slice(start, start + chunk)
        kernel = rows[part] @ np.swapaxes(rows[part], 1, 2) * memory + np.eye(window) / snr
        solved = np.linalg.solve(kernel, known[part, :, None])[..., 0] * fading
        predicted.append(np.einsum("twk,tw,tk->t", rows[part], solved, asked[part]))
    return np.concatenate(predicted)


def _validate(snr: float, link: str, drift: float) -> None:
    if not 0 < snr < np.inf:
        raise ValueError(f"snr must be positive, got {snr}")
    if not 0 <= drift <= 1:
        raise ValueError(f"drift must lie in [0, 1], got {drift}")
    if link not in LINKS:
        raise ValueError(f"link must be one of {tuple(LINKS)}, got {link!r}")


def _coefficients(setting: Market, drift: float) -> np.ndarray:
    """Draw z, a stationary AR(1) from before the first bar to the last, `[time, asset, 3]`."""
    count = setting.count + 1
    if drift == 1:
        fresh = setting.normals("coefficients", 3)
        return np.broadcast_to(fresh, (count, *fresh.shape))
    from scipy.signal import lfilter  # half a second to import

    fresh = setting.normals("coefficients", count, 3)
    fresh[:, 1:] *= (1 - drift**2) ** 0.5
    return np.swapaxes(lfilter([1.0], [1.0, -drift], fresh, axis=1), 0, 1)


def _amplitude(link: str) -> float:
    """Return c; Var f is that of the link tanh with c = 1.5 / sqrt(3), whatever the link."""
    return float(0.75 * np.trace(_powers("tanh")) / np.trace(_powers(link))) ** 0.5


def _powers(link: str) -> np.ndarray:
    """E g(x . b_j) g(x . b_k) under standard normal x, `[direction, direction]`."""
    lengths = np.linalg.norm(DIRECTIONS, axis=0)
    cosines = (DIRECTIONS / lengths).T @ (DIRECTIONS / lengths)
    if link == "step":  # the arcsine law; quadrature misses the jump
        return 2 / np.pi * np.arcsin(np.clip(cosines, -1, 1))
    g = LINKS[link]
    nodes, weights = np.polynomial.hermite_e.hermegauss(150)
    weights = weights / weights.sum()
    sines = np.sqrt(np.clip(1 - cosines**2, 0, 1))
    # Given u_j at a node, u_k is that node's share of it and an independent rest.
    rest = cosines[..., None, None] * nodes[:, None] + sines[..., None, None] * nodes
    inner = g(lengths[:, None, None] * rest) @ weights  # [j, k, node of u_j]
    return np.einsum("jn,jkn,n->jk", g(lengths[:, None] * nodes), inner, weights)

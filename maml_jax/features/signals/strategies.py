r"""Trading rules: from one asset's past bars to a side, and spreads of two assets.

A rule is not a model. It takes a side at each bar's close: 1 long, -1 short, 0 flat. What can be
learned is the return of following it from there.

A side depends on the last `warm_up` + 1 bars only; it is 0 in the first `warm_up` bars, and where a
masked bar hides an input.
"""

from collections.abc import Callable, Mapping
from functools import partial
from itertools import combinations
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd

from maml_jax.errors import DataError
from maml_jax.features.signals.regimes import log_returns
from maml_jax.features.technical import return_over
from maml_jax.features.windows import rolling_max, rolling_mean, rolling_min, rolling_std

_SAME = 1e-9
"""Differences below this share of a deviation are rounding errors."""

_FEWEST = 30
"""Common bars that two assets need to be compared."""


class Rule(NamedTuple):
    """A trading rule as a function of the past.

    Attributes:
        name: of the rule.
        side: `bars -> Series` of int8 on the index of `bars`: -1, 0 or 1 at each bar's close.
        warm_up: bars at the start of a series whose side is 0.
    """

    name: str
    side: Callable[[pd.DataFrame], pd.Series]
    warm_up: int


def momentum(bars: pd.DataFrame, window: int = 60) -> pd.Series:
    r"""Follow the return over the last n bars: $\text{sign}(p_t / p_{t-n} - 1)$.

    Args:
        bars: in normal form; closes alone are read.
        window: n. Warm-up: n bars.

    Raises:
        ValueError: if `window` is less than 1 bar.

    References:
        Moskowitz, Ooi and Pedersen, "Time series momentum" (2012), Journal of Financial Economics
        104; without their scaling to a constant volatility.
    """
    _require(window=(window, 1))
    return _side(return_over(bars, window))


def mean_reversion(bars: pd.DataFrame, window: int = 20, entry: float = 1.0) -> pd.Series:
    r"""Trade against a price far from its mean.

    $$-\text{sign}(z_t)\ \text{where}\ |z_t| > c, \qquad
      z_t = \frac{p_t - \text{SMA}_n(p)_t}{s_n(p)_t}$$

    with $s_n$ the standard deviation (ddof 1) of the last n closes. The position is held as long as
    the price is that far away.

    Args:
        bars: in normal form; closes alone are read.
        window: n. Warm-up: n - 1 bars.
        entry: c, in standard deviations.

    Raises:
        ValueError: if `window` is less than 2 bars, or `entry` is negative.
    """
    _require(window=(window, 2))
    if not 0 <= entry < np.inf:
        raise ValueError(f"entry must be 0 or a positive number of deviations, got {entry}")
    close = bars["close"]
    away = close - rolling_mean(close, window)
    bound = (entry + _SAME) * rolling_std(close, window)
    return _side(-away.where(away.abs() > bound, 0.0))


def breakout(bars: pd.DataFrame, window: int = 20, hold: int = 10) -> pd.Series:
    r"""Follow a close that leaves the channel of the n bars before it (Donchian).

    1 if the latest of the last k closes to leave its channel did so above, $p_t > \max(h_{t-n},
    \dots, h_{t-1})$; -1 if it did so below the lows; 0 if none did. Without highs and lows, closes
    make the channel.

    Args:
        bars: in normal form.
        window: n, bars of the channel.
        hold: k, bars for which a breakout is followed, its own included. Warm-up: n + k - 1 bars.

    Raises:
        ValueError: if `window` or `hold` is less than 1 bar.
    """
    _require(window=(window, 1), hold=(hold, 1))
    close = bars["close"]
    upper = rolling_max(bars.get("high", close), window).shift(1)
    lower = rolling_min(bars.get("low", close), window).shift(1)
    known = (close.notna() & upper.notna() & lower.notna()).to_numpy()
    # Comparisons with NaN are false: a masked bar is not a breakout.
    leaves = np.where(close > upper, 1, np.where(close < lower, -1, 0))
    sides = leaves.copy()
    for lag in range(1, hold):
        sides[lag:] = np.where(sides[lag:] == 0, leaves[:-lag], sides[lag:])
    sides[: window + hold - 1] = 0
    return _side(pd.Series(np.where(known, sides, 0), index=bars.index))


def arbitrage(bars: pd.DataFrame, window: int = 60, entry: float = 1.5) -> pd.Series:
    """Trade against a spread of two assets that is far from its mean.

    `mean_reversion` of the bars of `spread_bars`, with defaults as pairs are traded.

    Args:
        bars: of a pair.
        window: bars of the mean. Warm-up: `window` - 1 bars.
        entry: in standard deviations.

    Raises:
        ValueError: if `window` is less than 2 bars, or `entry` is negative.

    References:
        Gatev, Goetzmann and Rouwenhorst, "Pairs trading: performance of a relative-value arbitrage
        rule" (2006), Review of Financial Studies 19; they enter at two deviations of the formation
        period and leave where the prices meet.
    """
    return mean_reversion(bars, window, entry)


_RULES: dict[str, tuple[Callable[..., pd.Series], Callable[..., int]]] = {
    "momentum": (momentum, lambda window=60: window),
    "mean_reversion": (mean_reversion, lambda window=20, entry=1.0: window - 1),
    "breakout": (breakout, lambda window=20, hold=10: window + hold - 1),
    "arbitrage": (arbitrage, lambda window=60, entry=1.5: window - 1),
}


def make_rule(name: str, **settings) -> Rule:
    """Make a rule with given settings.

    Args:
        name: one of `STRATEGIES`.
        **settings: those of the function of that name.

    Raises:
        ValueError: if the name or a setting is unknown, or a setting impossible.

    >>> make_rule("momentum", window=252).warm_up
    252
    """
    if name not in _RULES:
        raise ValueError(f"unknown strategy {name!r}; expected one of {', '.join(_RULES)}")
    function, warm_up = _RULES[name]
    try:
        bars = warm_up(**settings)
    except TypeError as error:
        raise ValueError(f"strategy {name!r} has no such setting: {error}") from error
    nothing = pd.DataFrame({"close": pd.Series(dtype=float)})
    function(nothing, **settings)  # refuses impossible settings
    return Rule(name, partial(function, **settings), bars)


def spread_bars(
    first: pd.DataFrame, second: pd.DataFrame, *, names: tuple[str, str] = ("first", "second")
) -> pd.DataFrame:
    r"""Return the synthetic price of holding one asset against another.

    Half of the capital is long in the first asset and half short in the second, rebalanced at each
    bar, so that

    $$P_t = P_{t-1} \Bigl(1 + \frac{r^a_t - r^b_t}{2}\Bigr), \qquad P_0 = 100$$

    with returns from the last bar that both have. A weight of 1 in the pair is half a weight in
    each asset, which costs as much to trade as a weight of 1 in one of them.

    Args:
        first: a, in normal form; closes alone are read.
        second: b, likewise.
        names: how error messages call the two.

    Returns:
        Bars of closes alone on the timestamps that both have; NaN where either is masked.

    Raises:
        DataError: if the two have no bar in common, or the second gains so much more than the first
            in one bar that nothing is left.
    """
    closes = pd.concat([first["close"], second["close"]], axis=1, join="inner", keys=["a", "b"])
    known = closes.dropna()
    if known.empty:
        raise DataError(f"{names[0]} and {names[1]} have no bar in common")
    returns = known / known.shift(1) - 1
    growth = 1 + (returns["a"] - returns["b"]) / 2
    growth.iloc[0] = 1.0
    gone = growth <= 0
    if gone.any():
        time = gone.idxmax()
        raise DataError(
            f"{names[0]} against {names[1]}: at {time} they return {returns['a'][time]:.3g} and "
            f"{returns['b'][time]:.3g} in one bar, which loses all the capital; check "
            "these prices, or choose another pair"
        )
    close = (100 * growth.cumprod()).reindex(closes.index)
    return pd.DataFrame({"close": close}).rename_axis("timestamp")


def spread_market(
    bars: Mapping[str, pd.DataFrame], pairs: list[tuple[str, str]]
) -> dict[str, pd.DataFrame]:
    """Return the bars of many pairs, `{"a-b": spread_bars(a, b)}`.

    Raises:
        DataError: if an asset of a pair is missing, or as `spread_bars`.
    """
    for name in (name for pair in pairs for name in pair):
        if name not in bars:
            raise DataError(
                f"a pair needs the bars of {name}; there are those of {', '.join(bars)}"
            )
    return {f"{a}-{b}": spread_bars(bars[a], bars[b], names=(a, b)) for a, b in pairs}


def choose_pairs(
    bars: Mapping[str, pd.DataFrame],
    count: int,
    *,
    by: Literal["correlation", "cointegration"] = "correlation",
) -> list[tuple[str, str]]:
    """Choose the most similar pairs of assets.

    Pass the bars of the meta-training span alone: pairs chosen on the test span would look ahead.

    Args:
        bars: in normal form, by asset.
        count: how many pairs.
        by: `correlation` of the log returns, the greatest first; or `cointegration`: the
            t-statistic of the augmented Dickey-Fuller test (a constant, one lag) of the logarithm
            of the pair's price as `spread_bars` has it, the least first. An asset may stand in
            several pairs.

    Returns:
        The pairs, most similar first. Names within a pair, and pairs of equal similarity, are in
        the order of names.

    Raises:
        ValueError: if `count` is less than 1, or `by` is unknown.
        DataError: if fewer pairs have 30 bars in common in which both prices move.
    """
    _require(count=(count, 1))
    if by not in ("correlation", "cointegration"):
        raise ValueError(f"by must be 'correlation' or 'cointegration', got {by!r}")
    measure = _apart if by == "correlation" else _wandering
    returns = {name: log_returns(bars[name].dropna(subset=["close"])) for name in sorted(bars)}
    found = []
    for a, b in combinations(returns, 2):
        both = pd.concat([returns[a], returns[b]], axis=1, join="inner").dropna().to_numpy()
        if len(both) >= _FEWEST and (np.ptp(both, axis=0) > 0).all():
            value = measure(both, bars[a], bars[b])
            if np.isfinite(value):
                found.append((value, a, b))
    if len(found) < count:
        raise DataError(
            f"{count} pairs are requested, but of {len(bars)} assets only {len(found)} pairs have "
            f"{_FEWEST} bars in common in which both prices move"
        )
    return [(a, b) for _, a, b in sorted(found)[:count]]


def _apart(returns: np.ndarray, first: pd.DataFrame, second: pd.DataFrame) -> float:
    return -float(np.corrcoef(returns.T)[0, 1])


def _wandering(returns: np.ndarray, first: pd.DataFrame, second: pd.DataFrame) -> float:
    return unit_root_statistic(np.log(spread_bars(first, second)["close"].dropna().to_numpy()))


def unit_root_statistic(values: np.ndarray) -> float:
    r"""Return the t-statistic of the augmented Dickey-Fuller test with a constant and one lag.

    That of $\gamma$ in the least squares of
    $\Delta v_t = \alpha + \gamma v_{t-1} + \delta \Delta v_{t-1} + \epsilon_t$: the lower, the more
    surely v returns to its mean. NaN where v does not move.

    Args:
        values: `[bar]`.

    References:
        Said and Dickey, "Testing for unit roots in autoregressive-moving average models of unknown
        order" (1984), Biometrika 71.
    """
    change = np.diff(values)
    design = np.stack([values[1:-1] - values.mean(), change[:-1], np.ones(len(change) - 1)], axis=1)
    weights, _, rank, _ = np.linalg.lstsq(design, change[1:], rcond=None)
    free = len(design) - design.shape[1]
    if rank < design.shape[1] or free < 1:
        return float("nan")
    residual = change[1:] - design @ weights
    variance = residual @ residual / free * np.linalg.inv(design.T @ design)[0, 0]
    return float(weights[0] / variance**0.5) if variance > 0 else float("nan")


def _side(values: pd.Series) -> pd.Series:
    sides = np.sign(values.fillna(0).to_numpy()).astype(np.int8)
    return pd.Series(sides, index=values.index, name="side")


def _require(**numbers: tuple[int, int]) -> None:
    for name, (value, least) in numbers.items():
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
            raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}")


STRATEGIES: dict[str, Rule] = {name: make_rule(name) for name in _RULES}
"""The rules, each with its standard settings. `arbitrage` is for the bars of a pair."""

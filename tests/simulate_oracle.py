"""What a schedule of weights earns, gross and net of costs, and the trades that it makes."""

import itertools
from typing import NamedTuple

import numpy as np
import pandas as pd

from maml_jax.errors import ShapeError


class Costs(NamedTuple):
    """What trading costs, as a share of the value traded.

    Attributes:
        fee: the venue's fee.
        slippage: expected difference between the fill and the price that the return is counted
            from.
    """

    fee: float = 0.001
    slippage: float = 0.0005

    @property
    def rate(self) -> float:
        """Cost of changing a weight by 1."""
        return self.fee + self.slippage


class Simulation(NamedTuple):
    """What a schedule of weights earned.

    Attributes:
        gross: portfolio return per bar before costs, `[time]`.
        net: the same after costs.
        turnover: sum over assets of |change of weight|, `[time]`; a flip from +1 to -1 counts 2.
        asset_net: each asset's contribution to `net`, `[time, asset]`.
    """

    gross: pd.Series
    net: pd.Series
    turnover: pd.Series
    asset_net: pd.DataFrame


def simulate(
    weights: pd.DataFrame | pd.Series, returns: pd.DataFrame | pd.Series, costs: Costs | None = None
) -> Simulation:
    r"""Simulate a portfolio.

    $$g_t = \sum_a w_{t,a}\, r_{t,a}, \qquad
      n_t = g_t - c \sum_a |w_{t,a} - w_{t-1,a}|, \qquad w_{-1} = 0$$

    Weights are shares of the equity at the start of each bar's interval, set anew at every bar:
    what prices do to them between two bars costs nothing. The position at the end is not closed.

    Args:
        weights: the weight held over the interval that ends at each bar (see `held_weights`),
            `[time, asset]`; a Series for one asset.
        returns: simple return over that interval, `[time, asset]`; NaN (no bar) earns 0.
        costs: default 0.1 % fee and 0.05 % slippage.

    Raises:
        ShapeError: if the two differ in index or columns, or a weight is not finite.
    """
    costs = Costs() if costs is None else costs
    weights, returns = _as_frame(weights), _as_frame(returns)
    if not (weights.index.equals(returns.index) and weights.columns.equals(returns.columns)):
        raise ShapeError(
            f"weights {weights.shape} and returns {returns.shape} must have the same index and "
            "columns"
        )
    if not np.isfinite(weights.to_numpy(float)).all():
        raise ShapeError("weights must be finite; use 0 where nothing is held")
    change = weights.diff().fillna(weights.iloc[:1]).abs()
    earned = (weights * returns).fillna(0.0)
    asset_net = earned - costs.rate * change
    return Simulation(
        earned.sum(axis=1).rename("gross"),
        asset_net.sum(axis=1).rename("net"),
        change.sum(axis=1).rename("turnover"),
        asset_net,
    )


def list_trades(
    weights: pd.DataFrame | pd.Series, returns: pd.DataFrame | pd.Series, costs: Costs | None = None
) -> pd.DataFrame:
    """List the trades: the stretches over which an asset's weight keeps its sign.

    Args:
        weights: as for `simulate`.
        returns: as for `simulate`.
        costs: as for `simulate`.

    Returns:
        One row per trade, in order of entry: `asset`, `side` (+1 or -1), `entry` and `exit` (time
        of the bar at which it was filled; `exit` is the last bar's where `open`), `bars`, `gross`
        and `net` (compounded return on the equity, `net` after entry and exit costs), `open` (not
        closed at the end).
    """
    costs = Costs() if costs is None else costs
    weights, returns = _as_frame(weights), _as_frame(returns)
    rows = []
    for asset in weights.columns:
        # An asset's own bars, and the one at which a position in an ended asset is closed.
        own = returns[asset].notna() | (weights[asset].diff() != 0)
        earned = returns.loc[own, asset].fillna(0.0)
        rows += _trades_of(asset, weights.loc[own, asset], earned, costs.rate)
    columns = ["asset", "side", "entry", "exit", "bars", "gross", "net", "open"]
    if not rows:
        return pd.DataFrame({c: [] for c in columns})
    return pd.DataFrame(rows, columns=columns).sort_values(["entry", "asset"], ignore_index=True)


def _trades_of(asset, weights: pd.Series, returns: pd.Series, rate: float):
    index, weight, earned = weights.index, weights.to_numpy(float), returns.to_numpy(float)
    side = np.sign(weight)
    changes = np.flatnonzero(np.diff(side, prepend=0.0) != 0).tolist()
    for start, end in itertools.pairwise([*changes, len(side)]):
        if side[start] == 0:
            continue
        held = weight[start:end]
        gross = held * earned[start:end]
        traded = np.abs(np.diff(held, prepend=0.0))
        is_open = end == len(side)
        exit_cost = 0.0 if is_open else rate * abs(held[-1])
        net = np.prod(1 + gross - rate * traded) * (1 - exit_cost) - 1
        yield (
            asset,
            int(side[start]),
            index[max(start - 1, 0)],
            index[end - 1],
            end - start,
            np.prod(1 + gross) - 1,
            net,
            is_open,
        )


def _as_frame(values) -> pd.DataFrame:
    if isinstance(values, pd.Series):
        return values.to_frame("asset")
    if isinstance(values, pd.DataFrame):
        return values
    array = np.asarray(values, float)
    return pd.DataFrame(array if array.ndim == 2 else array[:, None])

"""Accounts of many strategies at once, of which only the totals are kept."""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import AxisType, Mesh
from jax.sharding import PartitionSpec as P

from maml_jax.backtest.account.execution import (
    Execution,
    compute_returns,
    largest_batch,
    lay_out_market,
    make_numbers,
    make_rules,
    validate_execution,
)
from maml_jax.backtest.account.orders import Market
from maml_jax.backtest.account.scan import scan_account
from maml_jax.backtest.account.state import Bars, Numbers, Rules
from maml_jax.errors import ShapeError
from maml_jax.features.targets import Fill

_SIDE_BY_SIDE = {"cpu": 32}
"""Strategies that a device takes at a time: on a CPU their state stays in a core's own cache."""

_OTHERWISE = 1024

_AXIS = "strategies"


class Totals(NamedTuple):
    """What became of many accounts, arrays `[strategy, time]`.

    Attributes:
        net: return per bar after costs.
        gross: `net` + `costs`.
        costs: fees, slippage and borrowing, as share of the equity one bar before.
        turnover: value traded as share of the equity before the trades.
        exposure: value of longs and shorts together over equity, at the close.
    """

    net: np.ndarray
    gross: np.ndarray
    costs: np.ndarray
    turnover: np.ndarray
    exposure: np.ndarray


def trade_many(
    orders: np.ndarray | Sequence[np.ndarray],
    market: Market,
    *,
    fill: Fill,
    execution: Execution = Execution(),  # noqa: B008 - immutable
    capital: float = 10_000.0,
) -> Totals:
    """Trade many strategies' orders, each in an account of its own, and keep only their totals.

    Strategies are spread over the devices, and go in chunks on each of them.

    Args:
        orders: wanted weights at the bars of their execution, `[strategy, time, asset]`, in the
            order of the market's columns; NaN where nothing is to be done. Or a sequence of arrays
            `[time, asset]` that makes them when they are asked for, some strategies at a time.
        market: prices.
        fill: `next_open` fills at opens, `next_close` and `close` at closes.
        execution: costs and bounds.
        capital: money before the first bar, positive.

    Raises:
        ShapeError: if time or assets of orders are not those of the market, or an order is
            infinite.
        DataError: if the bars lack opens, highs or lows that are needed.
        ConfigError: if a number of `execution` or the capital is impossible.
    """
    validate_execution(execution, capital)
    shape = market.close.shape
    bars = lay_out_market(market, fill, execution)
    rules = make_rules(execution, fill, bars, detail=False)
    sizes = make_numbers(execution)
    kept = [np.empty((len(orders), shape[0])) for _ in range(4)]
    mesh, together = _plan(len(orders), bars.mark.size)
    with jax.enable_x64(True):
        arguments = jax.tree.map(jnp.asarray, (sizes, bars, np.float64(capital)))
        for first in range(0, len(orders), together):
            part = np.full((together, *shape), np.nan)
            numbers = range(first, min(first + together, len(orders)))
            for number in numbers:
                part[number - first] = _read_orders(orders, number, shape)
            infinite, totals = _scan_part(rules, mesh, part, *arguments)
            if bool(infinite.any()):
                raise ShapeError("orders must not be infinite; NaN says that nothing is to be done")
            for column, values in zip(kept, totals, strict=True):
                column[first : first + together] = np.asarray(values)[: len(numbers)]
    equity, costs, turnover, exposure = kept
    net, costs = compute_returns(equity, costs, capital)
    return Totals(net, net + costs, costs, turnover, exposure)


def _read_orders(orders: Any, number: int, shape: tuple[int, ...]) -> np.ndarray:
    table = np.asarray(orders[number], np.float64)
    if table.shape != shape:
        raise ShapeError(
            f"orders must be [strategy, time, asset] with time and asset of the market, {shape}; "
            f"those of strategy {number} are {table.shape}"
        )
    return table


def _plan(strategies: int, size: int) -> tuple[Mesh | None, int]:
    """Return the devices that share the work, None for one, and how many strategies go at once."""
    devices = jax.local_devices()
    chunk = min(_SIDE_BY_SIDE.get(devices[0].platform, _OTHERWISE), largest_batch(size))
    if strategies <= chunk:
        return None, 1 << (max(strategies, 1) - 1).bit_length()
    used = devices[: -(-strategies // chunk)]
    if len(used) == 1:
        return None, chunk
    mesh = Mesh(np.array(used), (_AXIS,), axis_types=(AxisType.Auto,))
    return mesh, chunk * len(used)


@partial(jax.jit, static_argnames=("rules", "mesh"))
def _scan_part(
    rules: Rules, mesh: Mesh | None, orders: Array, numbers: Numbers, bars: Bars, capital: Array
) -> tuple[Array, tuple[Array, ...]]:
    """Return which strategies' orders are infinite, and equity, costs, turnover and exposure."""

    def run(orders, numbers, bars, capital):
        record = scan_account(rules, numbers, bars, orders.transpose(1, 2, 0), capital)
        totals = (record.equity, record.costs, record.turnover, record.exposure)
        return jnp.isinf(orders).any((1, 2)), tuple(values.T for values in totals)

    if mesh is None:
        return run(orders, numbers, bars, capital)
    spread: Any = jax.shard_map(
        run,
        mesh=mesh,
        in_specs=(P(_AXIS), P(), P(), P()),
        out_specs=P(_AXIS),
        check_vma=False,
    )
    return spread(orders, numbers, bars, capital)

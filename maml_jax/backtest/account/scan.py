"""What an account does in each bar: one scan over bars, for many strategies side by side."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from maml_jax.backtest.account.state import (
    STOP_LOSS,
    TAKE_PROFIT,
    TRAILING_STOP,
    Bars,
    Held,
    Numbers,
    Record,
    Rules,
)

_ROUNDING = 1e-12
"""Share of a bound within which a value on it counts as kept."""


@partial(jax.jit, static_argnames="rules")
def scan_account(
    rules: Rules, numbers: Numbers, bars: Bars, orders: Array, capital: Array
) -> Record:
    """Run the accounts of many strategies over all bars.

    Args:
        rules: what is compiled in.
        numbers: the sizes of the rules.
        bars: the market, `[time, asset]`.
        orders: wanted weights at the bars of their execution, `[time, asset, strategy]`; NaN for
            none.
        capital: equity before the first bar, in money, a scalar.
    """
    start = begin(rules, orders.shape[1:], capital)
    return go_on(rules, numbers, start, bars, orders)[1]


@partial(jax.jit, static_argnames="rules")
def go_on(
    rules: Rules, numbers: Numbers, held: Held, bars: Bars, orders: Array
) -> tuple[Held, Record]:
    """Run accounts over further bars, from what they held before.

    Args:
        rules: what is compiled in.
        numbers: the sizes of the rules.
        held: after the bar before.
        bars: the market, `[time, asset]`.
        orders: as for `scan_account`.

    Returns:
        What is held after the last bar, and what was recorded of each.
    """
    return lax.scan(partial(step, rules, numbers), held, (bars, orders))


@partial(jax.jit, static_argnames="rules")
def scan_alone(rules: Rules, numbers: Numbers, bars: Bars, orders: Array, capital: Array) -> Record:
    """Run an account for every asset and strategy, which trades this asset and no other.

    The same as `scan_account` of each asset's own column; arguments as there.

    Returns:
        All arrays `[time, asset, strategy]`.
    """

    def one(bars: Bars, orders: Array) -> Record:
        own = jax.tree.map(lambda column: column[:, None], bars)
        record = scan_account(rules, numbers, own, orders[:, None], capital)
        return jax.tree.map(lambda values: values.reshape(orders.shape), record)

    return jax.vmap(one, in_axes=1, out_axes=1)(bars, orders)


def begin(rules: Rules, shape: tuple[int, ...], capital: Array) -> Held:
    """Return accounts in cash."""
    nothing = jnp.zeros(shape)
    money = jnp.full(shape[1:], capital)
    stops = nothing if rules.stops else None
    return Held(
        cash=money,
        units=nothing,
        alive=jnp.ones(shape[1:], bool),
        equity=money,
        wanted=nothing if not rules.always or rules.stops or rules.max_turnover else None,
        pending=jnp.zeros(shape, bool) if rules.max_turnover else None,
        entry=stops,
        best=nothing if rules.trailing_stop else None,
        stopped=stops,
        waiting=jnp.full(shape, jnp.nan) if rules.gaps else None,
    )


def step(rules: Rules, numbers: Numbers, held: Held, at: tuple[Bars, Array]) -> tuple[Held, Record]:
    """Take one bar: orders at the open, stops, orders at the close, marking at the close."""
    bar, order = at
    bar = jax.tree.map(lambda row: row[:, None], bar)
    before, record = held, {}
    costs, turnover = jnp.zeros_like(held.cash), jnp.zeros_like(held.cash)
    if rules.borrow:
        held, cost = _borrow(numbers, bar, held)
        record["borrow_cost"] = cost
        costs += cost.sum(0)
    if rules.at_open:
        held, filled = _fill(rules, numbers, bar, order, held)
    if rules.stops:
        held, stopped = _stop(rules, numbers, bar, held)
        record |= {key: stopped[key] for key in ("stop_kind", "stop_price", "stop_cost")}
        costs += stopped["stop_cost"].sum(0)
        turnover += stopped["traded"].sum(0) / before.equity
        held = _watch(rules, bar, held)
    if not rules.at_open:
        held, filled = _fill(rules, numbers, bar, order, held)
    record |= {key: filled[key] for key in ("value", "ordered", "order_cost")}
    costs += filled["order_cost"].sum(0)
    turnover += filled["turnover"]
    held, ruin = _mark(bar, held)
    costs += ruin.sum(0)
    record |= {"ruin_cost": ruin, "units": held.units}
    invested = jnp.abs(held.units * bar.mark).sum(0)
    exposure = _where(held.alive, invested / held.equity, 0.0)
    turnover = _where(before.alive, turnover, 0.0)
    return held, Record(held.equity, costs, turnover, exposure, **(record if rules.detail else {}))


def _fill(rules: Rules, numbers: Numbers, bar: Bars, order: Array, held: Held):
    """Fill the orders of a bar at its price."""
    units = held.units
    value = held.cash + (units * bar.price).sum(0)
    able = held.alive & (value > 0)
    waiting = pending = None
    if rules.gaps:
        there = bar.inverse > 0
        order = _where(bar.gone, 0.0, _where(jnp.isnan(order), held.waiting, order))
        waiting = _where(there, jnp.nan, order)
        able = able & there
    ordered = able & ~jnp.isnan(order)
    send, wanted = ordered, order
    if held.wanted is not None:
        if not rules.always:
            send = ordered & (order != held.wanted)
        wanted = _where(ordered, order, held.wanted)
        if rules.max_turnover:
            send |= able & held.pending
    stopped = held.stopped
    if rules.stops:
        stopped = _where(jnp.sign(wanted) == stopped, stopped, 0.0)
        send &= stopped == 0
    change = _where(send, wanted * value * bar.inverse - units, 0.0)
    share = bar.price / value
    if rules.band:
        part = 1 / units.shape[0]  # of the equity, of each asset
        far = jnp.abs(change * share) >= numbers.band * part * (1 - _ROUNDING)
        change = _where(far | (wanted == 0), change, 0.0)
    if rules.max_gross:
        change = _within_gross(numbers.max_gross, units, change, share)
    turnover = jnp.abs(change * share).sum(0)
    if rules.max_turnover:
        over = turnover > numbers.max_turnover * (1 + _ROUNDING)
        part = _where(over, numbers.max_turnover / turnover, 1.0)
        pending = _where(able, (change != 0) & (part < 1), held.pending)
        change, turnover = change * part, turnover * part
    cost = jnp.maximum(change * bar.buy, -change * bar.sell)
    after = units + change
    cash = held.cash - (change * bar.price + cost).sum(0)
    entry, best = held.entry, held.best
    if rules.stops:
        begun = (units * after <= 0) & (after != 0)
        grown = ~begun & (jnp.abs(after) > jnp.abs(units))
        average = (entry * units + bar.price * change) / _where(after == 0, 1.0, after)
        entry = _where(begun, bar.price, _where(grown, average, entry))
        if rules.trailing_stop:
            best = _where(begun, bar.price, best)
    turnover = _where(held.alive & (value > 0), turnover, 0.0)
    filled = {"value": value, "ordered": after, "order_cost": cost, "turnover": turnover}
    held = held._replace(
        cash=cash,
        units=after,
        wanted=None if held.wanted is None else wanted,
        pending=pending,
        entry=entry,
        best=best,
        stopped=stopped,
        waiting=waiting,
    )
    return held, filled


def _within_gross(limit: Array, units: Array, change: Array, share: Array) -> Array:
    """Scale what enlarges positions, so that all of them together stay within the limit."""
    after = units + change
    flipped = units * after < 0
    smaller = _where(jnp.abs(after) < jnp.abs(units), after, units)
    rest = _where(flipped, 0.0, smaller)
    larger = after - rest
    room = limit - jnp.abs(rest * share).sum(0)
    wanted = jnp.abs(larger * share).sum(0)
    part = jnp.clip(room / _where(wanted > 0, wanted, 1.0), 0.0, 1.0)
    return _where(part < 1, rest + part * larger - units, change)


def _stop(rules: Rules, numbers: Numbers, bar: Bars, held: Held):
    """Close what reaches its stop or its profit between high and low; both: the stop."""
    units, entry = held.units, held.entry
    long, side = units > 0, jnp.sign(units)
    never = _where(long, -jnp.inf, jnp.inf)
    level, kind = never, jnp.full(units.shape, STOP_LOSS, jnp.int8)
    if rules.stop_loss:
        level = entry * (1 - side * numbers.stop_loss)
    if rules.trailing_stop:
        trailing = held.best * (1 - side * numbers.trailing_stop)
        nearer = _where(long, trailing > level, trailing < level)
        level = _where(nearer, trailing, level)
        kind = _where(nearer, jnp.int8(TRAILING_STOP), kind)
    reached = _where(long, bar.low <= level, bar.high >= level) & (units != 0)
    price = _where(long, jnp.fmin(bar.open, level), jnp.fmax(bar.open, level))
    # Without an open the bar may lie beyond the level as a whole.
    price = _where(long, jnp.fmin(price, bar.high), jnp.fmax(price, bar.low))
    if rules.take_profit:
        goal = entry * (1 + side * numbers.take_profit)
        gained = _where(long, bar.high >= goal, bar.low <= goal) & (units != 0) & ~reached
        profit = _where(long, jnp.fmax(bar.open, goal), jnp.fmin(bar.open, goal))
        price = _where(reached, price, profit)
        kind = _where(gained, jnp.int8(TAKE_PROFIT), kind)
        slippage = _where(gained, 0.0, numbers.slippage * price + bar.spread)
        reached |= gained
    else:
        slippage = numbers.slippage * price + bar.spread
    size = jnp.abs(units)
    # A seller gets at least nothing.
    slippage = _where(long, jnp.minimum(slippage, price), slippage)
    cost = size * (slippage + numbers.fee * (price - side * slippage))
    cost = _where(reached, cost, 0.0)
    price = _where(reached, price, 0.0)
    held = held._replace(
        cash=held.cash + (units * price - cost).sum(0),
        units=_where(reached, 0.0, units),
        stopped=_where(reached, side, held.stopped),
    )
    return held, {
        "stop_kind": _where(reached, kind, jnp.int8(0)),
        "stop_price": price,
        "stop_cost": cost,
        "traded": size * price,
    }


def _watch(rules: Rules, bar: Bars, held: Held) -> Held:
    """Take the bar's high or low into account, for the bars after it."""
    if not rules.trailing_stop:
        return held
    best = _where(held.units > 0, jnp.fmax(held.best, bar.high), jnp.fmin(held.best, bar.low))
    return held._replace(best=best)


def _borrow(numbers: Numbers, bar: Bars, held: Held) -> tuple[Held, Array]:
    """Pay for shorts, and for cash that is lent to longs, as they were at the close before."""
    value = held.units * bar.before
    longs = jnp.maximum(value, 0.0)
    lent = jnp.maximum(-held.cash, 0.0)
    whole = longs.sum(0)
    shares = longs / _where(whole > 0, whole, 1.0)
    cost = numbers.borrow * bar.years * (jnp.maximum(-value, 0.0) + shares * lent)
    return held._replace(cash=held.cash - cost.sum(0)), cost


def _mark(bar: Bars, held: Held) -> tuple[Held, Array]:
    """Mark at the close; an account that is worth nothing or less closes all and trades no more."""
    equity = held.cash + (held.units * bar.mark).sum(0)
    alive = held.alive & (equity > 0)
    cost = jnp.maximum(-held.units * bar.mark_buy, held.units * bar.mark_sell)
    cost = _where(alive, 0.0, cost)
    units = _where(alive, held.units, 0.0)
    equity -= cost.sum(0)
    cash = _where(alive, held.cash, equity)
    return held._replace(cash=cash, units=units, equity=equity, alive=alive), cost


def _where(condition: Array, x: Any, y: Any) -> Array:
    """Choose from two arrays; the types of some versions of JAX do not say that one comes out."""
    return jnp.where(condition, x, y)  # pyright: ignore[reportReturnType]

r"""Tasks of young assets: histories that are cut at random, as if each were a listing.

A task is an asset, a bar at which it is listed, an age at which it is forecast and a horizon. Its
support set is what is known at that age, its last rows whose outcomes are complete, and none at
all in the first bars; its query set are rows from that age on.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from maml_jax.features.young import MARKET_WINDOWS, own_columns
from maml_jax.meta import Batch, Task, weights_of
from maml_jax.risk.histories import Histories, Scaling, input_columns, outcome, young_inputs
from maml_jax.risk.sliding import SUPPORT

OLDEST = 500
"""The greatest age, in returns, of a task."""

QUERY, STRIDE = 16, 2
"""Rows of a query set, and bars from one to the next."""

ROWS = OLDEST + QUERY * STRIDE
"""Rows of a listing."""

_FIXED = (np.array([3.0, 0.5, 0.5, 1.5]), np.array([1.5, 0.25, 0.25, 1.5]))
"""Means and deviations that the last four inputs are scaled by: ages, numbers and horizons are of a
known size, and their ends are what matters."""

SHIFT = 0.5
"""Deviation of the logarithm by which the returns of a listing and its market are scaled: no market
is always as lively as those of meta-training."""

_SHORTEST = 30
"""Bars that a listing has at least."""

_ALONE, _FEW = 0.2, 0.4
"""Share of listings that see no other asset, and of those that see none or some."""

_MEASURED = 300
"""Listings that inputs are standardised by."""


class Listings(NamedTuple):
    """What listings are cut from, on the device.

    Attributes:
        returns: of each asset at each of its bars, `[asset, bar]`; 0 after its last.
        levels: log volatilities of each asset of the pool at the bars of each, 0 where unknown,
            `[asset, bar, other, window]`.
        there: whether they are known, `[asset, bar, other]`; an asset is none of its own others.
        y: standardised outcomes, `[asset, bar, horizon]`; 0 where unknown.
        known: whether they are complete, `[asset, bar, horizon]`, as 0 or 1.
        last: index of the last bar that may be seen, `[asset]`.
        bars: the horizons, `[horizon]`.
        scaling: of the inputs.
    """

    returns: Float[Array, "asset bar"]
    levels: Float[Array, "asset bar other window"]
    there: Float[Array, "asset bar other"]
    y: Float[Array, "asset bar horizon"]
    known: Float[Array, "asset bar horizon"]
    last: Array
    bars: Array
    scaling: Any


class Listing(NamedTuple):
    """Rows of one imagined listing; the row is the age.

    Attributes:
        x: standardised inputs, `[row, input]`.
        y: standardised outcomes, `[row]`.
        known: whether a row and its outcome are known, `[row]`, as 0 or 1.
        horizon: bars ahead.
    """

    x: Float[Array, "row input"]
    y: Float[Array, " row"]
    known: Float[Array, " row"]
    horizon: Array


def make_listings(
    histories: Histories, *, assets: Sequence[int], last: Sequence[int], horizons: Sequence[int]
) -> tuple[Listings, Scaling]:
    """Lay out what listings are cut from.

    Args:
        histories: of all assets.
        assets: numbers of those to cut, which are also each other's market.
        last: index of the last bar of each that may be seen.
        horizons: bars ahead.

    Returns:
        The listings, and what their inputs and outcomes are standardised by.
    """
    bars = max(last) + 1
    shape = (len(assets), bars + ROWS)
    returns = np.zeros(shape)
    levels = np.full((*shape, len(assets), len(MARKET_WINDOWS)), np.nan)
    y = np.full((*shape, len(horizons)), np.nan)
    for row, (asset, end) in enumerate(zip(assets, last, strict=True)):
        seen = histories.returns[asset][: end + 1]
        returns[row, : end + 1] = np.nan_to_num(seen)
        at = histories.timeline.get_indexer(histories.times[asset][: end + 1])
        levels[row, : end + 1] = histories.levels[at][:, list(assets)]
        levels[row, :, row] = np.nan
        y[row, : end + 1] = np.stack([outcome(seen, h)[0] for h in horizons], axis=-1)
    scaling = _measure(histories, assets, last, y)
    known, there = np.isfinite(y), np.asarray(np.isfinite(levels).all(axis=-1))
    tables = Listings(
        jnp.asarray(returns, jnp.float32),
        jnp.asarray(np.where(there[..., None], levels, 0.0), jnp.float32),
        jnp.asarray(there, jnp.float32),
        jnp.asarray(np.where(known, scaling.y(np.nan_to_num(y)), 0.0), jnp.float32),
        jnp.asarray(known, jnp.float32),
        jnp.asarray(last),
        jnp.asarray(horizons),
        scaling,
    )
    return tables, scaling


def _measure(histories: Histories, assets: Sequence[int], last: Sequence[int], y) -> Scaling:
    """Measure means and deviations on listings at even distances."""
    found = []
    for asset, end in zip(assets, last, strict=True):
        rows = min(ROWS, end)
        starts = np.unique(np.linspace(0, end - rows, max(1, _MEASURED // len(assets))).astype(int))
        ages = np.arange(1, rows + 1)
        found.append(
            young_inputs(histories, asset, starts, ages, horizon=1, others=assets).reshape(
                -1, len(_FIXED[0]) + 10
            )
        )
    x = np.concatenate(found)
    x_mean, x_std = x.mean(axis=0), x.std(axis=0)
    x_mean[-4:], x_std[-4:] = _FIXED
    known = y[np.isfinite(y)]
    return Scaling(x_mean, x_std, float(known.mean()), float(known.std()))


def draw_age(key) -> Array:
    """Draw an age: in half of the cases evenly from 0 to `OLDEST`, else evenly in its logarithm."""
    kind, low, high = jax.random.split(key, 3)
    even = jax.random.randint(low, (), 0, OLDEST + 1)
    skewed = jnp.exp(jax.random.uniform(high) * jnp.log(OLDEST + 1.0)).astype(even.dtype) - 1
    return jnp.where(jax.random.bernoulli(kind), even, skewed)


def draw_listing(tables: Listings, key) -> Listing:
    """Cut a history at random.

    Most listings see all other assets, some of them a few and some none, so that one model serves a
    market and an asset by itself.
    """
    which, place, begin, kind, share, chosen, scale = jax.random.split(key, 7)
    asset = jax.random.randint(which, (), 0, tables.returns.shape[0])
    horizon = jax.random.randint(place, (), 0, tables.bars.shape[0])
    start = jax.random.randint(begin, (), 0, jnp.maximum(1, tables.last[asset] - _SHORTEST))

    def cut(values: Array) -> Array:
        return jax.lax.dynamic_slice_in_dim(values[asset], start, ROWS)

    drawn = jax.random.uniform(kind)
    count = tables.there.shape[-1]
    few = jax.random.bernoulli(chosen, jax.random.uniform(share), (count,))
    some = jnp.where(drawn < _ALONE, 0.0, jnp.where(drawn < _FEW, few, 1.0))
    there = cut(tables.there) * some
    others = there.sum(axis=-1)
    levels = cut(tables.levels)
    market = jnp.einsum("ro,row->rw", there, levels) / jnp.maximum(others, 1)[:, None]
    age = jnp.arange(ROWS)
    log_horizon = jnp.log(tables.bars[horizon].astype(jnp.float32))
    inputs = input_columns(
        own_columns(cut(tables.returns), jnp), market, age, others, log_horizon, jnp
    )
    # Prices that move c times as much have logarithms that lie ln c higher, all of them.
    shift = SHIFT * jax.random.normal(scale)
    inputs = inputs.at[:, : -len(_FIXED[0])].add(shift)
    # At age 0 an asset that is alone has no input at all.
    whole = jnp.isfinite(inputs).all(axis=-1)
    known = cut(tables.known)[:, horizon] * whole
    x = tables.scaling.x(inputs, jnp)
    y = cut(tables.y)[:, horizon] + shift / tables.scaling.y_std
    return Listing(x, y, known, tables.bars[horizon])


def listing_sampler(tables: Listings, *, meta_batch: int, support: int = SUPPORT):
    """Make the sampler of tasks of young assets, whose ages `draw_age` draws.

    Args:
        tables: what is cut.
        meta_batch: tasks in each meta-step.
        support: most rows of a support set.

    Returns:
        `(key) -> Task`, every array with a leading task axis; rows that there are not have weight
        0.
    """

    def draw(tables: Listings, key) -> Task:
        return jax.vmap(partial(_draw_task, tables, support))(jax.random.split(key, meta_batch))

    return jax.tree_util.Partial(draw, tables)


def _draw_task(tables: Listings, support: int, key) -> Task:
    cut, drawn = jax.random.split(key)
    listing, age = draw_listing(tables, cut), draw_age(drawn)

    def rows(at, there) -> Batch:
        at = jnp.clip(at, 0, ROWS - 1)
        return Batch(listing.x[at], listing.y[at][:, None], there * listing.known[at])

    past = age - listing.horizon - jnp.arange(support)
    query = rows(age + STRIDE * jnp.arange(QUERY), 1.0)
    there = (weights_of(query).sum() > 0).astype(jnp.float32)
    return Task(rows(past, (past >= 1).astype(jnp.float32)), query, there)


def history_sampler(tables: Listings, *, meta_batch: int, queries: int):
    """Make the sampler of whole histories for `by_prefixes`.

    Args:
        tables: what is cut.
        meta_batch: histories in each meta-step.
        queries: rows of each that are forecast, whose ages `draw_age` draws.

    Returns:
        `(key) -> Task`, every array with a leading task axis.
    """

    def draw(tables: Listings, key) -> Task:
        keys = jax.random.split(key, meta_batch)
        return jax.vmap(partial(_draw_history, tables, queries))(keys)

    return jax.tree_util.Partial(draw, tables)


def _draw_history(tables: Listings, queries: int, key) -> Task:
    cut, drawn = jax.random.split(key)
    listing = draw_listing(tables, cut)
    age = jax.vmap(draw_age)(jax.random.split(drawn, queries))
    count = jnp.maximum(age - listing.horizon + 1, 0)
    target = jnp.stack([listing.y[age], count.astype(listing.y.dtype)], axis=1)
    query = Batch(listing.x[age], target, listing.known[age])
    there = (weights_of(query).sum() > 0).astype(jnp.float32)
    weight = listing.known.at[0].set(0.0)  # a row of age 0 is before the first return
    return Task(Batch(listing.x, listing.y[:, None], weight), query, there)

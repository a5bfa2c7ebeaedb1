r"""Tasks of young assets: histories that are cut at random, as if each were a listing.

A task is an asset, a bar at which it is listed, an age at which it is forecast and a horizon. Its
support set is what is known at that age, its last rows whose outcomes are complete, and none at
all in the first bars; its query set are rows from that age on.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from maml_jax.meta import Batch, Task
from maml_jax.risk.histories import Histories, input_columns, others_volatility, outcome, young_rows

OLDEST = 500
"""The greatest age, in returns, of a task."""

SUPPORT = 250
"""Most rows of a support set."""

QUERY, STRIDE = 16, 2
"""Rows of a query set, and bars from one to the next."""

ROWS = OLDEST + QUERY * STRIDE
"""Rows of a listing."""

CLIP = 4.0
"""Inputs beyond so many deviations are taken for that: another market may lie anywhere."""

_SHORTEST = 30
"""Bars that a listing has at least."""


class Scaling(NamedTuple):
    """Means and deviations of inputs, `[input]`, and of the target, `[]`."""

    x_mean: Float[np.ndarray, " input"]
    x_std: Float[np.ndarray, " input"]
    y_mean: float
    y_std: float

    def x(self, columns: np.ndarray) -> Float[np.ndarray, "*n input"]:
        """Standardise and clip inputs; what is unknown becomes the mean."""
        scaled = np.clip((columns - self.x_mean) / self.x_std, -CLIP, CLIP)
        return np.nan_to_num(scaled, nan=0.0).astype(np.float32)

    def y(self, log_volatility: np.ndarray) -> np.ndarray:
        """Standardise log volatilities."""
        return (log_volatility - self.y_mean) / self.y_std


class Listings(NamedTuple):
    """Rows of imagined listings; the row of a listing is its age.

    Attributes:
        x: inputs but the horizon's logarithm, which is a number for each horizon.
        horizon: the last input, of each horizon, `[horizon]`.
        y: outcomes, `[listing, row, horizon]`; 0 where unknown.
        known: whether the outcome is complete, `[listing, row, horizon]`.
        bars: the horizons in bars, `[horizon]`.
    """

    x: Float[Array, "listing row input"]
    horizon: Float[Array, " horizon"]
    y: Float[Array, "listing row horizon"]
    known: Bool[Array, "listing row horizon"]
    bars: Array


def draw_listings(
    histories: Histories,
    *,
    assets: Sequence[int],
    last: Sequence[int],
    horizons: Sequence[int],
    count: int,
    seed: int,
) -> tuple[Listings, Scaling]:
    """Cut histories at random.

    Half of the listings see all other assets, a quarter some of them, and a quarter none, so that
    one model serves a market and an asset by itself.

    Args:
        histories: of all assets.
        assets: numbers of those to cut.
        last: index of the last bar of each of these that may be seen.
        horizons: bars ahead.
        count: how many listings.
        seed: of the generator.

    Returns:
        The listings, standardised, and what they were standardised by.
    """
    rng = np.random.default_rng(seed)
    pool, ages = list(assets), np.arange(ROWS)
    columns: list[np.ndarray] = []
    y = np.full((count, ROWS, len(horizons)), np.nan)
    ends = dict(zip(pool, last, strict=True))
    ahead = {
        asset: np.stack([outcome(histories.returns[asset], h)[0] for h in horizons], axis=-1)
        for asset in pool
    }
    for number in range(count):
        asset = pool[number % len(pool)]
        start = int(rng.integers(0, max(1, ends[asset] - _SHORTEST)))
        others = [each for each in pool if each != asset]
        kind = rng.random()
        if kind < 0.25 or not others:
            others = []
        elif kind < 0.5:
            others = list(rng.choice(others, rng.integers(1, len(others) + 1), replace=False))
        own, market, others_count = young_rows(histories, asset, np.array([start]), ages, others)
        columns.append(input_columns(own[0], market[0], ages, others_count[0], 1))
        bars = start + ages
        for place, horizon in enumerate(horizons):
            complete = bars + horizon <= ends[asset]
            y[number, complete, place] = ahead[asset][bars[complete], place]
    known = np.isfinite(y)
    x = np.stack(columns)
    logs = np.log(horizons)
    seen = x[known.any(axis=-1)]
    x_mean, x_std = np.nanmean(seen, axis=0), np.nanstd(seen, axis=0)
    x_mean[-1], x_std[-1] = logs.mean(), max(float(logs.std()), 1.0)
    scaling = Scaling(x_mean, x_std, float(y[known].mean()), float(y[known].std()))
    # At age 0 an asset that is alone has no input at all.
    known[:, 0] &= np.isfinite(x[:, 0]).all(axis=-1)[:, None]
    tables = Listings(
        jnp.asarray(scaling.x(x)[..., :-1]),
        jnp.asarray((logs - x_mean[-1]) / x_std[-1], jnp.float32),
        jnp.asarray(np.where(known, scaling.y(np.nan_to_num(y)), 0.0), jnp.float32),
        jnp.asarray(known),
        jnp.asarray(horizons),
    )
    return tables, scaling


def listing_sampler(tables: Listings, *, meta_batch: int, support: int = SUPPORT):
    """Make the sampler of tasks of young assets.

    Half of the ages are drawn evenly from 0 to `OLDEST`, half evenly in their logarithm: the first
    bars are where they matter.

    Args:
        tables: the listings.
        meta_batch: tasks in each meta-step.
        support: most rows of a support set.

    Returns:
        `(key) -> Task`, every array with a leading task axis; rows that there are not have weight
        0.
    """

    def draw(tables: Listings, key) -> Task:
        return jax.vmap(lambda k: _draw_task(tables, support, k))(jax.random.split(key, meta_batch))

    return jax.tree_util.Partial(draw, tables)


def draw_age(key) -> Array:
    """Draw an age: in half of the cases evenly from 0 to `OLDEST`, else evenly in its logarithm."""
    kind, low, high = jax.random.split(key, 3)
    even = jax.random.randint(low, (), 0, OLDEST + 1)
    skewed = jnp.exp(jax.random.uniform(high) * jnp.log(OLDEST + 1.0)).astype(even.dtype) - 1
    return jnp.where(jax.random.bernoulli(kind), even, skewed)


def _draw_task(tables: Listings, support: int, key) -> Task:
    which, place, ages = jax.random.split(key, 3)
    listing = jax.random.randint(which, (), 0, tables.x.shape[0])
    horizon = jax.random.randint(place, (), 0, tables.bars.shape[0])
    age = draw_age(ages)
    x, y, known = tables.x[listing], tables.y[listing, :, horizon], tables.known[listing, :, horizon]

    def rows(at, there) -> Batch:
        at = jnp.clip(at, 0, x.shape[0] - 1)
        last = jnp.full((len(at), 1), tables.horizon[horizon])
        weight = (there & known[at]).astype(jnp.float32)
        return Batch(jnp.concatenate([x[at], last], axis=1), y[at][:, None], weight)

    past = age - tables.bars[horizon] - jnp.arange(support)
    query = rows(age + STRIDE * jnp.arange(QUERY), jnp.ones(QUERY, bool))
    there = (query.weight.sum() > 0).astype(jnp.float32)
    return Task(rows(past, past >= 1), query, there)

"""The split on which learners are compared: histories to train on, and forecasts of others."""

from dataclasses import dataclass
from functools import cached_property

import jax
import numpy as np
import optax
import pandas as pd
from jaxtyping import Float, Int

from benchmarks.reproduce.new_listing_learner_rows import MEAN, pooled
from benchmarks.reproduce.new_listing_market import Data, on_timeline
from maml_jax.meta import MetaLearner, Task, fit, weights_of
from maml_jax.meta.types import Params
from maml_jax.models import mlp
from maml_jax.risk.ages import young_tasks
from maml_jax.risk.histories import Histories, outcome
from maml_jax.risk.listings import history_sampler, listing_sampler, make_listings

AGES = (5, 10, 20, 40, 60, 125, 250)
"""Returns since the listing, at which learners are compared."""

META_BATCH, QUERIES = 16, 64
POOLED_STEPS, POOLED_RATE = 2000, 3e-3
_CONSTANTS = 13
"""Seed of the tasks on which constants are fitted."""


@dataclass(frozen=True)
class Split:
    """Assets to train on, others to validate on, and the forecasts that are made of them.

    Attributes:
        data: the bars.
    """

    data: Data

    @cached_property
    def names(self) -> tuple[list[str], list[str]]:
        """Assets to train on, and those to validate on."""
        seen = self.data.names[0]
        count = 2 * len(seen) // 3
        return seen[:count], seen[count:]

    @property
    def histories(self) -> Histories:
        """Returns of all assets."""
        return self.data.histories

    @cached_property
    def train(self) -> list[int]:
        """Numbers of the assets to train on."""
        return [*range(len(self.names[0]))]

    @cached_property
    def valid(self) -> list[int]:
        """Numbers of those to validate on."""
        return [*range(len(self.names[0]), len(self.data.names[0]))]

    @cached_property
    def stop(self) -> pd.Timestamp:
        """First moment of the validation."""
        return pd.Timestamp(self.data.market.validation[0], tz="UTC")

    @cached_property
    def bars(self) -> Int[np.ndarray, " time"]:
        """Places on the timeline of the forecasts; outcomes are known by the end."""
        end = pd.Timestamp(self.data.market.validation[1], tz="UTC") + pd.Timedelta(days=1)
        first, last = self.data.timeline.searchsorted([self.stop, end])
        return np.arange(first, last - self.data.market.horizon, 2 * self.data.every)

    @cached_property
    def truth(self) -> Float[np.ndarray, "asset time"]:
        """What came, of the assets to validate on."""
        ahead = [outcome(each, self.data.market.horizon)[0] for each in self.histories.returns]
        return on_timeline(self.histories, ahead)[np.asarray(self.valid)[:, None], self.bars]

    @cached_property
    def listings(self):
        """Histories to cut, and what inputs are standardised by."""
        times = self.histories.times
        last = [int(times[asset].searchsorted(self.stop)) - 1 for asset in self.train]
        horizons = (self.data.market.horizon,)
        return make_listings(self.histories, assets=self.train, last=last, horizons=horizons)

    @cached_property
    def drawn(self):
        """The sampler of tasks of one age each."""
        return listing_sampler(self.listings[0], meta_batch=META_BATCH)

    @cached_property
    def whole(self):
        """The sampler of whole histories."""
        return history_sampler(self.listings[0], meta_batch=META_BATCH, queries=QUERIES)

    @cached_property
    def tasks(self) -> list[Task]:
        """The tasks of all forecasts, at each of `AGES`: asset by asset, bar by bar."""
        return [self._tasks(age) for age in AGES]

    def _tasks(self, age: int) -> Task:
        made = []
        for asset in self.valid:
            own = self.histories.times[asset].get_indexer(self.data.timeline[self.bars])
            made.append(
                young_tasks(
                    self.histories,
                    self.listings[1],
                    asset,
                    np.maximum(own, max(AGES)),
                    age=age,
                    horizon=self.data.market.horizon,
                    others=[*self.train, *self.valid],
                )
            )
        return jax.tree.map(lambda *leaves: np.concatenate(leaves), *made)

    @cached_property
    def trained_tasks(self) -> tuple[Task, np.ndarray]:
        """Tasks of training, as many as there are forecasts of one age, and their outcomes."""
        count = len(self.valid) * len(self.bars)
        tasks = listing_sampler(self.listings[0], meta_batch=count)(jax.random.key(_CONSTANTS))
        query = jax.tree.map(lambda leaf: leaf[:, :1], tasks.query)
        known = np.asarray(jax.vmap(weights_of)(query))[:, 0] > 0
        y = np.where(known, np.asarray(query.y, float)[:, 0, 0], np.nan)
        return Task(tasks.support, query._replace(weight=None)), y

    @cached_property
    def mean(self) -> "Mean":
        """The pooled networks."""
        return Mean(self, {})


@dataclass(frozen=True)
class Mean:
    """Networks that are trained on all ages, one for each seed, where they are first needed."""

    split: Split
    found: dict[tuple[int, int], Params]

    @cached_property
    def model(self):
        """The network."""
        return mlp((*MEAN, 1))

    @cached_property
    def learner(self) -> MetaLearner:
        """The learner that trains it."""
        return pooled(self.model)

    def params(self, seed: int, steps: int) -> Params:
        """Return the parameters of a seed."""
        if (seed, steps) not in self.found:
            rate = optax.cosine_decay_schedule(POOLED_RATE, steps)
            key = jax.random.key(seed)
            state, _ = fit(self.learner, optax.adam(rate), self.split.whole, key, steps=steps)
            self.found[seed, steps] = state.params
        return self.found[seed, steps]

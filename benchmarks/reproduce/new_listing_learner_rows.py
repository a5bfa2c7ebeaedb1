"""Learners that could adapt to a young asset, and the grid of settings of each."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import nn

from maml_jax.learners import alfa, alpaca, anil, cavia, maml, meta_sgd, ridge
from maml_jax.meta import (
    Batch,
    LossFn,
    MetaLearner,
    Task,
    first_order,
    gaussian_nll,
    learned_rates,
    mean_squared_error,
    weights_of,
)
from maml_jax.meta.optimizers import conditioned_rates
from maml_jax.meta.rows import weighted_mean
from maml_jax.meta.types import AdaptationInfo, Model, Params, Prediction
from maml_jax.models import gaussian, mlp
from maml_jax.risk.prefixes import by_prefixes
from maml_jax.risk.sliding import SUPPORT

HEAD, NETWORK = "head", "network"
"""Keys of the learner that ships, and of the network without adaptation."""

MEAN = (64, 64)
"""Hidden widths of the pooled network that all correct."""

FEATURES = (64, 64, 16)
"""Widths of the feature network of heads."""

HIDDEN = (32, 32)
"""Hidden widths of networks that adapt by gradients: narrow, since each step counts twice."""

STEPS = 5
"""Steps of adaptation, where a grid does not say otherwise."""


@dataclass(frozen=True, eq=False)
class LearnerRow:
    """One learner.

    Attributes:
        key: its name on the command line.
        name: its name in tables.
        make: the learner, from one setting of the grid and the standard deviation of the target;
            it is trained on what the pooled network leaves over, unless it starts from it. None:
            the pooled network itself.
        grid: settings that are tried with the first seed.
        steps: meta-steps of its training.
        rate: of the outer optimizer, falling to 0 along a cosine.
        whole: whether it is trained on whole histories, as `by_prefixes`.
        starts: whether it starts from the pooled network, and does not add to it.
        of_variance: whether it forecasts the mean of squares.
    """

    key: str
    name: str
    make: Callable[..., MetaLearner] | None
    grid: Sequence[dict[str, float]] = ({},)
    steps: int = 800
    rate: float = 3e-3
    whole: bool = False
    starts: bool = False
    of_variance: bool = False


def pooled(model: Model) -> MetaLearner:
    """Make the learner of one network by the squared error of all query rows; nothing adapts."""

    def meta_loss(params: Params, task: Task, step=0):
        del step
        query = task.query
        error = jnp.square(model.apply(params, query.x)[:, 0] - query.y[:, 0]) * weights_of(query)
        value = error.sum() / jnp.maximum(weights_of(query).sum(), 1)
        return value, AdaptationInfo(value, value)

    def adapt(params: Params, support: Batch, steps: int | None = None, key=None) -> Params:
        del support, steps, key
        return params

    return MetaLearner(model.init, adapt, model.apply, meta_loss)


class Corrected(NamedTuple):
    """Parameters of a learner of what a trained network leaves over.

    Attributes:
        mean: of the network, which stay.
        own: of the learner.
    """

    mean: Params
    own: Params


def correct(learner: MetaLearner, model: Model) -> MetaLearner:
    """Make a learner of what a trained network leaves over; it predicts the sum of both.

    Args:
        learner: any; of a query set's targets the first column is shifted.
        model: the network.

    Returns:
        A `MetaLearner` whose parameters are `Corrected`; those of the network are not trained.
    """

    def shift(mean: Params, batch: Batch) -> Batch:
        return batch._replace(y=batch.y.at[:, :1].add(-model.apply(mean, batch.x)))

    def init(key, x, /) -> Corrected:
        return Corrected(model.init(key, x), learner.init(key, x))

    def adapt(params: Corrected, support: Batch, steps: int | None = None, key=None) -> Corrected:
        rest = shift(params.mean, support)
        return params._replace(own=learner.adapt(params.own, rest, steps, key))

    def predict(adapted: Corrected, x: Any):
        found, mean = learner.predict(adapted.own, x), model.apply(adapted.mean, x)
        if isinstance(found, Prediction):
            return found._replace(mean=found.mean + mean)
        return found + mean

    def meta_loss(params: Corrected, task: Task, step=0):
        mean = jax.lax.stop_gradient(params.mean)
        rest = task._replace(support=shift(mean, task.support), query=shift(mean, task.query))
        return learner.loss(params.own, rest, step)

    return MetaLearner(init, adapt, predict, meta_loss)


def qlike_of(y_std: float) -> LossFn:
    r"""Make Patton's QLIKE of the variance, $e^u - u - 1$ with $u = 2 s (y - \hat y)$.

    Args:
        y_std: $s$, the standard deviation that the log of volatility was divided by.
    """

    def loss(y_hat: Any, y: Any, weight: Any = None):
        mean = y_hat.mean if isinstance(y_hat, Prediction) else y_hat
        if weight is not None:
            y = jnp.where(weight[:, None] > 0, y, mean)
        # Straight from e^4 on: one row is not to decide a meta-step.
        excess = 2 * y_std * (y - mean)
        capped = jnp.minimum(excess, 4.0)
        return weighted_mean(jnp.exp(capped) * (1 + excess - capped) - excess - 1, weight)

    loss.max_inner_norm = 1.0  # type: ignore[attr-defined]
    return loss


def by_count(loss: Callable[..., Any], rows: float) -> LossFn:
    r"""Weaken a loss where few rows count: times $n / (n + m)$, as a prior of m rows does.

    A mean over 3 rows else moves a network as far as one over 250.

    Args:
        loss: a mean over rows.
        rows: $m$; 0 leaves the loss as it is.
    """
    if not rows:
        return loss

    def weakened(y_hat: Any, y: Any, weight: Any = None):
        count = float(len(y)) if weight is None else weight.sum()
        return loss(y_hat, y, weight) * count / (count + rows)

    weakened.max_inner_norm = getattr(loss, "max_inner_norm", None)  # type: ignore[attr-defined]
    return weakened


def _head(setting: dict[str, float], y_std: float, loss: str = "likelihood") -> MetaLearner:
    chosen = gaussian_nll if loss == "likelihood" else qlike_of(y_std)
    return alpaca(
        mlp(FEATURES),
        heteroscedastic=True,
        noise=0.7,
        prior_precision=setting["precision"],
        loss=chosen,
    )


def _ridge(setting: dict[str, float], y_std: float) -> MetaLearner:
    del y_std
    return ridge(mlp(FEATURES), penalty=setting["penalty"])


def _network(outputs: int = 2, **options: Any) -> Model:
    network = mlp((*HIDDEN, outputs), **options)
    return gaussian(network) if outputs == 2 else network


def _by_gradients(make: Callable[..., MetaLearner], optimizer: Callable, **options: Any):
    def learner(setting: dict[str, float], y_std: float) -> MetaLearner:
        del y_std
        return make(
            _network(),
            inner_optimizer=optimizer(setting["rate"]),
            inner_steps=STEPS,
            loss=by_count(gaussian_nll, setting["rows"]),
            **options,
        )

    return learner


def _cavia(setting: dict[str, float], y_std: float, loss: str = "likelihood") -> MetaLearner:
    likelihood = loss == "likelihood"
    return cavia(
        _network(2 if likelihood else 1, activation=nn.gelu),
        inner_optimizer=learned_rates(setting["rate"]),
        inner_steps=STEPS,
        loss=by_count(gaussian_nll if likelihood else qlike_of(y_std), setting["rows"]),
    )


def _from_the_mean(setting: dict[str, float], y_std: float) -> MetaLearner:
    del y_std
    return maml(
        mlp((*MEAN, 1)),
        inner_optimizer=learned_rates(setting["rate"]),
        inner_steps=STEPS,
        loss=by_count(mean_squared_error, setting["rows"]),
    )


def _grid(*settings: tuple[float, float]) -> list[dict[str, float]]:
    return [{"rate": rate, "rows": rows} for rate, rows in settings]


def _alfa_rates(rate: float):
    return conditioned_rates(rate, steps=STEPS)


def _entry_rates(rate: float):
    return learned_rates(rate, per="entry")


LEARNERS = (
    LearnerRow(NETWORK, "the pooled network, unadapted", None),
    LearnerRow(
        "network-more",
        "the pooled network, trained on by the likelihood, unadapted",
        lambda s, y_std: maml(_network(), inner_steps=0, loss=gaussian_nll),
    ),
    LearnerRow(
        HEAD,
        "Bayesian head, as shipped",
        lambda s, y_std: by_prefixes(_head(s, y_std), window=SUPPORT),
        ({"precision": 50.0},),
        steps=1000,
        whole=True,
    ),
    LearnerRow(
        "head-drawn",
        "Bayesian head, one age a task",
        _head,
        ({"precision": 50.0}, {"precision": 200.0}),
        steps=1500,
    ),
    LearnerRow(
        "head-qlike",
        "Bayesian head, one age a task, QLIKE",
        lambda s, y_std: _head(s, y_std, "qlike"),
        ({"precision": 50.0},),
        steps=1500,
        of_variance=True,
    ),
    LearnerRow("ridge", "ridge head", _ridge, ({"penalty": 20.0}, {"penalty": 100.0}), steps=1500),
    LearnerRow("cavia", "CAVIA, GELU", _cavia, _grid((0.1, 0), (0.1, 20), (0.5, 20))),
    LearnerRow(
        "cavia-qlike",
        "CAVIA, GELU, QLIKE",
        lambda s, y_std: _cavia(s, y_std, "qlike"),
        _grid((0.1, 20)),
        of_variance=True,
    ),
    LearnerRow(
        "maml",
        "MAML, learned rates",
        _by_gradients(maml, learned_rates),
        _grid((0.05, 0), (0.05, 20), (0.05, 100)),
    ),
    LearnerRow(
        "maml-start",
        "MAML, learned rates, from the pooled network",
        _from_the_mean,
        _grid((0.05, 20), (0.05, 100)),
        rate=1e-3,
        starts=True,
    ),
    LearnerRow("alfa", "ALFA", _by_gradients(alfa, _alfa_rates), _grid((0.05, 100))),
    LearnerRow(
        "meta-sgd",
        "Meta-SGD",
        _by_gradients(meta_sgd, _entry_rates),
        _grid((0.05, 100)),
    ),
    LearnerRow(
        "fomaml",
        "FOMAML",
        _by_gradients(maml, optax.sgd, gradient=first_order()),
        _grid((0.05, 100)),
    ),
    LearnerRow("anil", "ANIL", _by_gradients(anil, learned_rates), _grid((0.2, 100))),
)
"""In the order of tables."""

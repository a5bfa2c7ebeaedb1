"""DoubleAdapt: inputs and targets are adapted before the model is."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from maml_jax.errors import ShapeError
from maml_jax.learners._descent import (
    INNER_STEPS,
    Parts,
    by_descent,
    predict_drawing,
    split_key,
    whole_network,
)
from maml_jax.meta.gradients import GradientMode, exact
from maml_jax.meta.losses import mean_squared_error
from maml_jax.meta.rows import batch_loss, fill_absent, never_empty, weighted_mean
from maml_jax.meta.types import (
    Batch,
    InnerOptimizer,
    LossFn,
    MetaLearner,
    ModelLike,
    Params,
    Prediction,
    Scalar,
    Task,
)

HEADS = 8
TEMPERATURE = 10.0
PENALTY = 0.5
_GATE_WIDTH = 32
_WEAK = 0.01
"""Share of the usual size with which the heads of the feature adapter begin."""


class FeatureAdapter(NamedTuple):
    """Changes the inputs of a task.

    Attributes:
        prototypes: $p_i$.
        weights: $W_i$.
        biases: $b_i$.
    """

    prototypes: Float[Array, "head feature"]
    weights: Float[Array, "head feature feature"]
    biases: Float[Array, "head feature"]


class LabelAdapter(NamedTuple):
    r"""Changes the targets of a task, and takes it back in predictions.

    Attributes:
        projection: $V$, of the whole input of a row.
        prototypes: $q_i$.
        log_scales: $\log \gamma_i$.
        shifts: $\beta_i$.
    """

    projection: Float[Array, "input gate"]
    prototypes: Float[Array, "head gate"]
    log_scales: Float[Array, " head"]
    shifts: Float[Array, " head"]


class DoublyAdapted(NamedTuple):
    """The meta-parameters of DoubleAdapt; adapted, another `model`.

    Attributes:
        model: parameters of the network.
        features: the feature adapter.
        labels: the label adapter.
    """

    model: Params
    features: FeatureAdapter
    labels: LabelAdapter


def double_adapt(
    model: ModelLike,
    *,
    heads: int = HEADS,
    temperature: float = TEMPERATURE,
    penalty: float = PENALTY,
    inner_optimizer: InnerOptimizer = optax.sgd(0.005),
    inner_steps: int = INNER_STEPS,
    gradient: GradientMode = exact(),
    loss: LossFn = mean_squared_error,
) -> MetaLearner:
    r"""Make the DoubleAdapt learner.

    $$\tilde x = x + \sum_i s_i(x)\,(W_i x + b_i), \qquad
      \tilde y = \sum_i s'_i(x)\,(\gamma_i y + \beta_i), \qquad
      \hat y = \sum_i s'_i(x)\,\frac{f_{\theta'}(\tilde x) - \beta_i}{\gamma_i}$$

    $$s(x) = \mathrm{softmax}_i\bigl(\cos(x, p_i) / \tau\bigr), \qquad
      s'(x) = \mathrm{softmax}_i\bigl(\cos(V x, q_i) / \tau\bigr)$$

    The network adapts by gradient steps on the adapted support set $(\tilde x, \tilde y)$; its
    start and both adapters are meta-parameters, trained by the query loss of $\hat y$ and
    `penalty` times the mean of $(\tilde y - y)^2$ over the support rows, which keeps targets what
    they are. Of a sequence each bar is a feature vector of its own to the feature adapter, and the
    label adapter sees all its bars.

    Heads begin close to doing nothing (in the authors' code as large as any layer's), and
    $\gamma_i$, uniform in [0.75, 1.25] at first, stay positive, so that there always is an inverse.

    Args:
        model: `(init, apply)`; it may predict a `Prediction`.
        heads: affine maps of each adapter.
        temperature: $\tau$; the larger, the more evenly the heads count.
        penalty: what changing targets costs; at market-like noise, where most of a target's size is
            noise, 0 lets them shrink.
        inner_optimizer: adapts the network.
        inner_steps: steps of adaptation (the paper takes one).
        gradient: how to differentiate through adaptation. With `first_order()`
            adapters learn from query rows alone.
        loss: compares outputs with targets, adapted ones on the support set.

    Returns:
        A `MetaLearner`. Meta-parameters and adapted ones are `DoublyAdapted`; `info` is an
        `AdaptationInfo`, of targets as they are.

    Raises:
        ShapeError: from `adapt` and `loss`, if targets are classes, which have no scale.
        ValueError: if a setting is impossible.

    Reference:
        Zhao, Kong, Shen (2023), DoubleAdapt: A Meta-learning Approach to Incremental Learning for
        Stock Trend Forecasting, arXiv:2306.09862; formulas and defaults as in the authors' code.
    """
    if heads < 1 or not temperature > 0 or penalty < 0:
        raise ValueError(
            "DoubleAdapt needs at least 1 head, a positive temperature and no negative penalty, "
            f"got {heads}, {temperature} and {penalty}"
        )
    network = whole_network(model)

    def init(key, x, /) -> DoublyAdapted:
        return DoublyAdapted(network.init(key, x), *_adapters(jax.random.fold_in(key, 2), x, heads))

    def output(adapted: DoublyAdapted, x: Array, key=None) -> Any:
        x = adapt_features(adapted.features, x, temperature)
        return predict_drawing(network, adapted.model, x, key)

    def predict(adapted: DoublyAdapted, x: Float[Array, "n *features"], key=None, /) -> Any:
        return restore_labels(adapted.labels, x, output(adapted, x, key), temperature)

    def join(moved: Params, adapters: tuple[FeatureAdapter, LabelAdapter]) -> DoublyAdapted:
        return DoublyAdapted(moved, *adapters)

    def loss_of_adapted_rows(moved: Params, adapters: tuple, support: Batch, key=None) -> Scalar:
        adapted, rows = join(moved, adapters), fill_absent(support)
        targets = adapt_labels(adapted.labels, rows.x, rows.y, temperature)
        drawing, comparing = split_key(key)
        rows = rows._replace(y=targets)
        return batch_loss(loss, lambda own, x: output(own, x, drawing), adapted, rows, comparing)

    learner = by_descent(
        Parts(
            init,
            lambda params: (params.model, params[1:]),
            join,
            predict,
            objective=loss_of_adapted_rows,
            predict_with_key=network.predict_with_key and predict,
        ),
        inner_optimizer=inner_optimizer,
        inner_steps=inner_steps,
        gradient=gradient,
        loss=loss,
    )

    def meta_loss(meta_params: Params, task: Task, step=0):
        value, info = learner.loss(meta_params, task, step)
        start = meta_params if isinstance(meta_params, DoublyAdapted) else meta_params.start
        x, y, weight = fill_absent(never_empty(task.support))
        moved = adapt_labels(start.labels, x, y, temperature) - y
        return value + penalty * weighted_mean(jnp.square(moved), weight).astype(value.dtype), info

    return learner._replace(loss=meta_loss)


def adapt_features(adapter: FeatureAdapter, x: Array, temperature: float) -> Array:
    """Return inputs as the model is to see them, each bar `[..., feature]` by itself."""
    gate = _gate(x, adapter.prototypes, temperature)
    changes = jnp.einsum("...f,hgf->...hg", x, adapter.weights) + adapter.biases
    return x + jnp.einsum("...h,...hg->...g", gate, changes)


def adapt_labels(adapter: LabelAdapter, x: Array, y: Array, temperature: float) -> Array:
    """Return targets as the model is to learn them.

    Raises:
        ShapeError: if they are classes.
    """
    if jnp.issubdtype(y.dtype, jnp.integer):
        raise ShapeError(f"DoubleAdapt rescales targets, which cannot be classes; got {y.dtype}")
    gate = _label_gate(adapter, x, temperature)
    scale, shift = gate @ jnp.exp(adapter.log_scales), gate @ adapter.shifts
    return _broadcastable(scale, y) * y + _broadcastable(shift, y)


def restore_labels(adapter: LabelAdapter, x: Array, output: Any, temperature: float) -> Any:
    """Return predictions of adapted targets as predictions of targets, by each head's inverse."""
    gate = _label_gate(adapter, x, temperature)
    inverse = jnp.exp(-adapter.log_scales)
    scale, shift = gate @ inverse, gate @ (inverse * adapter.shifts)
    if isinstance(output, Prediction):
        factor, offset = _broadcastable(scale, output.mean), _broadcastable(shift, output.mean)
        return Prediction(factor * output.mean - offset, factor * output.std)
    return _broadcastable(scale, output) * output - _broadcastable(shift, output)


def _adapters(key, x: Array, heads: int) -> tuple[FeatureAdapter, LabelAdapter]:
    """Make fresh adapters for rows like those of `x`, `[n, *bars, feature]` or one of them."""
    keys = jax.random.split(key, 5)
    features = x.shape[-1]
    inputs = math.prod(x.shape[1:]) if x.ndim > 1 else features
    bound = features**-0.5

    def uniform(key, shape, bound):
        return jax.random.uniform(key, shape, minval=-bound, maxval=bound)

    return (
        FeatureAdapter(
            uniform(keys[0], (heads, features), bound),
            _WEAK * uniform(keys[1], (heads, features, features), bound),
            jnp.zeros((heads, features)),
        ),
        LabelAdapter(
            uniform(keys[2], (inputs, _GATE_WIDTH), inputs**-0.5),
            uniform(keys[3], (heads, _GATE_WIDTH), _GATE_WIDTH**-0.5),
            jnp.log(jax.random.uniform(keys[4], (heads,), minval=0.75, maxval=1.25)),
            jnp.zeros(heads),
        ),
    )


def _label_gate(adapter: LabelAdapter, x: Array, temperature: float) -> Float[Array, "n head"]:
    rows = x.reshape(len(x), math.prod(x.shape[1:]))
    return _gate(rows @ adapter.projection, adapter.prototypes, temperature)


def _gate(x: Array, prototypes: Array, temperature: float) -> Array:
    """Return how much each head counts, `[..., head]`."""
    return jax.nn.softmax(_normalize(x) @ _normalize(prototypes).T / temperature)


def _normalize(x: Array) -> Array:
    """Scale vectors to length 1; zero stays zero, with a derivative."""
    return x * jax.lax.rsqrt(jnp.sum(jnp.square(x), axis=-1, keepdims=True) + 1e-12)


def _broadcastable(rows: Array, y: Array) -> Array:
    """Return one number for each row in a shape that broadcasts against `[n, *targets]`."""
    return rows.reshape(len(rows), *(1,) * (y.ndim - 1))

"""Gradient descent whose rates and weight decay a network computes from a task's gradients."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from maml_jax.meta.types import LearnedOptimizer, Params

SPAN = 2.0
"""How far a task may take the logarithm of a rate from what the tasks share."""

LARGEST_DECAY = 0.1
"""How much of a parameter a task's own decay may take, or add, in one step."""

_SMALLEST_SQUARE = 1e-8


class ConditionedSettings(NamedTuple):
    """What is learned of task-specific rates; `leaf` counts the leaves of the parameters.

    Attributes:
        log_rate: logarithm of the rates that all tasks share, `[step, leaf]`.
        decay: weight decay that all tasks share, `[step, leaf]`.
        hidden: weights of the network's first layer, `[statistic, width]`.
        hidden_bias: `[width]`.
        out: weights of its last layer, `[width, 2 leaf]`.
        out_bias: `[2 leaf]`.
    """

    log_rate: Float[Array, "step leaf"]
    decay: Float[Array, "step leaf"]
    hidden: Float[Array, "statistic width"]
    hidden_bias: Float[Array, " width"]
    out: Float[Array, "width outputs"]
    out_bias: Float[Array, " outputs"]


class _Counter(NamedTuple):
    count: jax.Array


def conditioned_rates(
    initial: float = 0.005,
    *,
    steps: int | None = None,
    width: int | None = None,
    sizes: bool = True,
) -> LearnedOptimizer:
    r"""Gradient descent with task-specific rates and weight decay, layer by layer, step by step.

    $$\theta_{k+1}^l = (1 - \beta_k^l)\,\theta_k^l - \alpha_k^l \nabla_{\theta^l} L(\theta_k),
      \qquad (\alpha_k, \beta_k) = g_\varphi(\tau_k), \qquad
      \tau_k = \bigl(\overline{\theta_k^l}, \overline{\nabla_{\theta^l} L(\theta_k)}\bigr)_l$$

    with $l$ the leaves of the parameters and bars their means. $g_\varphi$ is a network of one
    hidden layer (ReLU) around rates $a$ and decays $b$ that all tasks share:

    $$\alpha_k^l = a_k^l\, e^{2 \tanh u^l}, \qquad \beta_k^l = b_k^l + 0.1 \tanh v^l, \qquad
      (u, v) = W_2 \max(0, W_1 \tau_k + c_1) + c_2$$

    $W_2$, $c_2$ and $b$ begin at 0: adaptation begins as plain gradient descent. In the
    authors' code rates are products without bounds; here they stay positive, and no task leaves the
    shared ones by more than a factor of $e^2$: at the noise of markets a single gradient would else
    decide its own step.

    Args:
        initial: what all rates begin with.
        steps: gives each of the first `steps` steps shared rates and decays of its own; later steps
            use the last ones. None: all steps share theirs.
        width: hidden units; default two for each leaf, as in the paper.
        sizes: show the network the logarithm of each leaf's mean squared gradient too, from which
            it can tell how noisy a support set is: under noise the means are near 0 in all tasks.
            False is the paper's $\tau$.

    Returns:
        A `LearnedOptimizer`; its settings are a `ConditionedSettings`.

    Raises:
        ValueError: if `initial` is not positive, or `steps` or `width` is less than 1.

    Reference:
        Baik, Choi, Choi, Kim, Lee (2020), Meta-Learning with Adaptive Hyperparameters,
        arXiv:2011.00209, equations 4 to 6.
    """
    if not initial > 0:
        raise ValueError(f"initial must be positive, got {initial}")
    if min(1 if steps is None else steps, 1 if width is None else width) < 1:
        raise ValueError(f"steps and width must be at least 1, got {steps} and {width}")

    def init(key, params, /) -> ConditionedSettings:
        leaves = jax.tree.leaves(params)
        count, dtype = len(leaves), jnp.result_type(*leaves)
        seen, hidden = (3 if sizes else 2) * count, width or 2 * count
        shared = (steps or 1, count)
        return ConditionedSettings(
            jnp.full(shared, jnp.log(initial), dtype),
            jnp.zeros(shared, dtype),
            jax.random.normal(key, (seen, hidden), dtype) / seen**0.5,
            jnp.zeros(hidden, dtype),
            jnp.zeros((hidden, 2 * count), dtype),
            jnp.zeros(2 * count, dtype),
        )

    def update(updates, state, params=None, **extra):
        settings: ConditionedSettings = extra["settings"]
        grads, structure = jax.tree.flatten(updates)
        thetas = jax.tree.leaves(params)
        now = jnp.minimum(state.count, settings.log_rate.shape[0] - 1)
        rates, decays = _generate(settings, now, _statistics(thetas, grads, sizes))
        moved = [
            -rate.astype(grad.dtype) * grad - decay.astype(theta.dtype) * theta
            for rate, decay, grad, theta in zip(rates, decays, grads, thetas, strict=True)
        ]
        return jax.tree.unflatten(structure, moved), _Counter(state.count + 1)

    def begin(params: Params) -> _Counter:
        del params
        return _Counter(jnp.zeros((), jnp.int32))

    return LearnedOptimizer(init, optax.GradientTransformationExtraArgs(begin, update))


def _statistics(thetas: list[Array], grads: list[Array], sizes: bool) -> Float[Array, " statistic"]:
    """Return what the network sees of a task: means of the leaves and of their gradients."""
    seen = [jnp.mean(leaf) for leaf in (*thetas, *grads)]
    if sizes:
        # About 0 where gradients are of the size of 0.01, and without a corner at 0.
        seen += [
            0.25 * jnp.log(1e4 * (jnp.mean(jnp.square(grad)) + _SMALLEST_SQUARE)) for grad in grads
        ]
    return jnp.stack(seen)


def _generate(settings: ConditionedSettings, step: Any, seen: Array) -> tuple[Array, Array]:
    """Return the rates and decays of one step, `[leaf]` each."""
    hidden = jax.nn.relu(seen @ settings.hidden + settings.hidden_bias)
    own = jnp.tanh(hidden @ settings.out + settings.out_bias)
    u, v = jnp.split(own, 2)
    return jnp.exp(settings.log_rate[step] + SPAN * u), settings.decay[step] + LARGEST_DECAY * v

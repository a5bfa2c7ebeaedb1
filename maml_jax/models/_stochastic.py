"""Networks in which something is random in training."""

from collections.abc import Callable
from inspect import Parameter, signature
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from maml_jax.meta.networks import require_model
from maml_jax.meta.types import InitFn, Model, ModelLike


def stochastic(model: ModelLike | InitFn, apply: Callable[..., Any] | None = None) -> Model:
    """Make a network in which something is random in training: dropout, noise, augmentation.

    Where a task has a key (`Task.key`), learners apply the network with one made of it, another in
    each inner step, on the support and on the query set. Without a key, in `predict`, and in
    learners in closed form, which take no steps, nothing is random.

    Args:
        model: any `(init, apply)` pair whose `apply` takes a key, or an `init` alone.
        apply: `(params, x [n, *features], key=None) -> outputs`; None: that of `model`. It is
            called with `key=None` where nothing is to be random.

    Returns:
        A `Model` with `apply_with_key`.

    Raises:
        TypeError: if `apply` takes no argument `key`.

    >>> import jax, jax.numpy as jnp
    >>> from maml_jax.models import dropout, mlp, stochastic
    >>> network = mlp((8, 1))
    >>> def apply(params, x, key=None):
    ...     return network.apply(params, dropout(x, 0.2, key))
    >>> model, x = stochastic(network.init, apply), jnp.ones((5, 3))
    >>> params = model.init(jax.random.key(0), x)
    >>> bool((model.apply(params, x) == network.apply(params, x)).all())
    True
    >>> model.apply_with_key(params, x, jax.random.key(1)).shape
    (5, 1)
    """
    network: Any = model
    if any(kind.__module__.startswith("flax.linen") for kind in type(model).__mro__):
        raise TypeError(
            f"{type(model).__name__} is a flax.linen module, whose random streams have names: "
            'write from_linen(module, rngs=("dropout",))'
        )
    if apply is None:
        require_model(network)
    draw: Callable[..., Any] = network.apply if apply is None else apply
    if not _takes_key(draw):
        raise TypeError(
            "stochastic takes an apply with a key: write apply(params, x, key=None), or give the "
            "network to the learner as it is if nothing in it is random"
        )

    def without_key(params, x, /):
        return draw(params, x, key=None)

    def with_key(params, x, key, /):
        return draw(params, x, key=key)

    return Model(getattr(network, "init", network), without_key, with_key)


def dropout(x: Float[Array, "..."], rate: float, key: Key[Array, ""] | None) -> Float[Array, "..."]:
    r"""Set a share of the inputs to 0, and scale the others so that the mean stays.

    $$\tilde x_i = \frac{m_i}{1 - p}\,x_i, \qquad m_i \sim \mathrm{Bernoulli}(1 - p)$$

    Args:
        x: inputs, of any shape.
        rate: $p$, the share that is dropped, in [0, 1).
        key: decides which; None returns `x` itself.

    Raises:
        ValueError: if `rate` is out of bounds.

    Reference:
        Srivastava, Hinton, Krizhevsky, Sutskever, Salakhutdinov (2014), Dropout: A Simple Way to
        Prevent Neural Networks from Overfitting, Journal of Machine Learning Research 15.
    """
    require_rate(rate)
    if key is None or rate == 0:
        return x
    kept = jax.random.bernoulli(key, 1 - rate, x.shape)
    return jnp.where(kept, x / (1 - rate), 0)


def require_rate(rate: float) -> None:
    """Refuse a share of inputs to drop that leaves none.

    Raises:
        ValueError: naming it.
    """
    if not 0 <= rate < 1:
        raise ValueError(f"a dropout rate is at least 0 and below 1, got {rate}")


def _takes_key(apply: Callable[..., Any]) -> bool:
    try:
        parameters = signature(apply).parameters
    except (TypeError, ValueError):  # some functions in C have none
        return True
    return "key" in parameters or any(
        each.kind is Parameter.VAR_KEYWORD for each in parameters.values()
    )

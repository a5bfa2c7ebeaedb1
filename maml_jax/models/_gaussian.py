"""Lets a network predict a mean and a standard deviation."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from maml_jax.errors import ShapeError
from maml_jax.meta.types import Model, ModelLike, Prediction
from maml_jax.models._apply import change_apply


def gaussian(model: ModelLike, *, smallest_std: float = 1e-3) -> Model:
    r"""Make a model predict a normal distribution, to be trained on its likelihood.

    $$\hat\mu = a, \qquad \hat\sigma = \text{softplus}(b) + \sigma_{min}, \qquad
      (a, b) = \text{outputs of the model}$$

    Args:
        model: any `(init, apply)` pair with an even number of outputs, `[n, 2 k]`: the means, then
            as many raw deviations.
        smallest_std: $\sigma_{min}$, in units of the target; bounds the likelihood of a target that
            is met exactly.

    Returns:
        A `Model` whose `apply` returns a `Prediction` of mean and std, both `[n, k]`, and whose
        `apply_with_key` too, where `model` has one.

    Raises:
        ShapeError: from `apply`, if the number of outputs is odd.
        ValueError: if `smallest_std` is not positive.

    Reference:
        Nix, Weigend (1994), Estimating the mean and variance of the target probability
        distribution, IEEE International Conference on Neural Networks.

    >>> import jax, jax.numpy as jnp
    >>> from maml_jax.models import gaussian, mlp
    >>> model, x = gaussian(mlp((8, 2))), jnp.ones((5, 3))
    >>> prediction = model.apply(model.init(jax.random.key(0), x), x)
    >>> prediction.mean.shape, prediction.std.shape
    ((5, 1), (5, 1))
    """
    if smallest_std <= 0:
        raise ValueError(f"smallest_std must be positive, got {smallest_std}")

    def change(apply: Callable[..., Any]) -> Callable[..., Prediction]:
        return lambda params, x, *key: _predict(apply(params, x, *key), smallest_std)

    return change_apply(model, change)


def _predict(outputs: jax.Array, smallest_std: float) -> Prediction:
    if outputs.shape[-1] % 2:
        raise ShapeError(
            f"a mean and a deviation each need an output, and the model has "
            f"{outputs.shape[-1]}; give its last layer an even width"
        )
    mean, raw = jnp.split(outputs, 2, axis=-1)
    return Prediction(mean, jax.nn.softplus(raw) + smallest_std)

"""Changes both ways of applying a network, with a key and without, in one place."""

from collections.abc import Callable
from typing import Any

from maml_jax.meta.networks import require_model
from maml_jax.meta.types import Model, ModelLike


def change_apply(model: ModelLike, change: Callable[[Callable[..., Any]], Any]) -> Model:
    """Return a network with the same `init` whose `apply`, and `apply_with_key` if any, differ.

    Args:
        model: any `(init, apply)` pair.
        change: makes a function `(params, x, *key)` of one, where `key` is empty or one key.

    Raises:
        TypeError: if `model` is no network.
    """
    require_model(model)
    with_key = getattr(model, "apply_with_key", None)
    return Model(model.init, change(model.apply), None if with_key is None else change(with_key))

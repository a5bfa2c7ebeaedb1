"""First order: gradients of the inner steps are constants."""

from typing import NamedTuple

import jax

from maml_jax.meta.gradients._mode import GradientMode
from maml_jax.meta.inner_loop import descend


def first_order() -> GradientMode:
    r"""Treat the adapted parameters as if they moved one to one with the start: FOMAML.

    $$\nabla_\theta L^{q}(\theta_K) \approx \nabla L^{q}(\theta_K)$$

    (Finn et al., 2017, arXiv:1703.03400, section 5.2; Nichol et al., 2018, arXiv:1803.02999.)
    Learned settings of the optimizer, such as its rates, receive the derivative of the updates, in
    which gradients are constants.
    """
    return _FirstOrder()


class _FirstOrder(NamedTuple):
    differentiates_start = True

    def __call__(self, objective, optimizer, params, context, steps, settings=None, /):
        fixed, context = jax.lax.stop_gradient((params, context))
        adapted, values = descend(
            objective, optimizer, fixed, context, steps, settings, constant_gradients=True
        )
        # A zero that carries the identity as its derivative keeps the value exactly.
        through = jax.tree.map(lambda p, f, a: a + (p - f), params, fixed, adapted)
        return through, values

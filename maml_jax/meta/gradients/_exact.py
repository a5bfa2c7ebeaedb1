"""Exact differentiation: through every inner step."""

import logging
from typing import NamedTuple

from maml_jax.meta.gradients._mode import GradientMode
from maml_jax.meta.gradients._probe import require_differentiable
from maml_jax.meta.inner_loop import UNROLL, Remat, bytes_stored, descend
from maml_jax.parallel.machine import usable_memory

_log = logging.getLogger("maml_jax")


def exact(*, remat: Remat | None = None) -> GradientMode:
    r"""Differentiate through every inner step: the second-order meta-gradient of MAML.

    $$\nabla_\theta L^{q}(\theta_K) = \prod_{k=0}^{K-1}\bigl(I - \alpha H_k\bigr)\,
      \nabla L^{q}(\theta_K)$$

    for SGD, with $H_k$ the Hessian of the support loss at $\theta_k$ (Finn et al., 2017,
    arXiv:1703.03400, section 2.2).

    Args:
        remat: what to compute again on the way back instead of storing it; same numbers, less
            memory for long loops. True: each step's activations, which saves most where support
            sets are large. "nested": whole stretches of steps, which saves most where networks are
            large, for about a third more time. False: nothing. None (default): nothing, or "nested"
            where the steps of a single task would not fit into half of the memory.

    Raises:
        ValueError: if `remat` is none of these.
    """
    if remat not in (None, True, False, "nested"):
        raise ValueError(f'remat is None, True, False or "nested", not {remat!r}')
    return _Exact(remat)


class _Exact(NamedTuple):
    remat: Remat | None

    differentiates_start = True

    def __call__(self, objective, optimizer, params, context, steps, settings=None, /):
        require_differentiable(optimizer, params, settings)
        remat = self.remat
        if remat is None:
            remat = _remat_for(objective, optimizer, params, context, steps, settings)
        return descend(objective, optimizer, params, context, steps, settings, remat=remat)


def _remat_for(objective, optimizer, params, context, steps, settings) -> Remat:
    """Choose nested checkpoints where storing every step of one task takes too much memory."""
    if steps <= UNROLL:
        return False
    stored = steps * bytes_stored(objective, optimizer, params, context, settings)
    if stored <= usable_memory():
        return False
    _log.info("%d inner steps would store %.3g MB a task: nested checkpoints", steps, stored / 1e6)
    return "nested"

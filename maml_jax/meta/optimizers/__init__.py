"""Inner optimizers of which something is meta-learned, as optax transformations."""

from maml_jax.meta.optimizers._bounded import bounded
from maml_jax.meta.optimizers._chain import chain
from maml_jax.meta.optimizers._conditioned_rates import ConditionedSettings, conditioned_rates
from maml_jax.meta.optimizers._curvature import curvature
from maml_jax.meta.optimizers._learned_rates import learned_rates
from maml_jax.meta.optimizers._per_step import per_step
from maml_jax.meta.optimizers._stein import SteinSettings, stein

__all__ = [
    "ConditionedSettings",
    "SteinSettings",
    "bounded",
    "chain",
    "conditioned_rates",
    "curvature",
    "learned_rates",
    "per_step",
    "stein",
]

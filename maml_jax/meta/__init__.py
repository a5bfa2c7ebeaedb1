"""The mechanism, on any pytree of arrays; it knows nothing of markets, pandas or files."""

from maml_jax.meta.evaluation import evaluate, predict_tasks
from maml_jax.meta.gradients.implicit import implicit
from maml_jax.meta.gradients.mixed_mode import mixed_mode
from maml_jax.meta.gradients.modes import GradientMode, exact, first_order
from maml_jax.meta.inner_loop import descend
from maml_jax.meta.losses import cross_entropy, gaussian_nll, huber, mean_squared_error
from maml_jax.meta.optimizers.conditioned_rates import conditioned_rates
from maml_jax.meta.optimizers.learned_rates import LearnedOptimizer, learned_rates
from maml_jax.meta.training import (
    MetaInfo,
    MetaState,
    TrainingProgress,
    fit,
    meta_init,
    meta_step,
    training,
)
from maml_jax.meta.types import Batch, MetaLearner, Model, Prediction, Task

__all__ = [
    "Batch",
    "GradientMode",
    "LearnedOptimizer",
    "MetaInfo",
    "MetaLearner",
    "MetaState",
    "Model",
    "Prediction",
    "Task",
    "TrainingProgress",
    "conditioned_rates",
    "cross_entropy",
    "descend",
    "evaluate",
    "exact",
    "first_order",
    "fit",
    "gaussian_nll",
    "huber",
    "implicit",
    "learned_rates",
    "meta_init",
    "meta_step",
    "mixed_mode",
    "predict_tasks",
    "mean_squared_error",
    "training",
]

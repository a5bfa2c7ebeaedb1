"""The mechanism, on any pytree of arrays; it knows nothing of markets, pandas or files."""

from maml_jax.meta.evaluation import Scores, evaluate, predict_tasks
from maml_jax.meta.gradients import GradientMode, exact, first_order, implicit, mixed_mode
from maml_jax.meta.inner_loop import Objective, descend
from maml_jax.meta.logs import CSVLogger, TensorBoardLogger, progress_record
from maml_jax.meta.losses import cross_entropy, gaussian_nll, huber, mean_squared_error
from maml_jax.meta.metrics import accuracy, crps, nll, r_squared
from maml_jax.meta.optimizers import conditioned_rates, curvature, learned_rates, per_step
from maml_jax.meta.rows import stack_tasks, weights_of
from maml_jax.meta.scan import fit
from maml_jax.meta.steps import MetaInfo, MetaState, meta_init, meta_step
from maml_jax.meta.training import Best, TrainingProgress, training
from maml_jax.meta.types import (
    AdaptationInfo,
    Batch,
    InnerOptimizer,
    LearnedOptimizer,
    LossFn,
    MetaLearner,
    MetaParams,
    Model,
    ModelLike,
    Prediction,
    Task,
)

__all__ = [
    "AdaptationInfo",
    "Batch",
    "Best",
    "CSVLogger",
    "GradientMode",
    "InnerOptimizer",
    "LearnedOptimizer",
    "LossFn",
    "MetaInfo",
    "MetaLearner",
    "MetaParams",
    "MetaState",
    "Model",
    "ModelLike",
    "Objective",
    "Prediction",
    "Scores",
    "Task",
    "TensorBoardLogger",
    "TrainingProgress",
    "accuracy",
    "conditioned_rates",
    "crps",
    "cross_entropy",
    "curvature",
    "descend",
    "evaluate",
    "exact",
    "first_order",
    "fit",
    "gaussian_nll",
    "huber",
    "implicit",
    "learned_rates",
    "mean_squared_error",
    "meta_init",
    "meta_step",
    "mixed_mode",
    "nll",
    "per_step",
    "predict_tasks",
    "progress_record",
    "r_squared",
    "stack_tasks",
    "training",
    "weights_of",
]

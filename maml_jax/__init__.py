"""Meta-learning in JAX for models that adapt from a handful of examples.

Names are imported when they are first used, so that `import maml_jax` takes no time.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from maml_jax import experiment as experiment
    from maml_jax import learners as learners
    from maml_jax import models as models
    from maml_jax import risk as risk
    from maml_jax.errors import GradientError as GradientError
    from maml_jax.errors import MamlJaxError as MamlJaxError
    from maml_jax.errors import ShapeError as ShapeError
    from maml_jax.errors import TaskError as TaskError
    from maml_jax.errors import TrainingError as TrainingError
    from maml_jax.experiment import load as load
    from maml_jax.experiment import run as run
    from maml_jax.learners import *  # noqa: F403
    from maml_jax.meta import *  # noqa: F403

_HOMES = {
    "maml_jax": ("experiment", "learners", "models", "risk"),
    "maml_jax.errors": (
        "GradientError",
        "MamlJaxError",
        "ShapeError",
        "TaskError",
        "TrainingError",
    ),
    "maml_jax.experiment": ("load", "run"),
    "maml_jax.learners": (
        "Level",
        "Parts",
        "alfa",
        "alpaca",
        "anil",
        "bayesian_maml",
        "by_closed_form",
        "by_descent",
        "cavia",
        "direction",
        "double_adapt",
        "ensemble",
        "from_scratch",
        "hierarchical_maml",
        "imaml",
        "joint_training",
        "maml",
        "maml_plus_plus",
        "matching_networks",
        "meta_curvature",
        "meta_sgd",
        "prototypical_networks",
        "reptile",
        "ridge",
        "whole_network",
    ),
    "maml_jax.meta": (
        "AdaptationInfo",
        "Batch",
        "Best",
        "CSVLogger",
        "LearnedOptimizer",
        "MetaInfo",
        "MetaLearner",
        "MetaParams",
        "MetaState",
        "Model",
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
        "predict_tasks",
        "progress_record",
        "r_squared",
        "stack_tasks",
        "training",
        "weights_of",
    ),
}
"""Where each public name is defined."""

_HOME = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [*_HOME]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'maml_jax' has no attribute {name!r}")
    home = _HOME[name]
    value = (
        import_module(f"maml_jax.{name}")
        if home == "maml_jax"
        else getattr(import_module(home), name)
    )
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

"""Settings in, results out: what a notebook and the command line call."""

from maml_jax.experiment.compare.compare import Comparison, compare
from maml_jax.experiment.config.config import Config
from maml_jax.experiment.config.loading import load_config
from maml_jax.experiment.learning.adapt import Adapted, adaptation_table, load_adapted
from maml_jax.experiment.result import Result, load
from maml_jax.experiment.run import backtest, run, train

__all__ = [
    "Adapted",
    "Comparison",
    "Config",
    "Result",
    "adaptation_table",
    "backtest",
    "compare",
    "load",
    "load_adapted",
    "load_config",
    "run",
    "train",
]

"""Adapt and predict bar by bar, from the past alone."""

from maml_jax.backtest.walk_forward.folds import CombinatorialFolds, WalkForwardFolds
from maml_jax.backtest.walk_forward.growing import walk_growing
from maml_jax.backtest.walk_forward.online import Online, OnlineTraining, Updates, walk_online
from maml_jax.backtest.walk_forward.rolling import walk_forward
from maml_jax.backtest.walk_forward.supports import Supports, find_supports

__all__ = [
    "CombinatorialFolds",
    "Online",
    "OnlineTraining",
    "Supports",
    "Updates",
    "WalkForwardFolds",
    "find_supports",
    "walk_forward",
    "walk_growing",
    "walk_online",
]

"""The algorithms: each is one function that returns a `MetaLearner`.

A learner of one's own is made of the same parts: `by_descent` of `Parts`, or `by_closed_form`.
"""

from maml_jax.learners._alfa import alfa
from maml_jax.learners._alpaca import AlpacaParams, Posterior, alpaca
from maml_jax.learners._anil import anil
from maml_jax.learners._baselines import from_scratch, joint_training
from maml_jax.learners._bayesian_maml import BayesianParams, bayesian_maml
from maml_jax.learners._cavia import InContext, cavia
from maml_jax.learners._descent import Parts, by_descent, whole_network
from maml_jax.learners._direction import CLASSES, direction
from maml_jax.learners._double_adapt import DoublyAdapted, double_adapt
from maml_jax.learners._ensemble import EnsembleParams, ensemble
from maml_jax.learners._heads import by_closed_form
from maml_jax.learners._hierarchical_maml import Level, hierarchical_maml
from maml_jax.learners._imaml import imaml
from maml_jax.learners._maml import maml
from maml_jax.learners._maml_plus_plus import maml_plus_plus
from maml_jax.learners._matching_networks import MatchingParams, matching_networks
from maml_jax.learners._meta_curvature import meta_curvature
from maml_jax.learners._meta_sgd import meta_sgd
from maml_jax.learners._prototypical_networks import Prototypes, prototypical_networks
from maml_jax.learners._reptile import reptile
from maml_jax.learners._ridge import RidgeHead, RidgeParams, ridge

__all__ = [
    "CLASSES",
    "AlpacaParams",
    "BayesianParams",
    "DoublyAdapted",
    "EnsembleParams",
    "InContext",
    "Level",
    "MatchingParams",
    "Parts",
    "Posterior",
    "Prototypes",
    "RidgeHead",
    "RidgeParams",
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
]

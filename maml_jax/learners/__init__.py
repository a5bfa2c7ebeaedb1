"""The algorithms: each is one function that returns a `MetaLearner`."""

from maml_jax.learners._alfa import alfa
from maml_jax.learners._alpaca import alpaca
from maml_jax.learners._anil import anil
from maml_jax.learners._baselines import from_scratch, joint_training
from maml_jax.learners._bayesian import bayesian_maml
from maml_jax.learners._cavia import cavia
from maml_jax.learners._descent import AdaptationInfo, MetaParams
from maml_jax.learners._direction import direction
from maml_jax.learners._double_adapt import double_adapt
from maml_jax.learners._ensemble import ensemble
from maml_jax.learners._hierarchical_maml import Level, hierarchical_maml
from maml_jax.learners._imaml import imaml
from maml_jax.learners._maml import maml
from maml_jax.learners._maml_plus_plus import maml_plus_plus
from maml_jax.learners._matching_networks import matching_networks
from maml_jax.learners._meta_curvature import meta_curvature
from maml_jax.learners._meta_sgd import meta_sgd
from maml_jax.learners._prototypical_networks import prototypical_networks
from maml_jax.learners._reptile import reptile
from maml_jax.learners._ridge import ridge

__all__ = [
    "AdaptationInfo",
    "Level",
    "MetaParams",
    "alfa",
    "alpaca",
    "anil",
    "bayesian_maml",
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
]

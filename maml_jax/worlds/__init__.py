"""Simulated tasks of which the truth is known."""

from maml_jax.worlds.hierarchy import Hierarchy, hierarchy_sampler
from maml_jax.worlds.known_answer import World, known_answer_sampler
from maml_jax.worlds.sinusoid import sinusoid_grid_sampler, sinusoid_sampler
from maml_jax.worlds.switching import SwitchingWorld, switching_panel

__all__ = [
    "Hierarchy",
    "SwitchingWorld",
    "World",
    "hierarchy_sampler",
    "known_answer_sampler",
    "sinusoid_grid_sampler",
    "sinusoid_sampler",
    "switching_panel",
]

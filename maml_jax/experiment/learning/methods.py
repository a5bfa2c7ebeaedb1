"""The methods that settings can name, and the learners that they stand for."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from maml_jax.errors import ConfigError
from maml_jax.experiment.config.learning import LearnerConfig, ModelConfig
from maml_jax.learners import (
    alfa,
    alpaca,
    anil,
    bayesian_maml,
    cavia,
    direction,
    double_adapt,
    ensemble,
    hierarchical_maml,
    imaml,
    joint_training,
    maml,
    maml_plus_plus,
    matching_networks,
    meta_curvature,
    meta_sgd,
    prototypical_networks,
    reptile,
    ridge,
)
from maml_jax.learners._anil import INITIAL_RATE as ANIL_RATE
from maml_jax.learners._baselines import SCRATCH_STEPS
from maml_jax.learners._bayesian import INNER_LEARNING_RATE as PARTICLE_RATE
from maml_jax.learners._cavia import INNER_LEARNING_RATE as CAVIA_RATE
from maml_jax.learners._descent import INNER_STEPS
from maml_jax.learners._direction import CLASSES
from maml_jax.learners._double_adapt import INNER_LEARNING_RATE as DOUBLE_RATE
from maml_jax.learners._hierarchical_maml import INITIAL_RATE as LEVEL_RATE
from maml_jax.learners._hierarchical_maml import Level
from maml_jax.learners._imaml import INNER_LEARNING_RATE as IMAML_RATE
from maml_jax.learners._imaml import INNER_STEPS as IMAML_STEPS
from maml_jax.learners._maml import INNER_LEARNING_RATE as MAML_RATE
from maml_jax.learners._reptile import INNER_LEARNING_RATE as REPTILE_RATE
from maml_jax.meta import (
    GradientMode,
    MetaLearner,
    Model,
    exact,
    first_order,
    gaussian_nll,
    learned_rates,
)
from maml_jax.models import gaussian, gru, in_precision, mlp, temporal_convolution, transformer

ACTIVATIONS: dict[str, Callable] = {
    "tanh": jnp.tanh,
    "gelu": jax.nn.gelu,
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
    "softplus": jax.nn.softplus,
}

_MOMENTUM = 0.9

GAUSSIAN_RATE = 2 * MAML_RATE
"""The likelihood of a deviation of 1 is as steep as half the squared error."""

_SPEED = 10.0

LEVELS = (0.5, 0.25, 0.25)
"""Shares of a support set that the levels of `hierarchical_maml` adapt on, in its order. Of mixed
rows: all assets; the asset itself; its latest rows. Of its own: older, newer, latest rows."""


class Method(NamedTuple):
    """How settings become a learner.

    Attributes:
        make: takes what makes the network with so many outputs, and the settings.
        takes_steps: whether it adapts by steps, of which there may be none.
        usual_steps: how many it takes where nothing else is said.
    """

    make: Callable[[Callable[[int], Model], LearnerConfig], MetaLearner]
    takes_steps: bool = True
    usual_steps: int = INNER_STEPS


def network(settings: ModelConfig, outputs: int = 1) -> Model:
    """Return the network that the settings describe, with so many outputs."""
    hidden, activation = settings.hidden, ACTIVATIONS[settings.activation]
    if settings.kind == "gru":
        model = gru(hidden, outputs)
    elif settings.kind == "temporal_convolution":
        model = temporal_convolution(hidden, outputs=outputs, activation=activation)
    elif settings.kind == "transformer":
        model = transformer(hidden[0], layers=len(hidden), outputs=outputs, activation=activation)
    else:
        model = mlp((*hidden, outputs), activation=activation)
    return in_precision(model, settings.precision)


def learner_of(model: ModelConfig, settings: LearnerConfig, method: str) -> MetaLearner:
    """Make the learner of a method.

    Raises:
        ConfigError: if the method cannot be made with these settings.
    """
    try:
        return METHODS[method].make(lambda outputs: network(model, outputs), settings)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"section 'learner', method {method}: {error}") from error


def _given(**arguments) -> dict:
    """Return the arguments that the settings name; the others stay at the learner's defaults."""
    return {key: value for key, value in arguments.items() if value is not None}


def _descent(settings: LearnerConfig, usual_rate: float, usual_kind: str = "sgd") -> dict:
    """Return the arguments of an inner loop; what the settings leave open is as usual."""
    optimizer = None
    if settings.inner_optimizer is not None or settings.inner_learning_rate is not None:
        kind = settings.inner_optimizer or usual_kind
        rate = settings.inner_learning_rate or usual_rate
        if kind == "learned":
            optimizer = learned_rates(rate)
        elif kind == "adam":
            optimizer = optax.adam(rate, eps_root=1e-8)
        else:
            optimizer = optax.sgd(rate, momentum=_MOMENTUM if kind == "momentum" else None)
    return _given(inner_optimizer=optimizer, inner_steps=settings.inner_steps)


def _rated(settings: LearnerConfig, name: str) -> dict:
    """Return the arguments of an inner loop whose learner makes the optimizer from a rate."""
    return _given(
        **{name: settings.inner_learning_rate, "inner_steps": settings.inner_steps},
        gradient=_exact(settings),
    )


def _exact(settings: LearnerConfig) -> GradientMode:
    return exact(remat=None if settings.remat == "auto" else settings.remat)


def _gaussian(network: Callable[[int], Model], settings: LearnerConfig) -> MetaLearner:
    """Make MAML whose network predicts a deviation beside the mean."""
    return maml(
        gaussian(network(2)),
        loss=gaussian_nll,
        gradient=_exact(settings),
        **{"inner_optimizer": optax.sgd(GAUSSIAN_RATE), **_descent(settings, GAUSSIAN_RATE)},
    )


def _levels(network: Callable[[int], Model], settings: LearnerConfig) -> MetaLearner:
    """Make a hierarchy of levels that all adapt as the settings say.

    Rates are learned fast, so that a level that says nothing is left out.
    """
    inner = _descent(settings, LEVEL_RATE, "learned")
    fast = learned_rates(settings.inner_learning_rate or LEVEL_RATE, speed=_SPEED)
    learned = settings.inner_optimizer in (None, "learned")
    optimizer = fast if learned else inner["inner_optimizer"]
    level = Level(inner.get("inner_steps", INNER_STEPS), optimizer)
    return hierarchical_maml(
        network(1),
        levels=[level] * len(LEVELS),
        rows=LEVELS,
        nested=True,
        gradient=_exact(settings),
    )


def _classifier(make: Callable[..., MetaLearner]) -> Method:
    """Let a classifier learn the direction of returns."""
    return Method(
        lambda network, s: direction(make(network(s.features), classes=len(CLASSES))), False
    )


METHODS: dict[str, Method] = {
    "maml": Method(
        lambda network, s: maml(network(1), gradient=_exact(s), **_descent(s, MAML_RATE))
    ),
    "fomaml": Method(
        lambda network, s: maml(network(1), gradient=first_order(), **_descent(s, MAML_RATE))
    ),
    "reptile": Method(lambda network, s: reptile(network(1), **_descent(s, REPTILE_RATE))),
    "anil": Method(
        lambda network, s: anil(network(1), gradient=_exact(s), **_descent(s, ANIL_RATE, "learned"))
    ),
    "meta_sgd": Method(lambda network, s: meta_sgd(network(1), **_rated(s, "initial_rate"))),
    "maml_plus_plus": Method(
        lambda network, s: maml_plus_plus(network(1), **_rated(s, "initial_rate"))
    ),
    "cavia": Method(
        lambda network, s: cavia(network(1), gradient=_exact(s), **_descent(s, CAVIA_RATE))
    ),
    "imaml": Method(
        lambda network, s: imaml(network(1), **_descent(s, IMAML_RATE)), usual_steps=IMAML_STEPS
    ),
    "meta_curvature": Method(
        lambda network, s: meta_curvature(network(1), **_rated(s, "inner_learning_rate"))
    ),
    "ridge": Method(lambda network, s: ridge(network(s.features)), False),
    "alpaca": Method(lambda network, s: alpaca(network(s.features)), False),
    "matching_networks": Method(lambda network, s: matching_networks(network(s.features)), False),
    "matching_networks_direction": _classifier(matching_networks),
    "prototypical_networks": _classifier(prototypical_networks),
    "joint_training": Method(
        lambda network, s: joint_training(network(1)), usual_steps=SCRATCH_STEPS
    ),
    "alfa": Method(lambda network, s: alfa(network(1), **_rated(s, "initial_rate"))),
    "double_adapt": Method(
        lambda network, s: double_adapt(network(1), gradient=_exact(s), **_descent(s, DOUBLE_RATE))
    ),
    "hierarchical_maml": Method(_levels),
    "bayesian_maml": Method(
        lambda network, s: bayesian_maml(
            network(1), particles=s.members, gradient=_exact(s), **_descent(s, PARTICLE_RATE)
        )
    ),
    "gaussian_maml": Method(_gaussian),
    "ensemble": Method(lambda network, s: ensemble(_gaussian(network, s), s.members)),
}
"""Methods by their names in settings, the names of their functions where there is one."""

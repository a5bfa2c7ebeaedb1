"""The methods that settings can name, and the learners that they stand for."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax

from maml_jax.errors import ConfigError
from maml_jax.experiment.config.learning import LearnerConfig, ModelConfig
from maml_jax.learners import (
    CLASSES,
    Level,
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
from maml_jax.meta import (
    GradientMode,
    InnerOptimizer,
    MetaLearner,
    Model,
    conditioned_rates,
    curvature,
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

_STEPS = 5

_LEVEL_SPEED = 10.0

_SMALLEST_STD = 0.05
"""In units of the scaled target. With a bound of 1 on the inner gradient it gave the least query
loss among pairs of four deviations and three bounds with no loss above 100, on the training spans
of us20 and of hourly coins and on simulated crashes, pegged prices and coarse ticks."""

LEVELS = (0.5, 0.25, 0.25)
"""Shares of a support set that the levels of `hierarchical_maml` adapt on, in its order. Of mixed
rows: all assets; the asset itself; its latest rows. Of its own: older, newer, latest rows."""

Network: TypeAlias = Callable[[int], Model]
"""Makes the network with so many outputs."""


class Method(NamedTuple):
    """How settings become a learner.

    Attributes:
        make: `(network, settings) -> learner`.
        takes_steps: whether it adapts by steps, of which there may be none.
        usual_steps: how many it takes where the settings name no number.
    """

    make: Callable[[Network, LearnerConfig], MetaLearner]
    takes_steps: bool = True
    usual_steps: int = _STEPS


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
        return METHODS[method].make(partial(network, model), settings)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"section 'learner', method {method}: {error}") from error


def _inner(rate: float, settings: LearnerConfig, *, kind: str = "sgd", steps: int = _STEPS) -> dict:
    """Return the arguments of an inner loop: those of the settings, else these."""
    return {
        "inner_optimizer": _optimizer(
            settings.inner_optimizer or kind, settings.inner_learning_rate or rate
        ),
        "inner_steps": _steps(settings, steps),
    }


def _optimizer(kind: str, rate: float) -> InnerOptimizer:
    if kind == "learned":
        return learned_rates(rate)
    if kind == "adam":
        return optax.adam(rate, eps_root=1e-8)
    return optax.sgd(rate, momentum=_MOMENTUM if kind == "momentum" else None)


def _learned(make: Callable[[float], InnerOptimizer], settings: LearnerConfig) -> dict:
    """Return the arguments of an inner loop whose optimizer the method itself chooses."""
    return {
        "inner_optimizer": make(settings.inner_learning_rate or 0.005),
        "inner_steps": _steps(settings),
        "gradient": _exact(settings),
    }


def _steps(settings: LearnerConfig, usual: int = _STEPS) -> int:
    return usual if settings.inner_steps is None else settings.inner_steps


def _exact(settings: LearnerConfig) -> GradientMode:
    return exact(remat=None if settings.remat == "auto" else settings.remat)


def _meta_sgd(network: Network, settings: LearnerConfig) -> MetaLearner:
    make = partial(learned_rates, per="entry")
    return meta_sgd(network(1), **_learned(make, settings))


def _alfa(network: Network, settings: LearnerConfig) -> MetaLearner:
    make = partial(conditioned_rates, steps=_steps(settings))
    return alfa(network(1), **_learned(make, settings))


def _gaussian(network: Network, settings: LearnerConfig) -> MetaLearner:
    """Make MAML whose network predicts a deviation beside the mean.

    The likelihood at a deviation of 1 is as steep as half the squared error, hence twice the rate.
    """
    return maml(
        gaussian(network(2), smallest_std=_SMALLEST_STD),
        loss=gaussian_nll,
        gradient=_exact(settings),
        **_inner(2 * 0.005, settings),
    )


def _levels(network: Network, settings: LearnerConfig) -> MetaLearner:
    """Make a hierarchy of levels that all adapt as the settings say.

    Rates are learned fast, so that a level that is of no use is left out.
    """
    inner = _inner(0.005, settings, kind="learned")
    if settings.inner_optimizer in (None, "learned"):
        rate = settings.inner_learning_rate or 0.005
        inner["inner_optimizer"] = learned_rates(rate, speed=_LEVEL_SPEED)
    return hierarchical_maml(
        network(1),
        levels=[Level(**inner)] * len(LEVELS),
        rows=LEVELS,
        nested=True,
        by_place=True,
        gradient=_exact(settings),
    )


def _classifier(make: Callable[..., MetaLearner]) -> Method:
    """Let a classifier learn the direction of returns."""
    return Method(
        lambda network, s: direction(make(network(s.features), classes=len(CLASSES))), False
    )


METHODS: dict[str, Method] = {
    "maml": Method(lambda network, s: maml(network(1), gradient=_exact(s), **_inner(0.005, s))),
    "fomaml": Method(
        lambda network, s: maml(network(1), gradient=first_order(), **_inner(0.005, s))
    ),
    "reptile": Method(lambda network, s: reptile(network(1), **_inner(0.005, s))),
    "anil": Method(
        lambda network, s: anil(network(1), gradient=_exact(s), **_inner(0.01, s, kind="learned"))
    ),
    "meta_sgd": Method(_meta_sgd),
    "maml_plus_plus": Method(
        lambda network, s: maml_plus_plus(network(1), **_learned(learned_rates, s))
    ),
    "cavia": Method(lambda network, s: cavia(network(1), gradient=_exact(s), **_inner(0.3, s))),
    "imaml": Method(
        lambda network, s: imaml(network(1), **_inner(0.01, s, steps=10)), usual_steps=10
    ),
    "meta_curvature": Method(
        lambda network, s: meta_curvature(network(1), **_learned(curvature, s))
    ),
    "ridge": Method(lambda network, s: ridge(network(s.features)), False),
    "alpaca": Method(lambda network, s: alpaca(network(s.features)), False),
    "matching_networks": Method(lambda network, s: matching_networks(network(s.features)), False),
    "matching_networks_direction": _classifier(matching_networks),
    "prototypical_networks": _classifier(prototypical_networks),
    "joint_training": Method(lambda network, s: joint_training(network(1)), usual_steps=20),
    "alfa": Method(_alfa),
    "double_adapt": Method(
        lambda network, s: double_adapt(network(1), gradient=_exact(s), **_inner(0.005, s))
    ),
    "hierarchical_maml": Method(_levels),
    "bayesian_maml": Method(
        lambda network, s: bayesian_maml(
            network(1), particles=s.members, gradient=_exact(s), **_inner(0.1, s)
        )
    ),
    "gaussian_maml": Method(_gaussian),
    "ensemble": Method(lambda network, s: ensemble(_gaussian(network, s), s.members)),
}
"""Methods by their names in settings, the names of their functions where there is one.

Rates and steps are this project's choice for rows as noisy as those of markets.
"""

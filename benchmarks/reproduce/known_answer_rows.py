"""The tables of the market with a known answer: which learners, in which worlds."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from maml_jax.learners import (
    alpaca,
    anil,
    cavia,
    direction,
    from_scratch,
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
from maml_jax.meta import MetaLearner, Model, first_order
from maml_jax.models import mlp
from maml_jax.worlds.known_answer import World

Network = Callable[[int], Model]
"""Makes the network of a row, 64-64 and so many outputs."""

Part = Literal["learners", "activations", "worlds"]

ACTIVATIONS = {"tanh": jnp.tanh, "gelu": jax.nn.gelu, "silu": jax.nn.silu, "relu": jax.nn.relu}
NOISY = 0.1
"""The signal-to-noise ratio of the parts that do not vary it."""


class Column(NamedTuple):
    """One column of a part: where tasks come from, and with which activation they are learned."""

    label: str
    world: World
    activation: str = "tanh"


PARTS: dict[Part, tuple[Column, ...]] = {
    "learners": tuple(Column(f"SNR {snr:g}", World(snr)) for snr in (1.0, 0.1, 0.02)),
    "activations": tuple(Column(name, World(NOISY), name) for name in ACTIVATIONS),
    "worlds": (
        Column("tanh", World(NOISY)),
        Column("softsign", World(NOISY, link="softsign")),
        Column("quadratic", World(NOISY, link="quadratic")),
        # An even link, of which a tanh network without biases sees nothing where it begins.
        Column("quadratic, gelu", World(NOISY, link="quadratic"), "gelu"),
        Column("step", World(NOISY, link="step")),
        Column("Student noise", World(NOISY, noise="student_t")),
        Column("drift 0.95", World(NOISY, drift=0.95)),
    ),
}
"""The worlds of each part; where two parts have one in common it is trained once."""


def cosine(steps: int) -> optax.GradientTransformation:
    """Make Adam whose rate falls from 1e-3 to a hundredth of it along a cosine."""
    return optax.adam(optax.cosine_decay_schedule(1e-3, steps, alpha=0.01))


def _steps() -> dict[float, int]:
    return {1.0: 2_000, 0.1: 4_000, 0.02: 4_000}


@dataclass(frozen=True)
class KnownAnswerRow:
    """One learner, at its default settings.

    What a result depends on and is not a function takes part in finding it again; so a change of
    `learner` or `optimizer` belongs into `details` or `outer` as well.

    Attributes:
        key: its name on the command line.
        name: its name in tables.
        learner: makes it from what makes its network.
        steps: meta-steps at each signal-to-noise ratio.
        parts: the tables that it stands in.
        meta_batch: tasks of a meta-step.
        details: what else is worth knowing of the learner.
        outer: the outer optimizer, as shown.
        optimizer: makes it for a number of meta-steps.
        max_grad_norm: bound on the norm of the meta-gradient.
        seeds: how many trainings.
    """

    key: str
    name: str
    learner: Callable[[Network], MetaLearner]
    steps: Mapping[float, int] = field(default_factory=_steps)
    parts: tuple[Part, ...] = ("learners",)
    meta_batch: int = 64
    details: str = "the defaults"
    outer: str = "Adam 1e-3, cosine to 1e-5"
    optimizer: Callable[[int], optax.GradientTransformation] = cosine
    max_grad_norm: float | None = 1.0
    seeds: int = 3


def network(activation: str) -> Network:
    """Return what makes a network with an activation of `ACTIVATIONS`."""
    return lambda outputs: mlp((64, 64, outputs), activation=ACTIVATIONS[activation])


ALL_PARTS: tuple[Part, ...] = ("learners", "activations", "worlds")
FEATURES = 16
"""Outputs of a feature network under a head in closed form, or of an embedding."""

DIRECTIONS = 3
"""Classes of a return: down, flat, up."""

SHORT = {1.0: 1_000, 0.1: 1_000, 0.02: 1_000}
"""For learners whose meta-steps take long, or that have nothing to gain from more."""

SHORTEST = {1.0: 600, 0.1: 600, 0.02: 600}
"""For learners whose meta-steps take longest."""

ROWS = (
    KnownAnswerRow(
        "maml", "MAML", lambda network: maml(network(1)), parts=("learners", "activations")
    ),
    KnownAnswerRow(
        "fomaml",
        "FOMAML",
        lambda network: maml(network(1), gradient=first_order()),
        parts=("learners", "worlds"),
    ),
    KnownAnswerRow("anil", "ANIL", lambda network: anil(network(1)), parts=ALL_PARTS),
    KnownAnswerRow("meta-sgd", "Meta-SGD", lambda network: meta_sgd(network(1))),
    KnownAnswerRow(
        "alpaca",
        "Bayesian head",
        lambda network: alpaca(network(FEATURES)),
        parts=ALL_PARTS,
    ),
    KnownAnswerRow("ridge", "ridge head", lambda network: ridge(network(FEATURES))),
    KnownAnswerRow("maml++", "MAML++", lambda network: maml_plus_plus(network(1)), steps=SHORTEST),
    KnownAnswerRow("imaml", "iMAML", lambda network: imaml(network(1)), steps=SHORTEST),
    KnownAnswerRow(
        "meta-curvature",
        "Meta-Curvature",
        lambda network: meta_curvature(network(1)),
        steps=SHORTEST,
    ),
    KnownAnswerRow("reptile", "Reptile", lambda network: reptile(network(1))),
    KnownAnswerRow("cavia", "CAVIA", lambda network: cavia(network(1)), steps=SHORT),
    KnownAnswerRow(
        "matching",
        "Matching, regression",
        lambda network: matching_networks(network(FEATURES)),
    ),
    KnownAnswerRow(
        "matching-direction",
        "Matching, direction",
        lambda network: direction(matching_networks(network(FEATURES), classes=DIRECTIONS)),
    ),
    KnownAnswerRow(
        "prototypes",
        "Prototypes, direction",
        lambda network: direction(prototypical_networks(network(FEATURES), classes=DIRECTIONS)),
    ),
    KnownAnswerRow(
        "joint", "joint training", lambda network: joint_training(network(1)), steps=SHORT
    ),
    KnownAnswerRow(
        "joint-tuned",
        "joint training, fine-tuned",
        lambda network: joint_training(network(1), inner_steps=5),
        steps=SHORT,
    ),
    KnownAnswerRow(
        "scratch",
        "from scratch",
        lambda network: from_scratch(network(1)),
        steps={1.0: 1, 0.1: 1, 0.02: 1},
        details="the defaults; not meta-trained",
    ),
)
"""In the order in which they are shown; each learner with its default settings."""

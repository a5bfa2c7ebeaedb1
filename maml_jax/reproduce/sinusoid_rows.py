"""The table of sinusoid regression: which learner, under which protocol, next to which figure."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import jax
import optax

from maml_jax.learners import maml
from maml_jax.meta import MetaLearner, Model, first_order
from maml_jax.models import mlp


@dataclass(frozen=True)
class Reference:
    """A figure of the same quantity from elsewhere.

    Attributes:
        steps: adaptation steps that it belongs to; None for a learner that takes none.
        figure: mean squared error, as its source prints it.
        source: who found it.
    """

    steps: int | None
    figure: str
    source: str


@dataclass(frozen=True)
class SinusoidRow:
    """One learner and its protocol.

    What a result depends on and is not a function takes part in finding it again; so a change of
    `learner` or `optimizer` belongs into `details` or `outer` as well.

    Attributes:
        key: its name on the command line.
        name: its name in tables.
        learner: makes it.
        inner_lr: the inner learning rate, as shown.
        meta_steps: meta-steps of the training.
        meta_batch: tasks of a meta-step.
        shots: support examples, in training and test.
        query: query examples in training; None for as many as `shots`.
        amplitude: bounds of the amplitude.
        phase: bounds of the phase, in radians.
        form: `uniform` draws training inputs at random; `grid` lets the support set in training be
            50 equally spaced points, as Reptile has it. Test inputs are random always.
        details: what else is worth knowing of the learner: its network, its inner loop.
        outer: the outer optimizer, as shown.
        optimizer: makes it for a number of meta-steps.
        max_grad_norm: bound on the norm of the meta-gradient; None for none, as in the literature.
        seeds: how many trainings.
        evaluated: numbers of adaptation steps to test; None asks a learner that takes no steps.
        references: figures from elsewhere.
    """

    key: str
    name: str
    learner: Callable[[], MetaLearner]
    inner_lr: str
    meta_steps: int = 70_000
    meta_batch: int = 25
    shots: int = 10
    query: int | None = None
    amplitude: tuple[float, float] = (0.1, 5.0)
    phase: tuple[float, float] = (0.0, math.pi)
    form: Literal["uniform", "grid"] = "uniform"
    details: str = "1-40-40-1 ReLU, truncated normal 0.01; 1 inner step"
    outer: str = "Adam 1e-3"
    optimizer: Callable[[int], optax.GradientTransformation] = lambda steps: optax.adam(1e-3)
    max_grad_norm: float | None = None
    seeds: int = 3
    evaluated: tuple[int | None, ...] = (0, 1, 2, 5, 10)
    references: tuple[Reference, ...] = ()


def network(*, outputs: int = 1) -> Model:
    """Make the network of the literature: 40-40 ReLU, small weights, zero biases."""
    model = mlp((40, 40, outputs), activation=jax.nn.relu)
    draw = jax.nn.initializers.truncated_normal(0.01)

    def init(key, x, /):
        leaves, structure = jax.tree.flatten(model.init(key, x))
        keys = jax.random.split(key, len(leaves))
        weights = [
            draw(k, leaf.shape, leaf.dtype) if leaf.ndim == 2 else leaf
            for k, leaf in zip(keys, leaves, strict=True)
        ]
        return jax.tree.unflatten(structure, weights)

    return Model(init, model.apply)


CHECK = "independent run, one seed"

ROWS = (
    SinusoidRow(
        key="maml-0.01",
        name="MAML",
        learner=lambda: maml(network(), inner_optimizer=optax.sgd(0.01), inner_steps=1),
        inner_lr="0.01",
        references=(
            Reference(
                1, "0.435 ± 0.039", "Park and Oliva (2019), arXiv:1902.03356, table 1, second-hand"
            ),
        ),
    ),
    SinusoidRow(
        key="maml-0.001",
        name="MAML",
        learner=lambda: maml(network(), inner_optimizer=optax.sgd(0.001), inner_steps=1),
        inner_lr="0.001",
        references=(
            Reference(1, "0.587", CHECK),
            Reference(2, "0.384", CHECK),
            Reference(5, "0.244", CHECK),
            Reference(10, "0.202", CHECK),
        ),
    ),
    SinusoidRow(
        key="fomaml",
        name="FOMAML",
        learner=lambda: maml(
            network(), inner_optimizer=optax.sgd(0.01), inner_steps=1, gradient=first_order()
        ),
        inner_lr="0.01",
        references=(
            Reference(1, "0.625", CHECK),
            Reference(2, "0.352", CHECK),
            Reference(5, "0.261", CHECK),
            Reference(10, "0.193", CHECK),
        ),
    ),
)

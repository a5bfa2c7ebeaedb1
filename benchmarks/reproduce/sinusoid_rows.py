"""The table of sinusoid regression: which learner, under which protocol, next to which figure."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import jax
import optax

from maml_jax.learners import (
    alpaca,
    anil,
    cavia,
    from_scratch,
    imaml,
    joint_training,
    maml,
    maml_plus_plus,
    matching_networks,
    meta_curvature,
    meta_sgd,
    reptile,
    ridge,
)
from maml_jax.meta import MetaLearner, Model, curvature, first_order, learned_rates
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


NAMES_IN_FILES = {"0.01, transformed": "0.01, bent"}
"""What results are found by, where it is another word."""


def network(*, outputs: int = 1) -> Model:
    """Make the network of the literature: 40-40 ReLU, small weights, zero biases."""
    draw = jax.nn.initializers.truncated_normal(0.01)
    return mlp((40, 40, outputs), activation=jax.nn.relu, kernel_init=draw)


def usual_network(*, outputs: int = 1) -> Model:
    """Make the same with weights of the usual size (LeCun)."""
    return mlp((40, 40, outputs), activation=jax.nn.relu)


def smooth_network(*, outputs: int = 1) -> Model:
    """Make the same with tanh, for heads in closed form."""
    return mlp((40, 40, outputs))


def cosine(steps: int) -> optax.GradientTransformation:
    """Make Adam whose rate falls from 1e-3 to a hundredth of it along a cosine."""
    return optax.adam(optax.cosine_decay_schedule(1e-3, steps, alpha=0.01))


def falling(steps: int) -> optax.GradientTransformation:
    """Make Reptile's outer step: 0.1, falling to 0 along a line."""
    return optax.sgd(optax.linear_schedule(0.1, 0.0, steps))


CHECK = "independent run, one seed"
USUAL = "1-40-40-1 ReLU"
FULL, SHORT = 70_000, 15_000
WHOLE_TURN = (0.0, 2 * math.pi)

ROWS = (
    SinusoidRow(
        key="maml-0.01",
        name="MAML",
        learner=lambda: maml(network(), inner_optimizer=optax.sgd(0.01), inner_steps=1),
        inner_lr="0.01",
        references=(
            Reference(1, "0.458 ± 0.022", CHECK),
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
        references=tuple(
            Reference(steps, figure, CHECK)
            for steps, figure in ((1, "0.587"), (2, "0.384"), (5, "0.244"), (10, "0.202"))
        ),
    ),
    SinusoidRow(
        key="fomaml",
        name="FOMAML",
        learner=lambda: maml(
            network(), inner_optimizer=optax.sgd(0.01), inner_steps=1, gradient=first_order()
        ),
        inner_lr="0.01",
        references=tuple(
            Reference(steps, figure, CHECK)
            for steps, figure in ((1, "0.625"), (2, "0.352"), (5, "0.261"), (10, "0.193"))
        ),
    ),
    *(
        SinusoidRow(
            key=f"meta-sgd-{shots}",
            name="Meta-SGD",
            learner=lambda: meta_sgd(
                network(),
                inner_optimizer=learned_rates((0.005, 0.1), per="entry", positive=False),
                inner_steps=1,
            ),
            inner_lr="learned",
            meta_steps=60_000,
            meta_batch=4,
            shots=shots,
            details="1-40-40-1 ReLU, truncated normal 0.01; rates from U[0.005, 0.1]; 1 inner step",
            references=(
                Reference(1, ran, CHECK),
                Reference(1, printed, "Li et al. (2017), arXiv:1707.09835, table 1, second-hand"),
            ),
        )
        for shots, ran, printed in (
            (5, "0.485 ± 0.029", "0.482 ± 0.061"),
            (10, "0.258 ± 0.016", "0.258 ± 0.026"),
        )
    ),
    *(
        SinusoidRow(
            key=f"cavia-{size}",
            name=f"CAVIA, {size}",
            learner=lambda size=size: cavia(
                usual_network(),
                context=size,
                start=0.0,
                inner_optimizer=optax.sgd(1.0),
                inner_steps=1,
            ),
            inner_lr="1.0",
            meta_steps=50_000,
            details=f"(1+{size})-40-40-1 ReLU; {size} context parameters; 1 inner step",
            references=(
                Reference(1, ran, CHECK),
                Reference(
                    1, printed, "Zintgraf et al. (2019), arXiv:1810.03642, table 1, second-hand"
                ),
            ),
        )
        for size, ran, printed in ((2, "0.222", "0.21"), (5, "0.192", "0.19"))
    ),
    SinusoidRow(
        key="reptile",
        name="Reptile, serial",
        learner=lambda: reptile(
            mlp((64, 64, 1)), inner_optimizer=optax.sgd(0.02), inner_steps=5, batch_size=10
        ),
        inner_lr="0.02",
        meta_steps=30_000,
        meta_batch=1,
        phase=WHOLE_TURN,
        form="grid",
        details="1-64-64-1 tanh; trained on 50 points in 5 minibatches of 10",
        outer="step 0.1, linear to 0",
        optimizer=falling,
        seeds=1,
        evaluated=(0, 1, 2, 5, 10, 32),
    ),
    SinusoidRow(
        key="anil",
        name="ANIL",
        learner=lambda: anil(smooth_network(), inner_optimizer=learned_rates(0.02)),
        inner_lr="learned",
        meta_steps=SHORT,
        details="1-40-40-1 tanh; 5 inner steps of the last layer",
        max_grad_norm=1.0,
        seeds=1,
    ),
    SinusoidRow(
        key="maml++",
        name="MAML++",
        learner=lambda: maml_plus_plus(
            usual_network(),
            inner_optimizer=learned_rates(0.01),
            multi_step_until=3_000,
            second_order_from=1_000,
        ),
        inner_lr="learned",
        meta_steps=SHORT,
        details=f"{USUAL}; 5 inner steps; multi-step loss to 3,000, first order to 1,000",
        outer="Adam 1e-3, cosine to 1e-5",
        optimizer=cosine,
        seeds=1,
    ),
    SinusoidRow(
        key="imaml",
        name="iMAML",
        learner=lambda: imaml(
            smooth_network(), proximal=0.5, inner_optimizer=optax.sgd(0.02), inner_steps=32
        ),
        inner_lr="0.02",
        meta_steps=SHORT,
        details="1-40-40-1 tanh; proximal 0.5, 32 inner steps, 5 conjugate gradients",
        max_grad_norm=1.0,
        seeds=1,
        evaluated=(0, 1, 2, 5, 10, 32),
    ),
    SinusoidRow(
        key="meta-curvature",
        name="Meta-Curvature",
        learner=lambda: meta_curvature(
            usual_network(), inner_optimizer=curvature(0.01), inner_steps=1
        ),
        inner_lr="0.01, transformed",
        meta_steps=SHORT,
        details=f"{USUAL}; 1 inner step",
        seeds=1,
    ),
    SinusoidRow(
        key="maml-rates",
        name="MAML, learned rates",
        learner=lambda: maml(
            usual_network(), inner_optimizer=learned_rates(0.01, steps=5), inner_steps=5
        ),
        inner_lr="learned",
        meta_steps=SHORT,
        details=f"{USUAL}; 5 inner steps, a rate for each leaf and step",
        seeds=1,
    ),
    SinusoidRow(
        key="ridge",
        name="ridge head",
        learner=lambda: ridge(smooth_network(outputs=40)),
        inner_lr="-",
        meta_steps=SHORT,
        details="1-40-40-40 tanh features; learned penalty",
        outer="Adam 1e-3, cosine to 1e-5",
        optimizer=cosine,
        max_grad_norm=1.0,
        seeds=1,
        evaluated=(None,),
    ),
    SinusoidRow(
        key="alpaca",
        name="Bayesian head",
        learner=lambda: alpaca(smooth_network(outputs=20)),
        inner_lr="-",
        meta_steps=SHORT,
        details="1-40-40-20 tanh features; learned prior and noise",
        outer="Adam 1e-3, cosine to 1e-5",
        optimizer=cosine,
        max_grad_norm=1.0,
        seeds=1,
        evaluated=(None,),
    ),
    SinusoidRow(
        key="matching",
        name="Matching, regression",
        learner=lambda: matching_networks(smooth_network(outputs=40)),
        inner_lr="-",
        meta_steps=SHORT,
        details="1-40-40-40 tanh embedding; kernel-weighted average",
        outer="Adam 1e-3, cosine to 1e-5",
        optimizer=cosine,
        max_grad_norm=1.0,
        seeds=1,
        evaluated=(None,),
    ),
    SinusoidRow(
        key="joint",
        name="joint training, fine-tuned",
        learner=lambda: joint_training(
            usual_network(), inner_optimizer=optax.sgd(0.01), inner_steps=10
        ),
        inner_lr="0.01",
        meta_steps=SHORT,
        details=f"{USUAL}; one network on all tasks",
        seeds=1,
    ),
    SinusoidRow(
        key="scratch",
        name="from scratch",
        learner=lambda: from_scratch(usual_network(), inner_optimizer=optax.adam(0.01)),
        inner_lr="0.01, Adam",
        meta_steps=1,
        details=f"{USUAL}; not meta-trained",
        seeds=1,
        evaluated=(0, 1, 2, 5, 10, 100),
    ),
)
"""In the order in which they are shown."""

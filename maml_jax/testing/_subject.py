"""A learner at work, and in what learners differ."""

from collections.abc import Callable
from functools import cached_property
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from maml_jax.meta import (
    Batch,
    MetaLearner,
    Model,
    Prediction,
    mean_squared_error,
    meta_init,
    meta_step,
)
from maml_jax.meta.rows import concatenate
from maml_jax.testing._examples import cast, class_task, number_task, tuple_model


def query_loss_after_adapting(subject: "Subject") -> Any:
    """Return what the loss of most learners is worth."""
    return subject.loss_of(subject.adapt(), subject.task.query)


class Traits(NamedTuple):
    """In what a learner differs from most.

    Attributes:
        outputs: width of the network's last layer.
        targets: what it learns from: "numbers" `[n, 1]`, or "classes" `[n]`, of which there are
            three.
        predicts: width of its predictions, or `Prediction`.
        loss: compares predictions with targets.
        judge: `(subject, adapted, rows) -> scalar`, where predictions are not what the learner's
            loss compares.
        expected: `(subject) -> scalar`: what the learner's loss must be worth.
        takes_steps: whether adapting takes steps.
        sees_query: whether `info` is of parameters that have seen the query rows too.
        is_gradient: whether the gradient of the loss is its derivative; in first order it is not.
        no_gradient: picks, by path such as `"start.0.kernel"`, the meta-parameters that receive no
            gradient by construction.
        step: the meta-step at which the loss is evaluated.
        trained: meta-steps without which adapting leads nowhere.
    """

    outputs: int = 1
    targets: Literal["numbers", "classes"] = "numbers"
    predicts: int | type[Prediction] = 1
    loss: Callable[[Any, Any], Any] = mean_squared_error
    judge: Callable[["Subject", Any, Batch], Any] | None = None
    expected: Callable[["Subject"], Any] = query_loss_after_adapting
    takes_steps: bool = True
    sees_query: bool = False
    is_gradient: bool = True
    no_gradient: Callable[[str], bool] = lambda path: False
    step: int = 0
    trained: int = 0


class Subject:
    """A learner at work, in double precision; what it compiles serves several checks.

    Attributes:
        learner: the learner.
        model: its network.
        task: the task that most checks look at; `all_rows` are its support and query together.
        params: fresh meta-parameters, in double precision.
        state, tasks: what it is trained with: parameters in single, rows in half precision.
    """

    def __init__(self, make: Callable[[Model], MetaLearner], traits: Traits):
        self.make, self.traits = make, traits
        self.traces: list[int] = []
        network = tuple_model(traits.outputs)

        def apply(params, x):
            self.traces.append(1)
            return network.apply(params, x)

        self.model = Model(network.init, apply)
        self.learner = make(self.model)
        self.optimizer = optax.adam(0.01)
        draw = class_task if traits.targets == "classes" else number_task
        with jax.enable_x64(False):
            many = cast([draw(seed) for seed in (4, 5, 6)], jnp.bfloat16)
            self.tasks = jax.tree.map(lambda *leaves: jnp.stack(leaves), *many)
            state = meta_init(self.learner, self.optimizer, jax.random.key(0), many[0].support.x)
            self.state = state._replace(step=jnp.asarray(traits.step, jnp.int32))
        self.many = cast(many, jnp.float64)
        self.task = self.many[0]
        self.all_rows = concatenate((self.task.support, self.task.query))
        self.params = cast(self.state.params, jnp.float64)
        self.value_and_grad = jax.jit(value_and_grad(self.learner, traits.step))

    @cached_property
    def evaluated(self) -> tuple:
        """`((loss, info), grad)` of the task."""
        return self.value_and_grad(self.params, self.task)

    def adapt(self, rows: Batch | None = None, params: Any = None, **steps: Any) -> Any:
        """Adapt to rows, by default the support set of the task."""
        params = self.params if params is None else params
        return self.learner.adapt(params, self.task.support if rows is None else rows, **steps)

    def loss_of(self, adapted: Any, rows: Batch) -> Any:
        """Return the loss of adapted parameters on rows."""
        if self.traits.judge is not None:
            return self.traits.judge(self, adapted, rows)
        return self.traits.loss(self.learner.predict(adapted, rows.x), rows.y)

    def meta_step(self, state: Any) -> tuple:
        """Take a meta-step on all tasks."""
        with jax.enable_x64(False):
            return meta_step(self.learner, self.optimizer, state, self.tasks, devices=1)

    @cached_property
    def after_a_step(self) -> tuple:
        """The state and info of the first meta-step."""
        return self.meta_step(self.state)


def value_and_grad(learner: MetaLearner, step: int = 0) -> Callable:
    """Return `(params, task) -> ((loss, info), grad)`."""
    return jax.value_and_grad(lambda params, task: learner.loss(params, task, step), has_aux=True)

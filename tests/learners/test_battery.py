"""Every learner goes through the same checks; the table says in what they differ."""

from collections.abc import Callable
from functools import cached_property
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import one_task
from jax.flatten_util import ravel_pytree

from maml_jax import (
    AdaptationInfo,
    Batch,
    Level,
    MetaLearner,
    Model,
    Prediction,
    Task,
    alfa,
    alpaca,
    anil,
    bayesian_maml,
    cavia,
    cross_entropy,
    direction,
    double_adapt,
    first_order,
    from_scratch,
    gaussian_nll,
    hierarchical_maml,
    imaml,
    joint_training,
    learned_rates,
    maml,
    maml_plus_plus,
    matching_networks,
    mean_squared_error,
    meta_curvature,
    meta_init,
    meta_sgd,
    meta_step,
    mixed_mode,
    prototypical_networks,
    reptile,
    ridge,
)
from maml_jax.learners._anil import paths_of
from maml_jax.learners._direction import THRESHOLD, classes_of
from maml_jax.learners._double_adapt import PENALTY, TEMPERATURE, adapt_labels
from maml_jax.meta.types import AdaptFn, InitFn, MetaLossFn, PredictFn, UpdateFn
from maml_jax.models import gru, temporal_convolution, transformer

STEPS = 2
"""Inner steps: the least that is a loop, as the compiler's time grows with them."""


def after_adapting(subject) -> Any:
    """The loss of most learners: that of the query rows once the support rows are known."""
    return subject.loss_of(subject.adapted(), subject.task.query)


def after_all_rows(subject) -> Any:
    return subject.loss_of(subject.adapted(subject.all_rows), subject.task.query)


def without_adapting(subject) -> Any:
    return subject.loss_of(subject.adapted(steps=0), subject.all_rows)


def after_every_step(subject) -> Any:
    each = [subject.adapted(steps=k + 1) for k in range(STEPS)]
    return sum(subject.loss_of(adapted, subject.task.query) for adapted in each) / STEPS


class Entry(NamedTuple):
    """A learner, and in what it differs from most.

    Attributes:
        make: makes it of a network.
        outputs: width of the network's last layer.
        task: what it learns from: numbers ("regression") or one of three classes ("classes").
        predicts: the width of an array, or Prediction.
        loss: compares predictions with targets.
        classifier: makes what judges instead, where predictions are no longer what is compared.
        expected: computes what the loss must be worth.
        takes_steps: whether adapting takes steps.
        sees_query: whether its info is of parameters that have seen the query rows too.
        is_gradient: whether the gradient of its loss is the derivative of its loss.
        no_gradient: picks, by path, the meta-parameters that receive no gradient by construction.
        step: the meta-step at which it is looked at.
        trained: meta-steps without which adapting leads nowhere.
    """

    make: Callable[[Model], MetaLearner]
    outputs: int = 1
    task: str = "regression"
    predicts: Any = 1
    loss: Callable = mean_squared_error
    classifier: Callable[[Model], MetaLearner] | None = None
    expected: Callable = after_adapting
    takes_steps: bool = True
    sees_query: bool = False
    is_gradient: bool = True
    no_gradient: Callable[[str], bool] = lambda path: False
    step: int = 0
    trained: int = 0


def last_bias(path: str) -> bool:
    """Distances do not change where all points move together."""
    return path in ("1.1", "head.bias")


def unseen(path: str) -> bool:
    """What the network's last layer, 0 at first, hides."""
    return path.startswith("settings.hidden")


def after_adapting_labels(subject) -> Any:
    """That of the query rows, and what it costs to change the targets of the support rows."""
    x, y = subject.task.support
    moved = adapt_labels(subject.params.labels, x, y, TEMPERATURE) - y
    return after_adapting(subject) + PENALTY * jnp.mean(moved**2)


def annealed(model: Model) -> MetaLearner:
    return maml_plus_plus(model, inner_steps=STEPS, multi_step_until=4, second_order_from=2)


SGD = {"inner_optimizer": optax.sgd(0.01), "inner_steps": STEPS}
CLOSED = {"takes_steps": False}
CLASSES = {"outputs": 3, "task": "classes", "predicts": 3, "loss": cross_entropy}
EMBEDDED = CLASSES | CLOSED | {"outputs": 4}
RETURNS = CLOSED | {"outputs": 4}

LEARNERS = {
    "maml": Entry(lambda model: maml(model, **SGD)),
    "maml, adam": Entry(
        lambda model: maml(
            model, inner_optimizer=optax.adam(0.01, eps_root=1e-8), inner_steps=STEPS
        )
    ),
    "maml, mixed mode": Entry(lambda model: maml(model, gradient=mixed_mode(), **SGD)),
    "maml, learned rates": Entry(
        lambda model: maml(model, inner_optimizer=learned_rates(0.01), inner_steps=STEPS)
    ),
    "fomaml": Entry(lambda model: maml(model, gradient=first_order(), **SGD), is_gradient=False),
    "reptile": Entry(
        lambda model: reptile(model, **SGD),
        is_gradient=False,
        sees_query=True,
        expected=after_all_rows,
    ),
    "anil": Entry(lambda model: anil(model, inner_steps=STEPS)),
    "meta_sgd": Entry(lambda model: meta_sgd(model, inner_steps=STEPS)),
    "maml_plus_plus, early": Entry(annealed, is_gradient=False, expected=after_every_step),
    "maml_plus_plus, late": Entry(annealed, step=10),
    "cavia": Entry(lambda model: cavia(model, context=2, inner_steps=STEPS), trained=100),
    "imaml": Entry(lambda model: imaml(model, inner_steps=STEPS), is_gradient=False),
    "meta_curvature": Entry(lambda model: meta_curvature(model, inner_steps=STEPS)),
    "hierarchical_maml": Entry(
        lambda model: hierarchical_maml(model, levels=(Level(STEPS), Level(STEPS)), rows=(4, 2))
    ),
    "alfa": Entry(lambda model: alfa(model, inner_steps=STEPS), no_gradient=unseen),
    "double_adapt": Entry(
        lambda model: double_adapt(model, inner_steps=STEPS),
        expected=after_adapting_labels,
        no_gradient=lambda path: path == "features.prototypes",  # one feature has no angle
    ),
    "ridge": Entry(ridge, outputs=4, **CLOSED),
    "alpaca": Entry(alpaca, outputs=4, predicts=Prediction, loss=gaussian_nll, **CLOSED),
    "bayesian_maml": Entry(
        lambda model: bayesian_maml(model, particles=2, inner_steps=STEPS),
        predicts=Prediction,
        loss=gaussian_nll,
    ),
    "prototypical_networks": Entry(
        lambda model: prototypical_networks(model, classes=3), no_gradient=last_bias, **EMBEDDED
    ),
    "matching_networks": Entry(lambda model: matching_networks(model, classes=3), **EMBEDDED),
    "matching_networks, regression": Entry(matching_networks, outputs=4, **CLOSED),
    "direction of prototypical_networks": Entry(
        lambda model: direction(prototypical_networks(model, classes=3)),
        classifier=lambda model: prototypical_networks(model, classes=3),
        no_gradient=last_bias,
        trained=100,
        **RETURNS,
    ),
    "direction of matching_networks": Entry(
        lambda model: direction(matching_networks(model, classes=3)),
        classifier=lambda model: matching_networks(model, classes=3),
        **RETURNS,
    ),
    "from_scratch": Entry(
        lambda model: from_scratch(model, inner_steps=STEPS),
        is_gradient=False,
        no_gradient=lambda path: True,
    ),
    "joint_training": Entry(joint_training, expected=without_adapting),
    "joint_training, fine-tuned": Entry(
        lambda model: joint_training(model, inner_steps=STEPS), expected=without_adapting
    ),
}

SEQUENCE_MODELS = {
    "gru": lambda outputs: gru(3, outputs),
    "temporal_convolution": lambda outputs: temporal_convolution((3, 3), 2, outputs),
    "transformer": lambda outputs: transformer(4, layers=1, outputs=outputs),
}


def tuple_model(outputs: int) -> Model:
    """A network whose parameters are tuples and lists, no dict anywhere."""

    def init(key, x):
        first, second = jax.random.split(key)
        w = jax.random.normal(first, (x.shape[-1], 8)) / x.shape[-1] ** 0.5
        return (
            [w, jnp.zeros(8)],
            (jax.random.normal(second, (8, outputs)) / 8**0.5, jnp.zeros(outputs)),
        )

    def apply(params, x):
        (w, b), (v, c) = params
        return jnp.tanh(x @ w + b) @ v + c

    return Model(init, apply)


def class_task(key: int) -> Task:
    """Three clouds of points in the plane, two rows of each in support and query."""
    keys = jax.random.split(jax.random.key(key), 3)
    y = jnp.arange(6) % 3
    centres = jax.random.normal(keys[0], (3, 2))

    def rows(key):
        return Batch((centres[y] + 0.1 * jax.random.normal(key, (6, 2))), y)

    return Task(*map(rows, keys[1:]))


def task_for(entry: Entry, key: int) -> Task:
    return class_task(key) if entry.task == "classes" else one_task(key, 6)


def in_sequences(task: Task) -> Task:
    """Rows as they are, at the end of three bars that grow to them."""
    growth = jnp.array([0.2, 0.5, 1.0], task.support.x.dtype)[:, None]
    return Task(*(Batch(rows.x[:, None] * growth, rows.y) for rows in task))


def in_precision(tree, dtype):
    def cast(leaf):
        return leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

    return jax.tree.map(cast, tree)


def value_and_grad(learner: MetaLearner, step: int = 0) -> Callable:
    """`(params, task) -> ((loss, info), grad)`."""
    return jax.value_and_grad(lambda params, task: learner.loss(params, task, step), has_aux=True)


def size(leaf) -> float:
    return float(jnp.abs(leaf).max())


def close(a, b, tolerance=1e-9):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance)


SINGLE = 2e-4
"""Tolerance of numbers in single precision against those in double."""


class Subject:
    """A learner at work, in double precision; what it compiles serves several tests.

    `state` and `tasks` are what it is trained with: parameters in single, rows in half precision.
    """

    def __init__(self, entry: Entry):
        self.entry = entry
        self.traces = []
        network = tuple_model(entry.outputs)

        def apply(params, x):
            self.traces.append(1)
            return network.apply(params, x)

        self.model = Model(network.init, apply)
        self.learner = entry.make(self.model)
        self.optimizer = optax.adam(0.01)
        with jax.enable_x64(False):
            many = in_precision([task_for(entry, key) for key in (4, 5, 6)], jnp.bfloat16)
            self.tasks = jax.tree.map(lambda *leaves: jnp.stack(leaves), *many)
            state = meta_init(self.learner, self.optimizer, jax.random.key(0), many[0].support.x)
            self.state = state._replace(step=jnp.asarray(entry.step, jnp.int32))
        self.many = in_precision(many, jnp.float64)
        self.task = self.many[0]
        self.all_rows = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *self.task)
        self.params = in_precision(self.state.params, jnp.float64)
        self.value_and_grad = jax.jit(value_and_grad(self.learner, entry.step))

    @cached_property
    def seen(self):
        return self.value_and_grad(self.params, self.task)

    def adapted(self, rows: Batch | None = None, params=None, **steps):
        params = self.params if params is None else params
        return self.learner.adapt(params, self.task.support if rows is None else rows, **steps)

    def loss_of(self, adapted, rows: Batch) -> Any:
        if self.entry.classifier is None:
            return self.entry.loss(self.learner.predict(adapted, rows.x), rows.y)
        logits = self.entry.classifier(self.model).predict(adapted, rows.x)
        root_mean_square = jnp.sqrt(jnp.mean(self.task.support.y**2))
        return cross_entropy(logits, classes_of(rows.y, THRESHOLD * root_mean_square))

    def meta_step(self, state):
        with jax.enable_x64(False):
            return meta_step(self.learner, self.optimizer, state, self.tasks, devices=1)

    @cached_property
    def after_a_step(self):
        return self.meta_step(self.state)


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64():
        yield


QUICK = ("maml", "fomaml", "reptile", "alpaca", "prototypical_networks")
"""Learners that are tried before each commit: each kind of meta-gradient and of adapting."""


@pytest.fixture(
    params=[pytest.param(n, marks=[pytest.mark.long] * (n not in QUICK)) for n in LEARNERS],
    scope="module",
)
def entry(request):
    return LEARNERS[request.param]


@pytest.fixture(scope="module")
def subject(entry):
    with jax.enable_x64():
        return Subject(entry)


def test_conforms_to_the_protocols(subject):
    learner = subject.learner
    assert isinstance(learner, MetaLearner)
    assert isinstance(learner.init, InitFn)
    assert isinstance(learner.adapt, AdaptFn)
    assert isinstance(learner.predict, PredictFn)
    assert isinstance(learner.loss, MetaLossFn)
    assert learner.update is None or isinstance(learner.update, UpdateFn)


def assert_predicts(entry, y_hat, rows):
    if entry.predicts is Prediction:
        assert isinstance(y_hat, Prediction)
        assert y_hat.mean.shape == y_hat.std.shape == (rows, 1)
    else:
        assert y_hat.shape == (rows, entry.predicts)


@pytest.mark.slow  # one operation after the other is compiled
def test_jit_is_eager(subject):
    adapted, x = subject.adapted(), subject.task.query.x
    y_hat = subject.learner.predict(adapted, x)
    assert_predicts(subject.entry, y_hat, len(x))
    close(jax.jit(subject.learner.predict)(adapted, x), y_hat)
    close(subject.seen[0], subject.learner.loss(subject.params, subject.task, subject.entry.step))


def test_adapting_under_vmap_is_a_loop(subject):
    with jax.enable_x64(False):
        together = jax.jit(jax.vmap(subject.learner.adapt, (None, 0)))(
            subject.state.params, subject.tasks.support
        )
    for place, task in enumerate(subject.many):
        one = jax.tree.map(lambda leaf, i=place: leaf[i], together)
        close(one, subject.adapted(task.support), SINGLE)


def test_a_meta_step_is_a_loop_over_tasks(subject):
    """On rows in half precision, of which nothing but themselves is rounded."""
    state, info = subject.after_a_step
    assert_alike(state, subject.state)
    assert_finite(state)
    each = [subject.value_and_grad(subject.params, task) for task in subject.many]
    close(info.task_loss, jnp.stack([loss for (loss, _), _ in each]), SINGLE)
    mean = jax.tree.map(lambda *leaves: sum(leaves) / len(each), *(grad for _, grad in each))
    close(info.grad_norm, optax.tree.norm(mean), SINGLE)
    close(info.loss, jnp.mean(info.task_loss), SINGLE)


def test_ten_meta_steps_are_one_trace(subject):
    state, _ = subject.after_a_step
    once = len(subject.traces)
    for _ in range(9):
        state, _ = subject.meta_step(state)
    assert len(subject.traces) == once


def test_loss_is_worth_what_it_says(subject):
    close(subject.seen[0][0], subject.entry.expected(subject))


def test_info_tells_the_support_losses(subject):
    (_, info), _ = subject.seen
    assert isinstance(info, AdaptationInfo)
    support = subject.task.support
    adapted = subject.adapted(subject.all_rows if subject.entry.sees_query else support)
    close(info.support_loss_after, subject.loss_of(adapted, support))
    if subject.entry.takes_steps:
        close(info.support_loss_before, subject.loss_of(subject.adapted(steps=0), support))


def test_adapting_lowers_the_support_loss_and_more_steps_lower_it_further(subject):
    state = subject.state
    for _ in range(subject.entry.trained):
        state, _ = subject.meta_step(state)
    params = in_precision(state.params, jnp.float64)
    if not subject.entry.takes_steps:
        info = subject.value_and_grad(params, subject.task)[0][1]
        assert info.support_loss_after < info.support_loss_before
        return
    support = subject.task.support
    losses = [
        float(subject.loss_of(subject.adapted(params=params, **steps), support))
        for steps in ({"steps": 0}, {}, {"steps": 2 * STEPS})
    ]
    assert losses == sorted(losses, reverse=True)
    assert losses[2] < losses[0]


def test_a_number_of_steps_that_makes_no_sense_is_refused(subject):
    if subject.entry.takes_steps:
        with pytest.raises(ValueError, match="negative"):
            subject.adapted(steps=-1)
    else:
        with pytest.raises(ValueError, match="takes no steps"):
            subject.adapted(steps=1)


def test_every_meta_parameter_receives_gradient_but_those_that_cannot(subject):
    _, grad = subject.seen
    for path, leaf in zip(paths_of(grad), jax.tree.leaves(grad), strict=True):
        assert subject.entry.no_gradient(path) == (size(leaf) < 1e-12), path


def test_gradient_is_the_derivative_of_the_loss(subject):
    if not subject.entry.is_gradient:
        pytest.skip("by construction no derivative")
    flat, unflatten = ravel_pytree(subject.params)
    grad = ravel_pytree(subject.seen[1])[0]
    for way in np.random.default_rng(0).standard_normal((3, flat.size)):

        def at(scale, way=way):
            return subject.value_and_grad(unflatten(flat + scale * way), subject.task)[0][0]

        h = 1e-4
        # Central differences of fourth order.
        slope = (8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * h)
        np.testing.assert_allclose(grad @ way, slope, rtol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_gradients_are_of_the_kind_of_the_parameters_whatever_the_rows_are(subject, dtype):
    with jax.enable_x64(False):
        params, task = subject.state.params, in_precision(subject.task, dtype)
        (loss, _), grad = jax.eval_shape(value_and_grad(subject.learner), params, task)
    assert loss.shape == ()
    assert_alike(grad, params)


def assert_alike(tree, other):
    assert jax.tree.structure(tree) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(tree), jax.tree.leaves(other), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)


def assert_finite(tree):
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree))


def test_same_key_same_numbers(subject):
    with jax.enable_x64(False):
        again, other = (
            subject.learner.init(jax.random.key(key), subject.tasks.support.x[0]) for key in (0, 1)
        )
    jax.tree.map(np.testing.assert_array_equal, again, subject.state.params)
    pairs = zip(jax.tree.leaves(again), jax.tree.leaves(other), strict=True)
    assert any((a != b).any() for a, b in pairs)
    # Arrays may lie elsewhere in memory, which changes how sums over them are vectorised.
    close(subject.value_and_grad(subject.params, subject.task), subject.seen, 1e-13)


def test_an_update_is_adapting_to_more_rows(subject):
    if subject.learner.update is None:
        pytest.skip("has no recursion")
    support = subject.task.support
    known = subject.adapted(jax.tree.map(lambda leaf: leaf[:0], support))
    for row in range(len(support.y)):
        rows = jax.tree.map(lambda leaf, i=row: leaf[i : i + 1], support)
        known = subject.learner.update(known, rows)
    close(known, subject.adapted())


@pytest.mark.parametrize(
    "kind",
    ["gru", *(pytest.param(k, marks=pytest.mark.slow) for k in SEQUENCE_MODELS if k != "gru")],
)
def test_every_sequence_model_fits(entry, subject, kind):
    """Shapes alone, which a compiler would go on from."""
    learner, task = entry.make(SEQUENCE_MODELS[kind](entry.outputs)), in_sequences(subject.task)

    def predicted(key, task):
        params = learner.init(key, task.support.x)
        return learner.predict(learner.adapt(params, task.support), task.query.x)

    assert_predicts(entry, jax.eval_shape(predicted, jax.random.key(0), task), 6)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("maml", "gru"),
        *(pytest.param("anil", kind, marks=pytest.mark.slow) for kind in SEQUENCE_MODELS),
        ("ridge", "gru"),
    ],
)
def test_every_parameter_of_a_sequence_model_receives_gradient(name, kind):
    entry = LEARNERS[name]
    with jax.enable_x64(False):
        learner = entry.make(SEQUENCE_MODELS[kind](entry.outputs))
        task = in_sequences(task_for(entry, 4))
        params = learner.init(jax.random.key(0), task.support.x)
        seen = jax.jit(value_and_grad(learner))(params, task)
    assert_alike(seen[1], params)
    assert_finite(seen)
    assert all(size(leaf) > 0 for leaf in jax.tree.leaves(seen[1]))

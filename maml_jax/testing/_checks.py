"""What every learner promises, one function a promise."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree

from maml_jax.meta import AdaptationInfo, Batch, MetaLearner, Prediction, Task, stack_tasks
from maml_jax.meta.types import AdaptFn, InitFn, MetaLossFn, PredictFn, UpdateFn
from maml_jax.testing._examples import cast, in_sequences, sequence_models, spoil
from maml_jax.testing._subject import Subject, value_and_grad

STEPS = 2
"""Inner steps that learners are best made with here: the fewest that are a loop."""

SINGLE = 2e-4
"""Tolerance of numbers in single precision against those in double."""


def check_conforms_to_the_protocols(subject: Subject) -> None:
    """A learner is a `MetaLearner` of functions."""
    learner = subject.learner
    assert isinstance(learner, MetaLearner), f"a MetaLearner, not {type(learner)}"
    functions = (InitFn, AdaptFn, PredictFn, MetaLossFn, UpdateFn)
    for name, protocol in zip(learner._fields, functions, strict=False):
        value = getattr(learner, name)
        optional = name == "update" and value is None
        assert optional or isinstance(value, protocol), f"{name} is no {protocol.__name__}"


def check_vmap_equals_loop(subject: Subject) -> None:
    """Adapting to many tasks at once is adapting to each."""
    with jax.enable_x64(False):
        together = jax.jit(jax.vmap(subject.learner.adapt, (None, 0)))(
            subject.state.params, subject.tasks.support
        )
    for index, task in enumerate(subject.many):
        one = jax.tree.map(lambda leaf, i=index: leaf[i], together)
        assert_close(one, subject.adapt(task.support), SINGLE)


def check_meta_step_equals_loop(subject: Subject) -> None:
    """A meta-step is the mean over tasks, on rows in half precision that alone are rounded."""
    state, info = subject.after_a_step
    assert_same_types(state, subject.state)
    assert_finite(state)
    each = [subject.value_and_grad(subject.params, task) for task in subject.many]
    assert_close(info.task_loss, jnp.stack([loss for (loss, _), _ in each]), SINGLE)
    mean = jax.tree.map(lambda *leaves: sum(leaves) / len(each), *(grad for _, grad in each))
    assert_close(info.grad_norm, optax.tree.norm(mean), SINGLE)
    assert_close(info.loss, jnp.mean(info.task_loss), SINGLE)


def check_compiles_once(subject: Subject) -> None:
    """Ten meta-steps trace the network as often as one."""
    state, _ = subject.after_a_step
    once = len(subject.traces)
    for _ in range(9):
        state, _ = subject.meta_step(state)
    assert len(subject.traces) == once, "later meta-steps are traced again"


def check_loss_is_worth_what_it_says(subject: Subject) -> None:
    """The loss is what predicting the query rows costs, or what `expected` says."""
    assert_close(subject.evaluated[0][0], subject.traits.expected(subject))


def check_info_is_true(subject: Subject) -> None:
    """`info` holds the support losses before and after."""
    (_, info), _ = subject.evaluated
    assert isinstance(info, AdaptationInfo), f"info is an AdaptationInfo, not {type(info)}"
    support = subject.task.support
    adapted = subject.adapt(subject.all_rows if subject.traits.sees_query else support)
    assert_close(info.support_loss_after, subject.loss_of(adapted, support))
    if subject.traits.takes_steps:
        assert_close(info.support_loss_before, subject.loss_of(subject.adapt(steps=0), support))


def check_adapting_lowers_the_support_loss(subject: Subject) -> None:
    """Adapting lowers the support loss, and more steps lower it further."""
    state = subject.state
    for _ in range(subject.traits.trained):
        state, _ = subject.meta_step(state)
    params = cast(state.params, jnp.float64)
    if not subject.traits.takes_steps:
        info = subject.value_and_grad(params, subject.task)[0][1]
        losses = [float(info.support_loss_before), float(info.support_loss_after)]
    else:
        support = subject.task.support
        losses = [
            float(subject.loss_of(subject.adapt(params=params, steps=steps), support))
            for steps in (0, STEPS, 2 * STEPS)
        ]
    assert losses == sorted(losses, reverse=True), f"support losses must fall: {losses}"
    assert losses[-1] < losses[0], f"adapting changes nothing: {losses}"


def check_impossible_steps_are_refused(subject: Subject) -> None:
    """A negative number of steps raises `ValueError`, any number where none are taken."""
    try:
        subject.adapt(steps=-1 if subject.traits.takes_steps else 1)
    except ValueError:
        return
    raise AssertionError("adapt takes a number of steps that makes no sense")


def check_all_is_learned(subject: Subject) -> None:
    """Every meta-parameter receives a gradient, but those that cannot."""
    _, grad = subject.evaluated
    for path, leaf in jax.tree_util.tree_leaves_with_path(grad):
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        is_zero = float(jnp.abs(leaf).max()) < 1e-12
        assert subject.traits.no_gradient(name) == is_zero, (
            f"meta-parameter {name} {'receives no' if is_zero else 'receives a'} gradient"
        )


def check_gradient_is_the_derivative(subject: Subject) -> None:
    """The gradient agrees with central differences of fourth order, in random directions."""
    if not subject.traits.is_gradient:
        return
    flat, unflatten = ravel_pytree(subject.params)
    grad = ravel_pytree(subject.evaluated[1])[0]
    for tangent in np.random.default_rng(0).standard_normal((3, flat.size)):

        def at(scale, tangent=tangent):
            return subject.value_and_grad(unflatten(flat + scale * tangent), subject.task)[0][0]

        h = 1e-4
        slope = (8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * h)
        np.testing.assert_allclose(grad @ tangent, slope, rtol=1e-6)


def check_dtypes_are_kept(subject: Subject) -> None:
    """Gradients have the dtypes of the parameters, whatever the rows have."""
    for dtype in (jnp.float32, jnp.bfloat16):
        with jax.enable_x64(False):
            params, task = subject.state.params, cast(subject.task, dtype)
            (loss, _), grad = jax.eval_shape(value_and_grad(subject.learner), params, task)
        assert loss.shape == (), f"the loss is one number, not of shape {loss.shape}"
        assert_same_types(grad, params)


def check_is_reproducible(subject: Subject) -> None:
    """The same key gives the same numbers, another one others."""
    with jax.enable_x64(False):
        again, other = (
            subject.learner.init(jax.random.key(seed), subject.tasks.support.x[0])
            for seed in (0, 1)
        )
    jax.tree.map(np.testing.assert_array_equal, again, subject.state.params)
    pairs = zip(jax.tree.leaves(again), jax.tree.leaves(other), strict=True)
    assert any((a != b).any() for a, b in pairs), "init does not use its key"
    # Arrays may lie elsewhere in memory, which changes how sums over them are vectorised.
    assert_close(subject.value_and_grad(subject.params, subject.task), subject.evaluated, 1e-13)


def check_update_equals_adapting(subject: Subject) -> None:
    """Taking in rows one by one, from none, is adapting to all of them."""
    if subject.learner.update is None:
        return
    support = subject.task.support
    adapted = subject.adapt(jax.tree.map(lambda leaf: leaf[:0], support))
    for index in range(len(support.y)):
        row = jax.tree.map(lambda leaf, i=index: leaf[i : i + 1], support)
        adapted = subject.learner.update(adapted, row)
    assert_close(adapted, subject.adapt())


def check_absent_rows_are_not_there(subject: Subject) -> None:
    """Ragged tasks in one batch are each by itself, whatever stands in rows of weight 0.

    A key changes nothing where nothing is random.
    """
    support, query = subject.task.support, subject.task.query
    short = Task(_first(support, len(support.y) - 2), _first(query, len(query.y) - 1))
    tasks = stack_tasks([short, subject.task])
    keys = jax.random.split(jax.random.key(0), 2)
    tasks = Task(spoil(tasks.support), spoil(tasks.query), None, keys)
    evaluate = jax.vmap(value_and_grad(subject.learner, subject.traits.step), (None, 0))
    together = jax.jit(evaluate)(subject.params, tasks)
    for index, alone in enumerate((short, subject.task)):
        one = jax.tree.map(lambda leaf, i=index: leaf[i], together)
        assert_close(one, subject.value_and_grad(subject.params, alone))


def check_takes_sequences(subject: Subject, kinds: tuple[str, ...] | None = None) -> None:
    """The learner takes sequence models; shapes alone are computed."""
    task = in_sequences(subject.task)
    for kind, model in sequence_models(subject.traits.outputs).items():
        if kinds is not None and kind not in kinds:
            continue
        learner = subject.make(model)

        def predict(key, task, learner=learner):
            params = learner.init(key, task.support.x)
            return learner.predict(learner.adapt(params, task.support), task.query.x)

        y_hat = jax.eval_shape(predict, jax.random.key(0), task)
        assert_predicts(subject.traits.predicts, y_hat, len(task.query.y))


def check_compiled_equals_eager(subject: Subject) -> None:
    """`jit` changes nothing."""
    adapted, x = subject.adapt(), subject.task.query.x
    y_hat = subject.learner.predict(adapted, x)
    assert_predicts(subject.traits.predicts, y_hat, len(x))
    assert_close(jax.jit(subject.learner.predict)(adapted, x), y_hat)
    eager = subject.learner.loss(subject.params, subject.task, subject.traits.step)
    assert_close(subject.evaluated[0], eager)


def _first(rows: Batch, count: int) -> Batch:
    return jax.tree.map(lambda leaf: leaf[:count], rows)


CHECKS = (
    check_conforms_to_the_protocols,
    check_vmap_equals_loop,
    check_meta_step_equals_loop,
    check_compiles_once,
    check_loss_is_worth_what_it_says,
    check_info_is_true,
    check_adapting_lowers_the_support_loss,
    check_impossible_steps_are_refused,
    check_all_is_learned,
    check_gradient_is_the_derivative,
    check_dtypes_are_kept,
    check_is_reproducible,
    check_update_equals_adapting,
    check_absent_rows_are_not_there,
)


def assert_close(a: Any, b: Any, tolerance: float = 1e-9) -> None:
    """Assert that two pytrees have one structure and the same numbers."""
    assert jax.tree.structure(a) == jax.tree.structure(b), "the structures differ"
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance)


def assert_same_types(tree: Any, other: Any) -> None:
    """Assert that two pytrees have one structure, and leaves of the same shapes and dtypes."""
    assert jax.tree.structure(tree) == jax.tree.structure(other), "the structures differ"
    for a, b in zip(jax.tree.leaves(tree), jax.tree.leaves(other), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype), f"{a.shape} {a.dtype}, {b.shape} {b.dtype}"


def assert_finite(tree: Any) -> None:
    """Assert that all leaves are finite."""
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)), "not finite"


def assert_predicts(predicts: Any, y_hat: Any, rows: int) -> None:
    """Assert that predictions have the shape that `Traits.predicts` says."""
    if predicts is Prediction:
        assert isinstance(y_hat, Prediction), f"a Prediction, not {type(y_hat)}"
        assert y_hat.mean.shape == y_hat.std.shape == (rows, 1), y_hat
    else:
        assert y_hat.shape == (rows, predicts), f"{y_hat.shape}, not {(rows, predicts)}"

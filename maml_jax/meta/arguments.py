"""Refusals of what is no learner, outer optimizer or sampler."""

from numbers import Real
from typing import Any

from maml_jax.meta.types import LearnedOptimizer, Task


def require_learner(learner: Any) -> None:
    """Refuse what is no learner, such as a network, or the function that makes one.

    Raises:
        TypeError: saying what to write.
    """
    if all(callable(getattr(learner, name, None)) for name in ("init", "adapt", "predict", "loss")):
        return
    remedy = "write maml(network), or another of maml_jax.learners"
    name = getattr(learner, "__name__", None)
    if callable(learner) and name:
        remedy = f"write {name}(network)"
    raise TypeError(f"a learner is a MetaLearner: {remedy}; got {describe(learner)}")


def require_outer_optimizer(optimizer: Any) -> None:
    """Refuse what is no optax transformation.

    Raises:
        TypeError: saying what to write.
    """
    if isinstance(optimizer, LearnedOptimizer):
        raise TypeError(
            "the settings of a learned optimizer are meta-parameters, which the outer optimizer "
            "changes: give it to the learner as inner_optimizer=, and optax.adam(1e-3) here"
        )
    if not (hasattr(optimizer, "init") and hasattr(optimizer, "update")):
        raise TypeError(
            "the outer optimizer is an optax transformation: write "
            f"{optimizer_call(optimizer, 'adam', 1e-3)}; got {describe(optimizer)}"
        )


def require_sampler(sampler: Any) -> None:
    """Refuse what cannot be called with a key.

    Raises:
        TypeError: saying what to write.
    """
    if not callable(sampler):
        remedy = "give an iterator of meta-batches to training(...), which takes both"
        if isinstance(sampler, Task):
            remedy = (
                "to train on one meta-batch, write "
                "jax.tree_util.Partial(lambda tasks, key: tasks, tasks)"
            )
        raise TypeError(
            "a sampler is a function (key) -> Task that draws a meta-batch; got "
            f"{type(sampler).__name__}: {remedy}"
        )


def optimizer_call(given: Any, name: str, rate: float) -> str:
    """Say how to write the optimizer that was meant by a number, or by a function that makes it."""
    made_by = getattr(given, "__name__", None)
    if callable(given) and made_by:
        return f"with parentheses, such as {made_by}({rate})"
    return f"optax.{name}({given if isinstance(given, Real) else rate})"


def describe(value: Any) -> str:
    """Return the type of a value and how it is written, in few characters."""
    return f"{type(value).__name__} {value!r:.60}"

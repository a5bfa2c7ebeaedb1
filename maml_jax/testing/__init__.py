"""A battery that every learner must pass; run it inside of any test."""

from collections.abc import Callable

import jax

from maml_jax.meta import MetaLearner, Model
from maml_jax.testing._checks import (
    CHECKS,
    STEPS,
    check_compiled_equals_eager,
    check_takes_sequences,
)
from maml_jax.testing._examples import sequence_models
from maml_jax.testing._subject import Subject, Traits, query_loss_after_adapting

__all__ = [
    "STEPS",
    "Subject",
    "Traits",
    "check_learner",
    "query_loss_after_adapting",
    "sequence_models",
]


def check_learner(
    make: Callable[[Model], MetaLearner],
    traits: Traits = Traits(),
    *,
    thorough: bool = False,
) -> None:
    """Check that a learner is what a `MetaLearner` promises.

    It conforms to the protocols, computes the same under `jit` and `vmap`, compiles once, reports
    true losses in `info`, adapts, refuses impossible steps, learns all of its meta-parameters by
    the derivative of its loss (against finite differences in double precision), keeps dtypes, is
    reproducible, takes in rows one by one if it has an `update`, passes over rows of weight 0, and
    takes sequence models.

    Args:
        make: makes the learner of a network, best with `STEPS` inner steps.
        traits: in what it differs from most.
        thorough: compare with uncompiled results too, and take every sequence model, which takes
            minutes.

    Raises:
        AssertionError: saying what is wrong; the traceback names the check.
    """
    with jax.enable_x64():
        subject = Subject(make, traits)
        for check in CHECKS:
            check(subject)
        check_takes_sequences(subject, kinds=None if thorough else ("gru",))
        if thorough:
            check_compiled_equals_eager(subject)

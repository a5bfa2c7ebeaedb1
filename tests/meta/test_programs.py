"""Compiled programs go with the learners that they belong to."""

import gc

import jax
import optax
import pytest
from helpers import sinusoid_sampler

from maml_jax import MetaLearner, ensemble, fit, maml, reptile
from maml_jax.meta import scan
from maml_jax.meta.programs import Programs
from maml_jax.models import mlp

pytestmark = pytest.mark.long

KEY = jax.random.key(0)


def make(loss=None):
    return MetaLearner(lambda: 0, lambda: 0, lambda: 0, loss or (lambda: 0))


def test_programs_are_kept_while_their_learner_is_in_use():
    programs, one, other = Programs(), make(), make()
    for learner in (one, other):
        for key in "ab":
            assert programs.get(learner, key, lambda learner=learner: learner.loss) is learner.loss
    assert programs.get(one, "a", lambda: 1 / 0) is one.loss
    del one, learner
    gc.collect()
    assert len(programs) == 2
    assert programs.get(other, "a", lambda: 1 / 0) is other.loss


def test_the_oldest_programs_are_released_first():
    programs, learner = Programs(2), make()
    for key in "abac":
        programs.get(learner, key, object)
    programs.get(learner, "a", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        programs.get(learner, "b", lambda: 1 / 0)


@pytest.mark.slow
@pytest.mark.parametrize("wrap", [lambda one: one, lambda one: ensemble(one, 2)])
@pytest.mark.parametrize("kind", [maml, reptile])
def test_fit_releases_its_programs(kind, wrap):
    learner = wrap(kind(mlp((2, 1)), inner_steps=1))
    before = len(scan._PROGRAMS)
    fit(learner, optax.sgd(0.1), sinusoid_sampler(2), KEY, steps=1)
    assert len(scan._PROGRAMS) == before + 1
    del learner
    gc.collect()
    assert len(scan._PROGRAMS) == before

"""Every learner passes the battery; the table says in what they differ."""

import jax
import jax.numpy as jnp
import optax
import pytest

from maml_jax import (
    Level,
    MetaLearner,
    Model,
    Prediction,
    alfa,
    alpaca,
    anil,
    bayesian_maml,
    cavia,
    cross_entropy,
    direction,
    double_adapt,
    ensemble,
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
    meta_curvature,
    meta_sgd,
    mixed_mode,
    prototypical_networks,
    reptile,
    ridge,
)
from maml_jax.learners._direction import THRESHOLD, classes_of
from maml_jax.learners._double_adapt import PENALTY, TEMPERATURE, adapt_labels
from maml_jax.testing import (
    STEPS,
    Subject,
    Traits,
    check_learner,
    query_loss_after_adapting,
    sequence_models,
)
from maml_jax.testing._checks import (
    assert_finite,
    assert_same_types,
    check_compiled_equals_eager,
    check_takes_sequences,
)
from maml_jax.testing._examples import class_task, in_sequences, number_task
from maml_jax.testing._subject import value_and_grad


def after_all_rows(subject):
    return subject.loss_of(subject.adapt(subject.all_rows), subject.task.query)


def without_adapting(subject):
    return subject.loss_of(subject.adapt(steps=0), subject.all_rows)


def after_every_step(subject):
    each = [subject.adapt(steps=k + 1) for k in range(STEPS)]
    return sum(subject.loss_of(adapted, subject.task.query) for adapted in each) / STEPS


def after_adapting_labels(subject):
    """That of the query rows, and what it costs to change the targets of the support rows."""
    x, y, _ = subject.task.support
    moved = adapt_labels(subject.params.labels, x, y, TEMPERATURE) - y
    return query_loss_after_adapting(subject) + PENALTY * jnp.mean(moved**2)


def by_classes(classifier):
    """The loss of a learner of returns is that of its classifier."""

    def judge(subject, adapted, rows):
        logits = classifier(subject.model).predict(adapted, rows.x)
        root_mean_square = jnp.sqrt(jnp.mean(subject.task.support.y**2))
        return cross_entropy(logits, classes_of(rows.y, THRESHOLD * root_mean_square))

    return judge


def by_members(subject, adapted, rows):
    """What an ensemble reports is the mean of its members' losses; its loss is their sum."""
    member = some_maml(subject.model)
    each = jax.vmap(lambda own: member.predict(own, rows.x))(adapted.members)
    return jnp.mean(jnp.square(each - rows.y))


def last_bias(path: str) -> bool:
    """Distances do not change where all points move together."""
    return path in ("1.1", "head.bias")


def is_hidden(path: str) -> bool:
    """What the network's last layer, 0 at first, hides."""
    return path.startswith("settings.hidden")


def annealed(model: Model) -> MetaLearner:
    return maml_plus_plus(model, inner_steps=STEPS, multi_step_until=4, second_order_from=2)


SGD = {"inner_optimizer": optax.sgd(0.01), "inner_steps": STEPS}
LEVELS = (Level(STEPS), Level(STEPS))
CLOSED = {"takes_steps": False}
CLASSES = {"targets": "classes", "predicts": 3, "loss": cross_entropy, "outputs": 4} | CLOSED
RETURNS = {"outputs": 4} | CLOSED
DISTRIBUTION = {"predicts": Prediction, "loss": gaussian_nll}


def some_maml(model: Model, **options) -> MetaLearner:
    return maml(model, **SGD | options)


def prototypes(model: Model) -> MetaLearner:
    return prototypical_networks(model, classes=3)


def matching(model: Model) -> MetaLearner:
    return matching_networks(model, classes=3)


def first_output(model):
    """A network of one target, made of the feature network."""
    return Model(model.init, lambda params, x: model.apply(params, x)[:, :1])


LEARNERS = {
    "maml": (some_maml, {}),
    "maml, adam": (
        lambda model: some_maml(model, inner_optimizer=optax.adam(0.01, eps_root=1e-8)),
        {},
    ),
    "maml, mixed mode": (lambda model: some_maml(model, gradient=mixed_mode()), {}),
    "maml, learned rates": (
        lambda model: some_maml(model, inner_optimizer=learned_rates(0.01)),
        {},
    ),
    "fomaml": (
        lambda model: some_maml(model, gradient=first_order()),
        {"is_gradient": False},
    ),
    "reptile": (
        lambda model: reptile(model, **SGD),
        {"is_gradient": False, "sees_query": True, "expected": after_all_rows},
    ),
    "anil": (lambda model: anil(model, inner_steps=STEPS), {}),
    "meta_sgd": (lambda model: meta_sgd(model, inner_steps=STEPS), {}),
    "maml_plus_plus, early": (annealed, {"is_gradient": False, "expected": after_every_step}),
    "maml_plus_plus, late": (annealed, {"step": 10}),
    "cavia": (lambda model: cavia(model, context=2, inner_steps=STEPS), {"trained": 100}),
    "imaml": (lambda model: imaml(model, inner_steps=STEPS), {"is_gradient": False}),
    "meta_curvature": (lambda model: meta_curvature(model, inner_steps=STEPS), {}),
    "hierarchical_maml": (
        lambda model: hierarchical_maml(model, levels=LEVELS, rows=(3, 3)),
        {},
    ),
    "alfa": (lambda model: alfa(model, inner_steps=STEPS), {"no_gradient": is_hidden}),
    "double_adapt": (
        lambda model: double_adapt(model, inner_steps=STEPS),
        {
            "expected": after_adapting_labels,
            "no_gradient": lambda path: path == "features.prototypes",  # one feature has no angle
        },
    ),
    "ridge": (ridge, RETURNS),
    "alpaca": (alpaca, RETURNS | DISTRIBUTION),
    "alpaca, mean and noise": (
        lambda model: alpaca(model, heteroscedastic=True, mean_function=first_output(model)),
        RETURNS | DISTRIBUTION,
    ),
    "bayesian_maml": (
        lambda model: bayesian_maml(model, particles=2, inner_steps=STEPS),
        DISTRIBUTION,
    ),
    # The noise is learned by a term worth zero.
    "ensemble": (
        lambda model: ensemble(some_maml(model), 2),
        {
            "predicts": Prediction,
            "judge": by_members,
            "expected": lambda subject: 2 * query_loss_after_adapting(subject),
            "is_gradient": False,
        },
    ),
    "prototypical_networks": (prototypes, CLASSES | {"no_gradient": last_bias}),
    "matching_networks": (matching, CLASSES),
    "matching_networks, regression": (matching_networks, RETURNS),
    "direction of prototypical_networks": (
        lambda model: direction(prototypes(model)),
        RETURNS | {"judge": by_classes(prototypes), "no_gradient": last_bias, "trained": 100},
    ),
    "direction of matching_networks": (
        lambda model: direction(matching(model)),
        RETURNS | {"judge": by_classes(matching)},
    ),
    "from_scratch": (
        lambda model: from_scratch(model, inner_steps=STEPS),
        {"is_gradient": False, "no_gradient": lambda path: True},
    ),
    "joint_training": (joint_training, {"expected": without_adapting}),
    "joint_training, fine-tuned": (
        lambda model: joint_training(model, inner_steps=STEPS),
        {"expected": without_adapting},
    ),
}

HEAVY = (
    "alfa",
    "alpaca, mean and noise",
    "anil",
    "bayesian_maml",
    "cavia",
    "direction of matching_networks",
    "direction of prototypical_networks",
    "double_adapt",
    "ensemble",
    "from_scratch",
    "hierarchical_maml",
    "imaml",
    "joint_training",
    "joint_training, fine-tuned",
    "maml, adam",
    "maml, learned rates",
    "maml, mixed mode",
    "maml_plus_plus, early",
    "maml_plus_plus, late",
    "matching_networks",
    "matching_networks, regression",
    "meta_curvature",
    "meta_sgd",
    "prototypical_networks",
)
"""Up to half a minute each, or close to another; `make test-slow` tries them."""

QUICK = ("fomaml", "reptile")
"""Learners that are tried before each commit."""


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(
            n, marks=pytest.mark.slow if n in HEAVY else [pytest.mark.long] * (n not in QUICK)
        )
        for n in LEARNERS
    ],
)
def test_every_learner_passes_the_battery(name):
    make, traits = LEARNERS[name]
    check_learner(make, Traits(**traits))


@pytest.mark.slow  # one operation after the other is compiled
@pytest.mark.parametrize("name", LEARNERS)
def test_compiled_is_eager_and_every_sequence_model_fits(name):
    make, traits = LEARNERS[name]
    with jax.enable_x64():
        subject = Subject(make, Traits(**traits))
        check_compiled_equals_eager(subject)
        check_takes_sequences(subject)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("maml", "gru"),
        *(("anil", kind) for kind in sequence_models(1)),
        ("ridge", "gru"),
    ],
)
def test_every_parameter_of_a_sequence_model_receives_gradient(name, kind):
    make, traits = LEARNERS[name]
    traits = Traits(**traits)
    learner = make(sequence_models(traits.outputs)[kind])
    draw = class_task if traits.targets == "classes" else number_task
    task = in_sequences(draw(4))
    params = learner.init(jax.random.key(0), task.support.x)
    evaluated = jax.jit(value_and_grad(learner))(params, task)
    assert_same_types(evaluated[1], params)
    assert_finite(evaluated)
    assert all(float(jnp.abs(leaf).max()) > 0 for leaf in jax.tree.leaves(evaluated[1]))


def forget_steps(model):
    """Takes a negative number of steps for none."""
    learner = some_maml(model)

    def adapt(meta_params, support, /, steps=None):
        return learner.adapt(meta_params, support, steps=None if steps is None else max(steps, 0))

    return learner._replace(adapt=adapt)


def flatter(model):
    """Reports half of the loss."""
    learner = some_maml(model)

    def loss(meta_params, task, step):
        value, info = learner.loss(meta_params, task, step)
        return value / 2, info

    return learner._replace(loss=loss)


@pytest.mark.long
@pytest.mark.parametrize(
    ("make", "traits", "message"),
    [
        (forget_steps, {}, "number of steps"),
        (flatter, {}, "Mismatched"),
        (lambda model: some_maml(model, gradient=first_order()), {}, "Mismatched"),
    ],
    ids=["steps", "loss", "gradient"],
)
def test_the_battery_finds_what_is_wrong(make, traits, message):
    with pytest.raises(AssertionError, match=message):
        check_learner(make, Traits(**traits))

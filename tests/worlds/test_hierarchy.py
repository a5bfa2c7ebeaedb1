import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maml_jax.worlds.hierarchy import (
    Hierarchy,
    by_level,
    hierarchy_oracle,
    hierarchy_sampler,
    hierarchy_tasks,
)
from maml_jax.worlds.known_answer import (
    World,
    information_coefficient,
    known_answer_tasks,
    oracle,
    signal_variance,
)

DIRECTIONS = np.asarray(jax.random.normal(jax.random.key(123), (10, 3)) / 10**0.5, float)
SMALL = Hierarchy(World(1.0), (0.5, 0.3, 0.2), rows=(6, 4, 3), siblings=(3, 2))
FLAT = Hierarchy(World(1.0), (1.0, 0.0, 0.0), rows=(6, 4, 3), siblings=(3, 2))


def phi_by_hand(x):
    return 1.5 / 3**0.5 * np.tanh(np.asarray(x, float) @ DIRECTIONS)


def all_rows(task):
    return (
        np.concatenate(pair, axis=-2, dtype=float)
        for pair in zip(task.support[:2], task.query[:2], strict=True)
    )


# (row, row): the variance of the effects that they share. Rows 0 and 1, 2 and 3, 4 and 5 are of
# other assets of the class, 6 and 7, 8 and 9 of other scales of the asset, 10 to 12 the task's own
# and 13 on of the query.
SHARED = {
    (0, 1): 1.0,
    (1, 2): 0.5,
    (0, 4): 0.5,
    (0, 7): 0.5,
    (0, 11): 0.5,
    (5, 14): 0.5,
    (6, 7): 1.0,
    (7, 8): 0.8,
    (6, 10): 0.8,
    (9, 13): 0.8,
    (10, 12): 1.0,
    (12, 14): 1.0,
    (13, 14): 1.0,
}


@pytest.fixture(scope="module")
def drawn():
    return hierarchy_tasks(SMALL, jax.random.key(0), tasks=20_000, query=2)


def test_rows_share_what_their_levels_share(drawn):
    """E[f_i f_j | x] = phi(x_i) . phi(x_j) v, a regression through the origin."""
    x, f = all_rows(drawn[1])
    phi, f = phi_by_hand(x), f[..., 0]
    for (i, j), expected in SHARED.items():
        kernel = (phi[:, i] * phi[:, j]).sum(axis=1)
        found = (f[:, i] * f[:, j] * kernel).sum() / (kernel**2).sum()
        assert found == pytest.approx(expected, abs=0.06), (i, j)


def test_signal_and_noise_are_those_of_the_world(drawn):
    (_, y), (_, f) = map(all_rows, drawn)
    np.testing.assert_allclose(f.var(axis=0), signal_variance(), rtol=0.05)
    np.testing.assert_allclose((y - f).var(axis=0), 1, rtol=0.05)


def test_the_oracle_is_a_regression_on_the_effects_of_all_levels(drawn):
    """Bayesian linear regression, with a column for each effect that a row has."""
    class_, asset, scale = 0, range(1, 5), range(5, 11)  # the last of each is the task's own
    effects = [(class_, asset[i // 2], scale[i // 2]) for i in range(6)]
    effects += [(class_, asset[3], scale[3 + i // 2]) for i in range(4)]
    effects += [(class_, asset[3], scale[5])] * 5
    variances = np.repeat([0.5, *[0.3] * 4, *[0.2] * 6], 3)
    ours = jax.vmap(lambda task: hierarchy_oracle(SMALL, task))(
        jax.tree.map(lambda leaf: leaf[:3], drawn[0])
    )
    x, y = all_rows(jax.tree.map(lambda leaf: leaf[:3], drawn[0]))
    for task in range(3):
        design = np.zeros((15, 11, 3))
        for row, own in enumerate(effects):
            design[row, list(own)] = phi_by_hand(x[task, row])
        design = design.reshape(15, 33)
        known, asked = design[:13], design[13:]
        by_hand = asked @ np.linalg.solve(
            known.T @ known + np.diag(1 / variances), known.T @ y[task, :13]
        )
        np.testing.assert_allclose(ours[task], by_hand, atol=2e-5)


@pytest.mark.long
def test_in_a_flat_world_all_rows_share_one_z():
    task, truth = hierarchy_tasks(FLAT, jax.random.key(1), tasks=1, query=4)
    x, f = all_rows(jax.tree.map(lambda leaf: leaf[0], truth))
    z, residual, *_ = np.linalg.lstsq(phi_by_hand(x), f, rcond=None)
    np.testing.assert_allclose(phi_by_hand(x) @ z, f, atol=1e-5)
    one = jax.tree.map(lambda leaf: leaf[0], task)
    np.testing.assert_allclose(
        hierarchy_oracle(FLAT, one), oracle(World(1.0), one), rtol=1e-4, atol=1e-4
    )


@pytest.mark.long
def test_with_one_level_it_is_the_market_with_a_known_answer():
    one = Hierarchy(World(0.1), (1.0,), rows=(20,), siblings=())
    task, truth = hierarchy_tasks(one, jax.random.key(2), tasks=2000, query=50)
    same, same_truth = known_answer_tasks(World(0.1), jax.random.key(3), tasks=2000, query=50)
    both = [
        float(information_coefficient(jax.vmap(predict)(tasks), answer.query.y))
        for predict, tasks, answer in (
            (lambda t: hierarchy_oracle(one, t), task, truth),
            (lambda t: oracle(World(0.1), t), same, same_truth),
        )
    ]
    assert both[0] == pytest.approx(both[1], abs=0.04)


def test_support_rows_are_laid_out_coarse_to_fine():
    task = hierarchy_sampler(SMALL, meta_batch=2, query=5)(jax.random.key(0))
    assert task.support.x.shape == (2, 13, 10)
    assert task.query.y.shape == (2, 5, 1)
    levels = by_level(SMALL, task.support)
    assert [level.x.shape for level in levels] == [(2, 6, 10), (2, 4, 10), (2, 3, 10)]
    one = by_level(SMALL, jax.tree.map(lambda leaf: leaf[1], task.support))
    np.testing.assert_array_equal(one[1].y, levels[1].y[1])
    np.testing.assert_array_equal(jnp.concatenate([r.x for r in one]), task.support.x[1])


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ({"variances": (0.5, 0.4, 0.2)}, "sum to 1"),
        ({"variances": (1.5, -0.5, 0.0)}, "none be negative"),
        ({"rows": (4, 4)}, "with 3 variances, rows needs 3"),
        ({"siblings": (1,)}, "rows needs 3 entries and siblings 2"),
        ({"siblings": (5, 2)}, "equally many"),
        ({"rows": (6, 4, 0)}, "every level needs rows"),
        ({"world": World(1.0, drift=0.9)}, "do not drift"),
    ],
)
def test_an_impossible_hierarchy_is_refused(fault, message):
    with pytest.raises(ValueError, match=message):
        Hierarchy(**{**SMALL.__dict__, **fault})


def test_impossible_sizes_are_refused():
    with pytest.raises(ValueError, match="at least 1"):
        hierarchy_tasks(SMALL, jax.random.key(0), tasks=0)

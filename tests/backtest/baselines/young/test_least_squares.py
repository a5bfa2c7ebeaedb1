"""Least squares from sums of products: that of a library."""

import numpy as np
import pytest

from maml_jax.backtest.baselines.young.least_squares import make_design, solve, sum_products


def test_the_fit_is_that_of_all_rows_at_once():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((3, 200, 4)), rng.standard_normal((3, 200))
    x[..., 3] = 0.1 * x[..., 3] + x[..., 2] - 1
    weight = rng.uniform(0.5, 2.0, (3, 200))
    y[0, 10], x[1, 20, 2], weight[2, :50] = np.nan, np.nan, 0.0
    design = make_design(x.reshape(-1, 4), clip=None, quadratic=True)
    columns = design(x)
    assert columns.shape[-1] == 1 + 4 + 10
    found = solve(sum_products(columns, y, weight))
    for batch in range(3):
        kept = np.isfinite(columns[batch]).all(axis=1) & np.isfinite(y[batch])
        root = np.sqrt(weight[batch, kept])
        expected = np.linalg.lstsq(
            root[:, None] * columns[batch, kept], root * y[batch, kept], rcond=None
        )[0]
        fitted, wanted = columns[batch, kept] @ found[batch], columns[batch, kept] @ expected
        np.testing.assert_allclose(fitted, wanted, atol=1e-5)


def test_sums_of_parts_are_those_of_the_whole():
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((90, 3)), rng.standard_normal(90)
    whole = sum_products(x, y, np.ones(90))
    parts = sum_products(x.reshape(3, 30, 3), y.reshape(3, 30), np.ones((3, 30)))
    np.testing.assert_allclose(parts.sum(axis=0), whole)


def test_a_column_that_rests_says_nothing_and_few_rows_make_no_fit():
    rng = np.random.default_rng(2)
    x = np.c_[np.ones(40), rng.standard_normal(40), np.full(40, 0.3)]
    y = 2.0 + 3.0 * x[:, 1]
    np.testing.assert_allclose(solve(sum_products(x, y, np.ones(40))), [2, 3, 0], atol=1e-6)
    assert np.isnan(solve(sum_products(x[:3], y[:3], np.ones(3)))).all()


def test_features_are_bounded_at_deviations_of_the_rows_given():
    seen = np.array([[1.0], [3.0], [np.nan]])
    design = make_design(seen, clip=2.0, quadratic=False)
    assert design(np.array([[-9.0], [2.5], [9.0]]))[:, 1].tolist() == [0.0, 2.5, 4.0]
    with pytest.raises(ValueError, match="positive"):
        make_design(seen, clip=-1.0, quadratic=False)

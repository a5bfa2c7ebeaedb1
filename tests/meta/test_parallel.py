import jax.numpy as jnp
import numpy as np
import pytest

from maml_jax.meta.parallel import average_tasks, map_tasks


@pytest.mark.parametrize("count", [1, 2, 7, 8])
@pytest.mark.parametrize("chunk", [None, 1, 3, 8, 50])
def test_chunks_change_nothing(count, chunk):
    tasks = {"a": jnp.arange(count, dtype=jnp.float32), "b": jnp.ones((count, 2))}

    def function(task):
        return task["a"] ** 2 + task["b"].sum()

    expected = np.arange(count) ** 2 + 2
    np.testing.assert_allclose(map_tasks(function, tasks, chunk=chunk), expected)
    mean, kept = average_tasks(lambda t: (function(t), t["a"]), tasks, chunk=chunk)
    np.testing.assert_allclose(mean, expected.mean(), rtol=1e-6)
    np.testing.assert_allclose(kept, np.arange(count))


def test_chunks_below_one_and_empty_averages_are_refused():
    with pytest.raises(ValueError, match="chunk"):
        map_tasks(lambda t: t, jnp.ones(3), chunk=0)
    with pytest.raises(ValueError, match="no tasks"):
        average_tasks(lambda t: (t, t), jnp.ones(0))


def test_half_precision_is_summed_in_single():
    tasks = jnp.full(4096, 1.001, jnp.bfloat16)
    mean, _ = average_tasks(lambda t: (t, ()), tasks, chunk=2)
    assert mean.dtype == jnp.bfloat16
    assert float(mean) == float(tasks[0])

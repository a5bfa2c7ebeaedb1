import jax.numpy as jnp
import numpy as np
import pytest

from maml_jax.errors import ShapeError
from maml_jax.meta import squared_error


def test_a_trailing_axis_of_one_is_not_broadcast():
    y = jnp.arange(5.0)
    np.testing.assert_allclose(squared_error(y[:, None] + 1, y), 1.0)
    np.testing.assert_allclose(squared_error(y + 1, y[:, None]), 1.0)


def test_other_shapes_are_refused():
    with pytest.raises(ShapeError, match=r"\(5, 2\).*\(5,\)"):
        squared_error(jnp.ones((5, 2)), jnp.ones(5))

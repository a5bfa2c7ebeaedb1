"""How to differentiate through the inner loop, one value a mode.

All modes compute the same adapted parameters. They differ in the derivative of these with respect
to where the descent began, and in its cost.
"""

from maml_jax.meta.gradients._exact import exact
from maml_jax.meta.gradients._first_order import first_order
from maml_jax.meta.gradients._implicit import implicit
from maml_jax.meta.gradients._mixed_mode import mixed_mode
from maml_jax.meta.gradients._mode import GradientMode

__all__ = ["GradientMode", "exact", "first_order", "implicit", "mixed_mode"]

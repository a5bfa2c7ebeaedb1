"""Networks as `(init, apply)` pairs, and the adapter that makes one of any `flax.nnx` module."""

from maml_jax.models._gaussian import gaussian
from maml_jax.models._gru import gru
from maml_jax.models._mlp import mlp
from maml_jax.models._temporal_convolution import temporal_convolution
from maml_jax.models._transformer import transformer
from maml_jax.models.adapters import from_nnx
from maml_jax.models.precision import in_precision

__all__ = [
    "from_nnx",
    "gaussian",
    "gru",
    "in_precision",
    "mlp",
    "temporal_convolution",
    "transformer",
]

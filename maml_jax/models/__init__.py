"""Networks as `(init, apply)` pairs, and adapters that make such pairs of flax modules."""

from maml_jax.models._gaussian import gaussian
from maml_jax.models._gru import gru
from maml_jax.models._mlp import mlp
from maml_jax.models._stochastic import dropout, stochastic
from maml_jax.models._temporal_convolution import temporal_convolution
from maml_jax.models._transformer import transformer
from maml_jax.models.adapters import from_nnx
from maml_jax.models.linen import from_linen
from maml_jax.models.precision import in_precision

__all__ = [
    "dropout",
    "from_linen",
    "from_nnx",
    "gaussian",
    "gru",
    "in_precision",
    "mlp",
    "stochastic",
    "temporal_convolution",
    "transformer",
]

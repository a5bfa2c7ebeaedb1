"""Networks as `(init, apply)` pairs, and the adapter that makes one of any `flax.nnx` module."""

from .adapters import from_nnx as from_nnx
from .gaussian import gaussian as gaussian
from .gru import gru as gru
from .mlp import mlp as mlp
from .precision import in_precision as in_precision
from .temporal_convolution import temporal_convolution as temporal_convolution
from .transformer import transformer as transformer

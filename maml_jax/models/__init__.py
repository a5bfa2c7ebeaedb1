"""Networks as `(init, apply)` pairs, and the adapter that makes one of any `flax.nnx` module."""

from .adapters import from_nnx as from_nnx
from .mlp import mlp as mlp
from .precision import in_precision as in_precision

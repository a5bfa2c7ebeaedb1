"""A search for look-ahead: the same pipeline with later bars altered."""

from maml_jax.lookahead.check import LookAheadReport, check_lookahead
from maml_jax.lookahead.risk import check_risk

__all__ = ["LookAheadReport", "check_lookahead", "check_risk"]

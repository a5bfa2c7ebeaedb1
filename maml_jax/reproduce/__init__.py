"""Known figures computed anew: on sinusoids, and on a market whose answer is known."""

from .claims import reproduce_claims as reproduce_claims
from .evidence import reproduce_evidence as reproduce_evidence
from .hierarchy import reproduce_hierarchy as reproduce_hierarchy
from .known_answer import reproduce_known_answer as reproduce_known_answer
from .null_world import reproduce_null_world as reproduce_null_world
from .regimes import reproduce_regimes as reproduce_regimes
from .sinusoid import reproduce_sinusoid as reproduce_sinusoid
from .uncertainty import reproduce_uncertainty as reproduce_uncertainty
from .volatility import reproduce_volatility as reproduce_volatility

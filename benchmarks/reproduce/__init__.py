"""Known figures computed anew: on sinusoids, and on a market whose answer is known."""

from benchmarks.reproduce.claims import reproduce_claims as reproduce_claims
from benchmarks.reproduce.evidence import reproduce_evidence as reproduce_evidence
from benchmarks.reproduce.hierarchy import reproduce_hierarchy as reproduce_hierarchy
from benchmarks.reproduce.known_answer import reproduce_known_answer as reproduce_known_answer
from benchmarks.reproduce.null_world import reproduce_null_world as reproduce_null_world
from benchmarks.reproduce.regimes import reproduce_regimes as reproduce_regimes
from benchmarks.reproduce.sinusoid import reproduce_sinusoid as reproduce_sinusoid
from benchmarks.reproduce.uncertainty import reproduce_uncertainty as reproduce_uncertainty
from benchmarks.reproduce.volatility import reproduce_volatility as reproduce_volatility

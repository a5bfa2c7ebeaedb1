"""Published results reproduced and claims tested, on simulated tasks and on real bars."""

from benchmarks.reproduce.claims import CLAIMS
from benchmarks.reproduce.evidence import EVIDENCE
from benchmarks.reproduce.hierarchy import HIERARCHY
from benchmarks.reproduce.known_answer import KNOWN_ANSWER
from benchmarks.reproduce.new_listing import NEW_LISTING
from benchmarks.reproduce.null_world import NULL_WORLD
from benchmarks.reproduce.regimes import REGIMES
from benchmarks.reproduce.sinusoid import SINUSOID
from benchmarks.reproduce.study import Study, reproduce
from benchmarks.reproduce.uncertainty import UNCERTAINTY
from benchmarks.reproduce.volatility import VOLATILITY

STUDIES = (
    SINUSOID,
    KNOWN_ANSWER,
    CLAIMS,
    UNCERTAINTY,
    HIERARCHY,
    VOLATILITY,
    NEW_LISTING,
    EVIDENCE,
    REGIMES,
    NULL_WORLD,
)
"""In the order of the command line."""

__all__ = [
    "CLAIMS",
    "EVIDENCE",
    "HIERARCHY",
    "KNOWN_ANSWER",
    "NEW_LISTING",
    "NULL_WORLD",
    "REGIMES",
    "SINUSOID",
    "STUDIES",
    "UNCERTAINTY",
    "VOLATILITY",
    "Study",
    "reproduce",
]

"""What a table of risk rests on."""

from collections.abc import Sequence
from typing import NamedTuple

from maml_jax.risk.forecast import Forecast, Tails
from maml_jax.risk.histories import Histories
from maml_jax.risk.model import RiskModel


class Detail(NamedTuple):
    """What a table of risk rests on.

    Attributes:
        model: the weights.
        histories: returns of all assets.
        forecasts: of each asset of the table.
        tails: of each, by level, in the order of `levels`; the last is of the stop.
        levels: of VaR and ES.
        per_year: bars a year, of each asset.
        horizon: bars ahead.
        target_volatility: a year, as a share.
        notes: what was left out, and why.
    """

    model: RiskModel
    histories: Histories
    forecasts: Sequence[Forecast]
    tails: Sequence[Sequence[Tails]]
    levels: tuple[float, ...]
    per_year: Sequence[float]
    horizon: int
    target_volatility: float
    notes: tuple[str, ...]

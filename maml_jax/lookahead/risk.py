"""Does a forecast of risk use anything that was not known yet? Later bars are altered.

Every bar has a forecast that was made at its close: volatility with its bounds, VaR, ES, a weight.
Those up to a cut may not depend on what comes after it.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float

from maml_jax.errors import ConfigError, DataError
from maml_jax.lookahead.check import CUTS, LookAheadReport
from maml_jax.lookahead.findings import (
    Finding,
    deviation,
    find_differences,
    findings_table,
    largest_difference,
)
from maml_jax.lookahead.futures import Frames, alter_after, cut_off, middle_cuts
from maml_jax.lookahead.job import CUT_OFF
from maml_jax.risk.detail import Detail
from maml_jax.risk.forecast import forecast_tails, forecast_volatility, root_variance
from maml_jax.risk.histories import INPUTS, make_histories, young_inputs
from maml_jax.risk.table import risk_table

LAST = 1000
"""Bars of the end of a file that are looked at."""

_LEAST = 6
_ROUNDING = 1e-5
"""Relative to size and deviation: networks are in single precision, sums in double."""


class _Column(NamedTuple):
    """One quantity of an asset at each of its bars: its kind, its name, `[bar]`."""

    what: str
    name: str
    values: Float[np.ndarray, " bar"]


def check_risk(
    bars: Mapping[str, pd.DataFrame],
    *,
    model: str | Path | None = None,
    horizon: int | None = None,
    cuts: int = CUTS,
    seed: int = 0,
) -> LookAheadReport:
    """Forecast risk again with later bars cut off and altered, and compare what came before.

    Args:
        bars: in normal form, by asset; the last `LAST` of each are looked at.
        model: as for `maml_jax.risk`, but a run, which is checked by `check_lookahead`.
        horizon: as for `maml_jax.risk`.
        cuts: after how many bars the future is changed.
        seed: of the places of cuts and of the altered futures.

    Raises:
        ConfigError: if a setting is impossible, or the model is a run.
        DataError: if there are too few bars.
    """
    if cuts < 1:
        raise ConfigError(f"cuts must be at least 1, got {cuts}")
    frames = {name: frame.iloc[-LAST:] for name, frame in bars.items()}
    detail = risk_table(frames, model=model, horizon=horizon).known()
    if not detail.model.members:
        raise ConfigError(f"model {str(model)!r} is a run: maml-jax check-lookahead {model}")
    frames = {name: frames[name] for name in detail.histories.assets}
    timeline = detail.histories.timeline
    if len(timeline) < _LEAST:
        raise DataError(f"{len(timeline)} bars: looking for look-ahead takes {_LEAST} at least")
    places = middle_cuts(timeline, 2, len(timeline) - 3, cuts, seed)
    base = {name: [*columns] for name, columns in _columns(detail, frames)}
    findings = []
    for place in places:
        cut = timeline[place]
        for how, other in _futures(frames, cut, seed):
            for name, columns in _columns(detail, other):
                known = frames[name].index <= cut
                there = known & frames[name]["close"].notna().to_numpy()
                times = pd.DatetimeIndex(frames[name].index[there])
                findings += _compare(name, base[name], columns, times, cut, how)
    checked = (
        f"inputs, volatility, bounds, VaR, ES and weights of {len(frames)} assets at every bar up "
        f"to {', '.join(str(timeline[place]) for place in places)}: the same with the bars after "
        "them cut off and altered twice",
    )
    return LookAheadReport(findings_table(findings), pd.DataFrame(), checked, detail.notes)


def _futures(
    frames: Frames, cut: pd.Timestamp, seed: int
) -> Iterator[tuple[str, dict[str, pd.DataFrame]]]:
    """Alter all bars after a cut, in several ways; assets too young at it are left out."""
    old = {n: f for n, f in frames.items() if f.loc[:cut, "close"].notna().sum() >= 2}
    yield CUT_OFF, cut_off(old, cut)
    yield "later bars altered", alter_after(old, cut, 2 * seed)
    yield "later bars altered a little, some missing", alter_after(old, cut, 2 * seed + 3)


def _columns(detail: Detail, frames: Frames) -> Iterator[tuple[str, list[_Column]]]:
    """Compute all that is known of each asset at each of its bars from the second on."""
    histories = make_histories(frames)
    model, horizon = detail.model, detail.horizon
    forecasts = forecast_volatility(model, histories, horizon=horizon)
    tails = forecast_tails(model, forecasts, detail.levels)
    per_year = dict(zip(detail.histories.assets, detail.per_year, strict=True))
    for number, name in enumerate(histories.assets):
        ages = np.arange(1, len(histories.returns[number]))
        inputs = young_inputs(histories, number, np.zeros(1, int), ages, horizon=horizon)[0]
        columns = [_Column("feature", *each) for each in zip(INPUTS, inputs.T, strict=True)]
        volatility, low, high = root_variance(model, forecasts[number])
        names = ("volatility", "lower bound", "upper bound")
        made = [*zip(names, (volatility, low, high), strict=True)]
        for level, each in zip(detail.levels, tails[number], strict=False):
            text = f"{100 * level:g} %"
            made += [(f"VaR {text}", each.quantile), (f"ES {text}", each.mean)]
        columns += [_Column("prediction", *each) for each in made]
        weight = detail.target_volatility / (volatility * np.sqrt(per_year[name]))
        columns.append(_Column("position", "weight", weight))
        yield name, columns


def _compare(
    asset: str,
    mine: list[_Column],
    theirs: list[_Column],
    times: pd.DatetimeIndex,
    cut: pd.Timestamp,
    how: str,
) -> list[Finding]:
    """Compare columns at the bars of an asset up to a cut; the first bar has none."""
    findings = []
    for (what, name, own), (_, _, other) in zip(mine, theirs, strict=True):
        a, b = own[: len(times) - 1], other[: len(times) - 1]
        size = deviation(a)
        wrong = find_differences(b, a, absolute=_ROUNDING * size, relative=_ROUNDING)
        if wrong.any():
            bar = times[1 + int(np.argmax(wrong))]
            far = largest_difference(b[wrong], a[wrong], size)
            findings.append(Finding(what, name, asset, bar, cut, far, "deviations", how))
    return findings

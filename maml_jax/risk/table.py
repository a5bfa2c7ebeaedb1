"""Today's risk of each asset, in the units of a trader."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from maml_jax.backtest.metrics import bars_per_year
from maml_jax.data.quality.trading_hours import missing_bars
from maml_jax.errors import ConfigError, DataError
from maml_jax.listing import join_names
from maml_jax.risk.detail import Detail
from maml_jax.risk.forecast import (
    Forecast,
    Tails,
    forecast_tails,
    forecast_volatility,
    root_variance,
)
from maml_jax.risk.histories import Histories, make_histories
from maml_jax.risk.model import RiskModel, load_model, pretrained_names
from maml_jax.risk.of_run import forecast_by_run, is_run

LEVELS = (0.01, 0.05)
TARGET_VOLATILITY = 0.15
DAYS_AHEAD, BARS_OF_A_DAY = 5, 24
"""Horizons of daily and of shorter bars, where none is asked for."""

TRAILING = 22
"""Returns of the trailing volatility that stands beside the forecast."""

TOUCHED = 0.05
"""Chance with which noise alone reaches a stop within the horizon."""

MEMORY = 250
"""Last bars whose exceedances correct today's levels."""

_FEW = 20
"""Bars below which the number of bars a year is not inferred from them."""

_ASKED = 20
"""Assets that the length of bars is inferred from."""

_PER_CENT = 100.0
_DAYS = {"weekdays": 252.0, "all days": 365.0}


class RiskTable(pd.DataFrame):
    """Today's risk, one row an asset; all numbers but `age`, `weight` and `position` in per cent.

    Attributes:
        detail: what it rests on: forecasts at earlier bars, the model, notes.
    """

    _metadata = ["detail"]
    detail: Detail | None = None

    @property
    def _constructor(self):
        return RiskTable

    def plot(self, asset: str | None = None):  # type: ignore[override]
        """Draw the fan of what the price may do, and forecast against what came.

        Args:
            asset: name; default the first.

        Returns:
            A matplotlib `Figure`.

        Raises:
            ConfigError: if there is no such asset.
        """
        from maml_jax.risk.page import plot_asset

        return plot_asset(self.known(), asset)

    def to_page(self, path: str | Path) -> Path:
        """Write one self-contained HTML page.

        Raises:
            RunError: if it cannot be written.
        """
        from maml_jax.report.tear_sheet import render, write_page
        from maml_jax.risk.page import risk_page

        return write_page(path, render(risk_page(self, self.known())))

    def known(self) -> Detail:
        """Return what the table rests on.

        Raises:
            ConfigError: if the table was changed, and has lost it.
        """
        if self.detail is None:
            raise ConfigError("this table was changed, and has lost its forecasts: make it anew")
        return self.detail

    def _repr_html_(self) -> str:
        return pd.DataFrame(self).to_html(float_format="{:.2f}".format)


def risk_table(
    bars: Mapping[str, pd.DataFrame],
    *,
    horizon: int | None = None,
    levels: Sequence[float] = LEVELS,
    target_volatility: float = TARGET_VOLATILITY,
    capital: float | None = None,
    model: str | Path | RiskModel | None = None,
    side: str = "long",
) -> RiskTable:
    """Forecast the risk of each asset over the bars to come.

    Args:
        bars: in normal form, by asset; two bars of an asset are enough.
        horizon: bars ahead; default 5 of days, 24 of shorter bars.
        levels: of VaR and ES, as shares: 0.05 is 5 %.
        target_volatility: a year, as a share, that `weight` is sized for.
        capital: adds `position`, the weight in money.
        model: name of weights that ship, a folder of others, or a run directory whose target is a
            volatility; default those of the bars' interval.
        side: `long`, or `short`: which tail is the loss.

    Returns:
        One row an asset: see `docs/risk.md` for each column.

    Raises:
        ConfigError: if a setting is impossible, or no weights know such bars.
        DataError: if there is no asset whose risk can be known.
    """
    _require(horizon, levels, target_volatility, capital, side)
    usable, notes = _usable(bars)
    if is_run(model):
        chosen, histories, forecasts, more = forecast_by_run(model, usable, horizon)
        horizon = forecasts[0].horizon
        notes += more
    else:
        chosen = model if isinstance(model, RiskModel) else _choose(usable, model)
        horizon = _horizon(horizon, chosen)
        histories = make_histories(usable)
        notes += _weekend_notes(chosen, histories) + _gap_notes(chosen, histories)
        forecasts = forecast_volatility(chosen, histories, horizon=horizon, bars=MEMORY)
    sign = 1.0 if side == "long" else -1.0
    wanted = [level if sign > 0 else 1 - level for level in (*levels, TOUCHED / 2)]
    tails = forecast_tails(chosen, forecasts, wanted)
    per_year = _bars_per_year(histories.times, chosen)
    rows = {
        name: _row(chosen, histories, number, forecasts[number], tails[number], per_year[number])
        for number, name in enumerate(histories.assets)
    }
    table = RiskTable(pd.DataFrame.from_dict(rows, orient="index"))
    trailing = table.pop("trailing_volatility")
    for name, values in _losses(tails, levels, sign).items():
        table[name] = values
    table["weight"] = target_volatility / (table["volatility"] / _PER_CENT)
    if capital is not None:
        table["position"] = capital * table["weight"]
    table["stop_distance"] = [_PER_CENT * _loss(each[-1].quantile[-1], sign) for each in tails]
    table["trailing_volatility"] = trailing
    table["model"] = chosen.name
    table.index.name = "asset"
    table.detail = Detail(
        chosen, histories, forecasts, tails, tuple(levels), per_year, horizon, target_volatility,
        tuple(notes),
    )  # fmt: skip
    return table


def _require(horizon, levels, target_volatility, capital, side) -> None:
    if horizon is not None and (
        isinstance(horizon, bool) or not isinstance(horizon, int) or horizon < 1
    ):
        raise ConfigError(f"horizon {horizon!r}: a number of bars, at least 1")
    if not levels or not all(0.001 <= level <= 0.25 for level in levels):
        raise ConfigError(f"levels {[*levels]}: shares from 0.001 to 0.25; 0.05 is 5 %")
    if not 0 < target_volatility < 10:
        raise ConfigError(
            f"target volatility {target_volatility}: above 0 and below 10, a year: for 15 % write "
            "0.15"
        )
    if capital is not None and not 0 < capital < np.inf:
        raise ConfigError(f"capital {capital}: a positive amount of money")
    if side not in ("long", "short"):
        raise ConfigError(f"side {side!r}: must be long or short")


def _horizon(horizon: int | None, model: RiskModel) -> int:
    """Return the bars ahead, the usual ones where none are asked for."""
    if horizon is None:
        return DAYS_AHEAD if model.interval >= pd.Timedelta(days=1) else BARS_OF_A_DAY
    if horizon > max(model.horizons):
        raise ConfigError(
            f"horizon {horizon}: the weights {model.name!r} know 1 to {max(model.horizons)} bars: "
            "ask for fewer, or take longer bars"
        )
    return horizon


def _weekend_notes(model: RiskModel, histories: Histories) -> list[str]:
    """Say so where bars that include weekends meet weights of stocks."""
    if model.name != "stocks-daily" or not any(
        (times.day_of_week >= 5).any() for times in histories.times
    ):
        return []
    return [
        "These bars include weekends, and the weights for daily bars were trained on stocks: they "
        "adapt to how much this asset moves, and do not know how coins differ from stocks. Hourly "
        "bars use weights trained on coins."
    ]


def _gap_notes(model: RiskModel, histories: Histories) -> list[str]:
    """Say so where bars are missing among the last ones of an asset."""
    gaps = {
        name: missing_bars(times[-MEMORY:], model.interval).longest
        for name, times in zip(histories.assets, histories.times, strict=True)
    }
    found = [f"{name} ({longest})" for name, longest in gaps.items() if longest]
    if not found:
        return []
    return [
        f"Bars are missing: {join_names(found, 3)}. A return across a gap counts as that of one "
        "bar, and the asset looks wilder than it is."
    ]


def _usable(bars: Mapping[str, pd.DataFrame]) -> tuple[dict[str, pd.DataFrame], list[str]]:
    """Return the assets whose risk can be known, and why others' cannot."""
    usable: dict[str, pd.DataFrame] = {}
    reasons = []
    for name, frame in bars.items():
        closes = frame["close"].dropna()
        if len(closes) < 2:
            bar = "bar" if len(closes) == 1 else "bars"
            reasons.append(
                f"{name} has {len(closes)} {bar} with a close, and at least 2 are needed"
            )
        elif not (closes > 0).all():
            time = closes.index[~(closes > 0)][0]
            reasons.append(f"{name} has a close of {closes[time]:g} at {time}")
        elif (closes == closes.iloc[0]).all():
            reasons.append(
                f"{name}: its price never moved in {len(closes)} bars, so nothing is known of its "
                "risk"
            )
        else:
            usable[name] = frame
    if not usable:
        raise DataError(join_names(reasons, 3) if reasons else "there are no bars")
    return usable, [f"Left out: {reason}." for reason in reasons]


def bar_length(bars: Mapping[str, pd.DataFrame]) -> pd.Timedelta:
    """Infer the length of bars: the median step, or the least where there are few.

    Two daily bars may have a weekend between them.
    """
    some = list(bars.values())[:_ASKED]
    # Without a zone: numpy makes objects of times that have one.
    times = [pd.DatetimeIndex(frame.index).tz_localize(None).to_numpy() for frame in some]
    steps = [np.diff(each) for each in times]
    every = pd.to_timedelta(np.concatenate(steps))
    step = pd.Timedelta(np.median(every.to_numpy())) if len(every) >= 5 else every.min()
    day = pd.Timedelta(days=1)
    if len(every) < 5 and day < step <= 4 * day and step % day == pd.Timedelta(0):
        return day
    return pd.Timedelta(step)


def _choose(bars: Mapping[str, pd.DataFrame], model: str | Path | None) -> RiskModel:
    step = bar_length(bars)
    if model is not None:
        chosen = load_model(model)
        if not _alike(step, chosen.interval):
            raise ConfigError(
                f"model {str(model)!r}: its weights know bars of {_words(chosen.interval)}, and "
                f"these are of {_words(step)}"
            )
        return chosen
    known = [load_model(name) for name in pretrained_names()]
    for each in known:
        if _alike(step, each.interval):
            return each
    there = join_names([f"{_words(each.interval)} ({each.name})" for each in known], 5)
    raise ConfigError(
        f"bars of {_words(step)}: the weights that ship know bars of {there}; resample, or name "
        "weights or a run that know such bars with --model"
    )


def _alike(step: pd.Timedelta, known: pd.Timedelta) -> bool:
    return 0.8 <= step / known <= 1.25


def _words(step: pd.Timedelta) -> str:
    minutes = step / pd.Timedelta(minutes=1)
    for unit, size in (("day", 1440), ("hour", 60)):
        if minutes >= size and not minutes % size:
            count = int(minutes / size)
            return f"1 {unit}" if count == 1 else f"{count} {unit}s"
    return f"{minutes:g} minutes"


def _bars_per_year(all_times: Sequence[pd.DatetimeIndex], model: RiskModel) -> list[float]:
    """Return the bars a year of each asset; most share their bars with others."""
    known: dict[tuple, float] = {}
    found = []
    for times in all_times:
        key = (len(times), times[0], times[-1])
        if key not in known:
            known[key] = _per_year(times, model)
        found.append(known[key])
    return found


def _per_year(times: pd.DatetimeIndex, model: RiskModel) -> float:
    if len(times) >= _FEW:
        return float(bars_per_year(times))
    days = "all days" if (times.day_of_week >= 5).any() or "crypto" in model.name else "weekdays"
    return _DAYS[days] * max(1.0, pd.Timedelta(days=1) / model.interval)


def _row(
    model: RiskModel,
    histories: Histories,
    number: int,
    forecast: Forecast,
    tails: Sequence[Tails],
    per_year: float,
) -> dict[str, Any]:
    year, ahead = _PER_CENT * np.sqrt(per_year), _PER_CENT * np.sqrt(forecast.horizon)
    volatility, low, high = (each[-1] for each in root_variance(model, forecast))
    last = histories.returns[number][1:][-TRAILING:]
    return {
        "as_of": histories.times[number][-1],
        "age": int(forecast.age[-1]) + 1,
        "volatility": year * volatility,
        "volatility_low": year * low,
        "volatility_high": year * high,
        "volatility_horizon": ahead * volatility,
        "trailing_volatility": year * float(np.sqrt(np.nanmean(last**2))),
    }


def _loss(log_return: float, sign: float) -> float:
    """Return the loss of a long or a short position, as a share of its value."""
    return float(-sign * np.expm1(log_return))


def _losses(
    tails: Sequence[Sequence[Tails]], levels: Sequence[float], sign: float
) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for place, level in enumerate(levels):
        text = f"{_PER_CENT * level:g}"
        found[f"var_{text}"] = [_PER_CENT * _loss(t[place].quantile[-1], sign) for t in tails]
        found[f"es_{text}"] = [_PER_CENT * _loss(t[place].mean[-1], sign) for t in tails]
    return found

"""Forecasts of any model, read from a table."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float

from maml_jax.errors import DataError
from maml_jax.listing import join_names, quote_names

Unit = Literal["percent_per_year", "per_bar"]

_TAILS = ("var_", "es_")


class OutsideForecast(NamedTuple):
    """Forecasts of a model, laid out as returns are.

    Attributes:
        volatility: log of volatility per bar; NaN where there is no row.
        levels: probabilities of the lower quantiles, increasing; empty where there are none.
        var: value at risk over the horizon at each level, a log return with its sign.
        es: expected shortfall, of the same shape and units as `var`.
    """

    volatility: Float[np.ndarray, "asset time"]
    levels: tuple[float, ...]
    var: Float[np.ndarray, "level asset time"]
    es: Float[np.ndarray, "level asset time"]


def forecaster(
    table: pd.DataFrame | str | Path,
    *,
    assets: Sequence[str],
    times: pd.DatetimeIndex,
    unit: Unit = "per_bar",
    bars_per_year: float | None = None,
) -> OutsideForecast:
    """Lay out the forecasts of any model, so that they are judged as others are.

    The table has one row per asset and bar, with the columns `asset`, `time` (the bar at whose
    close the forecast is made), `volatility`, and for levels in per cent `var_1`, `es_1`,
    `var_2.5`, `es_2.5` and so on: signed lower quantiles of the log return over the horizon, of
    which a loss is negative. A column `made_at`, where there is one, is when a forecast was made.
    An empty value is no forecast.

    Args:
        table: rows, or the Parquet file that holds them.
        assets: names of the assets, in the order of the result.
        times: the bars, increasing.
        unit: `per_bar`: volatility per bar, quantiles as they are. `percent_per_year`: volatility
            in per cent a year, quantiles in per cent.
        bars_per_year: divides the variance of a year; needed for `percent_per_year`.

    Raises:
        DataError: if a column is missing, an asset or a bar unknown, a row there twice, a forecast
            later than its bar, or a number impossible; the message names row, from 1, and column.
        ValueError: if the unit is unknown or lacks the bars of a year.
    """
    if unit not in ("per_bar", "percent_per_year"):
        raise ValueError(f"unit is 'per_bar' or 'percent_per_year', not {unit!r}")
    if unit == "percent_per_year" and not (bars_per_year and bars_per_year > 0):
        raise ValueError("unit 'percent_per_year' needs bars_per_year, the bars of a year")
    rows = table if isinstance(table, pd.DataFrame) else _read(Path(table))
    rows = rows.reset_index(drop=True)
    levels = _find_levels(rows)
    place = _find_places(rows, list(assets), times)
    per_cent = unit == "percent_per_year"
    volatility = _numbers(rows, "volatility")
    _refuse(rows, "volatility", volatility <= 0, "a volatility above 0")
    scale = 100 * np.sqrt(bars_per_year) if per_cent and bars_per_year else 1.0
    result = np.full((1 + 2 * len(levels), len(assets), len(times)), np.nan)
    result[0][place] = np.log(volatility / scale)
    for number, name in enumerate(levels.values()):
        var, es = (_numbers(rows, tail + name) for tail in _TAILS)
        _refuse(
            rows,
            f"es_{name}",
            es > var,
            f"at most var_{name}: both are lower quantiles, and a loss is negative",
        )
        result[1 + number][place] = var / (100 if per_cent else 1)
        result[1 + len(levels) + number][place] = es / (100 if per_cent else 1)
    var, es = result[1 : 1 + len(levels)], result[1 + len(levels) :]
    return OutsideForecast(result[0], tuple(levels), var, es)


def _read(path: Path) -> pd.DataFrame:
    try:
        return pd.read_parquet(path)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as Parquet: {error}") from error


def _find_levels(rows: pd.DataFrame) -> dict[float, str]:
    """Return the levels by probability, with their names in the columns' names."""
    missing = [name for name in ("asset", "time", "volatility") if name not in rows.columns]
    if missing:
        raise DataError(
            f"the forecasts lack the columns {quote_names(missing)}; they have "
            f"{quote_names(rows.columns)}"
        )
    levels = {}
    for column in map(str, rows.columns):
        tail = next((tail for tail in _TAILS if column.startswith(tail)), None)
        if tail is None:
            continue
        name = column.removeprefix(tail)
        try:
            level = float(name) / 100
        except ValueError:
            level = np.nan
        if not 0 < level < 1:
            raise DataError(
                f"column {column!r}: var_ and es_ are followed by a level in per cent, as in var_1"
            )
        other = next(each + name for each in _TAILS if each != tail)
        if other not in rows.columns:
            raise DataError(f"column {column!r} needs a column {other!r} beside it")
        levels[level] = name
    return dict(sorted(levels.items()))


def _find_places(
    rows: pd.DataFrame, assets: list[str], times: pd.DatetimeIndex
) -> tuple[np.ndarray, np.ndarray]:
    """Return the asset and the bar of each row."""
    asset = pd.Index(assets).get_indexer(pd.Index(rows["asset"]))
    _refuse(rows, "asset", asset < 0, f"one of the assets {join_names(assets)}")
    time = _times(rows, "time", times)
    bar = times.get_indexer(pd.DatetimeIndex(time))
    if len(times):
        _refuse(rows, "time", time > times[-1], f"a bar up to the last, {times[-1]}")
    _refuse(rows, "time", bar < 0, "the time of a bar")
    if "made_at" in rows.columns:
        made = _times(rows, "made_at", times)
        _refuse(rows, "made_at", made > time, "at the latest the time of the bar")
    twice = pd.Series(asset * len(times) + bar).duplicated().to_numpy()
    _refuse(rows, "time", twice, "one row per asset and bar, and this is the second")
    return asset, bar


def _times(rows: pd.DataFrame, column: str, bars: pd.DatetimeIndex) -> pd.Series:
    """Read a column of times in the time zone of the bars; plain ones are taken to be in it."""
    try:
        times = pd.to_datetime(rows[column])
        if times.dt.tz is None and bars.tz is not None:
            times = times.dt.tz_localize(bars.tz)
        elif times.dt.tz is not None:
            times = times.dt.tz_convert(bars.tz)
    except (ValueError, TypeError, AttributeError) as error:
        raise DataError(f"column {column!r} does not hold times: {error}") from error
    _refuse(rows, column, times.isna(), "a time")
    return times


def _numbers(rows: pd.DataFrame, column: str) -> Float[np.ndarray, " row"]:
    """Read a column of numbers; an empty value is NaN."""
    values = pd.to_numeric(rows[column], errors="coerce").to_numpy(float, na_value=np.nan)
    empty = rows[column].isna().to_numpy()
    _refuse(rows, column, ~np.isfinite(values) & ~empty, "a finite number")
    return values


def _refuse(rows: pd.DataFrame, column: str, wrong, expected: str) -> None:
    bad = np.flatnonzero(np.asarray(wrong, bool))
    if len(bad):
        row = rows.iloc[bad[0]]
        raise DataError(
            f"row {bad[0] + 1} ({row['asset']}, {row['time']}), column {column!r}: "
            f"{row[column]} is not {expected}"
        )

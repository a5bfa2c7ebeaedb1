"""What a table of risk looks like: a figure of one asset, and a page of all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from maml_jax.errors import ConfigError
from maml_jax.report.plots import style
from maml_jax.report.tear_sheet import Grid, Plot, Section, TearSheet, Tile
from maml_jax.risk.detail import Detail
from maml_jax.risk.forecast import forecast_tails, forecast_volatility, root_variance

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_BANDS = ((0.05, 0.95), (0.25, 0.75))
"""Levels of the fan, from the widest."""

_STEPS = (1, 2, 3, 5, 8, 13, 22, 40, 60)
"""Bars ahead at which the fan is drawn, up to the horizon."""

_SHOWN = 250
"""Bars of history in a figure."""

_FIGURES = 4
"""Assets whose figures are on a page; all are in its table."""

_FEW = 20
"""Bars of an asset below which the words say that they are few."""

_PER_CENT = 100.0

_NAMES = {
    "as_of": "last bar",
    "age": "bars of its own",
    "volatility": "volatility, % a year, over the next {span}",
    "volatility_low": "  1 time in 20 it is below",
    "volatility_high": "  1 time in 20 it is above",
    "volatility_horizon": "volatility, % in {span}",
    "weight": "weight: position / capital, for {target} % volatility a year",
    "position": "position in money, for {target} % volatility a year",
    "stop_distance": "stop, % from the price: noise hits it 1 time in 20 in {span}",
    "trailing_volatility": "volatility of the last bars (22 at most), % a year",
    "model": "model",
}
"""Of the rows of a table of few assets."""


def plot_asset(detail: Detail, asset: str | None = None) -> Figure:
    """Draw what the price of an asset may do, and what was forecast against what came.

    Raises:
        ConfigError: if there is no such asset.
    """
    name = detail.histories.assets[0] if asset is None else asset
    if name not in detail.histories.assets:
        raise ConfigError(f"asset {name!r}: the table has {', '.join(detail.histories.assets)}")
    return _plot(detail, detail.histories.assets.index(name))


@style.apply_style
def _plot(detail: Detail, number: int) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    name = detail.histories.assets[number]
    _draw_fan(left, detail, number)
    left.set_title(f"{name}: the next {span_words(detail)}")
    _draw_history(right, detail, number)
    right.set_title("Forecast, and what happened")
    return figure


def _draw_fan(axes, detail: Detail, number: int) -> None:
    """Draw quantiles of the price at each known horizon, up to that of the table."""
    # A run forecasts its own horizon alone.
    between = _STEPS if detail.model.members else ()
    steps = sorted({*(step for step in between if step < detail.horizon), detail.horizon})
    bounds = {level: [0.0] for pair in _BANDS for level in pair}
    for step in steps:
        forecast = detail.forecasts[number]
        if step != detail.horizon:
            [forecast] = forecast_volatility(
                detail.model,
                detail.histories,
                horizon=step,
                assets=[number],
                bars=len(forecast.age),
            )
        [tails] = forecast_tails(detail.model, [forecast], list(bounds))
        for tail in tails:
            bounds[tail.level].append(_PER_CENT * float(np.expm1(tail.quantile[-1])))
    x = [0, *steps]
    recent = np.nan_to_num(detail.histories.returns[number][1:])[-2 * max(steps[-1], 10) :]
    path = np.concatenate([[0.0], np.cumsum(recent)])
    axes.plot(
        np.arange(-len(recent), 1), _PER_CENT * np.expm1(path - path[-1]), color="#222222", lw=1.2
    )
    for shade, (low, high) in zip((0.2, 0.35), _BANDS, strict=True):
        axes.fill_between(
            x, bounds[low], bounds[high], color=style.COLOURS[0], alpha=shade, lw=0,
            label=f"{high - low:.0%} of outcomes",
        )  # fmt: skip
    axes.axhline(0, color=style.QUIET, lw=0.8)
    axes.set_xlabel("bars from the last one")
    axes.set_ylabel("change of the price, %")
    axes.legend(loc="upper left")


def _draw_history(axes, detail: Detail, number: int) -> None:
    forecast = detail.forecasts[number]
    volatility, low, high = root_variance(detail.model, forecast)
    scale = _PER_CENT * np.sqrt(detail.per_year[number])
    times = detail.histories.times[number][forecast.first :][-_SHOWN:]
    kept = slice(-len(times), None)
    axes.fill_between(
        times, scale * low[kept], scale * high[kept], color=style.COLOURS[0], alpha=0.2, lw=0,
        label="9 of 10 outcomes",
    )  # fmt: skip
    axes.plot(times, scale * volatility[kept], color=style.COLOURS[0], label="forecast")
    came = scale * np.exp(forecast.outcome[kept])
    axes.plot(times, came, ".", ms=3, color=style.COLOURS[1], label="what happened")
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("{x:g}")
    axes.tick_params(axis="x", rotation=25)
    axes.set_ylabel("volatility, % a year")
    axes.legend(loc="upper left", markerscale=3, frameon=True, framealpha=0.8)


def tail_name(column: str) -> str:
    """Return how VaR and ES are called; empty for other columns."""
    for start, text in (("var_", "VaR {} %"), ("es_", "ES {} %")):
        if column.startswith(start):
            return text.format(column.removeprefix(start))
    return ""


def label_column(column: str, detail: Detail) -> str:
    """Return what a column of a table is called for readers, with its unit."""
    span, tail = span_words(detail), tail_name(column)
    if column.startswith("var_"):
        share = float(column.removeprefix("var_"))
        return f"{tail}: loss passed {_often(share)} in {span}, %"
    if tail:
        return f"{tail}: mean loss when it is passed, %"
    target = f"{_PER_CENT * detail.target_volatility:g}"
    return _NAMES[column].format(span=span, target=target)


def _often(per_cent: float) -> str:
    """Say how often a tail is met: 1 time in 20."""
    return f"1 time in {_PER_CENT / per_cent:.4g}"


def span_words(detail: Detail) -> str:
    """Return the horizon in words: 5 days, 24 hours, or 6 bars of another length."""
    units = {pd.Timedelta(days=1): "day", pd.Timedelta(hours=1): "hour"}
    unit = units.get(detail.model.interval, "bar")
    return f"{detail.horizon} {unit}{'s' if detail.horizon > 1 else ''}"


def coverage_so_far(detail: Detail) -> pd.DataFrame:
    """Count how often the loss passed VaR, at the bars whose outcome is known.

    Returns:
        One row an asset: forecasts whose outcome is known, and for each level the share of them, in
        per cent, in which the loss was beyond VaR.
    """
    rows = {}
    for number, name in enumerate(detail.histories.assets):
        forecast = detail.forecasts[number]
        known = np.isfinite(forecast.total)
        row: dict[str, float] = {"forecasts": int(known.sum())}
        for level, tail in zip(detail.levels, detail.tails[number], strict=False):
            sign = 1.0 if tail.level < 0.5 else -1.0
            beyond = sign * forecast.total[known] < sign * tail.quantile[known]
            share = _PER_CENT * float(beyond.mean()) if known.any() else np.nan
            row[f"beyond VaR {_PER_CENT * level:g} %, % of forecasts"] = share
        rows[name] = {**row, "that do not overlap": int(known.sum()) // forecast.horizon}
    return pd.DataFrame.from_dict(rows, orient="index")


def risk_page(table: pd.DataFrame, detail: Detail) -> TearSheet:
    """Lay out the page of a table."""
    names = list(table.index)
    shown = names[:_FIGURES]
    figures = tuple(
        Plot(
            name,
            "Left: the last bars, and where nine and five of ten outcomes lie. Right: volatility "
            "as it was forecast at each bar, and as it came over the bars after it.",
            plot_asset(detail, name),
            wide=True,
        )
        for name in shown
    )
    first = table.iloc[0]
    tiles = [
        Tile(
            "Volatility, % a year",
            f"{first['volatility']:.1f}",
            f"{first['volatility_low']:.1f} to {first['volatility_high']:.1f}",
        ),
        *(
            Tile(f"{tail_name(column)}, % in {span_words(detail)}", f"{first[column]:.2f}")
            for column in (f"var_{_PER_CENT * level:g}" for level in detail.levels[-1:])
        ),
        Tile(
            f"Position / capital, for {_PER_CENT * detail.target_volatility:g} % a year",
            f"{first['weight']:.2f}",
        ),
        Tile("Stop distance, %", f"{first['stop_distance']:.2f}"),
    ]
    plain = pd.DataFrame(table).drop(columns=["model"])
    plain = plain.rename(columns=lambda column: label_column(column, detail).strip())
    words = describe(table, detail)
    return TearSheet(
        "Risk of " + (names[0] if len(names) == 1 else f"{len(names)} assets"),
        words,
        detail.notes,
        (
            Section("As of the last bar", (Grid("Risk", plain, columns=5),)),
            Section("Assets", figures),
            Section("How it did so far", (Grid("Losses beyond VaR", coverage_so_far(detail)),)),
        ),
        {"model": {"name": detail.model.name, "trained on": detail.model.card.get("about", "")}},
        {},
        facts=f"{first['as_of']:%Y-%m-%d %H:%M} · the next {span_words(detail)}",
        tiles=tiles if len(names) == 1 else (),
    )


def describe(table: pd.DataFrame, detail: Detail) -> str:
    """Say in sentences what the first row of a table means."""
    row = table.iloc[0]
    name, span = table.index[0], span_words(detail)
    parts = [
        f"{name}: {row['volatility']:.0f} % volatility a year is forecast for the next {span} "
        f"(9 times in 10 between {row['volatility_low']:.0f} and {row['volatility_high']:.0f} %), "
        f"from {row['age']} bars of its own",
    ]
    if "var_5" in row:
        short = any(tail.level > 0.5 for tail in detail.tails[0])
        loses = "a short position loses" if short else "a holder loses"
        parts.append(
            f"1 time in 20 {loses} more than {row['var_5']:.1f} % in {span}, then "
            f"{row['es_5']:.1f} % on average"
        )
    money = f" ({row['position']:,.0f})" if "position" in row else ""
    parts.append(
        f"a position of {row['weight']:.2f} times the capital{money} makes the capital move by "
        f"{_PER_CENT * detail.target_volatility:g} % a year"
    )
    if row["age"] < _FEW:
        parts.append(f"{row['age']} bars are few: rely on the range more than on one number")
    return "; ".join(parts) + "."

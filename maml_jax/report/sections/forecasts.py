"""Sections of the tear sheet on forecasts and regimes."""

import numpy as np
import pandas as pd

from maml_jax.report.plots import comparisons, forecasts, style
from maml_jax.report.run_tables import HALF, RunTables
from maml_jax.report.tear_sheet import Block, Grid, Plot, Section

FEWEST_OF_A_REGIME = 20
"""Bars of a regime below which nothing is annualised."""


def describe_forecasts(tables: RunTables) -> Section:
    """Show predictions, their calibration, adaptation and meta-training."""
    blocks: list[Block] = []
    given, own = tables.predictions, tables.headline
    if len(given) and {"prediction", "target", "strategy"} <= {*given.columns}:
        names = tables.strategies_in(given)[:3]
        terms = {"strategies": names, "title": "", "width": HALF}
        blocks.append(
            Plot(
                "Predictions and outcomes",
                "Predictions in ten bins of equal size, with 95 % intervals that treat the assets "
                "of a date as one cluster. Along the dashed line: skill; a flat line: none.",
                forecasts.plot_predictions(
                    given, overlap=tables.overlap, units=tables.units, **terms
                ),
            )
        )
        if "std" in given and given.loc[given["strategy"].isin(names), "std"].notna().any():
            blocks.append(
                Plot(
                    "Calibration of predicted intervals",
                    "On the dashed line, intervals cover as much as they promise; below it they "
                    "are too narrow.",
                    forecasts.plot_calibration(given, **terms),
                )
            )
    if len(tables.adaptation) and tables.adaptation.notna().any(axis=None):
        blocks.append(_adaptation(tables))
    if len(tables.history):
        several = "fold" in tables.history and len({*tables.history["fold"]}) > 1
        folds = "; one thin line per fold" if several else ""
        blocks.append(
            Plot(
                "Meta-training",
                f"Query loss of each meta-step, smoothed{folds}. A curve that is still falling "
                "needs more steps.",
                forecasts.plot_training(tables.history, title="", width=HALF),
            )
        )
    if len(tables.adaptation):
        table = tables.adaptation.T.rename(columns=lambda steps: f"{steps} steps")
        # What a step changes is often in the third digit.
        table = table.map(lambda error: f"{error:#.4g}" if error == error else None)
        blocks.append(Grid("Mean squared error after each step", table, strong=own))
    return Section("Forecasts and adaptation", tuple(blocks))


def describe_regimes(tables: RunTables) -> Section:
    """Show returns by regime of the market."""
    table = tables.regimes
    if table.empty:
        return Section("Regimes", ())
    names = tables.strategies_in(table)
    ordered = style.select_rows(table, names)
    few = ordered["bars"] < FEWEST_OF_A_REGIME
    ordered.loc[few, ["Mean Return (Ann.) [%]", "Sharpe Ratio"]] = np.nan
    order = list(dict.fromkeys(table["regime"]))
    bars = table.drop_duplicates("regime").set_index("regime")["bars"]

    def wide(figure: str) -> pd.DataFrame:
        found = ordered.pivot_table(figure, "regime", "strategy", dropna=False, sort=False)
        found = found.reindex(index=order, columns=names).rename_axis(columns=None)
        found.insert(0, "bars", bars.loc[order].astype(int))
        return found.rename(index=lambda name: str(name).replace("_", " "))

    years, own = tables.bars_per_year, tables.headline
    return Section(
        "Regimes",
        (
            Plot(
                "Annualised net return in each regime",
                "Thin lines: 95 % intervals, long where a regime has few bars.",
                comparisons.plot_regimes(
                    ordered, years, headline=own, title="", width=HALF, most=3
                ),
            ),
            Grid("Annualised net return, %", wide("Mean Return (Ann.) [%]")),
            Grid("Net Sharpe ratio", wide("Sharpe Ratio")),
        ),
        "Trend and volatility of all test assets together, as known when positions are decided."
        + (
            f" Regimes of fewer than {FEWEST_OF_A_REGIME} bars are not annualised."
            if few.any()
            else ""
        ),
    )


def _adaptation(tables: RunTables) -> Plot:
    table = tables.adaptation
    own = tables.headline if tables.headline in table else table.columns[0]
    errors = table[own].dropna()
    change_note = ""
    if len(errors) > 1 and errors.iloc[0] > 0 and np.isfinite(errors.iloc[-1]):
        change = 100 * (errors.iloc[-1] / errors.iloc[0] - 1)
        word = "higher" if change > 0 else "lower"
        change_note = f" {own}: {abs(change):.1f} % {word} after {errors.index[-1]} steps."
    return Plot(
        "Error before and after each adaptation step",
        f"On tasks from the test span. Falling: adapting helps; rising: it overfits.{change_note}",
        forecasts.plot_adaptation(table, title="", width=HALF, height=3.1),
    )

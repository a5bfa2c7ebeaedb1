"""Section of the tear sheet on assets: each of a few; of many, the distribution and extremes."""

import pandas as pd

from maml_jax import listing
from maml_jax.report.plots import comparisons, style
from maml_jax.report.run_tables import HALF, RunTables
from maml_jax.report.tear_sheet import Block, Grid, Plot, Section

SHARPE = "Sharpe Ratio"
_ALONE = (
    "Return [%]", SHARPE, "Max. Drawdown [%]", "Turnover (Ann.)", "# Trades", "Win Rate [%]",
    "Correlation",
)  # fmt: skip

ENDS = 10
"""How many of the best assets, and of the worst, are shown of many."""

_LEVELS = {"lowest": 0.0, "5 %": 0.05, "25 %": 0.25, "median": 0.5, "75 %": 0.75, "95 %": 0.95,
           "highest": 1.0}  # fmt: skip
"""Quantiles over assets."""


def describe_assets(tables: RunTables) -> Section:
    """Show assets traded alone; nothing for a single one."""
    table = tables.assets
    if table.empty or table["asset"].nunique() < 2:
        return Section("Assets", ())
    names = tables.strategies_in(table)
    ordered = style.select_rows(table, names)
    own = ordered[ordered["strategy"] == tables.headline].set_index("asset")
    figures = [name for name in _ALONE if name in own and own[name].notna().any()]
    ratios = _ratios(ordered, names, own.index) if SHARPE in table else None
    if table["asset"].nunique() > listing.MOST:
        return _show_many(tables, ordered, own[figures], ratios)
    blocks: list[Block] = []
    if ratios is not None:
        blocks.append(
            Plot(
                "Sharpe ratio of each asset",
                "Blue dot on the right: the headline was the best there. A few dots prove little.",
                comparisons.plot_assets(ordered, headline=tables.headline, title="", width=HALF),
            )
        )
    blocks.append(Grid(f"{tables.headline}, each asset traded alone", own[figures]))
    if ratios is not None:
        blocks.append(Grid("Net Sharpe ratio of every strategy on each asset", ratios))
    return Section("Assets", tuple(blocks), "Each asset traded alone with the whole capital.")


def spread(table: pd.DataFrame) -> pd.DataFrame:
    """Return quantiles over the rows of a table, one row per column; NaN is left out.

    Args:
        table: figures, `[asset, column]`.
    """
    known = style.as_floats(table).dropna(axis="columns", how="all")
    return known.quantile(list(_LEVELS.values())).set_axis(list(_LEVELS)).T


def compare_assets(ratios: pd.DataFrame, headline: str) -> pd.DataFrame:
    """Count the assets on which the headline beats each other strategy, and by how much.

    Args:
        ratios: a figure of which more is better, `[asset, strategy]`.
        headline: the strategy to compare with all others.

    Returns:
        One row per other strategy: `assets` with both figures, shares of them in per cent where
        the headline is `better` and `worse`, and quantiles of the difference.
    """
    rows = {}
    for name in ratios.columns.drop(headline):
        less = style.as_floats(ratios[headline] - ratios[name]).iloc[:, 0].dropna()
        if len(less):
            rows[name] = {
                "assets": len(less),
                "better, %": 100 * (less > 0).mean(),
                "worse, %": 100 * (less < 0).mean(),
                "difference, 5 %": less.quantile(0.05),
                "difference, median": less.median(),
                "difference, 95 %": less.quantile(0.95),
            }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("other")


def best_and_worst(figures: pd.Series) -> tuple[pd.Index, pd.Index]:
    """Return the assets with the highest figures, best first, and the lowest, worst first.

    Ten each, or half each where fewer are known, none twice; ties in the order of the table.
    """
    known = style.as_floats(figures).iloc[:, 0].dropna()
    count = min(ENDS, len(known) // 2)
    best = known.nlargest(count).index
    return best, known.drop(best).nsmallest(count).index


def _ratios(ordered: pd.DataFrame, names: list[str], assets: pd.Index) -> pd.DataFrame:
    wide = ordered.pivot_table(SHARPE, "asset", "strategy", dropna=False, sort=False)
    return wide.reindex(index=assets, columns=names).rename_axis(columns=None)


def _show_many(
    tables: RunTables, ordered: pd.DataFrame, figures: pd.DataFrame, ratios: pd.DataFrame | None
) -> Section:
    """Show the distribution of figures over many assets, and the best and worst assets."""
    count, own = ordered["asset"].nunique(), tables.headline
    note = (
        f"{count:,} assets, each traded alone with the whole capital; all their figures are in "
        "assets.parquet of the run directory."
    )
    blocks: list[Block] = []
    ranked = figures.iloc[:, 0] if figures.shape[1] else pd.Series(dtype="float64")
    if ratios is not None and own in ratios and ratios[own].notna().any():
        ranked = ratios[own].rename(SHARPE)
        blocks += _show_ratios(tables, ordered, ratios)
    if figures.shape[1]:
        table = spread(figures)
        blocks.append(Grid(f"{own}, figures over the assets", table, _QUANTILES))
    unknown = count - int(ranked.notna().sum())
    if unknown:
        note += (
            f" {unknown:,} are not ranked, because the {ranked.name or 'figure'} of {own} is "
            "unknown, for example without a position."
        )
    best, worst = best_and_worst(ranked)
    for word, chosen in (("best", best), ("worst", worst)):
        if len(chosen):
            title = f"{own}, the {len(chosen)} {word} assets"
            caption = (
                f"By {ranked.name}. Among this many assets, the extremes are mostly luck: they do "
                "not tell which assets will do well."
            )
            blocks.append(Grid(title, figures.loc[chosen], caption))
    if ratios is not None and len(best):
        shown = ratios.loc[[*best, *worst[::-1]]]
        blocks.append(Grid("Net Sharpe ratio of every strategy on these assets", shown))
    return Section("Assets", tuple(blocks), note)


_QUANTILES = "Quantiles of each column separately: a row is not an asset."


def _show_ratios(tables: RunTables, ordered: pd.DataFrame, ratios: pd.DataFrame) -> list[Block]:
    """Show the distribution of Sharpe ratios, and compare strategies asset by asset."""
    own, other = tables.headline, tables.benchmark
    terms = {"headline": own, "title": "", "width": HALF}
    blocks: list[Block] = [
        Plot(
            "Sharpe ratios over the assets",
            "Share of assets with a lower ratio; the dot is the median. Further right is better; "
            "where a curve crosses 0, it reads the share of assets that lost money.",
            comparisons.plot_asset_distribution(ordered, **terms),
        )
    ]
    if other != own and other in ratios and ratios[[own, other]].notna().all(axis=1).any():
        blocks.append(
            Plot(
                f"Sharpe ratio of each asset against {other}",
                f"One dot per asset: above the dashed line it beat {other}; along the line it only "
                "follows the asset. The outermost 1 % may lie outside.",
                comparisons.plot_assets_against(ordered, other, **terms),
            )
        )
    table = spread(ratios).rename_axis("strategy")
    table["above 0, %"] = 100 * (ratios > 0).sum() / ratios.notna().sum()
    blocks.append(Grid("Net Sharpe ratio over the assets", table, _QUANTILES, own))
    compared = compare_assets(ratios, own)
    if len(compared):
        caption = (
            "Assets on which its Sharpe ratio is higher or lower, and quantiles of the difference. "
            "Assets move together, so this is not a test of skill."
        )
        blocks.append(Grid(f"{own} minus each other strategy, asset by asset", compared, caption))
    return blocks

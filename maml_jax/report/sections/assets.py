"""The part of a tear sheet that tells of assets: each of a few, the spread and the ends of many."""

import pandas as pd

from maml_jax import listing
from maml_jax.report.plots import comparisons, style
from maml_jax.report.run_tables import HALF, RunTables
from maml_jax.report.tear_sheet import Block, Grid, Part, Plot

SHARPE = "Sharpe Ratio"
_ALONE = (
    "Return [%]", SHARPE, "Max. Drawdown [%]", "Turnover (Ann.)", "# Trades", "Win Rate [%]",
    "Correlation",
)  # fmt: skip

ENDS = 10
"""The best assets, and the worst, that are shown of many."""

_LEVELS = {"lowest": 0.0, "5 %": 0.05, "25 %": 0.25, "median": 0.5, "75 %": 0.75, "95 %": 0.95,
           "highest": 1.0}  # fmt: skip
"""Quantiles over assets."""


def by_asset(tables: RunTables) -> Part:
    """Return the part of assets traded alone; empty of a single one."""
    table = tables.assets
    if table.empty or table["asset"].nunique() < 2:
        return Part("Assets", ())
    names = tables.found(table)
    ordered = style.rows_of(table, names)
    own = ordered[ordered["strategy"] == tables.headline].set_index("asset")
    figures = [name for name in _ALONE if name in own and own[name].notna().any()]
    ratios = _ratios(ordered, names, own.index) if SHARPE in table else None
    if table["asset"].nunique() > listing.MOST:
        return _of_many(tables, ordered, own[figures], ratios)
    blocks: list[Block] = []
    if ratios is not None:
        blocks.append(
            Plot(
                "Sharpe ratio of each asset",
                "A blue dot right of the others: it was the best there. Few dots prove little.",
                comparisons.plot_assets(ordered, headline=tables.headline, title="", width=HALF),
            )
        )
    blocks.append(Grid(f"{tables.headline}, each asset traded alone", own[figures]))
    if ratios is not None:
        blocks.append(Grid("Net Sharpe ratio of every strategy on each asset", ratios))
    return Part("Assets", tuple(blocks), "Each asset traded alone with the whole capital.")


def spread(table: pd.DataFrame) -> pd.DataFrame:
    """Return quantiles over the rows of a table, NaN left out, one row per column that has any.

    Args:
        table: figures, `[asset, column]`.
    """
    known = style.columns_of(table).dropna(axis="columns", how="all")
    return known.quantile(list(_LEVELS.values())).set_axis(list(_LEVELS)).T


def against(ratios: pd.DataFrame, headline: str) -> pd.DataFrame:
    """Return on how many assets the headline is better than each other strategy, and by how much.

    Args:
        ratios: a figure that is better where it is greater, `[asset, strategy]`.
        headline: the strategy that is compared with all others.

    Returns:
        One row per other strategy: `assets` that have both figures, the shares of them in per cent
        where the headline is `better` and `worse`, and quantiles of the difference.
    """
    rows = {}
    for name in ratios.columns.drop(headline):
        less = style.columns_of(ratios[headline] - ratios[name]).iloc[:, 0].dropna()
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


def ends(figures: pd.Series) -> tuple[pd.Index, pd.Index]:
    """Return the assets with the highest figures, best first, and the lowest, worst first.

    Ten each, or half each where fewer are known, none of them twice; those of equal figures in the
    order of the table.
    """
    known = style.columns_of(figures).iloc[:, 0].dropna()
    count = min(ENDS, len(known) // 2)
    best = known.nlargest(count).index
    return best, known.drop(best).nsmallest(count).index


def _ratios(ordered: pd.DataFrame, names: list[str], assets: pd.Index) -> pd.DataFrame:
    wide = ordered.pivot_table(SHARPE, "asset", "strategy", dropna=False, sort=False)
    return wide.reindex(index=assets, columns=names).rename_axis(columns=None)


def _of_many(
    tables: RunTables, ordered: pd.DataFrame, figures: pd.DataFrame, ratios: pd.DataFrame | None
) -> Part:
    """Return the spread of figures over many assets, and those of the best and the worst."""
    count, own = ordered["asset"].nunique(), tables.headline
    said = (
        f"{count:,} assets, each traded alone with the whole capital; the figures of all of them "
        "stand in assets.parquet of the run directory."
    )
    blocks: list[Block] = []
    ranked = figures.iloc[:, 0] if figures.shape[1] else pd.Series(dtype="float64")
    if ratios is not None and own in ratios and ratios[own].notna().any():
        ranked = ratios[own].rename(SHARPE)
        blocks += _of_ratios(tables, ordered, ratios)
    if figures.shape[1]:
        table = spread(figures)
        blocks.append(Grid(f"{own}, figures over the assets", table, _QUANTILES))
    unknown = count - int(ranked.notna().sum())
    if unknown:
        said += (
            f" Of {unknown:,} the {ranked.name or 'figure'} of {own} is not known, as where it "
            "took no position: they have no rank."
        )
    best, worst = ends(ranked)
    for word, chosen in (("best", best), ("worst", worst)):
        if len(chosen):
            title = f"{own}, the {len(chosen)} {word} assets"
            caption = (
                f"By {ranked.name}. Of as many assets, the ends are mostly luck: they do not say "
                "which assets will do well."
            )
            blocks.append(Grid(title, figures.loc[chosen], caption))
    if ratios is not None and len(best):
        shown = ratios.loc[[*best, *worst[::-1]]]
        blocks.append(Grid("Net Sharpe ratio of every strategy on these assets", shown))
    return Part("Assets", tuple(blocks), said)


_QUANTILES = "Quantiles, each column by itself: one line is no asset."


def _of_ratios(tables: RunTables, ordered: pd.DataFrame, ratios: pd.DataFrame) -> list[Block]:
    """Return how the Sharpe ratios of strategies are spread, and compare asset by asset."""
    own, other = tables.headline, tables.benchmark
    terms = {"headline": own, "title": "", "width": HALF}
    blocks: list[Block] = [
        Plot(
            "Sharpe ratios over the assets",
            "Share of the assets with a lower ratio; a dot is the median asset. A curve further "
            "right is better; where it crosses 0, that share of the assets lost.",
            comparisons.plot_asset_distribution(ordered, **terms),
        )
    ]
    if other != own and other in ratios and ratios[[own, other]].notna().all(axis=1).any():
        blocks.append(
            Plot(
                f"Sharpe ratio of each asset, beside {other}",
                "One dot per asset. Above the dashed line it did better than "
                f"{other}; dots along that line only follow the asset. The outermost "
                "1 % may lie outside.",
                comparisons.plot_assets_against(ordered, other, **terms),
            )
        )
    table = spread(ratios).rename_axis("strategy")
    table["above 0, %"] = 100 * (ratios > 0).sum() / ratios.notna().sum()
    blocks.append(Grid("Net Sharpe ratio over the assets", table, _QUANTILES, own))
    compared = against(ratios, own)
    if len(compared):
        caption = (
            "On how many of the assets that have both its Sharpe ratio is higher or lower, and "
            "quantiles of the difference. Assets move together: this is no test of skill."
        )
        blocks.append(Grid(f"{own} beside each other strategy, asset by asset", compared, caption))
    return blocks

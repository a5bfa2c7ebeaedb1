"""What the tear sheet of a run shows, and in which order."""

from importlib.metadata import version
from typing import TYPE_CHECKING

import pandas as pd

from maml_jax.report import TearSheet, plot_drawdown, plot_training

if TYPE_CHECKING:
    from maml_jax.experiment.result import Result

_PACKAGES = ("maml-jax", "jax", "optax", "flax", "numpy", "pandas")


def _list(names: tuple[str, ...]) -> str:
    return ", ".join(names) if len(names) <= 8 else f"{len(names)} assets"


def _by_regime(result: "Result") -> dict[str, pd.DataFrame]:
    """Lay out figures by regime, a row for each, with the number of its bars."""
    table = result.regimes
    if table.empty:
        return {}
    order = list(dict.fromkeys(table["regime"]))
    bars = table.drop_duplicates("regime").set_index("regime")["bars"]
    where = "by regime of the market (trend and volatility of all test assets together)"

    def wide(figure: str) -> pd.DataFrame:
        found = table.pivot_table(figure, "regime", "strategy", dropna=False)
        found = found.reindex(index=order, columns=list(result.stats.columns))
        found.insert(0, "bars", bars.loc[order])
        return found

    return {
        f"Mean net return a year (in per cent) {where}": wide("Mean Return (Ann.) [%]"),
        f"Net Sharpe ratio {where}": wide("Sharpe Ratio"),
    }


def tear_sheet(result: "Result", verdict: str) -> TearSheet:
    """Lay out what a run found.

    Args:
        result: of a run that was backtested.
        verdict: what is to be said of it first.
    """
    method = next(iter(result.checkpoints))
    table = result.assets.set_index("asset")
    own = table[table["strategy"] == method]
    figures = ["Return [%]", "Sharpe Ratio", "Max. Drawdown [%]", "Turnover (Ann.)", "# Trades",
               "Win Rate [%]", "Correlation"]  # fmt: skip
    sharpe = table.pivot_table("Sharpe Ratio", "asset", "strategy", dropna=False)
    sharpe = sharpe.loc[own.index, list(result.stats.columns)]
    settings = result.config.model_dump(exclude_none=True)
    sections = {"run": {"seed": settings.pop("seed")}, **settings}
    return TearSheet(
        title=f"{method.upper()} walk-forward on {_list(result.config.data.test_assets or ())}",
        verdict=verdict,
        notes=result.notes,
        figures={
            "Equity": result.plot(),
            "Drawdown": plot_drawdown(result.returns),
            "Meta-training": plot_training(result.history),
        },
        stats=result.stats,
        tables={
            **_by_regime(result),
            f"{method}, each asset traded alone with the whole capital": own[figures],
            "Sharpe ratio of every strategy on each asset": sharpe,
        },
        settings={
            name: {k: ", ".join(map(str, v)) if isinstance(v, tuple) else v for k, v in s.items()}
            for name, s in sections.items()
        },
        versions={name: version(name) for name in _PACKAGES},
    )

"""What a reconciliation looks like: both equities overlaid, and the causes between them."""

import numpy as np
import pandas as pd

from maml_jax.live.reconcile import Reconciliation
from maml_jax.report.plots.returns import plot_equity
from maml_jax.report.tear_sheet import Grid, Plot, Section, TearSheet, Tile


def describe(found: Reconciliation) -> str:
    """Say in a sentence what the account has more or less than its backtest, and why."""
    gap = found.gap
    size = f"{abs(gap):,.2f}"
    if abs(gap) < 0.005:
        return "The account is its backtest, to the cent."
    whole = f"The account has {size} {'more' if gap > 0 else 'less'} than its backtest"
    amounts = found.causes["amount"].to_numpy(float)
    place = int(np.abs(amounts).argmax())
    cause = found.causes.index[place]
    return f"{whole}; the largest part, {amounts[place]:+,.2f}, comes of: {cause}."


def reconcile_page(found: Reconciliation, name: str) -> TearSheet:
    """Lay out the page.

    Args:
        found: the reconciliation.
        name: of the run.
    """
    both = pd.DataFrame({"paper": found.paper, "backtest": found.backtest})
    returns = both.pct_change()
    figure = plot_equity(returns, headline="paper", title="Paper account and backtest")
    table = found.causes.rename(
        columns={"amount": "money, paper less backtest", "count": "differences", "detail": "first"}
    )
    table.index.name = None
    tiles = (
        Tile("Paper", f"{found.paper.iloc[-1]:,.2f}"),
        Tile("Backtest", f"{found.backtest.iloc[-1]:,.2f}"),
        Tile("Gap", f"{found.gap:+,.2f}"),
    )
    words = (
        "Growth of 1 since the account began, at each close; the backtest is that of today's bars "
        "and settings."
    )
    return TearSheet(
        f"{name}: paper account and backtest",
        describe(found),
        (),
        (
            Section("Both", (Plot("Equity", words, figure, wide=True),)),
            Section("Causes", (Grid("What lies between them; it adds up to the gap", table),)),
        ),
        {},
        {},
        facts=f"{found.paper.index[0]:%Y-%m-%d %H:%M} to {found.paper.index[-1]:%Y-%m-%d %H:%M}",
        tiles=tiles,
    )

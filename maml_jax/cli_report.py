"""Commands that show what runs found, and what is printed of them."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

HEADLINES = (
    "Return [%]",
    "CAGR [%]",
    "Volatility (Ann.) [%]",
    "Sharpe Ratio",
    "Gross Sharpe Ratio",
    "Sortino Ratio",
    "Max. Drawdown [%]",
    "Turnover (Ann.)",
    "# Trades",
    "Win Rate [%]",
    "Correlation",
    "R2",
    "QLIKE",
    "Coverage 90 % [%]",
    "Bars per Year",
)

RunArgument = Annotated[Path, typer.Argument(help="A run directory.")]


def report_command(
    run: RunArgument,
    out: Annotated[
        Path | None, typer.Option("--out", help="HTML file; default report.html in RUN.")
    ] = None,
) -> None:
    """Write the tear sheet of a run again."""
    from maml_jax.experiment import load

    result = load(run)
    path = result.report(out or run / "report.html")
    print_result(result)
    typer.echo(f"report: {path}")


def print_notes(result) -> None:
    """Print what a reader must know."""
    for note in result.notes:
        typer.echo(f"note: {note}")


def print_result(result) -> None:
    """Print notes, the headline figures of every strategy, and the verdict."""
    from maml_jax.experiment.result import verdict
    from maml_jax.report.tear_sheet import format_table

    print_notes(result)
    table = Table(title="net of costs unless the name says gross", title_justify="left")
    table.add_column("")
    for name in result.stats.columns:
        table.add_column(name, justify="right")
    shown = format_table(
        result.stats.loc[[name for name in HEADLINES if name in result.stats.index]]
    )
    for name, row in shown.iterrows():
        table.add_row(str(name), *row)
    Console(width=None if sys.stdout.isatty() else 120).print(table)
    typer.echo(verdict(result))

"""Commands that report on runs, and what they print."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from maml_jax.cli.tables import PlainTable

if TYPE_CHECKING:
    import pandas as pd

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

RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.")]


def report_command(
    run: RunArgument,
    out: Annotated[
        Path | None, typer.Option("--out", help="HTML file to write. Default: report.html in RUN.")
    ] = None,
) -> None:
    """Rewrite a run's tear sheet."""
    from maml_jax.experiment import load

    result = load(run, page=out is not None)  # the page that is written again may be damaged
    path = result.report(out or run / "report.html")
    print_result(result)
    typer.echo(f"report: {path}")


def compare_command(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN", help="Two or more run directories.")],
    strategy: Annotated[
        str | None,
        typer.Option(
            "--strategy", help="Strategy to compare. Default: the first method of each run."
        ),
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="HTML file to write.")] = Path("compare.html"),
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the bootstrap.")] = 0,
    samples: Annotated[
        int, typer.Option("--samples", min=20, help="Samples of the bootstrap.")
    ] = 1000,
) -> None:
    """Compare runs on the bars that they share, and list the settings that differ."""
    from maml_jax.experiment.compare.compare import compare
    from maml_jax.experiment.compare.page import verdict, write_comparison
    from maml_jax.report.tear_sheet import format_table

    comparison = compare(runs, strategy=strategy, seed=seed, samples=samples)
    for warning in comparison.warnings:
        typer.echo(f"note: {warning}")
    _print_table(format_table(comparison.stats), "net of costs, on the bars that all runs share")
    if len(comparison.settings):
        _print_table(comparison.settings, "settings that differ")
    typer.echo(verdict(comparison))
    typer.echo(f"report: {write_comparison(comparison, out)}")


def print_notes(result) -> None:
    """Print the notes of a run."""
    from maml_jax.report.text import shorten_notes

    for note in shorten_notes(result.notes):
        typer.echo(f"note: {note}")


def print_result(result) -> None:
    """Print the notes, the headline figures of every strategy, and the verdict."""
    from maml_jax.report.tear_sheet import format_table

    print_notes(result)
    shown = result.stats.loc[[name for name in HEADLINES if name in result.stats.index]]
    _print_table(format_table(shown), "net of costs unless the name says gross")
    typer.echo(result.verdict())


def print_trained(result) -> None:
    """Print the notes of a run that was not backtested, and the loss of each method."""
    print_notes(result)
    last = result.history.groupby("method", sort=False).last()
    count = len(result.folds)
    fold = f" (last of {count} folds)" if count > 1 else ""
    for method, row in last.iterrows():
        steps = int(row["step"]) + 1
        typer.echo(f"{method}: query loss {row['loss']:.4f} after {steps:,} steps{fold}")


def _print_table(shown: "pd.DataFrame", title: str) -> None:
    table = PlainTable(title=title, title_justify="left")
    table.add_column("")
    for name in shown.columns:
        table.add_column(str(name), justify="right")
    for name, row in shown.iterrows():
        table.add_row(str(name), *row)
    Console(width=None if sys.stdout.isatty() else 120).print(table)

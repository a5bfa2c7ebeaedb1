"""The command that checks a run for look-ahead."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from maml_jax.cli.tables import PlainTable
from maml_jax.cli.trust import Trust

if TYPE_CHECKING:
    import pandas as pd

    from maml_jax.lookahead import LookAheadReport

_EFFECT = 1e-6
"""Per cent of a deviation below which the first bar has no effect."""


def check_lookahead_command(
    run: Annotated[Path | None, typer.Argument(metavar="RUN", help="A run directory.")] = None,
    bars: Annotated[
        Path | None,
        typer.Option("--bars", help="Bars to use instead: CSV, JSON, Parquet, feather, Excel."),
    ] = None,
    cuts: Annotated[
        int,
        typer.Option("--cuts", help="How many cut-offs in the test span."),
    ] = 3,
    seed: Annotated[
        int, typer.Option("--seed", help="Seed for the cut-offs and the altered bars.")
    ] = 0,
    risk: Annotated[
        str | None,
        typer.Option(
            "--risk", metavar="FILE|store:NAME", help="Check the forecasts of risk on these bars."
        ),
    ] = None,
    trust: Trust = False,
) -> None:
    """Rerun with later bars altered: does anything earlier change? Exit code 1 if so."""
    from maml_jax.errors import ConfigError
    from maml_jax.experiment.process import set_up

    if (run is None) == (risk is None):
        raise ConfigError("name a run directory, or bars with --risk FILE, and not both")
    set_up()
    report = _check_run(run, bars, cuts, seed, trust) if run else _check_risk(risk, cuts, seed)
    for each in report.checked:
        typer.echo(f"checked: {each}")
    for each in report.notes:
        typer.echo(f"note: {each}")
    if run:
        _print_recursive(report.recursive)
    if not report.clean:
        _print_findings(report.findings)
    typer.echo(report.verdict())
    if not report.clean:
        raise typer.Exit(1)


def _check_run(
    run: Path, bars: Path | None, cuts: int, seed: int, trust: bool
) -> "LookAheadReport":
    from maml_jax.data import read_bars
    from maml_jax.experiment import load
    from maml_jax.experiment.preparation.bars import file_options
    from maml_jax.lookahead import check_lookahead

    result = load(run, trust=trust)
    frames = None if bars is None else read_bars(bars, **file_options(result.config))
    return check_lookahead(result, bars=frames, cuts=cuts, seed=seed)


def _check_risk(risk: str | None, cuts: int, seed: int) -> "LookAheadReport":
    from maml_jax.lookahead import check_risk
    from maml_jax.risk.reading import read_frames

    return check_risk(read_frames(str(risk)), cuts=cuts, seed=seed)


def _print_findings(findings: "pd.DataFrame") -> None:
    table = PlainTable(title="look-ahead", title_justify="left")
    for name in ("what", "name", "asset", "first bar", "known until", "size", "how it was found"):
        table.add_column(name, justify="right" if name == "size" else "left", overflow="fold")
    for row in findings.to_dict("records"):
        others = f" (and {row['assets'] - 1} more)" if row["assets"] > 1 else ""
        table.add_row(
            row["what"],
            row["name"],
            f"{row['asset']}{others}",
            _moment(row["bar"]),
            _moment(row["cut"]),
            "-" if row["size"] != row["size"] else f"{row['size']:.3g} {row['unit']}",
            row["how"],
        )
    _console().print(table)


def _print_recursive(recursive: "pd.DataFrame") -> None:
    shown = recursive[(recursive.iloc[:, 1:] > _EFFECT).any(axis="columns")]
    if shown.empty:
        typer.echo("beyond its warm-up, no feature depends on where the bars begin")
        return
    title = "effect of where the bars begin, in % of the feature's standard deviation"
    table = PlainTable(title=title, title_justify="left")
    for name in ("feature", "warm-up in bars", *(f"after {c}" for c in shown.columns[1:])):
        table.add_column(name, justify="left" if name == "feature" else "right")
    for name, row in shown.iterrows():
        effects = [f"{effect:.3g}" for effect in row.iloc[1:]]
        table.add_row(str(name), f"{row.iloc[0]:.0f}", *effects)
    _console().print(table)


def _moment(time) -> str:
    return "-" if time != time else f"{time:%Y-%m-%d %H:%M}"


def _console() -> Console:
    return Console(width=None if sys.stdout.isatty() else 160)

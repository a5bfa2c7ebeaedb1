"""The command that adapts a trained run to the bars of a new asset."""

import os
import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from maml_jax.cli.reading import DataOverrides, LayoutOption, file_settings
from maml_jax.cli.trust import Trust
from maml_jax.errors import ConfigError, RunError

if TYPE_CHECKING:
    from maml_jax.experiment.learning.step_errors import AdaptationTable


def adapt_command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.")],
    bars: Annotated[Path, typer.Option("--bars", help="Its bars: CSV, JSON, Parquet, Excel.")],
    symbol: Annotated[
        str | None, typer.Option("--symbol", help="The asset, if the file has several.")
    ] = None,
    method: Annotated[
        str | None, typer.Option("--method", help="Method of the run. Default: the first.")
    ] = None,
    steps: Annotated[
        int | None, typer.Option("--steps", help="Adaptation steps. Default: as in the run.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Folder of the adapted model. Default: RUN/adapted/<time>."),
    ] = None,
    layout: LayoutOption = None,
    overrides: DataOverrides = None,
    trust: Trust = False,
) -> None:
    """Adapt to a new asset; print held-out errors after each step, and those from scratch."""
    from maml_jax.experiment.process import set_up

    set_up()
    from maml_jax.data import read_bars
    from maml_jax.experiment import load
    from maml_jax.experiment.learning.step_errors import adaptation_table

    if out is not None and os.path.lexists(out):
        raise RunError(f"{out}: exists already; name an output directory that does not")
    result = load(run, trust=trust)
    name = method or next(iter(result.checkpoints))
    if name not in result.checkpoints:
        there = ", ".join(result.checkpoints)
        raise ConfigError(f"--method {name}: no such method in {run}; it has {there}")
    frames = read_bars(bars, **file_settings(layout, overrides, base=result.config))
    frames = {asset: frames[asset] for asset in [_choose(frames, symbol, bars)]}
    judged = adaptation_table(result.checkpoints[name], frames, steps=steps)
    _print(judged)
    adapted = result.adapt(frames, method=name, steps=steps)
    [bars_of_asset] = frames.values()
    if result.config.target.kind == "volatility":
        typer.echo(_describe(adapted.predict(frames), bars_of_asset, result.config.target))
    moment = datetime.now().astimezone().strftime("%Y-%m-%d-%H%M%S-%f")
    path = adapted.save(out or run / "adapted" / moment)
    rows = adapted.support.index
    typer.echo(
        f"saved: {path} ({name} adapted to the last {len(rows)} labelled rows of {adapted.asset}, "
        f"{rows[0]} to {rows[-1]}, the query included)"
    )


def _choose(frames, symbol: str | None, path: Path) -> str:
    if symbol is not None and symbol not in frames:
        raise ConfigError(f"--symbol {symbol}: {path} holds {', '.join(frames)}")
    if symbol is None and len(frames) > 1:
        raise ConfigError(
            f"{path}: holds {len(frames)} assets, {', '.join(frames)}; choose one with --symbol"
        )
    return symbol or next(iter(frames))


def _describe(predictions, bars, target) -> str:
    """Say the forecast of volatility, and the trailing one, in per cent a year."""
    import numpy as np

    from maml_jax.backtest.metrics import bars_per_year
    from maml_jax.features.targets import trailing_volatility

    mean = predictions["mean"] if "mean" in predictions else predictions
    year = 100 * np.sqrt(bars_per_year(bars.index))
    forecast, window = year * np.exp(float(mean.iloc[-1])), target.volatility_window
    trailing = year * float(trailing_volatility(bars, target).iloc[-1])
    return (
        f"volatility over the next {target.horizon} bars: {forecast:.1f} % a year, as of "
        f"{mean.index[-1]}; over the last {window} it was {trailing:.1f} %"
    )


def _print(judged: "AdaptationTable") -> None:
    table, title = judged.table, f"{judged.method} on {judged.asset}"
    if judged.trailing_error == judged.trailing_error:
        title += ", errors of the log of volatility"
    shown = Table(title=escape(title), title_justify="left")
    names = ("squared error", "correlation", "from scratch: squared error", "correlation")
    shown.add_column(str(table.index.name))
    for name in names:
        shown.add_column(name, justify="right")
    for row in table.itertuples():
        shown.add_row(
            str(row[0]), *(f"{value:.4f}" if value == value else "-" for value in row[1:])
        )
    Console(width=None if sys.stdout.isatty() else 120).print(shown)
    if (better := _better(judged)) is not None:
        typer.echo(better)
    for part in ("support", "query"):
        first, last, rows = getattr(judged, part)
        typer.echo(f"{part}: {rows} rows, {first} to {last}")


def _better(judged: "AdaptationTable") -> str | None:
    """Name what had less error on the query rows than the adapted network, if anything did."""
    error, _, scratch, _ = judged.table.to_numpy(float)[-1]
    others = {
        "the trailing volatility": judged.trailing_error,
        "a network from scratch": float(scratch),
    }
    less = {name: other for name, other in others.items() if other < error}
    if not less:
        return None
    best = min(less, key=lambda name: less[name])
    if best == "a network from scratch":
        return (
            f"{best} does better here (squared error {less[best]:.4f}, adapted {error:.4f}): what "
            "was meta-learned does not help"
        )
    return (
        f"{best} does better here (squared error {less[best]:.4f}, adapted {error:.4f}): take it, "
        "or maml-jax risk"
    )

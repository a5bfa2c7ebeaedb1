"""The command line: parse, call `maml_jax.experiment`, print.

Commands import what they need when they run, so that `--help` is quick.
"""

import logging
import os
import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from maml_jax import watchdog
from maml_jax.atomic import remove_unfinished
from maml_jax.cli.adapt import adapt_command
from maml_jax.cli.data import data_app
from maml_jax.cli.fetch import fetch_app
from maml_jax.cli.lookahead import check_lookahead_command
from maml_jax.cli.report import compare_command, print_notes, print_result, report_command
from maml_jax.cli.risk import risk_command
from maml_jax.cli.trust import Trust
from maml_jax.errors import ConfigError, MamlJaxError

app = typer.Typer(
    name="maml-jax",
    help="Trading models that adapt from a few bars: meta-train, backtest, report.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

ConfigArgument = Annotated[
    Path | None, typer.Argument(help="Settings, a TOML file. Default: the built-in example.")
]
RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override a setting, such as training.steps=500. May be repeated.",
    ),
]
Distributed = Annotated[
    bool,
    typer.Option(
        "--distributed",
        help="Run as one of several processes (Slurm, Open MPI, Kubernetes, TPU pods).",
    ),
]
Out = Annotated[
    Path | None, typer.Option("--out", help="Run directory to create. Default: runs/<time>.")
]


def _show_version(value: bool) -> None:
    if value:
        typer.echo(f"maml-jax {version('maml-jax')}")
        raise typer.Exit


@app.callback()
def callback(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Log how work is split across devices.")
    ] = False,
    patience: Annotated[
        float | None,
        typer.Option(
            "--patience",
            metavar="MINUTES",
            min=0.0,
            envvar="MAML_JAX_PATIENCE",
            help="Stop a command that makes no progress for this long (exit code 4); 0 never stops "
            f"it. Default: {watchdog.PATIENCE:g}, or 0 with --distributed.",
        ),
    ] = None,
) -> None:
    """Trading models that adapt from a few bars: meta-train, backtest, report."""
    context.with_resource(watchdog.watch(patience))
    if verbose:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(message)s"))
        logging.getLogger("maml_jax").addHandler(handler)
        logging.getLogger("maml_jax").setLevel(logging.INFO)


@app.command("run")
def run_command(
    config: ConfigArgument = None,
    set_: Overrides = None,
    out: Out = None,
    distributed: Distributed = False,
) -> None:
    """Meta-train, backtest and write the report."""
    out = _prepare(distributed, out)
    watchdog.keep(out, _trained_model_in(out))
    from maml_jax.experiment import run

    with _print_timing():
        result = run(config, out=out, **_overrides(set_))
    print_result(result)
    typer.echo(f"run directory: {out}")
    typer.echo(f"report: {out / 'report.html'}")


@app.command("train")
def train_command(
    config: ConfigArgument = None,
    set_: Overrides = None,
    out: Out = None,
    distributed: Distributed = False,
) -> None:
    """Meta-train and save the checkpoints."""
    out = _prepare(distributed, out)
    watchdog.keep(out, _trained_model_in(out))
    from maml_jax.experiment import train

    with _print_timing():
        result = train(config, out=out, **_overrides(set_))
    print_notes(result)
    last = result.history.groupby("method", sort=False).last()
    count = len(result.folds)
    fold = f" (last of {count} folds)" if count > 1 else ""
    for method, row in last.iterrows():
        steps = int(row["step"]) + 1
        typer.echo(f"{method}: query loss {row['loss']:.4f} after {steps:,} steps{fold}")
    typer.echo(f"run directory: {out}")


@app.command("backtest")
def backtest_command(
    run: RunArgument,
    set_: Overrides = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Run directory to write. Default: RUN itself.")
    ] = None,
    distributed: Distributed = False,
    trust: Trust = False,
) -> None:
    """Backtest a trained run."""
    trained = _trained_model_in(run)
    watchdog.keep(_prepare(distributed, out or run), trained, trained)
    from maml_jax.experiment import backtest

    with _print_timing():
        result = backtest(run, out=out, trust=trust, **_overrides(set_))
    print_result(result)
    typer.echo(f"report: {(out or run) / 'report.html'}")


app.command("report")(report_command)
app.command("compare")(compare_command)
app.command("check-lookahead")(check_lookahead_command)
app.command("adapt")(adapt_command)
app.command("risk")(risk_command)
app.add_typer(fetch_app, name="fetch")
app.add_typer(data_app, name="data")


def main() -> None:
    """Run the command line.

    Bad input ends it with one line and exit code 2; no progress for minutes, with one line and exit
    code 4 (see `watchdog.watch`).
    """
    signal.signal(signal.SIGINT, _interrupt)
    try:
        app()
    except MamlJaxError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)


def _interrupt(*_) -> None:
    """Stop at once on Ctrl-C: an exception raised inside compiled code may be lost or crash it."""
    remove_unfinished()
    os.write(2, f"\nstopped; {watchdog.describe_outcome()}\n".encode())
    os._exit(130)


def _trained_model_in(run: Path) -> str:
    command = shlex.join(["maml-jax", "backtest", str(run)])
    return f"the trained model is kept in {run}, finish with `{command}`"


def _overrides(pairs: list[str] | None) -> dict:
    from maml_jax.experiment.config.loading import parse_override

    return dict(parse_override(pair) for pair in pairs or [])


def _prepare(distributed: bool, out: Path | None) -> Path:
    """Set up the process; return the run directory."""
    from maml_jax.experiment.process import is_first_process, set_up

    if distributed and out is None:
        raise ConfigError("--distributed: name one run directory for all processes with --out")
    if distributed:
        watchdog.expect_waiting()
    set_up(distributed=distributed)
    if not is_first_process():  # one process prints
        sys.stdout = open(os.devnull, "w", encoding="utf-8")
    if out is None:
        out = Path("runs") / datetime.now().astimezone().strftime("%Y-%m-%d-%H%M%S")
    return out


@contextmanager
def _print_timing() -> Iterator[None]:
    """Print afterwards how long each stage took."""
    from maml_jax.experiment.timing import collect_stages

    with collect_stages() as stages:
        yield
    total, compiling = (sum(getattr(each, f) for each in stages) for f in ("seconds", "compiling"))
    by_name: dict[str, float] = {}
    for each in stages:
        by_name[each.name] = by_name.get(each.name, 0.0) + each.seconds
    parts = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in by_name.items())
    typer.echo(f"total {total:.1f} s (compilation {compiling:.1f} s): {parts}")

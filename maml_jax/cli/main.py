"""The command line: parse, call `maml_jax.experiment`, print.

Commands import what they need when they run, so that `--help` is quick.
"""

import logging
import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, NamedTuple, NoReturn

import typer

from maml_jax import interrupts, watchdog
from maml_jax.cli.adapt import adapt_command
from maml_jax.cli.data import data_app
from maml_jax.cli.environment import drop_output, explain, prepare_output, require_jax_variables
from maml_jax.cli.export import export_command
from maml_jax.cli.fetch import fetch_app
from maml_jax.cli.logs import LogStyle, log_to
from maml_jax.cli.lookahead import check_lookahead_command
from maml_jax.cli.paper import paper_command, reconcile_command
from maml_jax.cli.report import compare_command, print_result, print_trained, report_command
from maml_jax.cli.risk import risk_command
from maml_jax.cli.signal import signal_command
from maml_jax.cli.trust import Trust
from maml_jax.errors import ConfigError, MamlJaxError, RunError, mask_secrets, shorten

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
Resume = Annotated[
    Path | None,
    typer.Option(
        "--resume",
        metavar="DIR",
        help="Go on with the run that was to write DIR and was cut off.",
    ),
]
LogFormat = Annotated[
    LogStyle, typer.Option("--log-format", help="Of the log in the run directory.")
]
TensorBoard = Annotated[
    bool,
    typer.Option(
        "--tensorboard",
        help="Write logs for TensorBoard too, as training.tensorboard=true does; needs "
        "pip install 'maml-jax\\[tensorboard]'.",
    ),
]
Out = Annotated[
    Path | None, typer.Option("--out", help="Run directory to create. Default: runs/<time>.")
]


def _show_version(value: bool) -> None:
    if value:
        typer.echo(f"maml-jax {version('maml-jax')}")
        raise typer.Exit


class _Masked(logging.Formatter):
    """Writes lines of the log without secrets."""

    def format(self, record: logging.LogRecord) -> str:
        return mask_secrets(super().format(record))


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
    if context.invoked_subcommand not in ("data", "fetch") and "--help" not in sys.argv:
        require_jax_variables()
    if verbose:
        handler = logging.StreamHandler()
        handler.setFormatter(_Masked("%(message)s"))
        logging.getLogger("maml_jax").addHandler(handler)
        logging.getLogger("maml_jax").setLevel(logging.INFO)


@app.command("run")
def run_command(
    config: ConfigArgument = None,
    set_: Overrides = None,
    out: Out = None,
    distributed: Distributed = False,
    resume: Resume = None,
    trust: Trust = False,
    log_format: LogFormat = LogStyle.TEXT,
    tensorboard: TensorBoard = False,
) -> None:
    """Meta-train, backtest and write the report."""
    set_ = _with_board(set_, tensorboard)
    _finish_run(_Call("run", config, set_, out, distributed, resume, trust), log_format)


@app.command("train")
def train_command(
    config: ConfigArgument = None,
    set_: Overrides = None,
    out: Out = None,
    distributed: Distributed = False,
    resume: Resume = None,
    trust: Trust = False,
    log_format: LogFormat = LogStyle.TEXT,
    tensorboard: TensorBoard = False,
) -> None:
    """Meta-train and save the checkpoints."""
    set_ = _with_board(set_, tensorboard)
    _finish_run(_Call("train", config, set_, out, distributed, resume, trust), log_format)


def _with_board(pairs: list[str] | None, tensorboard: bool) -> list[str] | None:
    return [*(pairs or []), "training.tensorboard=true"] if tensorboard else pairs


class _Call(NamedTuple):
    """What a call of `run` or `train` asks for."""

    command: str
    config: Path | None
    set_: list[str] | None
    out: Path | None
    distributed: bool
    resume: Path | None
    trust: bool


def _finish_run(call: _Call, log_format: LogStyle) -> None:
    """Do what the call asks for, or what is left of it, and print what was found."""
    if call.resume is not None and (call.config or call.set_ or call.out):
        raise ConfigError(
            f"--resume: goes on in {call.resume} with the settings that are kept there; leave out "
            "CONFIG, --set, --out and --tensorboard"
        )
    out = _prepare(call.distributed, call.resume or call.out)
    from maml_jax import experiment
    from maml_jax.experiment.working_directory import run_directory, working_folder

    out = out if call.resume is None else run_directory(out)
    watchdog.keep(out, f"it is kept in {out}")
    with (
        _print_unwritten(),
        log_to((working_folder(out), out), log_format),
        _print_timing(),
    ):
        if call.resume is not None:
            result = experiment.resume(call.resume, trust=call.trust)
        else:
            go = experiment.run if call.command == "run" else experiment.train
            result = go(call.config, out=out, **_overrides(call.set_))
    if result.evaluation is not None:
        print_result(result)
    else:
        print_trained(result)
    typer.echo(f"run directory: {out}")
    if result.evaluation is not None:
        typer.echo(f"report: {out / 'report.html'}")


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

    with _print_unwritten(), _print_timing():
        result = backtest(run, out=out, trust=trust, **_overrides(set_))
    print_result(result)
    if out is None:
        typer.echo(f"run directory: {run} (this backtest was added to it)")
    typer.echo(f"report: {(out or run) / 'report.html'}")


app.command("report")(report_command)
app.command("compare")(compare_command)
app.command("check-lookahead")(check_lookahead_command)
app.command("adapt")(adapt_command)
app.command("risk")(risk_command)
app.command("signal")(signal_command)
app.command("paper")(paper_command)
app.command("reconcile")(reconcile_command)
app.command("export")(export_command)
app.add_typer(fetch_app, name="fetch")
app.add_typer(data_app, name="data")


def main() -> None:
    """Run the command line.

    Bad input, or an environment that JAX cannot use, ends it with one line and exit code 2; no
    progress for minutes, with one line and exit code 4 (see `watchdog.watch`); a signal with one
    line and 128 and its number (see `interrupts`).
    """
    prepare_output()
    with interrupts.handle_signals():
        try:
            app()
        except interrupts.Interrupted as stop:
            typer.echo(interrupts.describe_end(stop.number), err=True)
            sys.exit(stop.exit_code)
        except MamlJaxError as error:
            _fail(str(error))
        except OSError as error:  # of the system: a full disk, an output that cannot be written
            drop_output()
            _fail(shorten(mask_secrets(" ".join(str(error).split()))))
        except Exception as error:
            reason = explain(error)
            if not reason:
                raise
            _fail(reason)


def _fail(reason: str) -> NoReturn:
    typer.echo(f"error: {reason}", err=True)
    sys.exit(2)


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
def _print_unwritten() -> Iterator[None]:
    """Print a result that could not be written, so that it is not lost by that."""
    try:
        yield
    except RunError as error:
        if error.result is None:
            raise
        if error.result.evaluation is not None:
            print_result(error.result)
        raise RunError(f"{error}; {watchdog.describe_outcome()}") from error


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

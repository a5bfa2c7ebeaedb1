"""Compute known figures anew: `python -m benchmarks.reproduce NAME`."""

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from maml_jax.errors import MamlJaxError

app = typer.Typer(help="Compute figures anew that are known from elsewhere.", no_args_is_help=True)

Methods = Annotated[
    list[str] | None,
    typer.Option("--method", metavar="KEY", help="A row, or how its name begins; may be repeated."),
]
Seeds = Annotated[int | None, typer.Option("--seeds", help="Trainings per row.")]
Steps = Annotated[int | None, typer.Option("--steps", help="Meta-steps of a training.")]
Quick = Annotated[
    bool, typer.Option("--quick", help="One seed, a fiftieth of the meta-steps, 200 test tasks.")
]
Results = Annotated[
    Path, typer.Option("--out", help="Folder of results; those it holds are reused.")
]
RealBars = Annotated[
    Path | None,
    typer.Option("--bars", help="Real bars of several assets; without them that part is left out."),
]


@app.command("sinusoid")
def sinusoid_command(
    method: Methods = None,
    seeds: Seeds = None,
    steps: Steps = None,
    quick: Quick = False,
    out: Results = Path("runs/sinusoid"),
) -> None:
    """Sinusoid regression: mean squared errors next to those of the literature."""
    _set_up()
    from benchmarks.reproduce import reproduce_sinusoid

    tables = reproduce_sinusoid(
        methods=method or (), seeds=seeds, steps=steps, quick=quick, out=out, **_told()
    )
    _print_tables(tables, out)


@app.command("known-answer")
def known_answer_command(
    part: Annotated[
        list[str] | None,
        typer.Option("--part", help="learners, activations or worlds; may be repeated."),
    ] = None,
    method: Methods = None,
    seeds: Seeds = None,
    steps: Steps = None,
    quick: Quick = False,
    out: Results = Path("runs/known-answer"),
) -> None:
    """A market with a known answer: skill as a share of the best possible."""
    _set_up()
    from benchmarks.reproduce import reproduce_known_answer

    wanted = {"parts": part or (), "methods": method or ()}
    tables = reproduce_known_answer(
        **wanted, seeds=seeds, steps=steps, quick=quick, out=out, **_told()
    )
    _print_tables(tables, out)


@app.command("claims")
def claims_command(
    bars: RealBars = None,
    seeds: Seeds = None,
    steps: Steps = None,
    quick: Quick = False,
    out: Results = Path("runs/claims"),
) -> None:
    """What meta-learning is claimed to bring: claimed, measured, and whether it holds."""
    _set_up()
    from benchmarks.reproduce import reproduce_claims

    tables = reproduce_claims(bars=bars, seeds=seeds, steps=steps, quick=quick, out=out, **_told())
    _print_tables(tables, out)


@app.command("uncertainty")
def uncertainty_command(
    method: Methods = None,
    seeds: Seeds = None,
    steps: Steps = None,
    quick: Quick = False,
    out: Results = Path("runs/uncertainty"),
) -> None:
    """A market with a known answer: whether predicted deviations are true."""
    _set_up()
    from benchmarks.reproduce import reproduce_uncertainty

    tables = reproduce_uncertainty(
        methods=method or (), seeds=seeds, steps=steps, quick=quick, out=out, **_told()
    )
    _print_tables(tables, out)


@app.command("hierarchy")
def hierarchy_command(
    method: Methods = None,
    seeds: Seeds = None,
    steps: Steps = None,
    quick: Quick = False,
    out: Results = Path("runs/hierarchy"),
) -> None:
    """Adaptation level by level against MAML on the same support rows."""
    _set_up()
    from benchmarks.reproduce import reproduce_hierarchy

    tables = reproduce_hierarchy(
        methods=method or (), seeds=seeds, steps=steps, quick=quick, out=out, **_told()
    )
    _print_tables(tables, out)


@app.command("volatility")
def volatility_command(
    bars: Annotated[Path, typer.Option("--bars", help="Bars of several assets, a file.")],
    market: Annotated[
        str, typer.Option("--market", help="stocks or crypto: which dates and horizons.")
    ] = "stocks",
    method: Methods = None,
    seeds: Seeds = None,
    steps: Steps = None,
    quick: Quick = False,
    out: Results = Path("runs/volatility"),
) -> None:
    """Volatility of assets never seen, from a few rows, against HAR, EWMA, GARCH and ridge."""
    _set_up()
    from benchmarks.reproduce import reproduce_volatility

    wanted = {"bars": bars, "market": market, "methods": method or ()}
    tables = reproduce_volatility(
        **wanted, seeds=seeds, steps=steps, quick=quick, out=out, **_told()
    )
    _print_tables(tables, out)


@app.command("evidence")
def evidence_command(
    stocks: Annotated[
        Path | None, typer.Option("--stocks", help="Daily bars of stocks, 1990 to 2022.")
    ] = None,
    crypto: Annotated[
        Path | None, typer.Option("--crypto", help="Hourly bars of crypto pairs, 2024.")
    ] = None,
    method: Methods = None,
    seeds: Seeds = None,
    steps: Steps = None,
    quick: Quick = False,
    present: Annotated[
        bool, typer.Option("--present", help="Train nothing; tell what is there.")
    ] = False,
    out: Results = Path("runs/evidence"),
) -> None:
    """Real bars: every method, on rows of the asset and of all assets, against all baselines."""
    _set_up()
    from benchmarks.reproduce import reproduce_evidence

    wanted = {"stocks": stocks, "crypto": crypto, "methods": method or (), "present": present}
    tables = reproduce_evidence(**wanted, seeds=seeds, steps=steps, quick=quick, out=out, **_told())
    _print_tables(tables, out)


@app.command("regimes")
def regimes_command(
    method: Methods = None,
    seeds: Seeds = None,
    steps: Steps = None,
    quick: Quick = False,
    out: Results = Path("runs/regimes"),
) -> None:
    """Markets that switch between regimes: errors after a switch, frozen, by regime and online."""
    _set_up()
    from benchmarks.reproduce import reproduce_regimes

    tables = reproduce_regimes(
        methods=method or (), seeds=seeds, steps=steps, quick=quick, out=out, **_told()
    )
    _print_tables(tables, out)


@app.command("null-world")
def null_world_command(
    part: Annotated[
        list[str] | None, typer.Option("--part", help="test or pipeline; may be repeated.")
    ] = None,
    worlds: Annotated[int | None, typer.Option("--worlds", help="Worlds of each kind.")] = None,
    steps: Steps = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Few worlds, two meta-steps each.")
    ] = False,
    out: Results = Path("runs/null-world"),
) -> None:
    """Random walks: how often the verdict calls luck significant, and planted edges."""
    _set_up()
    from benchmarks.reproduce import reproduce_null_world

    tables = reproduce_null_world(
        parts=part or (), worlds=worlds, steps=steps, quick=quick, out=out, **_told()
    )
    _print_tables(tables, out)


def _set_up() -> None:
    from maml_jax.experiment.process import set_up

    set_up()


def _told() -> dict:
    """Return what long computations tell: progress to standard error, and how they were called."""
    command = shlex.join(["python", "-m", "benchmarks.reproduce", *sys.argv[1:]])
    return {"console": Console(stderr=True), "command": command}


def _print_tables(tables, out: Path) -> None:
    console = Console(width=None if sys.stdout.isatty() else 160)
    for table in tables:
        console.print(table.rich())
    typer.echo(f"results: {out}")


def main() -> None:
    """Run the command line; bad input ends it with one line and exit code 2."""
    try:
        app()
    except MamlJaxError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()

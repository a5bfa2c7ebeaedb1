"""The commands of a paper account: going on with it, and why it is not its backtest."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from maml_jax.cli.live import (
    BarsOption,
    CapitalOption,
    MethodOption,
    OnSignalOption,
    RunArgument,
    WatchOption,
    WebhookOption,
    frames_of,
    keep_watching,
    moment_of,
)
from maml_jax.cli.reading import DataOverrides, LayoutOption
from maml_jax.cli.trust import Trust
from maml_jax.errors import ConfigError


def paper_command(
    run: RunArgument,
    bars: BarsOption = None,
    replay: Annotated[
        str | None,
        typer.Option("--replay", metavar="FILE", help="Run these bars through, each decided at."),
    ] = None,
    book: Annotated[
        Path | None, typer.Option("--book", help="File of the account. Default: RUN.paper.sqlite.")
    ] = None,
    since: Annotated[
        str | None,
        typer.Option("--since", help="First bar of a new account. Default: the last there is."),
    ] = None,
    capital: CapitalOption = None,
    method: MethodOption = None,
    keep_on: WatchOption = False,
    on_signal: OnSignalOption = None,
    webhook: WebhookOption = None,
    layout: LayoutOption = None,
    overrides: DataOverrides = None,
    trust: Trust = False,
) -> None:
    """Go on with a paper account: fill what was ordered, decide on the latest bars."""
    if replay is not None and (bars is not None or keep_on):
        raise ConfigError("--replay: goes with neither --bars nor --watch")
    from maml_jax.experiment.process import set_up

    set_up()
    from maml_jax.experiment import load
    from maml_jax.live.book import Book
    from maml_jax.live.latest import go_on, open_paper
    from maml_jax.live.strategy import strategy_of

    result = load(run, trust=trust, page=False)

    def read():
        return frames_of(result, bars or replay, layout, overrides)

    begin, frames = moment_of(since), read()
    if replay is not None and begin is None:
        begin = strategy_of(result, frames).since
    account = Book(book or default_book(run))
    strategy, state = open_paper(
        *(result, account, frames), method=method, capital=capital, since=begin
    )

    def decide(frames):
        nonlocal state
        state, step = go_on(strategy, state, account, frames, every=replay is not None)
        return step

    def show(step) -> None:
        print_paper(account, strategy, state, step)

    if keep_on:
        calls = (on_signal, webhook)
        keep_watching(result, bars, read, decide, show, as_record, calls, state.last)
    show(decide(frames))


def as_record(step) -> str:
    """Return a step as JSON: the time of its last bar, and its fills."""
    fills = step.traded.fills.to_json(orient="records", date_format="iso")
    return json.dumps({"time": str(step.times[-1]), "fills": json.loads(fills)})


def default_book(run: Path) -> Path:
    """Return the file of the paper account of a run, beside it."""
    return run.with_name(f"{run.name}.paper.sqlite")


def print_paper(book, strategy, state, step) -> None:
    """Print what a step of a paper account did, and what it holds."""
    console = Console(width=None if sys.stdout.isatty() else 120)
    about, equity = book.about(), book.equity()
    if step is None:
        typer.echo(f"no new bar: the last is of {state.last}")
    else:
        missed = len(step.times) - len(step.decisions.weights.index.intersection(step.times))
        text = f"{len(step.times)} bars, to {step.times[-1]}: {len(step.traded.fills)} fills"
        typer.echo(text + (f"; {missed} bars came while nobody looked" if missed else ""))
    if not len(equity):
        return
    shown = Table(box=SIMPLE_HEAD, padding=(0, 0, 0, 1))
    for name in ("asset", "units", "wanted %"):
        shown.add_column(name, justify="left" if name == "asset" else "right")
    decided = state.decided.ffill().iloc[-1]
    for place, asset in enumerate(strategy.assets):
        units = float(state.held.units[place, 0])
        if units or decided[asset]:
            shown.add_row(escape(asset), f"{units:,.4f}", f"{100 * decided[asset]:.1f}")
    if shown.row_count:
        console.print(shown)
    gain = 100 * (equity.iloc[-1] / about["capital"] - 1)
    typer.echo(f"equity {equity.iloc[-1]:,.2f} ({gain:+.2f} % since {equity.index[0]})")
    typer.echo(f"book: {book.path}")


def reconcile_command(
    run: RunArgument,
    bars: BarsOption = None,
    book: Annotated[
        Path | None, typer.Option("--book", help="File of the account. Default: RUN.paper.sqlite.")
    ] = None,
    html: Annotated[Path | None, typer.Option("--html", help="Write a page with both.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    layout: LayoutOption = None,
    overrides: DataOverrides = None,
    trust: Trust = False,
) -> None:
    """Say why a paper account differs from its backtest: one cause for every difference."""
    from maml_jax.experiment.process import set_up

    set_up()
    from maml_jax.experiment import load
    from maml_jax.live.book import Book
    from maml_jax.live.page import describe, reconcile_page
    from maml_jax.live.reconcile import reconcile

    result = load(run, trust=trust, page=False)
    frames = frames_of(result, bars, layout, overrides)
    found = reconcile(result, Book(book or default_book(run)), frames)
    if as_json:
        rows = json.loads(found.causes.reset_index().to_json(orient="records"))
        typer.echo(json.dumps({"gap": found.gap, "causes": rows}, indent=2))
    else:
        typer.echo(describe(found))
        shown = Table(box=SIMPLE_HEAD, padding=(0, 0, 0, 1))
        for name in ("cause", "money", "differences", "such as"):
            shown.add_column(name, justify="right" if name in ("money", "differences") else "left")
        for cause, row in found.causes.iterrows():
            shown.add_row(
                str(cause), f"{row['amount']:+,.2f}", str(row["count"]), escape(row["detail"])
            )
        shown.add_row("gap", f"{found.gap:+,.2f}", "", "")
        Console(width=None if sys.stdout.isatty() else 120).print(shown)
    if html is not None:
        from maml_jax.report.tear_sheet import render, write_page

        page = write_page(html, render(reconcile_page(found, run.name)))
        typer.echo(f"page: {page}", err=as_json)

"""The commands of every day: what to hold now, a paper account, and how it differs from a backtest."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from maml_jax.cli.reading import DataOverrides, LayoutOption, file_settings
from maml_jax.cli.trust import Trust
from maml_jax.errors import ConfigError

if TYPE_CHECKING:
    import pandas as pd

    from maml_jax.live.signal import SignalTable

INCOMPLETE = 3
"""The exit code where an asset is stale or missing."""

RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.")]
BarsOption = Annotated[
    str | None,
    typer.Option(
        "--bars", metavar="FILE|store:NAME", help="The latest bars. Default: those of the run."
    ),
]
MethodOption = Annotated[
    str | None, typer.Option("--method", help="Method of the run. Default: the first.")
]
NowOption = Annotated[
    str | None,
    typer.Option("--now", metavar="TIME", help="Judge how recent bars are by this time (UTC)."),
]
CapitalOption = Annotated[
    float | None,
    typer.Option("--capital", help="Cash and positions, in money. Default: as in the run."),
]


def signal_command(
    run: RunArgument,
    bars: BarsOption = None,
    capital: CapitalOption = None,
    holdings: Annotated[
        Path | None,
        typer.Option("--holdings", help="What you hold: CSV of asset,units[,entry], or JSON."),
    ] = None,
    method: MethodOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    now: NowOption = None,
    layout: LayoutOption = None,
    overrides: DataOverrides = None,
    trust: Trust = False,
) -> None:
    """Say what a trained run wants to hold now, and what to order; exit code 3 if bars are stale."""
    if as_json and as_csv:
        raise ConfigError("--json, --csv: one of the two")
    from maml_jax.experiment.process import set_up

    set_up()
    from maml_jax.experiment import load
    from maml_jax.live import signal

    result = load(run, trust=trust, page=False)
    table = signal(
        result,
        _frames(result, bars, layout, overrides),
        capital=capital,
        holdings=holdings,
        method=method,
        now=_moment(now),
    )
    if as_json:
        about = {name: str(value) for name, value in (table.about or {}).items()}
        rows = json.loads(table.reset_index().to_json(orient="records", date_format="iso"))
        typer.echo(json.dumps({"about": about, "signals": rows}, indent=2))
    elif as_csv:
        typer.echo(table.to_csv(), nl=False)
    else:
        print_signal(table)
    if not table.complete:
        raise typer.Exit(INCOMPLETE)


def print_signal(table: "SignalTable") -> None:
    """Print what to hold and to order: one row an asset."""
    about = table.about or {}
    console = Console(width=None if sys.stdout.isatty() else 160)
    shown = Table(box=SIMPLE_HEAD, padding=(0, 0, 0, 1), title_justify="left")
    shown.title = f"{about['method']} at {about['now']:%Y-%m-%d %H:%M} UTC, for {about['capital']:,.0f}"
    unit = {"direction": "", "volatility": " % a year"}.get(about["kind"], " %")
    columns = {
        "last bar": lambda row: f"{row['as_of']:%Y-%m-%d %H:%M}".removesuffix(" 00:00"),
        f"forecast{unit}": lambda row: _signed(row["forecast"], row["deviation"], about["kind"]),
        "vol %": lambda row: _number(row["volatility"], 1),
        "VaR 5%": lambda row: _number(row["var_5"], 1),
        "now %": lambda row: _number(100 * row["weight"], 1),
        "want %": lambda row: _number(100 * row["target_weight"], 1),
        "order": lambda row: _order(row),
        "value": lambda row: _number(row["value"], 0) if row["units"] else "",
        "stop": lambda row: _number(row["stop"], 2),
        "target": lambda row: _number(row["take_profit"], 2),
        "why": lambda row: row["reason"],
    }
    used = {
        name: make
        for name, make in columns.items()
        if name in ("last bar", "order", "why") or any(make(row) for _, row in table.iterrows())
    }
    shown.add_column("asset", no_wrap=True)
    for name in used:
        shown.add_column(name, justify="left" if name in ("last bar", "why") else "right")
    for asset, row in table.iterrows():
        shown.add_row(escape(str(asset)), *(escape(make(row)) for make in used.values()))
    console.print(shown)
    for line in explain(table):
        console.print(line, soft_wrap=True, highlight=False, markup=False)


def explain(table: "SignalTable") -> list[str]:
    """Say in sentences what the table rests on."""
    about = table.about or {}
    when = {
        "next_open": "at the next open",
        "next_close": "at the next close",
        "close": "at the close of the last bar",
    }[about["fill"]]
    orders = int((table["units"] != 0).sum())
    lines = [
        f"{orders} order{'' if orders == 1 else 's'}, to be filled {when}; sizes are by the last "
        "close."
        if orders
        else "Nothing to order."
    ]
    lines.append(
        f"Forecasts and VaR are over the next {about['horizon']} bars; vol is a year's; weights "
        "are shares of the capital."
    )
    if about["assumed"]:
        lines.append(
            "'now' is what was decided one bar before; name what you hold with --holdings FILE."
        )
    stale = [str(asset) for asset in table.index[table["stale"]]]
    if stale:
        lines.append(f"No orders for {', '.join(stale)}: fetch their bars first.")
    lines.append(f"run {about.get('run', '?')}, settings {about.get('settings', '?')}")
    return lines


def _order(row: "pd.Series") -> str:
    units = row["units"]
    if not units:
        return ""
    size = f"{abs(units):,.4f}".rstrip("0").rstrip(".") if abs(units) < 100 else f"{abs(units):,.0f}"
    return f"{'buy' if units > 0 else 'sell'} {size}"


def _signed(value: float, deviation: float, kind: str) -> str:
    if value != value:
        return ""
    text = f"{value:.1f}" if kind == "volatility" else f"{value:+.2f}"
    return text if deviation != deviation else f"{text} ± {deviation:.2f}"


def _number(value: float, digits: int) -> str:
    return "" if value != value else f"{value:,.{digits}f}"


def _moment(text: str | None) -> "pd.Timestamp | None":
    if text is None:
        return None
    from maml_jax.data import parse_moment

    return parse_moment(text, end=False)


def _frames(result, bars: str | None, layout, overrides) -> "dict[str, pd.DataFrame]":
    """Return the bars that a command names, or those of the run."""
    from maml_jax.data import read_bars
    from maml_jax.experiment.preparation.bars import is_stored
    from maml_jax.live.latest import read_source

    if bars is None or is_stored(bars):
        return read_source(result, bars)
    return read_bars(bars, **file_settings(layout, overrides, base=result.config))


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
    layout: LayoutOption = None,
    overrides: DataOverrides = None,
    trust: Trust = False,
) -> None:
    """Go on with a paper account: fill what was ordered, decide on the latest bars."""
    if bars is not None and replay is not None:
        raise ConfigError("--bars, --replay: one of the two")
    from maml_jax.experiment.process import set_up

    set_up()
    from maml_jax.experiment import load
    from maml_jax.live.book import Book
    from maml_jax.live.latest import go_on, open_paper

    result = load(run, trust=trust, page=False)
    frames = _frames(result, bars or replay, layout, overrides)
    begin = _moment(since)
    if replay is not None and begin is None and result.config.data.test_start:
        begin = _moment(result.config.data.test_start)
    account = Book(book or default_book(run))
    strategy, state = open_paper(
        *(result, account, frames), method=method, capital=capital, since=begin
    )
    state, step = go_on(strategy, state, account, frames, every=replay is not None)
    print_paper(account, strategy, state, step)


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
    frames = _frames(result, bars, layout, overrides)
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

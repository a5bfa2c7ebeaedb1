"""The command that says what to hold now."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from maml_jax.cli.live import (
    BarsOption,
    CapitalOption,
    MethodOption,
    NowOption,
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

if TYPE_CHECKING:
    import pandas as pd

    from maml_jax.live.signals import SignalTable

INCOMPLETE = 3
"""The exit code where an asset is stale or missing."""


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
    keep_on: WatchOption = False,
    on_signal: OnSignalOption = None,
    webhook: WebhookOption = None,
    layout: LayoutOption = None,
    overrides: DataOverrides = None,
    trust: Trust = False,
) -> None:
    """Say what a trained run wants to hold now and to order; exit code 3 if bars are stale."""
    if as_json and as_csv:
        raise ConfigError("--json, --csv: one of the two")
    from maml_jax.experiment.process import set_up

    set_up()
    from maml_jax.experiment import load
    from maml_jax.live import signal

    result = load(run, trust=trust, page=False)

    def decide(frames) -> "SignalTable":
        return signal(
            *(result, frames),
            capital=capital,
            holdings=holdings,
            method=method,
            now=moment_of(now),
        )

    def show(table: "SignalTable") -> None:
        if as_json:
            typer.echo(as_record(table))
        elif as_csv:
            typer.echo(table.to_csv(), nl=False)
        else:
            print_signal(table)

    def read():
        return frames_of(result, bars, layout, overrides)

    if keep_on:
        calls = (on_signal, webhook)
        keep_watching(result, bars, read, decide, show, as_record, calls, None)
    table = decide(read())
    show(table)
    if not table.complete:
        raise typer.Exit(INCOMPLETE)


def as_record(table: "SignalTable") -> str:
    """Return a signal as JSON: `about`, and a list of `signals`."""
    about = {name: str(value) for name, value in (table.about or {}).items()}
    rows = json.loads(table.reset_index().to_json(orient="records", date_format="iso"))
    return json.dumps({"about": about, "signals": rows}, indent=2)


def print_signal(table: "SignalTable") -> None:
    """Print what to hold and to order: one row an asset."""
    about = table.about or {}
    console = Console(width=None if sys.stdout.isatty() else 160)
    shown = Table(box=SIMPLE_HEAD, padding=(0, 0, 0, 1), title_justify="left")
    shown.title = (
        f"{about['method']} at {about['now']:%Y-%m-%d %H:%M} UTC, for {about['capital']:,.0f}"
    )
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
    size = (
        f"{abs(units):,.4f}".rstrip("0").rstrip(".") if abs(units) < 100 else f"{abs(units):,.0f}"
    )
    return f"{'buy' if units > 0 else 'sell'} {size}"


def _signed(value: float, deviation: float, kind: str) -> str:
    if value != value:
        return ""
    text = f"{value:.1f}" if kind == "volatility" else f"{value:+.2f}"
    return text if deviation != deviation else f"{text} ± {deviation:.2f}"


def _number(value: float, digits: int) -> str:
    return "" if value != value else f"{value:,.{digits}f}"

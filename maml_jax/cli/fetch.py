"""Commands that download bars into the store."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn

from maml_jax import watchdog
from maml_jax.cli.reading import DataOverrides, LayoutOption, file_settings
from maml_jax.cli.tables import StoreOption, format_time, make_console, make_table
from maml_jax.errors import DataError
from maml_jax.terminal import ProgressBars

fetch_app = typer.Typer(
    help="Download bars into the store; later calls fetch only new bars.", no_args_is_help=True
)

Symbols = Annotated[
    list[str], typer.Argument(metavar="SYMBOL", help="Symbols, as the source writes them.")
]
IntervalOption = Annotated[
    str,
    typer.Option("--interval", help="Length of a bar: 5m, 60 (minutes), 1h, 1d, 1w, 1mo, D, W, M."),
]
Start = Annotated[
    str | None, typer.Option("--start", help="First day or time. Default: continue from the store.")
]
End = Annotated[
    str | None, typer.Option("--end", help="Last day (inclusive) or time. Default: now.")
]
Again = Annotated[bool, typer.Option("--again", help="Also fetch bars that the store already has.")]
Workers = Annotated[int, typer.Option("--workers", min=1, help="Symbols fetched at the same time.")]

_MOST_REVISIONS = 5


@fetch_app.command("bybit")
def bybit_command(
    symbols: Symbols,
    interval: IntervalOption = "60",
    start: Start = None,
    end: End = None,
    category: Annotated[
        str, typer.Option("--category", help="spot, linear or inverse.")
    ] = "linear",
    address: Annotated[
        str, typer.Option("--address", help="Server; the testnet is api-testnet.bybit.com.")
    ] = "https://api.bybit.com",
    rate: Annotated[
        float,
        typer.Option(
            "--rate", min=0.0, help="Requests per second; 0 leaves the limit to the server."
        ),
    ] = 100.0,
    timeout: Annotated[
        float,
        typer.Option(
            "--timeout", min=0.1, help="Seconds to wait for the server to send something."
        ),
    ] = 15.0,
    attempts: Annotated[
        int, typer.Option("--attempts", min=1, help="Attempts before giving up.")
    ] = 6,
    store: StoreOption = None,
    again: Again = False,
    workers: Workers = 8,
) -> None:
    """Download bars of Bybit's spot, linear or inverse markets; no account needed."""
    from maml_jax.data import bybit
    from maml_jax.data.sources.http import Retries

    source = bybit(
        category,  # pyright: ignore[reportArgumentType]
        address=_with_scheme(address),
        per_second=rate or None,
        retries=Retries(attempts),
        timeout=timeout,
    )
    _fetch(source, symbols, interval, start, end, store, again, workers)


@fetch_app.command("yahoo")
def yahoo_command(
    symbols: Symbols,
    interval: IntervalOption = "1d",
    start: Start = None,
    end: End = None,
    unadjusted: Annotated[
        bool, typer.Option("--unadjusted", help="Prices as traded, not adjusted for dividends.")
    ] = False,
    store: StoreOption = None,
    again: Again = False,
    workers: Workers = 2,
) -> None:
    """Download stocks from Yahoo, adjusted for dividends and splits; needs the extra `yahoo`."""
    from maml_jax.data import yahoo

    source = yahoo(adjusted=not unadjusted)
    _fetch(source, symbols, interval, start, end, store, again, workers)


@fetch_app.command("binance")
def binance_command(
    symbols: Symbols,
    interval: IntervalOption = "60",
    start: Start = None,
    end: End = None,
    market: Annotated[
        str, typer.Option("--market", help="spot, um (USD-margined) or cm (coin-margined) futures.")
    ] = "spot",
    folder: Annotated[
        Path | None, typer.Option("--folder", help="Read zips from a folder instead of the server.")
    ] = None,
    address: Annotated[
        str, typer.Option("--address", help="Server of the archive.")
    ] = "https://data.binance.vision",
    no_checksums: Annotated[
        bool, typer.Option("--no-checksums", help="Accept zips without a .CHECKSUM file.")
    ] = False,
    store: StoreOption = None,
    again: Again = False,
    workers: Workers = 4,
) -> None:
    """Download from Binance's archive of monthly and daily zips, or read a folder of them."""
    from maml_jax.data import binance

    source = binance(market, folder=folder, address=address, checksums=not no_checksums)  # pyright: ignore[reportArgumentType]
    _fetch(source, symbols, interval, start, end, store, again, workers)


@fetch_app.command("files")
def files_command(
    files: Annotated[list[Path], typer.Argument(help="CSV, JSON, Parquet, feather or Excel.")],
    name: Annotated[str, typer.Option("--name", help="Name of the source in the store.")] = "files",
    timezone: Annotated[
        str | None, typer.Option("--timezone", help="Time zone of times without one. Default: UTC.")
    ] = None,
    layout: LayoutOption = None,
    overrides: DataOverrides = None,
    store: StoreOption = None,
) -> None:
    """Import the bars of files into the store."""
    import pandas as pd

    from maml_jax.data import Store, bar_interval, fetch, frames_source, parse_interval, read_bars

    frames = read_bars(files, **file_settings(layout, overrides, timezone=timezone))
    single = [symbol for symbol, bars in frames.items() if len(bars) < 2]
    if single:
        raise DataError(f"{single[0]}: a single bar has no interval; the store needs at least two")
    by_interval: dict = {}
    for symbol, bars in frames.items():
        step = bar_interval(bars)
        minutes = round(step / pd.Timedelta(minutes=1))
        if step != pd.Timedelta(minutes=minutes):
            raise DataError(f"{symbol}: bars are {step} apart; the store keeps whole minutes")
        interval = parse_interval("1mo" if 28 * 1440 <= minutes <= 31 * 1440 else max(minutes, 1))
        by_interval.setdefault(interval, {})[symbol] = bars
    reports = []
    for interval, group in by_interval.items():
        first = min(bars.index[0] for bars in group.values())
        last = max(bars.index[-1] for bars in group.values())
        source = frames_source(name, group)
        reports.append(
            fetch(source, group, interval, start=first, end=last, store=Store(store), again=True)
        )
    for report in reports:
        _print_report(report)


def _fetch(source, symbols, interval, start, end, store, again, workers) -> None:
    from maml_jax.data import Store, fetch

    kept = Store(store)
    left = f"bars fetched so far are in {kept.root}; the same command continues from there"
    watchdog.keep(kept.root, left, left)
    options = {"start": start, "end": end, "store": kept, "again": again}
    with _show_progress(symbols) as progress:
        report = fetch(source, symbols, interval, **options, workers=workers, progress=progress)
    _print_report(report)


@contextmanager
def _show_progress(symbols: list[str]) -> Iterator:
    name = TextColumn("{task.description}", markup=False)
    columns = (name, BarColumn(), TextColumn("{task.percentage:.0f} %"))
    console = Console(stderr=True)
    with ProgressBars(*columns, TimeRemainingColumn(), console=console, transient=True) as display:
        tasks = {symbol: display.add_task(symbol, total=1.0) for symbol in dict.fromkeys(symbols)}
        yield lambda symbol, done: display.update(tasks[symbol], completed=done)


def _print_report(report) -> None:
    """Print a table of new bars, findings of the checks, and errors; exit with code 2 if any."""
    from maml_jax.data import check_bars

    bars = report.bars
    found = check_bars(bars)
    table = make_table("series", "new", "bars", "first", "last", "revised", "findings")
    for each in report.series:
        index = bars[each.key.symbol].index if each.key.symbol in bars else []
        findings = [f"{f.kind} {len(f.times):,}" for f in found.get(each.key.symbol, [])]
        table.add_row(
            str(each.key), f"{each.added:,}", f"{len(index):,}",
            *(format_time(index[place] if len(index) else None) for place in (0, -1)),
            str(len(each.revised) or ""),
            "failed, see below" if each.error else ", ".join(findings),
        )  # fmt: skip
    make_console().print(table)
    typer.echo(f"store: {report.store.root}")
    for each in report.series:
        for time, row in list(each.revised.iterrows())[:_MOST_REVISIONS]:
            change = f"{row['before']:g} became {row['after']:g}"
            typer.echo(f"revised: {each.key} {row['column']} at {time}: {change}")
        if len(each.revised) > _MOST_REVISIONS:
            more = len(each.revised) - _MOST_REVISIONS
            typer.echo(f"revised: {each.key} {more} more; all are in its revisions.csv")
    for each in report.series:
        if each.error is not None:
            typer.echo(f"error: {each.key}: {each.error}", err=True)
    if report.errors:
        raise typer.Exit(2)


def _with_scheme(address: str) -> str:
    if "://" in address:
        return address
    local = address.startswith(("localhost", "127.", "[::1]"))
    return f"{'http' if local else 'https'}://{address}"

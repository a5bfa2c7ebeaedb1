"""The commands about bars: fetch them into the store, look at what is there."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import pandas as pd
import typer
from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from maml_jax import watchdog
from maml_jax.errors import DataError, MamlJaxError, StoreError
from maml_jax.terminal import ProgressBars

fetch_app = typer.Typer(
    help="Bring bars into the store; a second call brings only what is new.", no_args_is_help=True
)
data_app = typer.Typer(help="Look at the bars in the store, or in files.", no_args_is_help=True)

Symbols = Annotated[
    list[str], typer.Argument(metavar="SYMBOL...", help="As the source names them.")
]
IntervalOption = Annotated[
    str, typer.Option("--interval", help="60 (minutes), 5m, 1h, 1d, 1w, 1mo, D, W, M.")
]
Start = Annotated[
    str | None, typer.Option("--start", help="First day or moment; default: go on from the store.")
]
End = Annotated[
    str | None, typer.Option("--end", help="Last day (all of it) or moment; default: now.")
]
StoreOption = Annotated[
    Path | None,
    typer.Option(
        "--store", help="Directory; default $MAML_JAX_STORE or the user's data directory."
    ),
]
Again = Annotated[bool, typer.Option("--again", help="Fetch what is there already as well.")]
Workers = Annotated[int, typer.Option("--workers", min=1, help="Symbols at a time.")]
_SHOWN_REVISIONS = 5
What = Annotated[
    list[str],
    typer.Argument(help="SOURCE[/SYMBOL]/INTERVAL of the store, or CSV, Parquet and JSON files."),
]
SomeOrAll = Annotated[
    list[str] | None, typer.Argument(help="SOURCE[/SYMBOL]/INTERVAL, or files; default: the store.")
]


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
        str, typer.Option("--address", help="Server; the test net is api-testnet.bybit.com.")
    ] = "https://api.bybit.com",
    rate: Annotated[
        float, typer.Option("--rate", min=0.0, help="Requests in a second; 0 for no bound of ours.")
    ] = 100.0,
    timeout: Annotated[
        float, typer.Option("--timeout", min=0.1, help="Seconds to wait for a part of a reply.")
    ] = 15.0,
    attempts: Annotated[
        int, typer.Option("--attempts", min=1, help="How often to ask before giving up.")
    ] = 6,
    store: StoreOption = None,
    again: Again = False,
    workers: Workers = 8,
) -> None:
    """Spot, linear and inverse contracts from Bybit; no account is needed."""
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
        bool, typer.Option("--unadjusted", help="Prices as they were traded.")
    ] = False,
    store: StoreOption = None,
    again: Again = False,
    workers: Workers = 2,
) -> None:
    """Stocks from Yahoo, adjusted for dividends and splits; needs the extra `yahoo`."""
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
        str, typer.Option("--market", help="spot, um (USD margined) or cm (coin margined).")
    ] = "spot",
    folder: Annotated[
        Path | None, typer.Option("--folder", help="Zips that are here already, instead.")
    ] = None,
    address: Annotated[
        str, typer.Option("--address", help="Server of the archive.")
    ] = "https://data.binance.vision",
    no_checksums: Annotated[
        bool, typer.Option("--no-checksums", help="Take zips without a .CHECKSUM beside them.")
    ] = False,
    store: StoreOption = None,
    again: Again = False,
    workers: Workers = 4,
) -> None:
    """Binance's public archive of monthly and daily zips, or a folder of them."""
    from maml_jax.data import binance

    source = binance(market, folder=folder, address=address, checksums=not no_checksums)  # pyright: ignore[reportArgumentType]
    _fetch(source, symbols, interval, start, end, store, again, workers)


@fetch_app.command("files")
def files_command(
    files: Annotated[list[Path], typer.Argument(help="CSV, Parquet or JSON.")],
    name: Annotated[str, typer.Option("--name", help="What the store calls the source.")] = "files",
    timezone: Annotated[
        str, typer.Option("--timezone", help="Zone of times that carry none.")
    ] = "UTC",
    store: StoreOption = None,
) -> None:
    """Keep the bars of files in the store."""
    from maml_jax.data import Store, bar_interval, fetch, frames_source, parse_interval, read_bars

    frames = read_bars(files, timezone=timezone)
    single = [symbol for symbol, bars in frames.items() if len(bars) < 2]
    if single:
        raise DataError(f"{single[0]}: one bar alone has no interval; the store needs at least two")
    by_interval: dict = {}
    for symbol, bars in frames.items():
        step = bar_interval(bars)
        minutes = round(step / pd.Timedelta(minutes=1))
        if step != pd.Timedelta(minutes=minutes):
            raise DataError(f"{symbol}: a bar every {step}; the store keeps whole minutes")
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


@data_app.command("list")
def list_command(store: StoreOption = None) -> None:
    """Say which series the store holds."""
    from maml_jax.data import Store

    kept = Store(store)
    table = _table("series", "bars", "first", "last", "fetched", "size", "revised")
    for key in kept.keys():
        try:
            info = kept.info(key)
        except StoreError as error:
            table.add_row(str(key), "damaged")
            typer.echo(f"damaged: {error}", err=True)
            continue
        spans = ", ".join(f"{a:%Y-%m-%d} to {b:%Y-%m-%d}" for a, b in info.covered)
        table.add_row(
            str(key), f"{info.bars:,}", _time(info.first), _time(info.last), spans,
            f"{info.bytes / 1e6:.1f} MB", str(info.revised or ""),
        )  # fmt: skip
    _console().print(table)
    typer.echo(f"store: {kept.root}")


@data_app.command("show")
def show_command(what: What, store: StoreOption = None) -> None:
    """Show bars, and what the checks find in them."""
    for name, group in _groups(what, store).items():
        for symbol, bars in group.items():
            typer.echo(
                f"{name} {symbol}: {len(bars):,} bars from {bars.index[0]} to {bars.index[-1]}"
            )
            ends = bars if len(bars) <= 6 else pd.concat([bars.iloc[:3], bars.iloc[-3:]])
            typer.echo(ends.to_string())
        _print_findings(group)


@data_app.command("verify")
def verify_command(what: SomeOrAll = None, store: StoreOption = None) -> None:
    """Read everything, check files and bars; exit code 1 if a file of the store is damaged."""
    from maml_jax.data import Store

    kept = Store(store)
    keys = {
        key
        for text in what or ["/".join(key) for key in _sources(kept)]
        if not Path(text).is_file()
        for key in kept.find(text)
    }
    problems = [problem for key in sorted(keys, key=str) for problem in kept.verify(key)]
    for problem in problems:
        typer.echo(f"damaged: {problem}", err=True)
    if not what and not keys:
        typer.echo(f"{kept.root}: holds no series")
    if not problems:
        for name, group in _groups(what or ["/".join(k) for k in _sources(kept)], store).items():
            bars = sum(map(len, group.values()))
            typer.echo(f"{name}: {len(group)} series, {bars:,} bars, files whole")
            _print_findings(group)
    raise typer.Exit(1 if problems else 0)


@data_app.command("export")
def export_command(
    what: What,
    out: Annotated[Path, typer.Option("--out", help="File to write: .csv, .csv.gz or .parquet.")],
    policy: Annotated[
        str, typer.Option("--policy", help="keep, drop or mask bars that are wrong for certain.")
    ] = "keep",
    store: StoreOption = None,
) -> None:
    """Write bars as one long table with a column `symbol`."""
    from maml_jax.data import clean_bars, write_bars

    frames: dict = {}
    for group in _groups(what, store).values():
        twice = sorted({*frames} & {*group})
        if twice:
            raise DataError(f"{twice[0]} is in several of {', '.join(what)}; export one at a time")
        frames |= group
    cleaned = clean_bars(frames, policy)  # pyright: ignore[reportArgumentType]
    rows = write_bars(cleaned.bars, out)
    for note in cleaned.notes:
        typer.echo(f"note: {note}")
    typer.echo(f"{out}: {rows:,} rows of {len(frames)} assets")


def _fetch(source, symbols, interval, start, end, store, again, workers) -> None:
    from maml_jax.data import Store, fetch

    kept = Store(store)
    left = f"bars that came are kept in {kept.root}, and the same command goes on from there"
    watchdog.keep(kept.root, left, left)
    options = {"start": start, "end": end, "store": kept, "again": again}
    with _bars_of_progress(symbols) as progress:
        report = fetch(source, symbols, interval, **options, workers=workers, progress=progress)
    _print_report(report)


@contextmanager
def _bars_of_progress(symbols: list[str]) -> Iterator:
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:.0f} %"))
    console = Console(stderr=True)
    with ProgressBars(*columns, TimeRemainingColumn(), console=console, transient=True) as shown:
        tasks = {symbol: shown.add_task(symbol, total=1.0) for symbol in dict.fromkeys(symbols)}
        yield lambda symbol, done: shown.update(tasks[symbol], completed=done)


def _print_report(report) -> None:
    """Print a table of what came, what the checks find, and errors; end with code 2 if any."""
    from maml_jax.data import check_bars

    bars = report.bars
    found = check_bars(bars)
    table = _table("series", "new", "bars", "first", "last", "revised", "findings")
    for each in report.series:
        index = bars[each.key.symbol].index if each.key.symbol in bars else []
        findings = [f"{f.kind} {len(f.times):,}" for f in found.get(each.key.symbol, [])]
        table.add_row(
            str(each.key), f"{each.added:,}", f"{len(index):,}",
            _time(index[0] if len(index) else None), _time(index[-1] if len(index) else None),
            str(len(each.revised) or ""),
            "failed, see below" if each.error else ", ".join(findings),
        )  # fmt: skip
    _console().print(table)
    typer.echo(f"store: {report.store.root}")
    for each in report.series:
        for time, row in list(each.revised.iterrows())[:_SHOWN_REVISIONS]:
            change = f"{row['before']:g} before, {row['after']:g} now"
            typer.echo(f"revised: {each.key} {row['column']} at {time}: {change}")
        if len(each.revised) > _SHOWN_REVISIONS:
            more = len(each.revised) - _SHOWN_REVISIONS
            typer.echo(f"revised: {each.key} {more} more, all in its revisions.csv")
    for each in report.series:
        if each.error is not None:
            typer.echo(f"error: {each.key}: {each.error}", err=True)
    if report.errors:
        raise typer.Exit(2)


def _groups(what: list[str], root: Path | None) -> dict[str, dict[str, pd.DataFrame]]:
    """Read what texts name: series of the store by source and interval, or files."""
    from maml_jax.data import Store, read_bars

    store = Store(root)
    groups: dict[str, dict[str, pd.DataFrame]] = {}
    for text in what:
        if Path(text).is_file():
            groups[text] = read_bars(text)
            continue
        try:
            keys = store.find(text)
        except MamlJaxError as error:
            raise DataError(f"{text}: no file of this name, and {error}") from None
        for key in keys:
            groups.setdefault(f"{key.source}/{key.interval}", {})[key.symbol] = store.read(key)
    return groups


def _sources(store) -> list[tuple[str, str]]:
    return sorted({(key.source, str(key.interval)) for key in store.keys()})


def _print_findings(group: dict[str, pd.DataFrame]) -> None:
    from maml_jax.data import check_bars, findings_table

    found = findings_table(check_bars(group))
    if found.empty:
        typer.echo("the checks find nothing")
        return
    table = _table("asset", "finding", "bars", "first", "last", "detail")
    for row in found.itertuples():
        times = (_time(row.first), _time(row.last))  # pyright: ignore[reportArgumentType]
        table.add_row(str(row.asset), str(row.kind), f"{row.bars:,}", *times, str(row.detail))
    _console().print(table)


def _with_scheme(address: str) -> str:
    if "://" in address:
        return address
    local = address.startswith(("localhost", "127.", "[::1]"))
    return f"{'http' if local else 'https'}://{address}"


def _table(*columns: str) -> Table:
    table = Table()
    for name in columns:
        table.add_column(name, justify="right" if name in ("new", "bars", "size") else "left")
    return table


def _console() -> Console:
    return Console(width=None if sys.stdout.isatty() else 180)


def _time(time: pd.Timestamp | None) -> str:
    if time is None:
        return ""
    return f"{time:%Y-%m-%d}" if time == time.normalize() else f"{time:%Y-%m-%d %H:%M}"

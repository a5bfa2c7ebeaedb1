"""Commands that inspect, verify and export bars of the store or of files."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from maml_jax.cli.reading import DataOverrides, LayoutOption, file_settings
from maml_jax.cli.tables import StoreOption, format_time, make_console, make_table
from maml_jax.errors import DataError, MamlJaxError, StoreError

if TYPE_CHECKING:
    import pandas as pd

data_app = typer.Typer(
    help="Inspect, verify and export bars of the store or of files.", no_args_is_help=True
)

What = Annotated[
    list[str],
    typer.Argument(help="SOURCE, SOURCE/INTERVAL or SOURCE/SYMBOL/INTERVAL, or files."),
]
SomeOrAll = Annotated[
    list[str] | None,
    typer.Argument(
        help="SOURCE, SOURCE/INTERVAL or SOURCE/SYMBOL/INTERVAL, or files. Default: all."
    ),
]


@data_app.command("list")
def list_command(store: StoreOption = None) -> None:
    """List the series in the store."""
    from maml_jax.data import Store

    kept = Store(store)
    table = make_table("series", "bars", "first", "last", "fetched", "size", "revised")
    for key in kept.keys():
        try:
            info = kept.info(key)
        except StoreError as error:
            table.add_row(str(key), "damaged")
            typer.echo(f"damaged: {error}", err=True)
            continue
        spans = ", ".join(f"{a:%Y-%m-%d} to {b:%Y-%m-%d}" for a, b in info.covered)
        table.add_row(
            str(key), f"{info.bars:,}", format_time(info.first), format_time(info.last), spans,
            f"{info.bytes / 1e6:.1f} MB", str(info.revised or ""),
        )  # fmt: skip
    make_console().print(table)
    typer.echo(f"store: {kept.root}")


@data_app.command("show")
def show_command(
    what: What,
    store: StoreOption = None,
    layout: LayoutOption = None,
    overrides: DataOverrides = None,
) -> None:
    """Show the first and last bars, and what the checks find."""
    import pandas as pd

    reading = file_settings(layout, overrides)
    for name, group in _read_groups(what, store, reading).items():
        for symbol, bars in group.items():
            typer.echo(
                f"{name} {symbol}: {len(bars):,} bars from {bars.index[0]} to {bars.index[-1]}"
            )
            ends = bars if len(bars) <= 6 else pd.concat([bars.iloc[:3], bars.iloc[-3:]])
            typer.echo(ends.to_string())
        _print_findings(group)


@data_app.command("verify")
def verify_command(what: SomeOrAll = None, store: StoreOption = None) -> None:
    """Check files and bars; exit code 1 if a file of the store is damaged."""
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
        typer.echo(f"{kept.root}: the store is empty")
    if not problems:
        for name, group in _read_groups(
            what or ["/".join(k) for k in _sources(kept)], store
        ).items():
            bars = sum(map(len, group.values()))
            typer.echo(f"{name}: {len(group)} series, {bars:,} bars, files intact")
            _print_findings(group)
    raise typer.Exit(1 if problems else 0)


@data_app.command("export")
def export_command(
    what: What,
    out: Annotated[Path, typer.Option("--out", help="File to write: .csv, .csv.gz or .parquet.")],
    policy: Annotated[
        str,
        typer.Option(
            "--policy", help="What to do with bars that are certainly wrong: keep, drop or mask."
        ),
    ] = "keep",
    store: StoreOption = None,
    layout: LayoutOption = None,
    overrides: DataOverrides = None,
) -> None:
    """Write bars to one long table with a column `symbol`."""
    from maml_jax.data import clean_bars, write_bars

    frames: dict = {}
    for group in _read_groups(what, store, file_settings(layout, overrides)).values():
        twice = sorted({*frames} & {*group})
        if twice:
            raise DataError(
                f"{twice[0]} is in more than one of {', '.join(what)}; export one at a time"
            )
        frames |= group
    cleaned = clean_bars(frames, policy)  # pyright: ignore[reportArgumentType]
    rows = write_bars(cleaned.bars, out)
    for note in cleaned.notes:
        typer.echo(f"note: {note}")
    assets = "1 asset" if len(frames) == 1 else f"{len(frames):,} assets"
    typer.echo(f"{out}: {rows:,} rows of {assets}")


def _read_groups(
    what: list[str], root: Path | None, reading: dict[str, Any] | None = None
) -> "dict[str, dict[str, pd.DataFrame]]":
    """Read series of the store, by source and interval, or files."""
    from maml_jax.data import Store, read_bars

    store, reading = Store(root), {} if reading is None else reading
    groups: dict[str, dict] = {}
    for text in what:
        if Path(text).is_file():
            groups[text] = read_bars(text, **reading)
            continue
        try:
            keys = store.find(text)
        except MamlJaxError as error:
            raise DataError(f"{text}: there is no such file, and {error}") from None
        for key in keys:
            groups.setdefault(f"{key.source}/{key.interval}", {})[key.symbol] = store.read(key)
    return groups


def _sources(store) -> list[tuple[str, str]]:
    return sorted({(key.source, str(key.interval)) for key in store.keys()})


def _print_findings(group: "dict[str, pd.DataFrame]") -> None:
    from maml_jax.data import check_bars, findings_table
    from maml_jax.data.options import reading_notes

    for note in reading_notes(group):
        typer.echo(f"note: {note}")
    found = findings_table(check_bars(group))
    if found.empty:
        typer.echo("checks: nothing found")
        return
    table = make_table("asset", "finding", "bars", "first", "last", "detail")
    for row in found.itertuples():
        times = (format_time(row.first), format_time(row.last))  # pyright: ignore[reportArgumentType]
        table.add_row(str(row.asset), str(row.kind), f"{row.bars:,}", *times, str(row.detail))
    make_console().print(table)

"""The normal form of bars, and conversion of other tables into it.

Normal form: a DataFrame with a UTC `DatetimeIndex` named `timestamp` (the time at which the bar
opens), ascending and unique, and float64 columns among `open high low close volume`; `close` is
always present. Only an open may be missing (NaN).
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Unpack

import numpy as np
import pandas as pd

from maml_jax.data.clocks import join_times
from maml_jax.data.finishing import finish_bars
from maml_jax.data.layout import find_layout
from maml_jax.data.names import ADJUSTED, COLUMNS, field_of, is_symbol, time_rank
from maml_jax.data.options import Reading, TableOptions, make_reading
from maml_jax.data.parse import parse_numbers, refuse_rows
from maml_jax.data.times import parse_times
from maml_jax.data.zones import with_stated_zone
from maml_jax.errors import DataError


def to_bars(
    table: pd.DataFrame | pd.Series,
    *,
    source: str = "the table",
    symbol: str = "asset",
    place: Callable[[int], str] | None = None,
    **options: Unpack[TableOptions],
) -> dict[str, pd.DataFrame]:
    """Convert a table of prices to normal form, one frame per asset.

    Three layouts are understood. *One asset*: a time column or index, and price columns. *Long*:
    the same with a column that names the asset (`symbol`, `ticker`, ...). *Wide*: one column of
    closing prices per asset, empty before an asset's first price and after its last. Columns of two
    levels, as in ("Close", "AAPL"), and names of both, as in `AAPL.Close`, are read too. Names are
    read as words, in any case: `PX_LAST` is a close, and where some names are of fields, no column
    is taken for an asset. Rows may come in either order.

    Args:
        table: the prices. Numbers and dates may be text.
        source: how error messages call the table.
        symbol: the asset's name if the table has none.
        place: names the place of row `i` in the source ("line 7"); default "row i".
        timezone: of times without one; None is what a name or a column says, else UTC. Numbers
            since 1970 are UTC. Days are days of the exchange: dates stay as they are.
        date_format: `strftime` format of the times, or the unit of numbers: "s", "ms", "us", "ns"
            or "D" since 1970, "excel" for days of spreadsheets. None reads ISO 8601, numbers since
            1970 in one unit, or the only format that fits all times or keeps their order.
        adjust: if there is an adjusted close, scale the prices of each bar by adjusted / plain
            close, so that returns include dividends and splits. The default.
        missing: for a bar that lacks a value other than its open: refuse the series (`error`, the
            default), or `drop` the bar. A bar without an open, or with one of 0, stays.
        columns: which columns hold what, where their names do not say it, as in
            `{"close": "Schluss", "timestamp": "Tag"}`; an empty name leaves a field out. Keys:
            timestamp, date, time, symbol, open, high, low, close, adj_close, volume.
        decimal: the mark of decimals, "," or "."; None finds it.

    Returns:
        `{asset: bars}` in normal form.

    Raises:
        DataError: naming the source, and the column, line or date.
    """
    if not isinstance(table, pd.DataFrame | pd.Series):
        raise DataError(
            f"{source}: bars must be a DataFrame or a Series, or a mapping of asset to one, not "
            f"{type(table).__name__}; read files with maml_jax.data.read_bars"
        )
    if isinstance(table, pd.Series):
        table = table.to_frame("close" if table.name is None else str(table.name))
    reading = make_reading(source, place, options)
    if isinstance(table.index, pd.DatetimeIndex) and {"close"} <= {*table.columns} <= {*COLUMNS}:
        reading = reading._replace(columns=None)  # they are for tables that need them
    if isinstance(table.columns, pd.MultiIndex):
        return _from_levels(table, reading, options)
    if table.empty:
        raise DataError(f"{source}: holds no rows")
    said = {kind: table.attrs[kind] for kind in ("mended", "notes", "zone") if kind in table.attrs}
    table = _time_as_column(table, source)
    table.attrs = {**said}
    layout = find_layout(table, reading)
    given, reading = reading.timezone, with_stated_zone(reading, table, layout.times)
    if len(layout.times) == 2:
        date, time = layout.times
        times = join_times(table[date], table[time], reading)
    else:
        times = parse_times(table[layout.times[0]], reading)
    notes = list(layout.notes)
    placed = reading.timezone not in (given, "UTC") and (times != times.normalize()).any()
    if placed and not pd.to_numeric(table[layout.times[0]], errors="coerce").notna().all():
        notes.append(
            f"times without a time zone are those of {reading.timezone}, as the table says"
        )
    result: dict[str, pd.DataFrame] = {}
    wide = len(layout.assets) > 1 or None not in layout.assets
    for asset, columns in layout.assets.items():
        values = parse_numbers({role: table[c] for role, c in columns.items()}, reading)
        name = symbol if asset is None else asset
        for each, rows in _rows_of(table, layout.symbol, name, reading).items():
            if wide:
                rows = _between_ends(values, times, columns, reading)
            result[each] = finish_bars(values.iloc[rows], times[rows], rows, each, reading)
    for frame in result.values():
        _carry(frame, notes, said)
    return result


def _carry(frame: pd.DataFrame, notes: Iterable[str], said: Mapping) -> None:
    """Add what is known of the whole table to what is known of the bars of an asset."""
    every = dict.fromkeys([*said.get("notes", ()), *notes, *frame.attrs.get("notes", ())])
    if every:
        frame.attrs["notes"] = [*every]
    if "mended" in said:
        frame.attrs["mended"] = {**said["mended"], **frame.attrs.get("mended", {})}


def as_bars(
    bars: pd.DataFrame | pd.Series | Mapping[str, pd.DataFrame | pd.Series],
    **options: Unpack[TableOptions],
) -> dict[str, pd.DataFrame]:
    """Convert one table, or a mapping of asset to table, to normal form.

    Args:
        bars: a table in any layout that `to_bars` reads, or `{asset: table of one asset}`.
        **options: as for `to_bars`.

    Raises:
        DataError: naming the asset, and the column, line or date.
    """
    if not isinstance(bars, Mapping):
        return to_bars(bars, source="bars", **options)
    result = {}
    for name, table in bars.items():
        if isinstance(table, pd.Series):
            table = table.rename("close")
        frames = to_bars(table, source=f"bars[{name!r}]", symbol=str(name), **options)
        if len(frames) != 1:
            raise DataError(
                f"bars[{name!r}]: holds {len(frames)} assets ({_some(frames)}); in a mapping each "
                "table must hold one asset"
            )
        result[str(name)] = next(iter(frames.values()))
    if not result:
        raise DataError("bars: the mapping is empty")
    return result


def bar_interval(bars: pd.DataFrame) -> pd.Timedelta:
    """Return the median time between bars."""
    times = pd.DatetimeIndex(bars.index).as_unit("us").asi8
    return pd.Timedelta(np.median(np.diff(times)), unit="us")


def require_same_interval(
    bars: Mapping[str, pd.DataFrame],
    expected: pd.Timedelta | None = None,
    *,
    tolerance: float = 0.2,
) -> None:
    """Refuse assets with different bar intervals.

    Args:
        bars: in normal form.
        expected: the interval that a learner was trained on; None compares the assets with each
            other alone.
        tolerance: relative difference of two median steps (months differ in length).

    Raises:
        DataError: naming two assets and their intervals.
    """
    steps = {name: bar_interval(frame) for name, frame in bars.items() if len(frame) > 1}
    if expected is not None:
        steps["the bars trained on"] = expected
    if not steps:
        return
    shortest, longest = min(steps, key=steps.__getitem__), max(steps, key=steps.__getitem__)
    if steps[longest] > steps[shortest] * (1 + tolerance):
        raise DataError(
            f"assets have different bar intervals: {shortest} has a bar every "
            f"{steps[shortest]}, {longest} every {steps[longest]}; resample them to one interval"
        )


def _from_levels(
    table: pd.DataFrame, reading: Reading, options: TableOptions
) -> dict[str, pd.DataFrame]:
    """Read a table with columns like ("Close", "AAPL"), in either order of levels."""
    levels = [table.columns.get_level_values(i) for i in range(table.columns.nlevels)]
    closes = [
        i
        for i, level in enumerate(levels)
        if any((f := field_of(name)) and f.role in ("close", ADJUSTED) for name in level.unique())
    ]
    if len(levels) != 2 or not closes:
        raise DataError(
            f"{reading.source}: columns have {len(levels)} levels, expected two, one of which has "
            "'close'; join them, as in 'AAPL.Close', or keep one column of closes for each asset"
        )
    fields, names = levels[closes[0]], levels[1 - closes[0]]
    flat = table.set_axis(fields, axis="columns")
    result: dict[str, pd.DataFrame] = {}
    for name in names.unique():
        own = pd.DataFrame(flat.loc[:, names == name])
        known = np.flatnonzero((own.notna() & (own != "")).any(axis=1))
        frames = to_bars(
            own.iloc[known],
            source=f"{reading.source}, {name}",
            symbol=str(name),
            place=lambda i, known=known: reading.place(int(known[i])),
            **options,
        )
        result |= frames
    return result


def _time_as_column(table: pd.DataFrame, source: str) -> pd.DataFrame:
    """Make a column of an index of times, and of an index that may be one where no column is."""
    index = table.index
    if isinstance(index, pd.MultiIndex):
        kinds = ["timestamp" if _holds_times(level) else "symbol" for level in index.levels]
        given = zip(kinds, index.names, strict=True)
        names = [kind if name is None else name for kind, name in given]
        if len({*names}) < len(names) or {*names} & {*table.columns}:
            raise DataError(f"{source}: every level of the index needs a name of its own")
        return table.set_axis(index.set_names(names), axis="index").reset_index()
    named = any(time_rank(column) is not None for column in table.columns)
    numbered = isinstance(index, pd.RangeIndex) or (named and not _holds_times(index))
    if numbered and (index.name is None or time_rank(index.name) is None):
        return table.reset_index(drop=True)
    name = "timestamp" if index.name is None else str(index.name)
    if name in table.columns:
        return table.reset_index(drop=True)
    if time_rank(name) is None and not is_symbol(name) and _holds_times(index):
        name = "timestamp"
    return table.rename_axis(name).reset_index()


def _holds_times(index: pd.Index) -> bool:
    return isinstance(index, pd.DatetimeIndex | pd.PeriodIndex)


def _rows_of(table, column, symbol: str, reading: Reading) -> dict[str, np.ndarray]:
    """Return the rows of each asset."""
    if column is None:
        return {symbol: np.arange(len(table))}
    labels = table[column].astype(str).str.strip()
    unnamed = (labels == "") | table[column].isna()
    refuse_rows(unnamed, labels, column, "no symbol", reading)
    rows_of = labels.groupby(labels, sort=False).indices
    return {str(name): np.asarray(rows) for name, rows in rows_of.items()}


def _between_ends(values, times, columns, reading: Reading) -> np.ndarray:
    """Return the rows from an asset's first price to its last: others may begin earlier."""
    known = values.dropna(how="all").index.to_numpy()
    if not known.size:
        first = next(iter(columns.values()))
        raise DataError(f"{reading.source}, column {first!r}: holds no prices")
    inside = (times >= times[known].min()) & (times <= times[known].max())
    return np.flatnonzero(inside)


def _some(names: Iterable[str], most: int = 5) -> str:
    names = list(names)
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")

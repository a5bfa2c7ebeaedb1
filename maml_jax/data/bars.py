"""The normal form of bars, and conversion of other tables into it.

Normal form: a DataFrame with a UTC `DatetimeIndex` named `timestamp` (the time at which the bar
opens), ascending and unique, and float64 columns among `open high low close volume`; `close` is
always present.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Literal

import numpy as np
import pandas as pd

from maml_jax.data.parse import parse_numbers, parse_times, refuse_rows
from maml_jax.data.time_index import read_time_index
from maml_jax.errors import DataError

COLUMNS = ("open", "high", "low", "close", "volume")
PRICES = ("open", "high", "low", "close")

Missing = Literal["error", "drop"]

# In order of preference: a wide table may hold an asset called T.
TIME_NAMES = (
    "timestamp", "datetime", "date", "time", "open time", "opentime", "start", "start time",
    "gmt time", "time utc", "local time", "unix", "unix timestamp", "period", "bar", "index", "ts",
    "t",
)  # fmt: skip
SYMBOL_NAMES = ("symbol", "ticker", "asset", "pair", "instrument", "name", "coin", "tic", "market")
COLUMN_NAMES = {
    "open": "open", "open price": "open",
    "high": "high", "high price": "high",
    "low": "low", "low price": "low",
    "close": "close", "close price": "close", "last": "close", "price": "close",
    "adj close": "adj close", "adjclose": "adj close", "adjusted close": "adj close",
    "close adj": "adj close",
    "volume": "volume", "vol": "volume", "base volume": "volume",
}  # fmt: skip
LETTERS = {"o": "open", "h": "high", "l": "low", "c": "close", "v": "volume"}


def plain_name(name: object) -> str:
    """Fold case, underscores, dots and spaces, so that `Adj_Close` equals `adj close`.

    >>> plain_name(" Adj_Close ")
    'adj close'
    """
    return " ".join(str(name).strip("<> ").replace("_", " ").replace(".", " ").lower().split())


def to_bars(
    table: pd.DataFrame | pd.Series,
    *,
    source: str = "the table",
    symbol: str = "asset",
    timezone: str = "UTC",
    date_format: str | None = None,
    adjust: bool = True,
    missing: Missing = "error",
    place: Callable[[int], str] | None = None,
) -> dict[str, pd.DataFrame]:
    """Convert a table of prices to normal form, one frame per asset.

    Three layouts are understood. *One asset*: a time column or index, and price columns. *Long*:
    the same with a column that names the asset (`symbol`, `ticker`, ...). *Wide*: one column of
    closing prices per asset, empty before an asset's first price and after its last. Columns of two
    levels, as in ("Close", "AAPL"), are read too. The case of names does not matter; rows may come
    in either order.

    Args:
        table: the prices. Numbers and dates may be text.
        source: how error messages call the table.
        symbol: the asset's name if the table has none.
        timezone: of times without one.
        date_format: `strftime` format of the times; None reads ISO 8601, numbers since 1970 in
            seconds to nanoseconds, or the format of the first time.
        adjust: if there is an adjusted close, scale the prices of each bar by adjusted / plain
            close, so that returns include dividends and splits.
        missing: for a bar that lacks a value: refuse the series (`error`), or `drop` the bar.
        place: names the place of row `i` in the source ("line 7"); default "row i".

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
    place = place or (lambda i: f"row {i}")
    if isinstance(table.columns, pd.MultiIndex):
        options = {"source": source, "timezone": timezone, "date_format": date_format}
        return as_bars(_by_asset(table, source), **options, adjust=adjust, missing=missing)
    if table.empty:
        raise DataError(f"{source}: holds no rows")
    table = _time_as_column(table, source)
    names = {column: plain_name(column) for column in table.columns}
    times, used = _find_times(table, names, source, timezone, date_format, place)
    body = table.drop(columns=used)
    known = _known_columns({c: names[c] for c in body.columns})
    has_close = bool({"close", "adj close"} & set(known.values()))
    symbol_column = _symbol_column(body, names, source, has_close)
    if symbol_column is None and not has_close and 2 * len(known) <= len(body.columns):
        return _from_wide(body, times, source, missing, place)
    values = _select_columns(body, known, source, place)
    if symbol_column is None:
        groups = [(symbol, np.arange(len(values)))]
    else:
        labels = body[symbol_column].astype(str).str.strip()
        unnamed = (labels == "") | body[symbol_column].isna()
        refuse_rows(unnamed, labels, source, symbol_column, "no symbol", place)
        rows_of = labels.groupby(labels, sort=False).indices
        groups = [(str(name), np.asarray(rows)) for name, rows in rows_of.items()]
    return {
        name: _finish(values.iloc[rows], times[rows], rows, source, name, adjust, missing, place)
        for name, rows in groups
    }


def as_bars(
    bars: pd.DataFrame | pd.Series | Mapping[str, pd.DataFrame | pd.Series], **options
) -> dict[str, pd.DataFrame]:
    """Convert one table, or a mapping of asset to table, to normal form.

    Args:
        bars: a table in any layout that `to_bars` reads, or `{asset: table of one asset}`.
        **options: as for `to_bars`.

    Raises:
        DataError: naming the asset, and the column, line or date.
    """
    if not isinstance(bars, Mapping):
        return to_bars(bars, **{"source": "bars", **options})
    result = {}
    for name, table in bars.items():
        options = {**options, "source": f"bars[{name!r}]", "symbol": str(name)}
        if isinstance(table, pd.Series):
            table = table.rename("close")
        frames = to_bars(table, **options)
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


def _by_asset(table: pd.DataFrame, source: str) -> dict[str, pd.DataFrame]:
    """Split a table with columns like ("Close", "AAPL"), in either order of levels."""
    for level in range(table.columns.nlevels if table.columns.nlevels == 2 else 0):
        fields = {plain_name(name) for name in table.columns.get_level_values(level)}
        if "close" in fields or "adj close" in fields:
            names = table.columns.get_level_values(1 - level)
            flat = table.set_axis(table.columns.get_level_values(level), axis="columns")
            return {
                str(name): pd.DataFrame(flat.loc[:, names == name]).dropna(how="all")
                for name in names.unique()
            }
    raise DataError(f"{source}: columns have several levels, and none of two levels has 'close'")


def _time_as_column(table: pd.DataFrame, source: str) -> pd.DataFrame:
    table = read_time_index(table)
    index = table.index
    if isinstance(index, pd.MultiIndex):
        if None in index.names:
            raise DataError(f"{source}: every level of the index needs a name")
        return table.reset_index()
    if isinstance(index, pd.DatetimeIndex) or plain_name(index.name) in TIME_NAMES:
        name = "timestamp" if index.name is None else str(index.name)
        if name in table.columns:
            return table.reset_index(drop=True)
        return table.rename_axis(name).reset_index()
    return table.reset_index(drop=True)


def _find_times(table, names, source, timezone, date_format, place):
    """Return the times, and the columns that they were read from."""
    by_name = {name: column for column, name in reversed(names.items())}
    head = next(iter(names))
    if "date" in by_name and "time" in by_name:
        date, time = table[by_name["date"]], table[by_name["time"]].astype(str).str.strip()
        if time.str.match(r"\d{1,2}:\d{2}").all():
            both = (date.astype(str).str.strip() + " " + time).rename(date.name)
            used = [by_name["date"], by_name["time"]]
            return parse_times(both, source, timezone, date_format, place), used
    column = next((by_name[name] for name in TIME_NAMES if name in by_name), None)
    if column is None:
        # A first column without a name, as DataFrame.to_csv writes it, is the index.
        if names[head] != "" and not names[head].startswith("unnamed"):
            raise DataError(
                f"{source}: missing time column; expected a name like 'timestamp' or 'date', "
                f"found columns {[str(c) for c in names]}"
            )
        column = head
    return parse_times(table[column], source, timezone, date_format, place), [column]


def _known_columns(names: Mapping) -> dict:
    """Map columns to the names of the normal form; single letters only as a full set."""
    aliases = COLUMN_NAMES
    if {"o", "h", "l", "c"} <= set(names.values()):
        aliases = COLUMN_NAMES | LETTERS
    return {column: aliases[name] for column, name in names.items() if name in aliases}


def _symbol_column(body, names, source, has_close):
    found = [column for column in body.columns if names[column] in SYMBOL_NAMES]
    if not has_close:  # then a column of numbers is an asset of that name in a wide table
        found = [c for c in found if pd.to_numeric(body[c], errors="coerce").isna().all()]
    if len(found) > 1:
        found = [c for c in found if names[c] == "symbol"] or found
    if len(found) > 1:
        raise DataError(f"{source}: columns {found} could all name the asset; keep one")
    return found[0] if found else None


def _select_columns(body, known, source, place) -> pd.DataFrame:
    targets = list(known.values())
    repeated = {name for name in targets if targets.count(name) > 1}
    if repeated:
        clash = [c for c, name in known.items() if name in repeated]
        raise DataError(f"{source}: columns {clash} mean the same; keep one of them")
    if "close" not in targets and "adj close" not in targets:
        raise DataError(
            f"{source}: missing column 'close'; found columns {[str(c) for c in body.columns]}"
        )
    return pd.DataFrame(
        {name: parse_numbers(body[column], source, place) for column, name in known.items()}
    )


def _from_wide(body, times, source, missing, place) -> dict[str, pd.DataFrame]:
    if body.columns.empty:
        raise DataError(f"{source}: no price columns besides the time")
    if not body.columns.is_unique:
        twice = body.columns[body.columns.duplicated()].tolist()
        raise DataError(f"{source}: duplicate columns {twice}")
    result = {}
    for column in body.columns:
        close = parse_numbers(body[column], source, place)
        ordered = close.iloc[np.argsort(times, kind="stable")]
        real = np.flatnonzero(ordered.notna())
        if not real.size:
            raise DataError(f"{source}, column {column!r}: holds no prices")
        rows = np.sort(ordered.index[real[0] : real[-1] + 1].to_numpy())
        frame = close.iloc[rows].to_frame("close")
        result[str(column)] = _finish(
            frame, times[rows], rows, source, str(column), False, missing, place
        )
    return result


def _finish(values, times, rows, source, name, adjust, missing, place) -> pd.DataFrame:
    """Finish one asset: missing values, adjustment, order, duplicates, signs."""
    where = f"{source}, {name}"
    frame = values.set_axis(times, axis="index")
    lines = pd.Series(rows, index=times)
    gone = frame.isna()
    if gone.to_numpy().all(axis=0).any():
        empty = frame.columns[gone.to_numpy().all(axis=0)].tolist()
        if "close" in empty or missing == "error":
            raise DataError(f"{where}: column {empty[0]!r} holds no values; leave it out")
        frame, gone = frame.drop(columns=empty), gone.drop(columns=empty)
    if gone.to_numpy().any():
        if missing == "error":
            count = int(gone.to_numpy().sum())
            row, column = (int(k[0]) for k in np.nonzero(gone.to_numpy()))
            raise DataError(
                f"{where}: column {frame.columns[column]!r} has no value at {times[row]} "
                f"({place(int(rows[row]))}), inside the series ({count} missing in total); "
                "complete the data, or set missing='drop' to leave such bars out"
            )
        keep = ~gone.any(axis=1).to_numpy()
        frame, lines = frame[keep], lines[keep]
    if "adj close" in frame.columns:
        adjusted = frame.pop("adj close")
        if "close" not in frame.columns:
            frame["close"] = adjusted
        elif adjust:
            _refuse_sign(frame, ("close",), where, lines, place)
            ratio = adjusted / frame["close"]
            for column in set(PRICES) & set(frame.columns):
                frame[column] = frame[column] * ratio
    mended = {}
    if not (frame.index.is_monotonic_increasing or frame.index.is_monotonic_decreasing):
        steps = np.diff(frame.index.asi8)
        back = np.append(False, steps < 0 if (steps > 0).mean() >= 0.5 else steps > 0)
        mended["unsorted"] = [str(time) for time in frame.index[back].sort_values()]
    order = np.argsort(frame.index, kind="stable")
    frame, lines = frame.iloc[order], lines.iloc[order]
    whole = _merge_duplicates(frame, lines, where, place)
    if len(whole) < len(frame):
        mended["duplicate"] = [str(time) for time in frame.index[frame.index.duplicated()].unique()]
    _refuse_sign(whole, PRICES, where, lines, place)
    result = whole[[c for c in COLUMNS if c in whole.columns]].rename_axis("timestamp")
    if mended:
        result.attrs["mended"] = mended  # for the checks, which see the bars when this is forgotten
    return result


def _merge_duplicates(frame, lines, where, place) -> pd.DataFrame:
    repeated = frame.index.duplicated(keep="first")
    if not repeated.any():
        return frame
    clash = repeated & ~frame.reset_index().duplicated(keep="first").to_numpy()
    if clash.any():
        time = frame.index[clash][0]
        places = ", ".join(place(int(line)) for line in lines[lines.index == time])
        raise DataError(
            f"{where}: several bars at {time} disagree ({places}); "
            f"{int(clash.sum())} such bars in total; keep one of each"
        )
    return frame[~repeated]


def _refuse_sign(frame, prices, where, lines, place) -> None:
    for column in frame.columns:
        values = frame[column].to_numpy()
        bad = values <= 0 if column in prices else (values < 0) & (column == "volume")
        if bad.any():
            row = int(bad.argmax())
            line = int(lines[lines.index == frame.index[row]].iloc[0])
            kind = "a price must be positive" if column in prices else "volume must not be negative"
            raise DataError(
                f"{where}: column {column!r} is {values[row]:g} at {frame.index[row]} "
                f"({place(line)}); {kind}"
            )


def _some(names: Iterable[str], most: int = 5) -> str:
    names = list(names)
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")

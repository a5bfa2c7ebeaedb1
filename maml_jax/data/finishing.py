"""From the values of one asset to bars in normal form: missing values, adjustment, order, signs."""

import numpy as np
import pandas as pd

from maml_jax.data.names import ADJUSTED, COLUMNS, PRICES
from maml_jax.data.options import Reading
from maml_jax.errors import DataError
from maml_jax.listing import join_names


def finish_bars(
    values: pd.DataFrame, times: pd.DatetimeIndex, rows: np.ndarray, name: str, reading: Reading
) -> pd.DataFrame:
    """Return the bars of one asset in normal form.

    An open that is missing or 0 is left missing (NaN), and its bar stays: some sources have none
    for old bars. Any other missing value is for `missing` to decide.

    Args:
        values: numbers by column, `adj close` among them if there is one.
        times: when the bars open.
        rows: their numbers in the table.
        name: the asset.
        reading: names the table, and says what to do with missing values.

    Raises:
        DataError: naming the column, and the date and place.
    """
    where, place = f"{reading.source}, {name}", reading.place
    frame = values.set_axis(times, axis="index")
    lines = pd.Series(rows, index=times)
    notes: list[str] = []
    if "open" in frame.columns:
        frame["open"] = frame["open"].where(frame["open"] != 0)
        if frame["open"].isna().all() and len(frame.columns) > 1:
            frame = frame.drop(columns="open")
            notes.append("column 'open' has no values (empty or 0) and is left out")
    empty = [c for c in frame.columns if c != "close" and frame[c].isna().all()]
    if empty and len(empty) < len(frame.columns):
        frame = frame.drop(columns=empty)
        notes += [f"column {column!r} has no values and is left out" for column in empty]
    frame, lines = _drop_missing(frame, lines, where, reading)
    if ADJUSTED in frame.columns:
        adjusted = frame.pop(ADJUSTED)
        if "close" not in frame.columns:
            frame["close"] = adjusted
        elif reading.adjust:
            _refuse_sign(frame, ("close",), where, lines, place)
            ratio = adjusted / frame["close"]
            for column in set(PRICES) & set(frame.columns):
                frame[column] = frame[column] * ratio
    mended = {}
    if not (frame.index.is_monotonic_increasing or frame.index.is_monotonic_decreasing):
        steps = np.diff(pd.DatetimeIndex(frame.index).asi8)
        back = np.append(False, steps < 0 if (steps > 0).mean() >= 0.5 else steps > 0)
        mended["unsorted"] = [str(time) for time in frame.index[back].sort_values()]
    order = np.argsort(frame.index, kind="stable")
    frame, lines = frame.iloc[order], lines.iloc[order]
    whole = _merge_duplicates(frame, lines, where, place)
    if len(whole) < len(frame):
        mended["duplicate"] = [str(time) for time in frame.index[frame.index.duplicated()].unique()]
    _refuse_sign(whole, PRICES, where, lines, place)
    result = whole[[c for c in COLUMNS if c in whole.columns]].rename_axis("timestamp")
    if "open" in result.columns and result["open"].isna().any():
        lacking = result.index[result["open"].isna() & result["close"].notna()]
        mended["no_open"] = [str(time) for time in lacking]
    # For the checks and notes, which see the bars when this is forgotten:
    if mended:
        result.attrs["mended"] = mended
    if notes:
        result.attrs["notes"] = notes
    return result


def _drop_missing(frame, lines, where, reading: Reading):
    """Refuse missing values, or drop their bars; a bar that lacks only its open stays."""
    gone = frame.isna()
    empty = gone.columns[gone.to_numpy().all(axis=0)]
    if len(empty):  # the close, or an adjusted one alone
        key = empty[0].replace(" ", "_")
        raise DataError(
            f"{where}: column {empty[0]!r} holds no values; say which column holds the close with "
            f'data.columns = {{close = "..."}}, or leave this one out with {{{key} = ""}}'
        )
    if "open" in gone.columns:
        gone = gone.assign(open=gone["open"] & gone.drop(columns="open").any(axis=1))
    if not gone.to_numpy().any():
        return frame, lines
    if reading.missing == "error":
        count = int(gone.to_numpy().sum())
        row, column = (int(k[0]) for k in np.nonzero(gone.to_numpy()))
        raise DataError(
            f"{where}: column {frame.columns[column]!r} has no value at {frame.index[row]} "
            f"({reading.place(int(lines.iloc[row]))}), inside the series ({count} missing in "
            "total); complete the data, or set missing='drop' to leave such bars out"
        )
    keep = ~gone.any(axis=1).to_numpy()
    return frame[keep], lines[keep]


def _merge_duplicates(frame, lines, where, place) -> pd.DataFrame:
    repeated = frame.index.duplicated(keep="first")
    if not repeated.any():
        return frame
    clash = repeated & ~frame.reset_index().duplicated(keep="first").to_numpy()
    if clash.any():
        time = frame.index[clash][0]
        places = join_names(place(int(line)) for line in lines[lines.index == time])
        raise DataError(
            f"{where}: several bars at {time} disagree ({places}); {int(clash.sum())} such bars in "
            "total; keep one of each, or, if a column names the asset or the time of the day, say "
            'which with data.columns = {symbol = "...", time = "..."}'
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
            way = f'; data.columns = {{{column} = ""}} leaves it out'
            if column == "close":
                returns = 10 * int(bad.sum()) > len(bad)
                way = (
                    "; are these returns or differences?"
                    if returns
                    else ('; correct it, or leave the cell empty and set missing = "drop"')
                )
            raise DataError(
                f"{where}: column {column!r} is {values[row]:g} at {frame.index[row]} "
                f"({place(line)}); {kind}{way}"
            )

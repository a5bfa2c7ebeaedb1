"""Bars from JSON files: a saved reply of Bybit, or a list of records."""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from maml_jax.data.interval import parse_interval
from maml_jax.errors import DataError

_BYBIT = ("start", "open", "high", "low", "close", "volume", "turnover")


def read_json_table(path: Path) -> pd.DataFrame:
    """Read a table of bars, to be brought into normal form.

    Understood are a reply of Bybit's v5 klines, without the bar that was unfinished at its time,
    and a list of objects with one key for each column.

    Raises:
        DataError: naming the file, and what the reply says if it is of a failure.
        ValueError: if it is no JSON.
    """
    content = json.loads(path.read_text(encoding="utf-8-sig"))
    if isinstance(content, dict) and "retCode" in content:
        return _from_bybit(path, content)
    if isinstance(content, list) and content and all(isinstance(row, dict) for row in content):
        return pd.DataFrame(content)
    raise DataError(
        f"{path}: expected a reply of Bybit, or a list of objects such as "
        '[{"timestamp": "2024-01-01", "close": 1.5}, ...]'
    )


def _from_bybit(path: Path, content: dict) -> pd.DataFrame:
    if content["retCode"] != 0:
        said = content.get("retMsg") or "no reason given"
        raise DataError(f"{path}: holds no bars: Bybit answers {content['retCode']}: {said}")
    try:
        result, time = content["result"], int(content["time"])
        rows, symbol = result["list"], result["symbol"]
        width = {len(row) for row in rows}
        if not rows or len(width) > 1 or not 5 <= min(width) <= len(_BYBIT):
            raise ValueError(f"rows of {sorted(width)} values, expected 5 to {len(_BYBIT)} in each")
        table = pd.DataFrame(rows, columns=list(_BYBIT[: width.pop()]))
        opened = table["start"].astype("int64")
    except (LookupError, TypeError, ValueError) as error:
        raise DataError(f"{path}: is no reply with klines: {error}") from error
    return table[_finished(opened, time)].reset_index(drop=True).assign(symbol=symbol)


def _finished(opened: pd.Series, time: int) -> np.ndarray:
    """Say which bars had ended at a moment, in ms; of a bar alone nobody knows when it ends."""
    if len(opened) < 2:
        return np.ones(len(opened), bool)
    times = pd.DatetimeIndex(opened.to_numpy("datetime64[ms]"), tz="UTC")
    step = times.sort_values().diff().min()
    minutes = max(1, round(step / pd.Timedelta(minutes=1)))
    interval = parse_interval("1mo" if step >= pd.Timedelta(days=28) else minutes)
    return np.asarray(times < interval.floor(pd.Timestamp(time, unit="ms", tz="UTC")))

"""Tables in JSON: records, candles, columns, mappings by time, in whatever envelope they come."""

import json
import re
from collections.abc import Iterator
from itertools import permutations
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from maml_jax.data.names import field_of, plain_name, time_rank
from maml_jax.data.reading.cells import looks_like_time
from maml_jax.data.reading.envelopes import at_exchange, find_envelope_zone
from maml_jax.data.reading.headers import names_prices
from maml_jax.data.reading.layouts import LAYOUTS, layout_columns
from maml_jax.data.reading.raw import Raw
from maml_jax.errors import DataError

_SYMBOL_KEYS = ("symbol", "ticker", "pair", "instrument", "asset", "coin")
_NUMBERED = re.compile(r"^\d+[a-z]?\. ")
"""Before a key of Alpha Vantage: "2. Symbol"."""

_CANDLE = ("timestamp", "open", "high", "low", "close", "volume")
_ORDERS = tuple(
    order for order in map("".join, permutations("ohlc")) if order.index("o") < order.index("c")
)
"""How exchanges may write the prices of candles (Bitfinex and KuCoin ochl, Coinbase lhoc); open and
close cannot be told apart by their size."""


class _Series(NamedTuple):
    """A table found in an envelope.

    Attributes:
        table: the table, or a list of candles.
        path: the keys on the way to it.
        rank: 2 with a time and a close, 1 with a time, 0 without.
    """

    table: pd.DataFrame | list
    path: str
    rank: int


def load_json(data: bytes, source: str) -> Any:
    """Parse JSON, or lines of JSON.

    Raises:
        DataError: if it is damaged, or nested too deep.
    """
    try:
        try:
            return json.loads(data, object_pairs_hook=_mapping)
        except json.JSONDecodeError as error:
            if not error.msg.startswith("Extra data") or len(data.splitlines()) < 2:
                raise
            return list(_parse_lines(data, source))
    except _RepeatedKeyError as error:
        raise DataError(
            f"{source}: the key {error.args[0]!r} stands twice in one object, with other values; "
            "keep one of them"
        ) from None
    except RecursionError:
        raise DataError(f"{source}: cannot be read: is nested too deep for a table") from None
    except ValueError as error:
        raise DataError(f"{source}: cannot be read as JSON: {error}") from None


class _RepeatedKeyError(Exception):
    """A key that stands twice in an object, with other values."""


def _mapping(pairs: list[tuple[str, Any]]) -> dict:
    """Return an object as a mapping; refuse one of which a value would be lost."""
    made = dict(pairs)
    if len(made) < len(pairs):
        for key, value in pairs:
            if made[key] != value:
                raise _RepeatedKeyError(key)
    return made


def _parse_lines(data: bytes, source: str) -> Iterator[Any]:
    for number, line in enumerate(data.splitlines(), 1):
        if line.strip():
            try:
                yield json.loads(line, object_pairs_hook=_mapping)
            except json.JSONDecodeError as error:
                raise DataError(
                    f"{source}, line {number}: cannot be read as JSON: {error.msg} (character "
                    f"{error.pos + 1}); is it cut off?"
                ) from None


def read_json_table(content: Any, source: str, layout: str | None = None) -> Raw:
    """Find the one table in an envelope.

    Read are lists of records, lists of candles, lists of times and values (also several by name, as
    CoinGecko writes them), mappings of time to record or price, mappings of column to list or
    mapping (as Finnhub and pandas write them), and pandas' split form. The asset is what the
    envelope calls symbol or ticker, the time zone what it calls so.

    Args:
        content: of the file.
        source: how errors call the file.
        layout: what the values of a candle are; None for time, open, high, low, close, volume.

    Raises:
        DataError: if there is no table, or there are several; if prices of candles are in another
            order.
    """
    try:
        found = list(_tables(content, "", source))
    except RecursionError:
        raise DataError(f"{source}: cannot be read: is nested too deep for a table") from None
    best = max((each.rank for each in found), default=0)
    found = [each for each in found if each.rank == best]
    if not found:
        raise DataError(
            f"{source}: expected a reply of Bybit, or a list of objects such as "
            '[{"timestamp": "2024-01-01", "close": 1.5}, ...], in an envelope or without; found '
            f"{_start(content)}"
        )
    if len(found) > 1:
        places = ", ".join(each.path or "the whole" for each in found[:5])
        raise DataError(
            f"{source}: holds {len(found)} tables ({places}); write the one to read to a file of "
            "its own"
        )
    table = found[0].table
    if isinstance(table, list):
        table = _from_candles(table, source, layout, found[0].path)
    zone = find_envelope_zone(content)
    return Raw(
        table if zone is None else at_exchange(table, zone), _find_symbol(content), zone=zone
    )


def _tables(node: Any, path: str, source: str) -> Iterator[_Series]:
    """Find the tables at and below a node; a table is not searched for others."""
    table = None
    if isinstance(node, dict):
        table = _from_mapping(node, source)
    elif isinstance(node, list) and node:
        table = _from_list(node)
    if table is not None:
        yield _Series(table, path, _rank(table))
        return
    pairs = node.items() if isinstance(node, dict) else enumerate(node) if _is_list(node) else ()
    for key, child in pairs:
        step = f"[{key}]" if isinstance(key, int) else f".{key}" if path else str(key)
        yield from _tables(child, path + step, source)


def _rank(table: pd.DataFrame | list) -> int:
    if isinstance(table, list):
        return 2 if len(table[0]) > 4 else 1
    if not any(time_rank(name) is not None for name in table.columns):
        return 0
    if [*table.columns] == ["timestamp", "close"]:  # also times and values of anything
        return 1
    return 2 if names_prices([str(name) for name in table.columns]) else 1


def _from_list(node: list) -> pd.DataFrame | list | None:
    if all(isinstance(row, dict) for row in node):
        rows = [_flat(row) for row in node]
        if all(row is not None and len(row) > 1 for row in rows):
            table = pd.DataFrame(rows)
            if {"T", "t"} <= {*table.columns}:  # Polygon: the ticker beside the time
                table = table.rename(columns={"T": "symbol"})
            return table
    if all(_is_list(row) and len(row) > 1 for row in node):
        times = all(looks_like_time(str(row[0])) for row in node)
        scalar = all(_is_scalar(value) for row in node for value in row)
        if times and scalar:
            return node
    return None


def _flat(record: dict) -> dict | None:
    """Take what records within a record (OANDA's "mid") hold as its own; None if it has lists."""
    flat = {}
    for key, value in record.items():
        if _is_scalar(value):
            flat[key] = value
        elif isinstance(value, dict) and all(map(_is_scalar, value.values())):
            clash = bool(value.keys() & record.keys()) or any(k in flat for k in value)
            flat |= {f"{key} {k}" if clash else k: each for k, each in value.items()}
        else:
            return None
    return flat


def _from_mapping(node: dict, source: str) -> pd.DataFrame | None:
    values = list(node.values())
    named = next((key for key in ("columns", "column_names") if key in node), None)
    if named is not None and _is_list(node.get("data")):
        return _from_split(node, named)
    if len(values) > 1 and all(map(_is_price, values)) and all(map(looks_like_time, node)):
        return pd.DataFrame({"timestamp": [*node], "close": values})
    if (pairs := _pairs_by_name(node)) is not None:
        return pairs
    if {"schema", "data"} <= node.keys() and _is_list(node["data"]):  # pandas' orient="table"
        table = _from_list(node["data"])
        return table if isinstance(table, pd.DataFrame) else None
    if values and all(isinstance(value, dict) and value for value in values):
        if all(looks_like_time(key) for key in node):
            rows = [_flat(value) for value in values]
            if all(row is not None for row in rows):
                table = pd.DataFrame(rows)
                return table if _rank(table) else _with_time(table, [*node])
        if all(key.isdigit() for key in node):
            return _from_table(values)
        keys = [*values[0]]
        same = all(_is_flat(value) and [*value] == keys for value in values)
        if same and all(looks_like_time(key) for key in keys):
            return _with_time(pd.DataFrame({k: [*v.values()] for k, v in node.items()}), keys)
        if same and all(key.isdigit() for key in keys):
            return pd.DataFrame({k: [*v.values()] for k, v in node.items()})
    return _from_columns(node, source)


def _from_table(rows: list) -> pd.DataFrame | None:
    table = _from_list(rows)
    return table if isinstance(table, pd.DataFrame) else None


def _pairs_by_name(node: dict) -> pd.DataFrame | None:
    """Make a table of lists of times and values by name, which have their times in common."""
    lists = {key: value for key, value in node.items() if _is_list(value) and value}
    if len(lists) < 2 or not all(
        isinstance(pair, list) and len(pair) == 2 and all(map(_is_scalar, pair))
        for value in lists.values()
        for pair in value
    ):
        return None
    times = [[pair[0] for pair in value] for value in lists.values()]
    if any(each != times[0] for each in times) or not looks_like_time(str(times[0][0])):
        return None
    table = pd.DataFrame({key: [pair[1] for pair in value] for key, value in lists.items()})
    return _with_time(table, times[0])


def _from_split(node: dict, named: str) -> pd.DataFrame | None:
    rows, columns = node["data"], node[named]
    if _is_list(columns) and all(isinstance(each, dict) and "name" in each for each in columns):
        columns = [each["name"] for each in columns]
    if not rows or not _is_list(columns) or not all(map(_is_text, columns)):
        return None
    if not all(_is_list(row) and len(row) == len(columns) for row in rows):
        return None
    table = pd.DataFrame(rows, columns=columns)
    index = node.get("index")
    if isinstance(index, list) and len(index) == len(table):
        if all(looks_like_time(str(each)) for each in index):
            return table if _rank(table) else _with_time(table, index)
    return table


def _from_columns(node: dict, source: str) -> pd.DataFrame | None:
    """Make a table of lists of equal length by column, one of which should be the time."""
    time = next((k for k in node if time_rank(k) is not None and _is_column(node[k])), None)
    if time is None:
        lists = {key: value for key, value in node.items() if _is_column(value)}
        alike = len({len(value) for value in lists.values()}) == 1 and len(lists) > 2
        return pd.DataFrame(lists) if alike and names_prices([*lists]) else None
    columns = dict(_columns(node))
    if len(columns) < 2:
        return None
    count = len(node[time])
    for name, values in columns.items():
        if len(values) != count:
            raise DataError(
                f"{source}: {name!r} has {len(values)} values, but {time!r} has {count}"
            )
    return pd.DataFrame(columns)


def _columns(node: dict) -> Iterator[tuple[str, list]]:
    """Yield the lists of values in a mapping, also those in mappings below it (Yahoo's charts)."""
    for key, value in node.items():
        if _is_column(value):
            yield key, value
        elif isinstance(value, dict):
            yield from _columns(value)
        elif _is_list(value) and len(value) == 1 and isinstance(value[0], dict):
            yield from _columns(value[0])


def _with_time(table: pd.DataFrame, times: list) -> pd.DataFrame:
    table.insert(0, "timestamp", times)
    return table


def _from_candles(rows: list, source: str, layout: str | None, path: str) -> pd.DataFrame:
    widths = sorted({len(row) for row in rows})
    if len(widths) > 1:
        raise DataError(f"{source}: candles have {widths} values; expected as many in each")
    width = widths[0]
    if layout is not None:
        names = layout_columns(layout, rows[0], source)
    elif width == 2:
        name = re.sub(r"\[\d+\]", "", path).rpartition(".")[2]
        return pd.DataFrame(rows, columns=["timestamp", name if field_of(name) else "close"])
    elif width in (5, 6):
        names = _CANDLE[:width]
    elif width in LAYOUTS["binance"] and width == 12:
        names = layout_columns("binance", rows[0], source)
    else:
        raise DataError(
            f"{source}: candles of {width} values; say what they are with layout, one of "
            f"{', '.join(LAYOUTS)}, or names such as 'date,open,high,low,close,-,volume'"
        )
    wanted = [i for i, name in enumerate(names) if name]
    table = pd.DataFrame([[row[i] for i in wanted] for row in rows])
    table.columns = [names[i] for i in wanted]
    if layout is None:
        _refuse_other_order(table, source)
    return table


def _refuse_other_order(table: pd.DataFrame, source: str) -> None:
    """Refuse candles in which another order of the prices makes more bars possible."""
    prices = table[["open", "high", "low", "close"]].apply(pd.to_numeric, errors="coerce")
    values = prices.to_numpy(float)
    impossible = {}
    for order in _ORDERS:
        opened, high, low, close = (values[:, order.index(letter)] for letter in "ohlc")
        wrong = (high < np.maximum(opened, close)) | (low > np.minimum(opened, close))
        impossible[order] = int((wrong | (high < low)).sum())
    best = min(impossible, key=impossible.__getitem__)  # the first of equals, which is ohlc
    if impossible[best] < impossible["ohlc"]:
        names = {"o": "open", "h": "high", "l": "low", "c": "close"}
        order = ",".join(["timestamp", *(names[k] for k in best), *table.columns[5:]])
        raise DataError(
            f"{source}: the prices of candles are not open, high, low, close: "
            f"{impossible['ohlc']} of {len(table)} would be impossible; say what they are, as in "
            f"layout='{order}'"
        )


def _find_symbol(content: Any) -> str | None:
    """Return what the envelope calls its symbol, if it names just one."""
    found: dict[str, set[str]] = {}

    def visit(node: Any, depth: int) -> None:
        if isinstance(node, dict) and depth < 5:
            for key, value in node.items():
                name = plain_name(_NUMBERED.sub("", key))
                if name in _SYMBOL_KEYS and _is_text(value) and value.strip():
                    found.setdefault(name, set()).add(value.strip())
                elif isinstance(value, dict):
                    visit(value, depth + 1)
                elif _is_list(value) and len(value) == 1:
                    visit(value[0], depth + 1)
        elif _is_list(node) and len(node) == 1 and depth < 5:
            visit(node[0], depth + 1)

    visit(content, 0)
    for name in _SYMBOL_KEYS:
        if name in found:
            return next(iter(found[name])) if len(found[name]) == 1 else None
    return None


def _start(content: Any) -> str:
    text = json.dumps(content, ensure_ascii=False)
    return text if len(text) <= 120 else f"{text[:117]}..."


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_list(value: Any) -> bool:
    return isinstance(value, list)


def _is_price(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_scalar(value: Any) -> bool:
    return not isinstance(value, dict | list)


def _is_flat(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_scalar, value.values()))


def _is_column(value: Any) -> bool:
    return _is_list(value) and len(value) > 0 and all(map(_is_scalar, value))

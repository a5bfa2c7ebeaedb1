"""Which columns of a table hold what: the times, the asset, the fields of a bar, or many assets."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pandas as pd

from maml_jax.data import names as known
from maml_jax.data.likeness import MOST_APART, MOST_ROWS, are_alike, unlike_prices, usual_move
from maml_jax.data.names import ADJUSTED, COLUMNS, OTHER, Field, field_of, split_asset
from maml_jax.data.options import Reading
from maml_jax.data.parse import glance
from maml_jax.errors import DataError
from maml_jax.listing import quote_names

KEYS = ("timestamp", "date", "time", "symbol", *COLUMNS, "adj_close")
"""What the option `columns` may name."""

SAY_CLOSE = 'say which holds the close with data.columns = {close = "..."}'
_DAY_WORDS = frozenset({"date", "datum", "day", "dtyyyymmdd"})
SAY_TIME = 'say which holds the times with data.columns = {timestamp = "..."}'


class Layout(NamedTuple):
    """Which columns hold what.

    Attributes:
        times: the column of times; or one of dates and one of times of the day.
        symbol: the column that names the asset, if there is one.
        assets: the columns of each asset, by what they hold; the key None stands for an asset that
            the columns do not name.
        notes: what a reader must know.
    """

    times: tuple
    symbol: Any
    assets: dict[str | None, dict[str, Any]]
    notes: tuple[str, ...] = ()


def find_layout(table: pd.DataFrame, reading: Reading) -> Layout:
    """Find out which columns hold what.

    Raises:
        DataError: if that cannot be known; the message names the setting that says it.
    """
    columns = list(table.columns)
    if not table.columns.is_unique:
        twice = table.columns[table.columns.duplicated()].tolist()
        raise DataError(f"{reading.source}: duplicate columns {twice}; keep one of each")
    given = _given_columns(columns, reading)
    times = _time_columns(columns, given, reading)
    said = {key: column for key, column in given.items() if key in COLUMNS or key == ADJUSTED}
    used = {*times, *given.values()}
    rest = [column for column in columns if column not in used]
    fields = _fields(table, rest)
    closes = {"close", ADJUSTED}
    has_close = bool(closes & {*said, *(f.role for f in fields.values())})
    symbol = given.get("symbol") if "symbol" in given else _symbol(table, rest, has_close, reading)
    if symbol is not None and symbol in rest:
        rest.remove(symbol)
    if not said and _is_only_a_word(rest, fields):
        raise _no_close(rest, reading)
    if has_close or said:
        return _one_asset(table, rest, times, symbol, said, fields, reading)
    split = {c: None if known.is_time(c) else split_asset(c) for c in rest}
    if any(each is not None and each[1].role in closes for each in split.values()):
        return _by_name(table, rest, times, split, reading)
    return _wide(table, rest, times, symbol, fields, reading)


_Names = TypeVar("_Names", bound=Mapping[str, str] | None)


def require_keys(columns: _Names) -> _Names:
    """Refuse what the option `columns` cannot name.

    Raises:
        DataError: naming the key, and those that there are.
    """
    for key in columns or {}:
        if key not in KEYS:
            raise DataError(f"columns: no key {key!r}; there are {', '.join(KEYS)}")
    return columns


def _is_only_a_word(rest: list, fields: dict[Any, Field]) -> bool:
    """Say whether the one field is a close that may be a ticker, as VALUE beside AAPL and MSFT."""
    others = [str(c) for c in rest if c not in fields and not known.is_time(c)]
    return (
        len(fields) == 1
        and len(others) > 1
        and all(field.role == "close" and field.rank > 1 for field in fields.values())
        and all(str(c).isupper() for c in (*fields, *others))
    )


def _given_columns(columns: list, reading: Reading) -> dict[str, Any]:
    """Return the columns that the option names, None for what the table is said not to hold."""
    found: dict[str, Any] = {}
    for key, name in (require_keys(reading.columns) or {}).items():
        matches = [c for c in columns if str(c) == name] or [
            c for c in columns if known.plain_name(c) == known.plain_name(name)
        ]
        if not matches and name:
            raise DataError(
                f"{reading.source}: data.columns names {key} = {name!r}; found columns "
                f"{[str(c) for c in columns]}"
            )
        column = matches[0] if name else None
        twice = next(
            (other for other, c in found.items() if column is not None and c == column), ""
        )
        if twice:
            raise DataError(f"{reading.source}: data.columns names {name!r} as {twice} and {key}")
        found[key.replace("_", " ")] = column
    return found


def _time_columns(columns: list, given: Mapping[str, Any], reading: Reading) -> tuple:
    """Return the column of times, or those of dates and times of the day."""
    if given.get("timestamp") is not None:
        return (given["timestamp"],)
    if given.get("date") is not None:
        return tuple(given[key] for key in ("date", "time") if given.get(key) is not None)
    taken = {*given.values()}
    if given.get("time") is not None:
        dates = [c for c in columns if c not in taken and {*known.words_of(c)} & _DAY_WORDS]
        dates = [c for c in dates if known.time_rank(c) is not None]
        return (dates[0], given["time"]) if len(dates) == 1 else (given["time"],)
    ranks = {c: known.time_rank(c) for c in columns if c not in taken and not known.is_symbol(c)}
    named = sorted((rank, str(c), c) for c, rank in ranks.items() if rank is not None)
    if not named:
        head = columns[0]
        # A first column without a name, as DataFrame.to_csv writes it, is the index.
        if known.plain_name(head) == "" or known.plain_name(head).startswith("unnamed"):
            return (head,)
        raise DataError(
            f"{reading.source}: missing time column; expected a name like 'timestamp' or 'date', "
            f"found columns {[str(c) for c in columns]}; {SAY_TIME}"
        )
    first = _not_local([column for _, _, column in named])
    opened = [c for c in columns if {*known.words_of(c)} == {"open", "time"}]
    closed = [c for c in columns if {*known.words_of(c)} == {"close", "time"}]
    if opened and closed:
        return (opened[0],)  # a third is that of one of them
    if len(named) > 1 and named[0][0] == named[1][0]:
        both = [str(named[0][2]), str(named[1][2])]
        raise DataError(f"{reading.source}: columns {both} may both be the time; {SAY_TIME}")
    if {*known.words_of(first)} & _DAY_WORDS:
        clocks = [c for _, _, c in named[1:] if known.words_of(c)[-1:] == ("time",)]
        return (first, *clocks[:1])
    dates = [c for _, _, c in named[1:] if {*known.words_of(c)} & _DAY_WORDS]
    if known.words_of(first)[-1:] == ("time",) and dates and known.plain_name(first) != "datetime":
        return (dates[0], first)
    return (first,)


def _not_local(named: list) -> Any:
    """Return the first column of times; not a local one, where another has the same in UTC."""
    universal = [c for c in named if {*known.words_of(c)} & {"utc", "gmt"}]
    local = "local" in known.words_of(named[0])
    return universal[0] if local and universal else named[0]


def _fields(table: pd.DataFrame, rest: list) -> dict[Any, Field]:
    """Return the columns whose names are all words of a bar; single letters only as a full set."""
    found = {column: field_of(column) for column in rest}
    fields = {column: field for column, field in found.items() if field is not None}
    roles = dict(zip("ohlcv", COLUMNS, strict=True))
    letters: dict[frozenset[str], dict[str, Any]] = {}
    for column in rest:
        *kind, letter = known.words_of(column) or ("",)
        if letter in roles and {*kind} <= {"mid", "bid", "ask", "trade", "px"}:
            letters.setdefault(frozenset(kind), {})[letter] = column
    for kind, group in letters.items():
        if {*"ohlc"} <= {*group}:
            low, high = glance(table[group["l"]]), glance(table[group["h"]])
            if not np.nanmean(np.append(low <= high, True)) < 0.5:
                for letter, column in group.items():
                    fields[column] = Field(roles[letter], 0, kind)
    return fields


def _symbol(table: pd.DataFrame, rest: list, has_close: bool, reading: Reading):
    found = [column for column in rest if known.is_symbol(column)]
    if not has_close:  # then a column of numbers is an asset of that name in a wide table
        found = [c for c in found if np.isnan(glance(table[c])).all()]
    for preferred in ("symbol", "ticker"):
        if len(found) > 1:
            found = [c for c in found if known.plain_name(c) == preferred] or found
    # Numbers of contracts that were traded name no asset.
    found = [
        c for c in found if known.plain_name(c) != "contract" or np.isnan(glance(table[c])).all()
    ]
    if len(found) > 1:
        raise DataError(
            f"{reading.source}: columns {[str(c) for c in found]} could all name the asset; keep "
            'one, or say which with data.columns = {symbol = "..."}'
        )
    return found[0] if found else None


def _one_asset(table, rest, times, symbol, said, fields, reading: Reading) -> Layout:
    """Choose the columns of a table with the fields of bars of one asset, or of many in rows."""
    chosen = {role: column for role, column in said.items() if column is not None}
    candidates = {column: field for column, field in fields.items() if column in rest}
    side: frozenset[str] = frozenset()
    notes: list[str] = []
    for role in ("close", ADJUSTED, "open", "high", "low"):
        if role not in said:
            mine = {c: f for c, f in candidates.items() if f.role == role}
            pick = _best(table, role, mine, side, notes, reading) if mine else None
            if pick is not None:
                chosen[role] = pick
        column = chosen.get(role)
        if role == "close" and column is not None:
            field = candidates.get(column) or field_of(column)
            side = field.words & {"bid", "ask", "mid"} if field is not None else side
    if not {"close", ADJUSTED} & set(chosen):
        raise _no_close([*rest, *chosen.values()], reading)
    if "volume" not in said:
        volume = _volume(table, rest, candidates, notes)
        if volume is not None:
            chosen["volume"] = volume
    unused = [c for c in rest if c not in chosen.values()]
    for column in unused:
        if _repeats(column, [*chosen.values()]) and field_of(str(column).rpartition(".")[0]):
            raise DataError(
                f"{reading.source}: duplicate columns {str(column).rpartition('.')[0]!r}; keep one"
            )
    if unused:
        notes.append(f"columns {quote_names(map(str, unused))} are not used")
    return Layout(times, symbol, {None: chosen}, tuple(notes))


def _no_close(columns: Iterable, reading: Reading) -> DataError:
    return DataError(
        f"{reading.source}: missing column 'close'; found columns {[str(c) for c in columns]}; "
        f"{SAY_CLOSE}"
    )


def _best(table, role, fields: dict[Any, Field], side, notes: list[str], reading: Reading):
    """Choose one of several columns of prices that mean the same."""
    sides = {"bid", "ask"}
    same = {c: f for c, f in fields.items() if side and f.words & sides == side & sides}
    neutral = {c: f for c, f in fields.items() if not f.words & sides}
    fields = same or neutral or fields
    best = min((f.rank, len(f.words)) for f in fields.values())
    first = [c for c, f in fields.items() if (f.rank, len(f.words)) == best]
    # A value beside a close is that of the trades; adjusted prices follow from the adjusted close.
    others = [c for c, f in fields.items() if c not in first and f.rank < 4]
    unlike = [c for c in others if not are_alike(table[first[0]], table[c])]
    if len(first) > 1 or unlike:
        clash = [str(c) for c in (first if len(first) > 1 else [*first, *unlike])]
        key = role.replace(" ", "_")
        raise DataError(
            f"{reading.source}: columns {clash} mean the same; keep one of them, or say which with "
            f'data.columns = {{{key} = "{clash[0]}"}}'
        )
    if others:
        notes.append(f"of {quote_names(map(str, [*first, *others]))} {first[0]!r} is the {role}")
    return first[0]


def _volume(table, rest, candidates: dict[Any, Field], notes: list[str]):
    """Choose the volume: that in units of the asset; that of ticks where it is 0 everywhere."""
    fields = {c: f for c, f in candidates.items() if f.role == "volume"}
    if not fields:  # as in "Volume BTC"
        split = {c: split_asset(c) for c in rest if c not in candidates}
        named = [c for c, each in split.items() if each is not None and each[1].role == "volume"]
        return named[0] if len(named) == 1 else None
    order = sorted(fields, key=lambda c: ("tick" in fields[c].words, fields[c].rank))
    for column in order[1:]:
        if not (glance(table[order[0]]) > 0).any() and (glance(table[column]) > 0).any():
            notes.append(f"column {str(column)!r} is the volume, for {str(order[0])!r} is 0 always")
            return column
    return order[0]


def _by_name(table, rest, times, split, reading: Reading) -> Layout:
    """Read names such as `AAPL.Close`, `AAPL.Volume`, `MSFT.Close`."""
    assets: dict[str, dict[Any, Field]] = {}
    for column, each in split.items():
        if each is not None:
            assets.setdefault(each[0], {})[column] = each[1]
    odd = [c for c in rest if split[c] is None and not known.is_time(c)]
    strange = [c for c in odd if not any(str(c).startswith(name) for name in assets)]
    closed = {
        n for n, fields in assets.items() if {"close", ADJUSTED} & {f.role for f in fields.values()}
    }
    if strange or not closed:
        raise DataError(
            f"{reading.source}: columns {quote_names(map(str, strange or rest))} are neither "
            f"fields nor assets; keep one column of closes for each asset, or {SAY_CLOSE}"
        )
    layouts = {
        name: _one_asset(table, [*fields], times, None, {}, fields, reading)
        for name, fields in assets.items()
        if name in closed
    }
    notes = list(dict.fromkeys(note for each in layouts.values() for note in each.notes))
    left = [str(c) for c in [*odd, *(c for n in assets if n not in closed for c in assets[n])]]
    if left:
        notes.append(f"columns {quote_names(left)} are not used")
    return Layout(
        times, None, {name: each.assets[None] for name, each in layouts.items()}, tuple(notes)
    )


def _wide(table, rest, times, symbol, fields: dict[Any, Field], reading: Reading) -> Layout:
    """Read one column of closes for each asset, if that is what the table holds."""
    if not rest:
        raise DataError(f"{reading.source}: no price columns besides the time; {SAY_CLOSE}")
    counted = {c for c in rest if _counts_rows(table[c], c)}
    clocks = {c for c in rest if {*known.words_of(c)} & {"unix", "timestamp", "date", "datetime"}}
    beside = _fields_beside(rest, fields)
    left = [c for c in rest if c in counted | clocks | {*beside}]
    assets = [c for c in rest if c not in left and c != symbol]
    fields = {c: field for c, field in fields.items() if c in assets}
    if symbol is not None or not assets or not _are_tickers(table, assets, fields):
        raise _no_close(rest, reading)
    repeated = [c for c in assets if _repeats(c, assets)]
    if repeated:
        raise DataError(f"{reading.source}: duplicate columns {repeated}; keep one of each")
    values = {c: glance(table[c].tail(MOST_ROWS)) for c in assets}
    odd = unlike_prices(values)
    if odd is not None:
        raise DataError(
            f"{reading.source}: columns {quote_names(map(str, assets))} look like the fields of "
            f"one asset rather than closes of several ({odd}); {SAY_CLOSE}"
        )
    volumes = {asset: c for c, (asset, role) in beside.items() if role == "volume"}
    left = [c for c in left if c not in volumes.values()]
    notes = (f"columns {quote_names(map(str, left))} are not used",) if left else ()
    closes = {str(c): {"close": c} for c in assets}
    return Layout(
        times, None, {a: own | ({"volume": volumes[a]} if a in volumes else {})
                      for a, own in closes.items()}, notes,
    )  # fmt: skip


def _fields_beside(rest: list, fields: Mapping) -> dict[Any, tuple[str, str]]:
    """Return columns that are fields of an asset beside them, as `BTC Volume` is of `BTC`."""
    names = {str(c) for c in rest if c not in fields}
    split = {c: split_asset(c) for c in rest if not known.is_time(c)}
    return {
        c: (each[0], each[1].role)
        for c, each in split.items()
        if each is not None and each[0] in names and each[0] != str(c)
    }


def _counts_rows(column: pd.Series, name: object) -> bool:
    plain = known.plain_name(name)
    if plain not in ("", "index", "row", "id", "#", "no") and not plain.startswith("unnamed"):
        return False
    values = glance(column)
    return len(values) < 2 or bool((np.diff(values) == 1).all())


def _repeats(name: object, names: list) -> bool:
    """Say whether a name is one that pandas made of a repeated one, such as `AAPL.1`."""
    base, _, number = str(name).rpartition(".")
    return number.isdigit() and base in {str(each) for each in names}


def _are_tickers(table: pd.DataFrame, assets: list, fields: dict[Any, Field]) -> bool:
    """Say whether names that are also words of bars can be tickers, beside others."""
    others = [c for c in assets if c not in fields]
    if not fields:
        return True
    roles = {field.role for field in fields.values()}
    if not all(map(known.may_be_ticker, fields)) or len(others) < max(2, len(fields)):
        return False
    if {"high", "low"} <= roles:
        return False
    usual = float(np.median([usual_move(table[c]) for c in others]))
    odd = (usual_move(table[c]) for c, field in fields.items() if field.role == OTHER)
    if not all(usual / MOST_APART <= move <= usual * MOST_APART for move in odd):
        return False
    styled = all(str(c).isupper() for c in assets) or all(str(c).islower() for c in assets)
    near = any(are_alike(table[a], table[b], 2 * usual) for a in fields for b in others)
    return styled and not near

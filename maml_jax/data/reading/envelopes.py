"""What the envelope of a reply says besides the table: the time zone."""

from collections.abc import Iterator
from typing import Any

import pandas as pd

from maml_jax.data.names import time_rank
from maml_jax.data.zones import find_zone, is_zone_key

_DEEPEST = 6
_UNITS = ((1e8, 1), (1e11, 1000))
"""Sizes from which numbers are seconds or milliseconds since 1970."""


def find_envelope_zone(content: Any) -> str | None:
    """Return the zone that an envelope names, as "6. Time Zone": "US/Eastern" does.

    What it says where no zone is clear (such as EST) is returned as it is; None if nothing.
    """
    said = list(dict.fromkeys(_said(content, 0)))
    zones = {zone for text in said if (zone := find_zone(text)) is not None}
    if len(zones) == 1:
        return zones.pop()
    return ", ".join(said[:3]) or None


def _said(node: Any, depth: int) -> Iterator[str]:
    if isinstance(node, dict) and depth < _DEEPEST:
        for key, value in node.items():
            if is_zone_key(key) and isinstance(value, str) and value.strip():
                yield value.strip()
            elif isinstance(value, dict | list):
                yield from _said(value, depth + 1)
    elif isinstance(node, list) and len(node) == 1:
        yield from _said(node[0], depth + 1)


def at_exchange(table: pd.DataFrame, zone: str) -> pd.DataFrame:
    """Return a table whose bars begin once a day, when an exchange opens, with the days.

    Args:
        table: with numbers since 1970 as times; another one stays as it is.
        zone: of the exchange.
    """
    column = next((c for c in table.columns if time_rank(c) is not None), None)
    if column is None or find_zone(zone) is None or len(table) < 2:
        return table
    numbers = pd.to_numeric(table[column], errors="coerce").to_numpy(float)
    unit = next((scale for least, scale in reversed(_UNITS) if (numbers >= least).all()), None)
    if unit is None:
        return table
    seconds = pd.Series((numbers / unit).round(), index=table.index)
    wall = pd.to_datetime(seconds, unit="s", utc=True).dt.tz_convert(zone).dt.tz_localize(None)
    days = wall.dt.normalize()
    opened = wall - days
    # The last bar of a market that is open is stamped with the time of its last trade.
    if (opened.iloc[:-1] != opened.iloc[0]).any() or not days.is_unique:
        return table
    return table.assign(**{str(column): wall.dt.strftime("%Y-%m-%d")})

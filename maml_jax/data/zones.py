"""The time zone that a table states beside its times: in a name, a column or an envelope."""

import re
from collections.abc import Iterable
from functools import cache
from typing import Any
from zoneinfo import available_timezones

import pandas as pd

from maml_jax.data.names import words_of
from maml_jax.data.options import Reading
from maml_jax.data.parse import glance

_NAMED = re.compile(r"[A-Za-z]+(?:/[A-Za-z_+\-0-9]+)+")
_OFFSET = re.compile(r"(?:UTC|GMT)\s?([+-])(\d{1,2})(?::?(\d{2}))?(?!\d)", re.IGNORECASE)
_UTC = frozenset({"utc", "gmt", "z", "zulu"})
_ABBREVIATIONS = frozenset(
    "est edt cst cdt mst mdt pst pdt cet cest met eet eest wet west bst ist jst kst hkt sgt aest "
    "aedt acst awst nzst nzdt msk brt et".split()
)
_PLACES = frozenset({"local", "eastern", "central", "pacific", "exchange", "broker", "server"})
_COLUMNS = frozenset({"timezone", "tz", "tzname", "zone", "exchangetimezone", "timezonename"})
_SHIFTS = frozenset({"gmtoffset", "utcoffset", "tzoffset", "offset", "offsetutc", "offsetgmt"})
_KEYS = _COLUMNS | {"exchangetimezonename"}


@cache
def _zones() -> dict[str, str]:
    return {name.lower(): name for name in available_timezones() if "/" in name}


def find_zone(text: str) -> str | None:
    """Return the zone that a text names as pandas takes it; None if it names none for certain.

    >>> find_zone("Time (America/New_York)"), find_zone("GMT+8"), find_zone("EST")
    ('America/New_York', 'UTC+08:00', None)
    """
    named = {_zones()[n.lower()] for n in _NAMED.findall(text) if n.lower() in _zones()}
    if named:
        return named.pop() if len(named) == 1 else None
    offset = _OFFSET.search(text)
    if offset is not None:
        hours = int(offset[2])
        return f"UTC{offset[1]}{hours:02d}:{offset[3] or '00'}" if hours < 15 else None
    return "UTC" if {*_letters(text)} & _UTC else None


def is_zone_key(key: object) -> bool:
    """Say whether a key of an envelope names a zone, as "6. Time Zone" does."""
    return "".join(_letters(str(key))) in _KEYS


def with_stated_zone(reading: Reading, table: pd.DataFrame, times: Iterable[Any]) -> Reading:
    """Return the reading with the time zone that names or columns state, if no option does.

    Where they state one that is not clear, such as EST, the reading says so, for times that need
    one.

    Args:
        reading: how the table is read.
        table: the table; `attrs["zone"]` is what the envelope of a file says.
        times: the columns of times.
    """
    if reading.timezone is not None:
        return reading
    around = table.attrs.get("zone")
    zone = find_zone(around or "")
    if zone is not None:
        return reading._replace(timezone=zone)
    doubt = f"the file says {around}" if around else None
    for column in times:
        zone, unclear = _in_name(str(column))
        if zone is not None:
            return reading._replace(timezone=zone)
        doubt = doubt or (f"column {str(column)!r} does not say which zone" if unclear else None)
    for column in table.columns:
        name = "".join(_letters(str(column)))
        if name in _COLUMNS:
            said = table[column].dropna().astype(str).str.strip()
            zones = said[said != ""].unique()
            zone = find_zone(zones[0]) if len(zones) == 1 else None
            if zone is not None:
                return reading._replace(timezone=zone)
            if len(zones) and find_zone(zones[0]) is None and not _is_abbreviation(zones[0]):
                continue
            doubt = doubt or (f"column {str(column)!r} says {_some(zones)}" if len(zones) else None)
        elif name in _SHIFTS:
            shifts = glance(table[column])
            if (shifts != 0).any() and (abs(shifts) < 1e5).all():
                doubt = doubt or (
                    f"column {str(column)!r} says {shifts[shifts != 0][0]:g}, and not whether the "
                    "times are local"
                )
    return reading._replace(zone_doubt=doubt)


def _in_name(name: str) -> tuple[str | None, bool]:
    zone = find_zone(name)
    unclear = {*words_of(name), *_letters(name)} & (_ABBREVIATIONS | _PLACES)
    return zone, zone is None and bool(unclear)


def _is_abbreviation(text: str) -> bool:
    return text.lower() in _ABBREVIATIONS


def _letters(text: str) -> list[str]:
    return re.findall(r"[a-z]+", text.lower())


def _some(zones: Iterable[str]) -> str:
    first = [str(zone) for zone in zones]
    return ", ".join(first[:3]) + (", ..." if len(first) > 3 else "")

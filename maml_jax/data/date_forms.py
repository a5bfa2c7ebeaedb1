"""Find in which form dates are written, from all of them; refuse where several are possible."""

import re
from collections.abc import Mapping

import numpy as np
import pandas as pd

from maml_jax.data.options import Reading
from maml_jax.errors import DataError

_FIRST, _LAST = 1900, 2100
_NUMBERS = r"\d{1,4}(?P<mark>[-/.\s])\d{1,2}(?P=mark)\d{1,4}"
_CLOCK = re.compile(
    r"(?P<gap>[T\s,_;]+|-(?=\d{1,2}:))(?P<hour>\d{1,2})"
    r"(?:(?P<colon>:)(?P<minute>\d{2})(?:(?P<second>:\d{2})(?P<part>[.,]\d+)?)?)?"
    r"(?P<half>\s*[AaPp]\.?[Mm]\.?)?$"
)
_MONTH = re.compile(r"[A-Za-z]{3,}")
_COMPACT = {
    4: ("%Y",),
    6: ("%y%m%d", "%d%m%y", "%m%d%y", "%Y%m"),
    8: ("%Y%m%d", "%d%m%Y", "%m%d%Y"),
    12: ("%Y%m%d%H%M", "%y%m%d%H%M%S"),
    14: ("%Y%m%d%H%M%S",),
    17: ("%Y%m%d%H%M%S%f",),
}


def compact_forms(width: int) -> tuple[str, ...]:
    """Return the forms of dates that are so many digits."""
    return _COMPACT.get(width, ())


def parse_form(text: pd.Series, form: str) -> pd.Series:
    """Read times in one form; NaT where it does not fit.

    Years of two digits that would lie ahead are those of a century before, for bars are of the
    past.
    """
    times = pd.to_datetime(text, format=form, errors="coerce")
    if "%y" in form and times.notna().any():
        ahead = times.dt.year > pd.Timestamp.now().year + 1
        times = times.where(~ahead, times - pd.DateOffset(years=100))
    return times


def in_order(times: np.ndarray) -> bool:
    """Say whether times ascend or descend throughout."""
    steps = np.diff(times)
    return bool((steps >= 0).all() or (steps <= 0).all())


def _without_leaps(times: pd.Series) -> bool:
    """Say whether bars of parts of a day never leave out weeks, as swapped days and months do."""
    steps = np.abs(np.diff(times.to_numpy("datetime64[s]").astype("int64")))
    return bool(np.median(steps) < 43_200 and steps.max() < 10 * 86_400)


def _says_twice(form: str) -> bool:
    parts = re.findall(r"%[A-Za-z]", form)
    return len({*parts}) < len(parts)


def find_form(text: pd.Series, reading: Reading) -> pd.Series:
    """Read dates in the one form that fits all of them; NaT where none does.

    Where several fit, the one that keeps them in order is taken.

    Raises:
        DataError: if several forms fit and none of them, or more than one, keeps the order.
    """
    forms = [form for form in guess_forms(text.iloc[0]) if not _says_twice(form)]
    clean = text
    if re.search(r"[AaPp]\.[Mm]\.$", str(text.iloc[0])):
        clean = text.str.replace(r"([AaPp])\.([Mm])\.", r"\1\2", regex=True)
    sample = clean.iloc[np.linspace(0, len(clean) - 1, min(len(clean), 500), dtype=int)]
    fitting = [form for form in forms if parse_form(sample, form).notna().all()]
    forms = fitting or forms
    readings = {form: parse_form(clean, form) for form in forms}
    full = {
        form: times
        for form, times in readings.items()
        if times.notna().all() and times.dt.year.between(_FIRST, _LAST).all()
    }
    usual = [form for form in full if form.startswith(("%d.%m.%Y", "%Y"))]
    if usual:  # nobody writes the month before the day between dots, or days after years
        return full[usual[0]]
    if full:
        return pick_reading(full, text, text.name, reading)
    if not readings:
        return _quarters(text)
    return min(readings.values(), key=lambda times: int(times.isna().sum()))


def pick_reading(
    full: Mapping[str, pd.Series], text: pd.Series, name: object, reading: Reading
) -> pd.Series:
    """Choose among readings of all times: the only one, or the only one that keeps their order.

    Raises:
        DataError: naming the forms, if the order does not tell either.
    """
    distinct: dict[str, pd.Series] = {}
    for form, times in full.items():
        if not any(times.equals(other) for other in distinct.values()):
            distinct[form] = times
    if len(distinct) > 1 and len(text) > 2:
        ordered = {
            form: times for form, times in distinct.items() if in_order(times.to_numpy("int64"))
        }
        near = {form: times for form, times in distinct.items() if _without_leaps(times)}
        distinct = next((each for each in (ordered, near) if len(each) == 1), distinct)
    if len(distinct) > 1:
        forms = " or ".join(f'"{form}"' for form in distinct)
        days = {form.replace("%y", "%Y").find("%d") < form.replace("%y", "%Y").find("%m")
                for form in distinct}  # fmt: skip
        start = "may start with the day or the month" if len(days) > 1 else "are not clear"
        raise DataError(
            f"{reading.source}, column {name!r}: times like {text.iloc[0]!r} {start}; say which "
            f"with date_format = {forms}"
        )
    return next(iter(distinct.values()))


def guess_forms(first: str) -> list[str]:
    """Return the formats that a time may have, by how it is written; the usual ones first."""
    clock = _CLOCK.search(first)
    day, tail = (first, "") if clock is None else (first[: clock.start()], _clock_form(clock))
    forms = [form + tail for form in _day_forms(day.strip())]
    return forms or _day_forms(first)


def _clock_form(clock: re.Match) -> str:
    hour = "%I" if clock["half"] else "%H"
    form = clock["gap"] + hour
    if clock["colon"]:
        form += ":%M"
    if clock["second"]:
        form += ":%S"
    if clock["part"]:
        form += clock["part"][0] + "%f"
    if clock["half"]:
        form += " " * (len(clock["half"]) - len(clock["half"].lstrip())) + "%p"
    return form


def _day_forms(day: str) -> list[str]:
    if day.isdigit():
        return list(compact_forms(len(day)))
    numbers = re.fullmatch(_NUMBERS, day)
    if numbers is not None:
        mark = numbers["mark"]
        parts = [len(part) for part in day.split(mark)]
        if parts[0] == 4:
            orders = [("%Y", "%m", "%d"), ("%Y", "%d", "%m")]
        elif parts[2] == 4:
            orders = [("%d", "%m", "%Y"), ("%m", "%d", "%Y")]
        else:
            orders = [("%d", "%m", "%y"), ("%m", "%d", "%y"), ("%y", "%m", "%d")]
        return [mark.join(order) for order in orders]
    if not _MONTH.search(day):
        return []
    return _named_months(day)


def _named_months(day: str) -> list[str]:
    """Return formats such as `%d-%b-%Y` or `%A, %B %d, %Y`."""
    shapes = [""]
    words = 0
    years = len(re.findall(r"\d+", day)[-1]) if re.search(r"\d", day) else 0
    names = _MONTH.findall(day)
    for token in re.findall(r"[A-Za-z]+|\d+|[^A-Za-z\d]+", day):
        if token.isalpha():
            words += 1
            weekday = words < len(names)
            long, short = ("%A", "%a") if weekday else ("%B", "%b")
            shapes = [shape + kind for shape in shapes for kind in (long, short)]
        elif token.isdigit():
            if len(token) == 4:
                kinds = ["%Y"]
            elif any("%d" in shape for shape in shapes):
                kinds = ["%y"]
            else:
                kinds = ["%d"] if years else []
            shapes = [shape + kind for shape in shapes for kind in kinds]
        else:
            shapes = [shape + token for shape in shapes]
    return shapes


def _quarters(text: pd.Series) -> pd.Series:
    """Read quarters such as 2019Q1."""
    found = text.str.extract(r"^(\d{4})[-\s]?[Qq]([1-4])$")
    if found.isna().any(axis=None):
        return pd.Series(pd.NaT, index=text.index, dtype="datetime64[us]")
    month = 3 * found[1].astype(int) - 2
    return pd.to_datetime({"year": found[0].astype(int), "month": month, "day": 1})

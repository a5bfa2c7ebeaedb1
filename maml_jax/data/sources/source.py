"""What a source of bars is, and checks of its pages."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from maml_jax.data.interval import Interval
from maml_jax.errors import SourceError


class Page(NamedTuple):
    """Some of the bars of a series.

    Attributes:
        bars: in normal form, ascending, none of them unfinished.
        end: the page is complete up to this moment: it has every bar that opens before it, from the
            end of the previous page on. At most one bar after the end of the request.
    """

    bars: pd.DataFrame
    end: pd.Timestamp


class Source(NamedTuple):
    """Where bars come from.

    Attributes:
        name: the source's folder in a store; it names all that makes bars differ, such as the
            market or whether prices are adjusted.
        pages: `(symbol, interval, start, end) -> Page, Page, ...`: the bars that open from `start`
            to before `end`, page by page in order of time. Where the source has no more bars, as in
            the future, the last page ends earlier. A time without a bar (before the listing, during
            an outage) is not an error.
        tolerance: relative difference up to which two readings of a bar are equal.
    """

    name: str
    pages: Callable[[str, Interval, pd.Timestamp, pd.Timestamp], Iterator[Page]]
    tolerance: float = 0.0


def frames_source(name: str, bars: Mapping[str, pd.DataFrame]) -> Source:
    """Make a source of bars in memory, to keep them in a store.

    Args:
        name: of the source in the store.
        bars: in normal form, by symbol.

    Returns:
        A source whose pages end with the last bar.
    """

    def pages(symbol, interval, start, end) -> Iterator[Page]:
        if symbol not in bars:
            raise SourceError(f"{name} has no {symbol!r}; it has {', '.join(bars)}")
        frame = bars[symbol]
        frame = frame[(frame.index >= start) & (frame.index < end)]
        if len(frame):
            yield Page(frame, min(interval.after(frame.index[-1]), interval.after(end)))

    return Source(name, pages)


def make_bars(
    opened: Sequence[int], values: ArrayLike, columns: Sequence[str], *, unit: str = "ms"
) -> pd.DataFrame:
    """Make bars of the rows that a source sent, ascending; duplicate rows become one.

    Args:
        opened: opening times since 1970, `[row]`.
        values: `[row, column]`, finite.
        columns: names in normal form.
        unit: of the opening times.

    Raises:
        ValueError: if two rows of the same time differ.
    """
    index = pd.DatetimeIndex(np.asarray(opened, f"datetime64[{unit}]"), tz="UTC").as_unit("us")
    rows = np.asarray(values, float).reshape(len(index), len(columns))
    bars = pd.DataFrame(rows, index.rename("timestamp"), list(columns))
    bars = bars.sort_index(kind="stable")
    repeated = bars.index.duplicated()
    if repeated.any():
        different = repeated & ~bars.reset_index().duplicated().to_numpy()
        if different.any():
            raise ValueError(f"two different bars at {bars.index[different][0]}")
        bars = bars[~repeated]
    return bars


def refuse_impossible(
    bars: pd.DataFrame, first: pd.Timestamp, end: pd.Timestamp, *, may_lack: Sequence[str] = ()
) -> None:
    """Refuse bars that are wrong for certain: at times not requested, or without a price.

    Args:
        bars: ascending.
        first: the first time requested.
        end: the end of the request, exclusive.
        may_lack: columns in which values may be missing.

    Raises:
        ValueError: naming column and time.
    """
    outside = (bars.index < first) | (bars.index >= end)
    if outside.any():
        raise ValueError(f"a bar at {bars.index[outside][0]}, requested {first} to {end}")
    for column in bars.columns:
        values = bars[column].to_numpy()
        good = np.isfinite(values) & ((values >= 0) if column == "volume" else (values > 0))
        if column in may_lack:
            good |= np.isnan(values)
        if not good.all():
            place = int(np.argmin(good))
            raise ValueError(f"{column} is {values[place]:g} at {bars.index[place]}")

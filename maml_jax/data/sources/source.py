"""What a source of bars is, and how its pages are checked before anyone believes them."""

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
        end: every bar there is that opens before this moment, and not before the end of the page
            before, is in the page; at most a bar after the end of what was asked for.
    """

    bars: pd.DataFrame
    end: pd.Timestamp


class Source(NamedTuple):
    """Where bars come from.

    Attributes:
        name: the source's folder in a store; it says all that makes bars different, such as the
            market or whether prices are adjusted.
        pages: `(symbol, interval, start, end) -> Page, Page, ...`: the bars that open from `start`
            to before `end`, page by page in order of time. Where the source has no more to give,
            as of bars in the future, the last page ends earlier. A moment without a bar (before
            the listing, during an outage) is no error.
        tolerance: relative difference between two readings of one bar that is no revision.
    """

    name: str
    pages: Callable[[str, Interval, pd.Timestamp, pd.Timestamp], Iterator[Page]]
    tolerance: float = 0.0


def frames_source(name: str, bars: Mapping[str, pd.DataFrame]) -> Source:
    """Make a source of bars that are here already, to keep them in a store.

    Args:
        name: what the store calls it.
        bars: in normal form, by symbol.

    Returns:
        A source that knows no more than these: its pages end with the last bar.
    """

    def pages(symbol, interval, start, end) -> Iterator[Page]:
        if symbol not in bars:
            raise SourceError(f"{name} holds no {symbol!r}; it has {', '.join(bars)}")
        frame = bars[symbol]
        frame = frame[(frame.index >= start) & (frame.index < end)]
        if len(frame):
            yield Page(frame, min(interval.after(frame.index[-1]), interval.after(end)))

    return Source(name, pages)


def bars_of_rows(
    opened: Sequence[int], values: ArrayLike, columns: Sequence[str], *, unit: str = "ms"
) -> pd.DataFrame:
    """Make bars of what a source sent, ascending; rows that stand twice become one.

    Args:
        opened: opening times since 1970, `[row]`.
        values: `[row, column]`, finite.
        columns: their names in normal form.
        unit: of the opening times.

    Raises:
        ValueError: if two rows of one time differ.
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


def refuse_impossible(bars: pd.DataFrame, first: pd.Timestamp, end: pd.Timestamp) -> None:
    """Refuse bars that no source can mean: at other times than asked for, or without a price.

    Args:
        bars: ascending.
        first: the first moment asked for.
        end: the moment after the last one.

    Raises:
        ValueError: naming column and time.
    """
    outside = (bars.index < first) | (bars.index >= end)
    if outside.any():
        raise ValueError(f"a bar at {bars.index[outside][0]}, asked for {first} to {end}")
    for column in bars.columns:
        values = bars[column].to_numpy()
        good = np.isfinite(values) & ((values >= 0) if column == "volume" else (values > 0))
        if not good.all():
            place = int(np.argmin(good))
            raise ValueError(f"{column} is {values[place]:g} at {bars.index[place]}")

r"""Features of the calendar: where a bar opens in the day, the week and the year, in UTC.

Each is an angle, given as sine and cosine, $\sin 2 \pi u$ and $\cos 2 \pi u$, so that the end of a
day is next to the start of the next.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd

from maml_jax.features.feature import Feature


def hour(times: pd.DatetimeIndex) -> np.ndarray:
    """Share of the day that has passed, to the minute, `[bar]` in [0, 1)."""
    return (times.hour.to_numpy() + times.minute.to_numpy() / 60) / 24


def weekday(times: pd.DatetimeIndex) -> np.ndarray:
    """Whole days of the week that have passed, Monday's 0, as a share of it."""
    return times.day_of_week.to_numpy() / 7


def month(times: pd.DatetimeIndex) -> np.ndarray:
    """Whole months of the year that have passed, January's 0, as a share of it."""
    return (times.month.to_numpy() - 1) / 12


def calendar_features() -> dict[str, Feature]:
    """Return the features of the calendar, by name. They read no column, and have no warm-up."""
    features = [
        Feature(f"{place.__name__}_{wave}", _on_circle(place, function), 0, ())
        for place in (hour, weekday, month)
        for wave, function in (("sin", np.sin), ("cos", np.cos))
    ]
    return {feature.name: feature for feature in features}


def _on_circle(place: Callable, wave: Callable) -> Callable[[pd.DataFrame], pd.Series]:
    def compute(bars: pd.DataFrame) -> pd.Series:
        times = pd.DatetimeIndex(bars.index)
        return pd.Series(wave(2 * np.pi * place(times)), index=bars.index)

    return compute

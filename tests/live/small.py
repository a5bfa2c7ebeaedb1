"""A run that is small and untrained, and its bars, for tests of what is decided bar by bar."""

import numpy as np
import pandas as pd
from market import MARKET
from small_run import small_result

from maml_jax.live.strategy import strategy_of

START = pd.Timestamp("2020-06-09", tz="UTC")


def result(**changes):
    return small_result(**changes)


def bars_to(place, market=MARKET):
    """Return the bars up to the one so many places after the start."""
    end = START + pd.Timedelta(days=place)
    return {name: frame.loc[:end] for name, frame in market.items()}


def strategy(run=None, **options):
    return strategy_of(run or result(), MARKET, **options)


def same_held(first, second):
    return all(
        (a is None and b is None) or np.array_equal(a, b, equal_nan=True)
        for a, b in zip(first, second, strict=True)
    )

"""Sequences of bars: gathered on the device, of an asset's own past alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from helpers import random_bars, random_market

from maml_jax.errors import DataError
from maml_jax.features import Target, compute_features, technical_features
from maml_jax.tasks import (
    Panel,
    asset_family,
    bars_needed,
    labelled_rows,
    make_panel,
    market_sampler,
)
from maml_jax.tasks.rows import readable_rows

FEATURES = list(technical_features(window=5, fast=3, slow=5).values())
TARGET = Target(horizon=3, fill="next_close", volatility_window=5)
LENGTH = 7


def panel_of(bars):
    return make_panel(bars, {a: compute_features(b, FEATURES) for a, b in bars.items()}, TARGET)


def ragged_panel():
    """Assets that begin late, end early, miss bars, rest for a while, or hardly exist."""
    bars = random_market(count=120, assets=5)
    bars["A1"] = bars["A1"].drop(bars["A1"].index[[60, 61, 62, 90]]).iloc[20:]
    bars["A2"] = bars["A2"].iloc[:80]
    bars["A3"].iloc[70:82] = bars["A3"].iloc[70].to_numpy()  # no rows where the price rests
    bars["A4"] = bars["A4"].iloc[100:]
    return panel_of(bars)


def naive_sequence(panel, asset, time, length):
    """Walk back from a bar, bar by bar."""
    found = []
    while len(found) < length and time >= 0:
        if panel.valid[asset, time]:
            found.insert(0, np.asarray(panel.features[asset, time]))
        time -= 1
    return np.stack(found) if len(found) == length else None


@pytest.mark.slow
@pytest.mark.long
def test_sequences_are_those_of_a_slow_loop():
    panel = ragged_panel()
    windows = asset_family(panel, support=6, query=4, length=LENGTH)
    sampler = market_sampler(panel, windows, meta_batch=2)
    rows = windows.rows
    for window in (*range(0, len(windows.asset), 9), len(windows.asset) - 1):
        asset = windows.asset[window]
        task = sampler.task(jnp.asarray(window))
        sets = (windows.support_rows(window), windows.query_rows(window))
        for batch, numbers in zip(task[:2], sets, strict=True):
            times = rows.time[asset, numbers - rows.first[asset]]
            expected = [naive_sequence(panel, asset, time, LENGTH) for time in times]
            np.testing.assert_array_equal(batch.x, expected)
            np.testing.assert_array_equal(batch.y[:, 0], panel.targets[asset, times])


@pytest.mark.slow
def test_rows_are_left_out_only_where_a_sequence_would_not_be_whole():
    panel = ragged_panel()
    readable = readable_rows(panel, LENGTH)
    rows, single = labelled_rows(panel, LENGTH), labelled_rows(panel)
    for asset in range(5):
        whole = [
            bool(panel.valid[asset, time])
            and naive_sequence(panel, asset, time, LENGTH) is not None
            for time in range(len(panel.timestamps))
        ]
        np.testing.assert_array_equal(readable[asset], whole)
        kept = rows.time[asset, : rows.count[asset]]
        np.testing.assert_array_equal(kept, single.time[asset, LENGTH - 1 : single.count[asset]])
    assert not readable[4].any()  # too few bars for one sequence, and no other asset's stand in
    with pytest.raises(ValueError, match="at least 1 bar"):
        labelled_rows(panel, 0)


@pytest.mark.long
def test_sequences_of_one_bar_are_single_rows():
    panel = ragged_panel()
    one, none = (
        market_sampler(panel, asset_family(panel, support=6, query=4, length=length), meta_batch=3)(
            jax.random.key(0)
        )
        for length in (1, None)
    )
    np.testing.assert_array_equal(one.support.x[:, :, 0], none.support.x)
    np.testing.assert_array_equal(one.query.y, none.query.y)


def test_the_shortest_series_holds_one_window_of_sequences():
    sizes = {"support": 6, "query": 4, "embargo": 2}
    needed = bars_needed(warm_up=14, label_delay=TARGET.label_delay, length=LENGTH, **sizes)
    panel = panel_of({"A": random_bars(count=needed)})
    windows = asset_family(panel, length=LENGTH, **sizes)
    assert len(windows.asset) == 1
    tasks = market_sampler(panel, windows, meta_batch=3)(jax.random.key(0))
    assert tasks.support.x.shape == (3, 6, LENGTH, len(FEATURES))
    assert tasks.query.x.shape == (3, 4, LENGTH, len(FEATURES))
    with pytest.raises(DataError, match="no asset has room .* each read 7 bars"):
        asset_family(panel_of({"A": random_bars(count=needed - 1)}), length=LENGTH, **sizes)


@pytest.mark.long
def test_later_bars_change_no_earlier_sequence():
    panel = ragged_panel()
    cut = 75
    noise = np.random.default_rng(0).standard_normal(panel.features.shape)
    late = np.arange(len(panel.timestamps)) > cut
    changed = panel._replace(
        features=jnp.where(late[:, None], noise, panel.features).astype(jnp.float32),
        valid=panel.valid & ~(late & (noise[..., 0] > 0)),
    )
    windows = asset_family(panel, support=6, query=4, length=LENGTH, last=cut)
    other = asset_family(changed, support=6, query=4, length=LENGTH, last=cut)
    for a, b in zip(windows[:5], other[:5], strict=True):
        np.testing.assert_array_equal(a, b)
    whole, part = (
        jax.vmap(market_sampler(each, table, meta_batch=1).task)(jnp.arange(len(windows.asset)))
        for each, table in ((panel, windows), (changed, other))
    )
    np.testing.assert_array_equal(whole.support.x, part.support.x)
    np.testing.assert_array_equal(whole.query.x, part.query.x)


def test_longer_sequences_need_no_more_memory():
    rng = np.random.default_rng(0)
    shape = (2, 2000)
    panel = Panel(
        jnp.asarray(rng.standard_normal((*shape, 3)), jnp.float32),
        jnp.asarray(rng.standard_normal(shape), jnp.float32),
        jnp.ones(shape, bool),
        jnp.broadcast_to(jnp.minimum(jnp.arange(2000) + 2, 2000), shape),
        pd.date_range("2020-01-01", periods=2000, freq="D", tz="UTC"),
        ("A", "B"),
        ("a", "b", "c"),
    )

    def held(length):
        windows = asset_family(panel, support=5, query=3, length=length)
        return sum(
            leaf.nbytes for leaf in jax.tree.leaves(market_sampler(panel, windows, meta_batch=4))
        )

    assert held(64) - held(None) == 64 * jnp.arange(1).nbytes

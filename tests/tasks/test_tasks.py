import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from helpers import random_bars, random_market

from maml_jax.errors import DataError
from maml_jax.features import Target, compute_features, technical_features
from maml_jax.tasks import (
    SupportRows,
    asset_family,
    bars_needed,
    labelled_rows,
    make_panel,
    market_sampler,
)

pytestmark = pytest.mark.long

FEATURES = [f for f in technical_features(window=5, fast=3, slow=5).values()]
TARGET = Target(horizon=3, fill="next_close", volatility_window=5)
WARM_UP = 14


def panel_of(bars, target=TARGET):
    return make_panel(bars, {a: compute_features(b, FEATURES) for a, b in bars.items()}, target)


def own_rows(windows, window):
    """Numbers of support and query rows among the rows of a window's asset."""
    first = windows.rows.first[windows.asset[window]]
    return windows.support_rows(window) - first, windows.query_rows(window) - first


def ragged_market():
    """Three assets: one whole, one that starts late and misses bars, one that ends early."""
    bars = random_market(count=120)
    bars["A1"] = bars["A1"].drop(bars["A1"].index[[60, 61, 62, 90]]).iloc[20:]
    bars["A2"] = bars["A2"].iloc[:80]
    return bars


def test_the_panel_holds_what_the_tables_hold():
    bars = ragged_market()
    panel = panel_of(bars)
    assert panel.features.dtype == panel.targets.dtype == jnp.float32
    for array in (panel.features, panel.targets):
        assert jnp.isfinite(array).all()
    table = compute_features(bars["A1"], FEATURES)
    for i, time in enumerate(panel.timestamps):
        if time in table.index and table.loc[time].notna().all():
            assert panel.valid[1, i]
            np.testing.assert_allclose(panel.features[1, i], table.loc[time], rtol=1e-6)
        else:
            assert not panel.valid[1, i]
            assert (panel.features[1, i] == 0).all()


def test_labels_end_after_the_delay_in_the_assets_own_bars():
    bars = ragged_market()
    panel = panel_of(bars)
    for a, asset in enumerate(panel.assets):
        own = bars[asset].index
        for k, time in enumerate(own):
            place = panel.timestamps.get_loc(time)
            end = int(panel.label_end[a, place])
            if panel.valid[a, place] and k + TARGET.label_delay < len(own):
                assert panel.timestamps[end] == own[k + TARGET.label_delay]
            else:
                assert end == len(panel.timestamps)


@pytest.mark.parametrize("fill", ["close", "next_close", "next_open"])
@pytest.mark.parametrize("embargo", [0, 4])
def test_no_support_label_reaches_into_the_query(fill, embargo):
    target = TARGET._replace(fill=fill)
    bars = ragged_market()
    panel = panel_of(bars, target)
    windows = asset_family(panel, support=6, query=4, embargo=embargo)
    rows = labelled_rows(panel)
    assert len(windows.asset) > 100
    for window, asset in enumerate(windows.asset):
        support, query = own_rows(windows, window)
        last, first = support[-1], query[0]
        assert rows.label_end[asset, last] <= rows.time[asset, first]
        own = bars[panel.assets[asset]].index
        places = [own.get_loc(panel.timestamps[rows.time[asset, row]]) for row in (last, first)]
        assert places[1] - places[0] >= target.label_delay + embargo


def test_the_shortest_series_holds_one_window_and_the_sampler_draws_it():
    needed = bars_needed(
        warm_up=WARM_UP, support=6, query=4, label_delay=TARGET.label_delay, embargo=2
    )
    options = {"support": 6, "query": 4, "embargo": 2}
    panel = panel_of({"A": random_bars(count=needed)})
    windows = asset_family(panel, **options)
    assert len(windows.asset) == 1
    tasks = market_sampler(panel, windows, meta_batch=3)(jax.random.key(0))
    assert tasks.support.x.shape == (3, 6, len(FEATURES))
    assert tasks.query.y.shape == (3, 4, 1)
    with pytest.raises(DataError, match="no asset has room"):
        asset_family(panel_of({"A": random_bars(count=needed - 1)}), **options)


def test_tasks_are_the_rows_that_they_should_be():
    bars = ragged_market()
    panel = panel_of(bars)
    windows = asset_family(panel, support=6, query=4)
    sampler = market_sampler(panel, windows, meta_batch=2)
    for window in (0, 77, len(windows.asset) - 1):
        task = sampler.task(jnp.asarray(window))
        table = compute_features(bars[panel.assets[windows.asset[window]]], FEATURES).dropna()
        support, query = own_rows(windows, window)
        assert (np.diff(support) == 1).all()
        assert (np.diff(query) == 1).all()
        np.testing.assert_allclose(task.support.x, table.iloc[support], rtol=1e-5)
        np.testing.assert_allclose(task.query.x, table.iloc[query], rtol=1e-5)


def test_groups_are_drawn_equally_often_and_every_window_can_be_drawn():
    panel = panel_of(ragged_market())
    windows = asset_family(panel, support=6, query=4)
    sampler = market_sampler(panel, windows, meta_batch=20_000)
    drawn = np.asarray(sampler.draw(jax.random.key(0)))
    share = np.bincount(windows.asset[drawn]) / len(drawn)
    np.testing.assert_allclose(share, 1 / 3, atol=0.02)
    assert set(drawn) == set(range(len(windows.asset)))


def test_spans_and_assets_bound_the_windows():
    panel = panel_of(ragged_market())
    windows = asset_family(panel, support=6, query=4, assets=["A0", "A2"], first=30, last=70)
    rows = labelled_rows(panel)
    assert set(windows.asset) == {0, 2}
    sets = [own_rows(windows, window) for window in range(len(windows.asset))]
    support, query = (np.stack(each) for each in zip(*sets, strict=True))
    assert (rows.time[windows.asset, support[:, 0]] >= 30).all()
    assert (rows.label_end[windows.asset, query[:, -1]] == windows.known).all()
    assert windows.known.max() == 70
    with pytest.raises(DataError, match=r"unknown assets \['XY'\]"):
        asset_family(panel, support=6, query=4, assets=["XY"])


def test_later_bars_change_no_earlier_task():
    bars = ragged_market()
    cut = bars["A0"].index[100]
    early = {a: b.loc[:cut] for a, b in bars.items()}
    whole, part = panel_of(bars), panel_of(early)
    stop = len(part.timestamps)
    known = np.asarray(part.label_end) < stop
    np.testing.assert_array_equal(np.asarray(whole.features)[:, :stop], part.features)
    np.testing.assert_array_equal(
        np.asarray(whole.targets)[:, :stop][known], np.asarray(part.targets)[known]
    )


def test_an_empty_panel_is_refused():
    with pytest.raises(DataError, match="at least one asset"):
        make_panel({}, {}, TARGET)


def test_the_timeline_is_the_union_of_all_bars():
    bars = ragged_market()
    expected = pd.DatetimeIndex(sorted(set().union(*(b.index for b in bars.values()))))
    assert panel_of(bars).timestamps.equals(expected)


def test_tasks_have_few_rows_as_often_as_many_and_older_ones_weigh_less():
    panel = panel_of(ragged_market())
    windows = asset_family(panel, support=SupportRows(8, "mixed"), query=4)
    sampler = market_sampler(panel, windows, meta_batch=500, fewest=5, forget=0.5)
    weight = np.asarray(sampler(jax.random.key(0)).support.weight)
    np.testing.assert_allclose(weight[:, :4], np.tile([0.125, 0.25, 0.5, 1.0], (500, 1)))
    counts = (weight[:, 4:] > 0).sum(axis=1)
    np.testing.assert_allclose(np.bincount(counts) / 500, [0, 0.25, 0.25, 0.25, 0.25], atol=0.06)
    for own, count in zip(weight[:, 4:], counts, strict=True):
        np.testing.assert_allclose(own, [0.125, 0.25, 0.5, 1.0] * (np.arange(4) >= 4 - count))


@pytest.mark.slow
def test_how_many_rows_a_task_has_does_not_depend_on_its_window():
    panel = panel_of(ragged_market())
    windows = asset_family(panel, support=7, query=4)
    sampler = market_sampler(panel, windows, meta_batch=512, fewest=3)
    counts = {}
    for seed in range(20):
        key = jax.random.key(seed)
        drawn = np.asarray(sampler.draw(key))
        rows = np.asarray((sampler(key).support.weight > 0).sum(axis=1))
        for window, count in zip(drawn, rows, strict=True):
            counts.setdefault(window, set()).add(int(count))
    assert all(found == {3, 4, 5, 6, 7} for found in counts.values())

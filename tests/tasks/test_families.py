"""Supports of the asset, of the cross-section and of one label, against slow loops."""

from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import random_market

from maml_jax.backtest import find_supports
from maml_jax.errors import DataError
from maml_jax.features import Target, compute_features, technical_features
from maml_jax.tasks import (
    SupportRows,
    asset_family,
    label_family,
    make_panel,
    market_sampler,
    mix_families,
    period_family,
    regime_family,
    strategy_family,
)

FEATURES = list(technical_features(window=5, fast=3, slow=5).values())
SIZES = {"support": 7, "query": 4}


@pytest.fixture(scope="module")
def panel():
    """Three assets: one whole, one that starts late and misses bars, one that ends early."""
    bars = random_market(count=120)
    bars["A1"] = bars["A1"].drop(bars["A1"].index[[60, 61, 62, 90]]).iloc[20:]
    bars["A2"] = bars["A2"].iloc[:80]
    tables = {a: compute_features(b, FEATURES) for a, b in bars.items()}
    return make_panel(bars, tables, Target(horizon=3, volatility_window=5))


@pytest.fixture(scope="module")
def labels(panel):
    """Labels that last some bars and come back; none at first."""
    labels = np.repeat(np.random.default_rng(0).integers(0, 3, (3, 40)), 3, axis=1)
    labels[:, :20] = -1
    return labels


def rows_of(windows, numbers):
    """Return (asset, time, label end) of labelled rows given by number."""
    rows = windows.rows
    asset = np.searchsorted(rows.first, numbers, side="right") - 1
    own = numbers - rows.first[asset]
    return asset, rows.time[asset, own], rows.label_end[asset, own]


def complete_rows(panel, time, chosen):
    """List what is complete at a bar, in the order in which it became so."""
    ends, valid = np.asarray(panel.label_end), np.asarray(panel.valid)
    stop = len(panel.timestamps)
    found = [
        (ends[a, t], t, a)
        for a in range(len(panel.assets))
        for t in range(stop)
        if valid[a, t] and ends[a, t] <= min(time, stop - 1) and chosen(a, t)
    ]
    return [(a, t) for _, t, a in sorted(found)]


def expected_support(panel, asset, time, origin, size, label=None, labels=None):
    """Gather a support set by a slow loop; None where there is not enough."""

    def fits(t, a):
        return label is None or labels[a, t] == label

    own = complete_rows(panel, time, lambda a, t: a == asset and fits(t, a))
    everyone = complete_rows(panel, time, lambda a, t: fits(t, a))
    wanted = {
        "asset": [(own, size)],
        "cross_section": [(everyone, size)],
        "mixed": [(everyone, size // 2), (own, size - size // 2)],
    }[origin]
    if any(len(rows) < count for rows, count in wanted):
        return None
    return [row for rows, count in wanted for row in rows[-count:]]


@pytest.mark.parametrize("origin", ["asset", "cross_section", "mixed"])
@pytest.mark.parametrize("labelled", [False, True])
def test_walk_forward_adapts_on_what_a_slow_loop_finds(panel, labels, origin, labelled):
    options = {"labels": labels} if labelled else {}
    supports = find_supports(panel, SupportRows(7, origin), **options)
    fallbacks = 0
    for asset in range(3):
        for time in range(0, 120, 11):
            label = labels[asset, time]
            expected = None
            if labelled and label >= 0:
                expected = expected_support(panel, asset, time, origin, 7, label, labels)
                fallbacks += expected is None
            if expected is None and (origin != "mixed" or not labelled or label < 0):
                expected = expected_support(panel, asset, time, origin, 7)
            elif expected is None:
                continue  # each part of a mixed support falls back by itself
            due = expected is not None and bool(panel.valid[asset, time])
            assert supports.due[asset, time] == due
            if not due:
                continue
            stops = zip(supports.stops[asset, time], supports.layout.sizes, strict=True)
            numbers = np.concatenate([supports.entries[s - n : s] for s, n in stops])
            assets, times, ends = rows_of(supports, numbers)
            assert list(zip(assets, times, strict=True)) == expected
            assert (ends <= time).all()
    assert fallbacks or not labelled


@pytest.mark.long
@pytest.mark.parametrize("origin", ["asset", "cross_section", "mixed"])
@pytest.mark.parametrize("embargo", [0, 3])
def test_windows_are_as_in_walk_forward_and_leave_a_gap(panel, labels, origin, embargo):
    sizes = {**SIZES, "support": SupportRows(SIZES["support"], origin)}
    windows = label_family(panel, labels, embargo=embargo, **sizes)
    assert len(windows.asset) > 20
    for window in range(0, len(windows.asset), 13):
        assets, times, ends = rows_of(windows, windows.support_rows(window))
        asked, asked_times, asked_ends = rows_of(windows, windows.query_rows(window))
        group = windows.group[window]
        assert (labels[assets, times] == group).all()
        assert (labels[asked, asked_times] == group).all()
        assert ends.max() <= asked_times.min()
        assert asked_ends.max() == windows.known[window]
        if origin != "cross_section":
            assert set(asked) == {windows.asset[window]}
        expected = expected_support(
            panel, windows.asset[window], ends.max(), origin, 7, group, labels
        )
        assert list(zip(assets, times, strict=True)) == expected


def test_the_cross_section_is_made_of_the_latest_bars_of_all_assets(panel):
    windows = asset_family(panel, support=SupportRows(9, "cross_section"), query=6)
    spans = []
    for window in range(len(windows.asset)):
        assets, times, _ = rows_of(windows, windows.support_rows(window))
        spans.append((len(set(assets)), times.max() - times.min()))
    assert max(number for number, _ in spans) == 3
    assert np.median([span for _, span in spans]) <= 5
    assert set(windows.group) == {0}


def test_a_cross_section_is_of_one_class(panel):
    classes = np.array([0, 1, 0])
    sizes = {**SIZES, "support": SupportRows(SIZES["support"], "mixed", classes)}
    windows = asset_family(panel, **sizes)
    for window in range(0, len(windows.asset), 5):
        assets, _, _ = rows_of(windows, windows.support_rows(window))
        assert (classes[assets] == classes[windows.asset[window]]).all()


def test_the_bounds_of_a_span_hold_for_every_row(panel, labels):
    for origin in ("cross_section", "mixed"):
        sizes = {**SIZES, "support": SupportRows(SIZES["support"], origin)}
        windows = label_family(panel, labels, assets=["A0", "A2"], first=30, last=90, **sizes)
        for window in range(len(windows.asset)):
            numbers = np.append(windows.support_rows(window), windows.query_rows(window))
            assets, times, ends = rows_of(windows, numbers)
            assert times.min() >= 30
            assert ends.max() <= 90
            assert set(assets) <= {0, 2}


@pytest.mark.parametrize("period", ["month", "quarter", "year"])
def test_queries_are_of_one_period_and_supports_what_is_known_then(panel, period):
    whole = asset_family(panel, **SIZES)
    windows = period_family(panel, period=period, **SIZES)
    assert len(set(windows.group)) > (period != "year")
    names = {}
    for window, group in enumerate(windows.group):
        times = panel.timestamps[rows_of(windows, windows.query_rows(window))[1]]
        (name,) = set(times.tz_localize(None).to_period(period[0].upper()))
        assert names.setdefault(group, name) == name
    assert len(set(names.values())) == len(names)
    # Nothing but windows whose query reaches over the end of a period is left out.
    kept = set(zip(windows.query.tolist(), windows.stop[:, 0].tolist(), strict=True))
    for window in range(len(whole.asset)):
        times = panel.timestamps[rows_of(whole, whole.query_rows(window))[1]]
        one = len(set(times.tz_localize(None).to_period(period[0].upper()))) == 1
        assert ((whole.query[window], whole.stop[window, 0]) in kept) == one


def test_regimes_are_labels_of_the_panel(panel, labels):
    one = regime_family(panel._replace(regimes=labels), **SIZES)
    two = label_family(panel, labels, **SIZES)
    for a, b in zip(one[:5], two[:5], strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(DataError, match="no regimes"):
        regime_family(panel, **SIZES)


def test_series_of_one_rule_are_one_group(panel):
    windows = strategy_family(panel, strategies=["up", "down", "up"], **SIZES)
    np.testing.assert_array_equal(windows.group, np.array([0, 1, 0])[windows.asset])
    assert (np.diff(windows.group) >= 0).all()


def test_a_mixture_draws_families_as_its_weights_say(panel, labels):
    plain = asset_family(panel, **SIZES)
    regimes = label_family(panel, labels, **SIZES)
    mixed = mix_families([(plain, 1.0), (regimes, 3.0)])
    sampler = market_sampler(panel, mixed, meta_batch=20_000)
    drawn = np.asarray(sampler.draw(jax.random.key(0)))
    share = Counter(mixed.group[drawn].tolist())
    first = len(set(plain.group))
    assert sum(share[group] for group in range(first)) / 20_000 == pytest.approx(0.25, abs=0.02)
    assert all(share[group] > 1000 for group in range(first, first + 3))
    for window in (0, len(plain.asset) - 1, len(plain.asset), len(mixed.asset) - 1):
        task = sampler.task(jnp.asarray(window))
        for batch, numbers in zip(
            task[:2], (mixed.support_rows(window), mixed.query_rows(window)), strict=True
        ):
            assets, times, _ = rows_of(mixed, numbers)
            np.testing.assert_array_equal(batch.x, panel.features[assets, times])


def test_what_cannot_be_is_refused(panel, labels):
    with pytest.raises(ValueError, match='"mixed" must be at least 2, got 1'):
        asset_family(panel, support=SupportRows(1, "mixed"), query=4)
    with pytest.raises(DataError, match="room for a window"):
        label_family(panel, np.full_like(labels, -1), **SIZES)
    with pytest.raises(ValueError, match="same sizes"):
        mix_families(
            [(asset_family(panel, support=n, query=4), 1.0) for n in (7, 3)],
        )
    with pytest.raises(ValueError, match="positive weight"):
        mix_families([(asset_family(panel, **SIZES), 0.0)])

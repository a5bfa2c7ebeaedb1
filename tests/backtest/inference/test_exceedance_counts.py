"""Counts of exceedances against naive loops, and Basel's zones against its own table."""

import numpy as np
import pytest
import vartests

from maml_jax.backtest.inference.exceedance_counts import (
    coverage_table,
    exceedances,
    thin,
    traffic_light,
)


def test_exceedances_are_beyond_the_forecast_and_absent_where_it_is():
    y = np.array([-2.0, -1.0, 0.0, np.nan, -5.0])
    var = np.array([-1.0, -1.0, -1.0, -1.0, np.nan])
    np.testing.assert_array_equal(exceedances(y, var, 0.05), [1, 0, 0, np.nan, np.nan])
    np.testing.assert_array_equal(exceedances(-y, -var, 0.95), [1, 0, 0, np.nan, np.nan])
    np.testing.assert_array_equal(exceedances(y, var, 0.95), [0, 0, 1, np.nan, np.nan])


def test_every_outcome_is_in_one_of_the_thinned_samples():
    y = np.arange(44).reshape(2, 22)
    samples = [thin(5, y, -y, offset=offset) for offset in range(5)]
    assert all((one == -other).all() for one, other in samples)
    assert all((np.diff(one, axis=1) == 5).all() for one, _ in samples)
    assert sorted(np.concatenate([one.ravel() for one, _ in samples])) == list(range(44))


# Basel Committee (1996), Supervisory framework, table 2: cumulative probability in %.
BASEL = [8.11, 28.58, 54.32, 75.81, 89.22, 95.88, 98.63, 99.60, 99.89, 99.97, 99.99]


def test_the_zones_of_250_days_are_basels():
    lights = [traffic_light(x, 250) for x in range(11)]
    assert [100 * light.probability for light in lights] == pytest.approx(BASEL, abs=0.005)
    assert [light.zone for light in lights] == ["green"] * 5 + ["yellow"] * 5 + ["red"]
    assert {(light.yellow, light.red) for light in lights} == {(5, 10)}
    assert traffic_light(250, 250).zone == "red"


@pytest.mark.parametrize(("count", "level"), [(1, 0.01), (60, 0.05), (1000, 0.025), (500, 0.99)])
def test_zones_begin_where_the_binomial_reaches_their_bounds(count, level):
    rate = min(level, 1 - level)
    yellow = red = None
    for x in range(count):
        more = vartests.binomial_test(x=x + 1, n=count, risk_conf_level=1 - rate)["p-value"]
        light = traffic_light(x, count, level)
        assert light.probability == pytest.approx(1 - more, abs=1e-9)
        yellow = x if yellow is None and 1 - more >= 0.95 else yellow
        red = x if red is None and 1 - more >= 0.9999 else red
        assert light.zone == (
            "red" if red is not None else "yellow" if yellow is not None else "green"
        )
        if red is not None:
            break
    light = traffic_light(0, count, level)
    assert (light.yellow, light.red) == (
        count if yellow is None else yellow,
        count if red is None else red,
    )


def test_the_table_counts_what_a_loop_counts():
    rng = np.random.default_rng(0)
    y = rng.normal(size=(3, 400))
    var = rng.normal(-1.6, 0.1, size=y.shape)
    y[rng.random(y.shape) < 0.1] = np.nan
    var[2] = np.nan
    ages = np.arange(400) // 150
    for group in (np.array(["b", "a", "c"])[:, None], ages):
        table = coverage_table(y, var, 0.05, group)
        labels = np.broadcast_to(group, y.shape)
        found: dict[object, list[bool]] = {}
        for label, outcome, forecast in zip(labels.flat, y.flat, var.flat, strict=True):
            if not np.isnan(outcome + forecast):
                found.setdefault(label, []).append(outcome < forecast)
        assert list(table.index) == sorted(found)
        for label, marks in found.items():
            assert table.loc[label].tolist() == pytest.approx(
                [len(marks), sum(marks), 0.05 * len(marks), np.mean(marks)]
            )
    pooled = coverage_table(y, var, 0.05)
    assert pooled.loc["all", ["count", "exceedances"]].tolist() == [
        table["count"].sum(),
        table["exceedances"].sum(),
    ]
    assert coverage_table(y, np.full_like(y, np.nan), 0.05).empty


def test_what_cannot_be_counted_is_refused():
    y = np.zeros((2, 3))
    with pytest.raises(ValueError, match=r"y has \(2, 3\), var has \(3,\)"):
        exceedances(y, y[0], 0.05)
    with pytest.raises(ValueError, match="between 0 and 1 .* not 5"):
        exceedances(y, y, 5)
    with pytest.raises(ValueError, match="do not broadcast"):
        coverage_table(y, y, 0.05, np.array(["a", "b"]))
    with pytest.raises(ValueError, match="at least 1 bar"):
        thin(0, y)
    with pytest.raises(ValueError, match="from 0 to 1, not 2"):
        thin(2, y, offset=2)
    with pytest.raises(ValueError, match="at least 1 outcome"):
        traffic_light(0, 0)
    with pytest.raises(ValueError, match="from 0 to 10: 11"):
        traffic_light(11, 10)

"""Claims are judged by what was measured, by a rule that is stated."""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from helpers import random_market
from market import MARKET, SMALL
from scipy import stats

from benchmarks.reproduce import CLAIMS, claims_bars, claims_race, reproduce
from benchmarks.reproduce.__main__ import main
from benchmarks.reproduce.claims_bars import Market, measure_market, real_market, simulated_market
from benchmarks.reproduce.claims_race import Race, run_race, summarise_race
from benchmarks.reproduce.claims_tables import make_tables
from benchmarks.reproduce.estimate import NO, OPEN, YES, Estimate, estimate
from maml_jax import Batch, Model, Task, maml
from maml_jax.backtest import metrics
from maml_jax.errors import ConfigError
from maml_jax.experiment import run

pytestmark = pytest.mark.slow


def finished(scratch, adapted):
    """Return a race in which two ways were tried on three tasks for three steps."""
    return Race(
        start=np.array([3.0, 3.0, 3.0]),
        adapted=np.asarray(adapted, float),
        scratch=np.asarray(scratch, float),
        ways=("slow", "fast"),
        zero=np.ones(3),
        adapting=0.002,
        step=0.001,
    )


SLOW = [[5, 5, 5, 5]] * 3
FAST = [[5, 4, 2, 3], [5, 4, 1, 3], [5, 1, 0, 3]]


def test_a_race_that_is_won_late_counts_its_steps():
    record = summarise_race(finished([SLOW, FAST], [1, 1, 1]))
    assert (record["scratch"], record["scratch_way"], record["scratch_step"]) == (1.0, "fast", 2)
    assert record["steps_to_reach"] == 2
    assert record["ratio"] == 2 / 5
    assert record["scratch_ms"] == pytest.approx(2.0)
    assert record["time_ratio"] == pytest.approx(1.0)
    assert record["reached"] == pytest.approx(2 / 3)  # at step 2, at step 1, and never
    assert record["median_steps"] == 2
    assert (record["start"], record["adapted"], record["gain"]) == (3.0, 1.0, 2.0)


def test_a_race_that_is_never_won_counts_all_steps():
    scratch = np.array([SLOW, FAST], float)
    scratch[0, 0, 1:] = np.nan  # diverged
    record = summarise_race(finished(scratch, [0.5, 0.5, 0.5]))
    assert record["steps_to_reach"] is None
    assert record["ratio"] == 3 / 5
    assert record["median_steps"] is None
    assert record["scratch"] == 1.0


def test_the_race_is_what_loops_come_to(monkeypatch):
    """A network of one weight, whose descent is a line of algebra."""
    model = Model(lambda key, x: jnp.array(2.0), lambda w, x: w * x)
    learner = maml(model, inner_steps=1)
    x = jax.random.normal(jax.random.key(0), (4, 6, 1))
    y = 0.5 * x + jax.random.normal(jax.random.key(1), x.shape)
    tasks = Task(Batch(x[:, :3], y[:, :3]), Batch(x[:, 3:], y[:, 3:]))
    monkeypatch.setattr(claims_race, "SCRATCH_RATES", {"sgd": (0.1,)})
    record = run_race(learner, jnp.array(0.3), model, jnp.array(2.0), tasks, steps=2)
    assert record.ways == ("sgd 0.1", "sgd 0.1 from 0")
    support, query = (np.asarray(each, float) for each in (x[:, :3, 0], x[:, 3:, 0]))
    wanted, asked = (np.asarray(each, float) for each in (y[:, :3, 0], y[:, 3:, 0]))
    for task in range(4):
        for way, less in ((0, 0.0), (1, 2.0)):
            w = 2.0
            for step in range(3):
                error = np.mean(((w - less) * query[task] - asked[task]) ** 2)
                assert record.scratch[way, task, step] == pytest.approx(error, rel=1e-4)
                off = (w - less) * support[task] - wanted[task]
                w -= 0.1 * np.mean(2 * off * support[task])
        w = 0.3
        assert record.start[task] == pytest.approx(np.mean((w * query[task] - asked[task]) ** 2))
        for _ in range(claims_race.STEPS):
            w -= 0.005 * np.mean(2 * (w * support[task] - wanted[task]) * support[task])
        adapted = np.mean((w * query[task] - asked[task]) ** 2)
        assert record.adapted[task] == pytest.approx(adapted, rel=1e-4)
        assert record.zero[task] == pytest.approx(np.mean(asked[task] ** 2), rel=1e-5)
    assert record.adapting > 0 and record.step > 0


def test_intervals_are_students_and_add_the_history_in_quadrature():
    values = [1.0, 2.0, 4.0]
    interval = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
    seeds = estimate(values)
    assert (seeds.mean - seeds.half, seeds.mean + seeds.half) == pytest.approx(interval)
    both = estimate(values, [0.5, 0.5, 0.8])
    assert both.half**2 == pytest.approx(seeds.half**2 + (1.96 * 0.6) ** 2)
    assert np.isnan(estimate([1.0]).half)
    assert estimate([1.0], [0.5]).half == pytest.approx(0.98)
    assert np.isnan(estimate([1.0, np.nan]).mean)


@pytest.mark.parametrize(
    ("mean", "half", "above", "verdict"),
    [
        (2.0, 0.5, True, YES),
        (2.0, 1.5, True, OPEN),
        (0.0, 0.5, True, NO),
        (0.0, 0.5, False, YES),
        (2.0, 0.5, False, NO),
        (2.0, np.nan, True, OPEN),
        (np.nan, np.nan, True, OPEN),
    ],
)
def test_a_claim_holds_where_its_whole_interval_does(mean, half, above, verdict):
    assert Estimate(mean, half).holds(1.0, above) == verdict


def test_the_bootstrap_knows_the_error_of_a_mean():
    generator = np.random.default_rng(0)
    noise = generator.standard_normal(2000)
    for series, block, spread in (
        (noise, 1, 2000**-0.5),
        # A moving sum of ten: the variance of its mean is ten times that of as many free numbers.
        (np.convolve(noise, np.ones(10), "same"), 60, 10 * 2000**-0.5),
    ):
        record = claims_bars._measure(np.mean, generator, series, block=block)
        assert record["value"] == pytest.approx(series.mean())
        assert record["sd"] == pytest.approx(spread, rel=0.25)
    places = claims_bars._draw_blocks(generator, 5000, 20)
    jumps = np.sum((np.diff(places) != 1) & (np.diff(places) != -4999))
    assert 5000 / (jumps + 1) == pytest.approx(20, rel=0.25)


def test_markets_split_seen_from_unseen_assets():
    for market in (simulated_market(1.0), real_market(MARKET, {})):
        assert not {*market.seen} & {*market.unseen}
        assert {*market.tested} <= {*market.seen}
        assert {*market.seen, *market.unseen} <= {*market.bars(0)}
    with pytest.raises(ConfigError, match="--bars: needs at least 4 assets, there are 3"):
        real_market(random_market(assets=3), {})


@pytest.fixture(scope="module")
def measured():
    """One seed on a small market with one history."""
    rest = {k: v for k, v in SMALL.items() if k not in ("training", "learner")}
    rest["data"] = {k: v for k, v in SMALL["data"].items() if "assets" not in k}
    market = Market(
        "small", "small", lambda seed: MARKET, rest, ["A0", "A1", "A2"], ["A3"], ["A2"], True
    )
    return market, measure_market(market, 1, 3, windows=0)


def test_what_is_measured_is_what_a_run_says(measured):
    market, record = measured
    settings = claims_bars.settings_of(market, 1, 3)
    result = run(bars=MARKET, **settings)
    unseen = record["unseen"]
    for kind, table in (("net", result.returns), ("gross", result.gross)):
        years = result.stats.loc["Bars per Year", "maml"]
        after, before = (
            metrics.sharpe_ratio(table[name], years) for name in ("maml", "no adaptation")
        )
        figure = unseen[kind]
        assert figure["after"]["value"] == pytest.approx(after)
        assert figure["gain"]["value"] == pytest.approx(after - before)
        beyond = after - before - 0.15 * abs(before)
        assert figure["beyond_claim"]["value"] == pytest.approx(beyond)
        assert figure["gain"]["sd"] > 0
    rows = result.predictions.dropna(subset=["target"])
    for name in claims_bars.STRATEGIES:
        own = rows[rows["strategy"] == name]
        error = ((own["prediction"] - own["target"]) ** 2).sum() / (own["target"] ** 2).sum()
        assert unseen["r2"][name]["value"] == pytest.approx(1 - error)
    for name, figure in unseen["ahead"].items():
        apart = unseen["r2"]["maml"]["value"] - unseen["r2"][name]["value"]
        assert figure["value"] == pytest.approx(apart)
    stated = result.stats["maml"]
    for key, name in (("sharpe", "Sharpe Ratio"), ("win_rate", "Win Rate [%]")):
        assert unseen["portfolio"][key]["value"] == pytest.approx(stated[name])
    assert unseen["portfolio"]["drawdown"]["value"] == pytest.approx(-stated["Max. Drawdown [%]"])


def test_tables_say_what_was_claimed_and_measured(measured):
    _, record = measured
    won = summarise_race(finished([SLOW, FAST], [0.5, 0.5, 0.5]))
    claims, speed, sharpe, errors = make_tables({"tasks": [won, won]}, {"small": [record, record]})
    assert claims.columns == ("claim", "where", "claimed", "measured", "holds?")
    assert {row[-1] for row in claims.rows} <= {YES, NO, OPEN}
    first = claims.rows[0]
    assert first[3] == "not reached in 2 of 2 trainings; at least 0.6 ± 0.0 times"
    assert first[-1] == NO
    assert len(claims.rows) == 3 + 2 + 3 + 5
    assert claims.rows[1][3] == "at least 1.5 ± 0.0 times"
    assert speed.rows[0][5] == "fast, step 2"
    assert [row[1] for row in errors.rows] == ["unseen", "seen"]
    assert len(sharpe.rows) == 4
    for table in (claims, speed, sharpe, errors):
        assert all(len(row) == len(table.columns) for row in table.rows)


def test_bars_that_are_not_there_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="--bars .*none.csv: no such file"):
        reproduce(CLAIMS, bars=tmp_path / "none.csv", out=tmp_path / "new")
    with pytest.raises(ConfigError, match="--seeds: must be at least 1"):
        reproduce(CLAIMS, seeds=0, out=tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
def test_the_claims_are_measured_and_written(tmp_path, monkeypatch, capsys):
    market = pd.concat(random_market(count=400, assets=4), names=["symbol"])
    market.reset_index().to_csv(tmp_path / "market.csv", index=False)
    asked = ["claims", "--quick", "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", ["reproduce", *asked])
    with pytest.raises(SystemExit) as end:
        main()
        raise SystemExit(0)
    out = " ".join(capsys.readouterr().out.split())  # lines end where the terminal does
    assert not end.value.code
    for text in ("QUICK", "holds?", "Real bars were not given", "simulated tasks, SNR 0.1"):
        assert text in out
    made = reproduce(CLAIMS, bars=tmp_path / "market.csv", quick=True, out=tmp_path / "out")
    assert any(row[1] == "real bars, 2020-2021" for row in made[0].rows)
    record = json.loads((tmp_path / "out" / "claims.json").read_text())
    assert record["notes"] == []
    assert len(list((tmp_path / "out" / "results").iterdir())) == 5
    assert "## Error on seen and unseen assets" in (tmp_path / "out" / "claims.md").read_text()

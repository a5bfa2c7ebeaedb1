"""The evidence holds every run, resumes, and judges by what was measured."""

import json

import numpy as np
import pandas as pd
import pytest
from helpers import random_market

from benchmarks.reproduce import EVIDENCE, reproduce
from benchmarks.reproduce.evidence import keep_result
from benchmarks.reproduce.evidence_rows import (
    BASELINES,
    MARKETS,
    METHODS,
    SUPPORTS,
    EvidenceRow,
    require_market,
    rows_of,
)
from benchmarks.reproduce.evidence_tables import MISSING, Outcome, make_tables
from maml_jax.backtest.strategy_names import BUY_AND_HOLD, NO_ADAPTATION
from maml_jax.errors import ConfigError
from maml_jax.experiment import run

STOCKS = MARKETS["stocks"]
BARS = 600
ASSETS = [f"A{i}" for i in range(12)]


def record(seed, *, error, before, mean=0.0, others=()):
    """Return what a file holds of a run whose errors and mean return are given."""
    rng = np.random.default_rng(seed)

    def strategy(error, mean):
        net = mean + 0.01 * rng.standard_normal(BARS)
        figures = {"Bars per Year": 252.0, "Sharpe Ratio": 0.0, "Correlation": 0.01}
        noise = 1 + 0.1 * rng.random(BARS)
        errors = [None, *(error * noise).tolist()[1:]]
        return {
            "figures": figures,
            "net": net.tolist(),
            "error": errors,
            "zero": [None, *noise.tolist()[1:]],
        }

    strategies = {"maml": strategy(error, mean), NO_ADAPTATION: strategy(before, 0.0)}
    for name in others:
        strategies[name] = strategy(1.0, 0.0)
    for name in set(others) & {BUY_AND_HOLD}:
        del strategies[name]["error"], strategies[name]["zero"]
    return {"headline": "maml", "strategies": strategies}


def outcomes(**changes):
    row = EvidenceRow(STOCKS, SUPPORTS["own20"], "maml")
    first = EvidenceRow(STOCKS, SUPPORTS["own20"], BASELINES)
    found = [Outcome.of(row, s, record(s, **changes)) for s in range(3)]
    held = record(9, error=1.0, before=1.0, others=[BUY_AND_HOLD, "momentum"])
    return [*found, Outcome.of(first, 0, held)]


def cell(table, method, column):
    rows = {row[0]: row for row in table.rows}
    return rows[method][list(table.columns).index(column)]


@pytest.mark.parametrize(
    ("error", "before", "helps"), [(0.9, 1.0, "yes"), (1.1, 1.0, "no"), (1.0, 1.0, "not shown")]
)
def test_adapting_helps_where_the_whole_interval_of_its_gain_is_above_zero(error, before, helps):
    found, earned, _ = make_tables(outcomes(error=error, before=before))
    assert cell(found, "maml", "helps?") == helps
    assert cell(earned, "maml", "helps?") == "not shown"  # returns are noise
    gain = float(cell(found, "maml", "R2 gained by adapting").split(" ± ")[0])
    assert gain == pytest.approx(100 * (before - error), abs=1.0)


def test_baselines_stand_below_the_methods_and_have_nothing_to_gain():
    found, earned, _ = make_tables(outcomes(error=1.0, before=1.0))
    assert [row[0] for row in found.rows] == ["maml", NO_ADAPTATION, "momentum"]
    assert [row[0] for row in earned.rows] == ["maml", NO_ADAPTATION, BUY_AND_HOLD, "momentum"]
    assert cell(earned, "momentum", "gained by adapting") == MISSING


def test_a_method_that_earns_beats_the_baselines_and_one_that_does_not_does_not():
    rich = make_tables(outcomes(error=1.0, before=1.0, mean=0.003))[2]
    poor = make_tables(outcomes(error=1.0, before=1.0, mean=0.0))[2]
    for name in (BUY_AND_HOLD, "momentum"):
        column = "p of any method beating it"
        assert float(cell(rich, name, column)) < 0.01
        assert float(cell(poor, name, column)) > 0.05
    assert "of all 1 rows" in rich.note


def test_rows_are_all_methods_on_all_supports_and_the_baselines():
    rows = rows_of([STOCKS])
    assert len(rows) == 1 + len(METHODS) * len(SUPPORTS)
    assert len({row.key for row in rows}) == len(rows)
    settings = rows[-1].settings(ASSETS, 0, 10)
    assert settings["data"]["train_assets"] == ASSETS[:-5]
    assert settings["data"]["test_assets"] == ASSETS[-5:]


def test_bars_that_cannot_be_split_are_refused():
    few = random_market(count=50, assets=3)
    with pytest.raises(ConfigError, match="--stocks: needs at least 10 assets, there are 3"):
        require_market(STOCKS, few)
    late = random_market(count=50, assets=12)
    with pytest.raises(ConfigError, match="the test begins at 2010-01-01"):
        require_market(STOCKS, late)
    with pytest.raises(ConfigError, match="--stocks FILE"):
        reproduce(EVIDENCE)


@pytest.mark.slow
def test_what_is_kept_of_a_run_is_what_it_told():
    bars = random_market(count=150, assets=2)
    result = run(
        bars=bars,
        features={"window": 5, "fast": 3, "slow": 5},
        target={"horizon": 2, "volatility_window": 5},
        task={"support": 5, "query": 3},
        learner={"methods": ["ridge"]},
        training={"steps": 2, "meta_batch": 2},
        backtest={"samples": 20, "baselines": []},
    )
    found = Outcome.of(
        EvidenceRow(STOCKS, SUPPORTS["own20"], "ridge"),
        0,
        json.loads(json.dumps(keep_result(result))),
    )
    own = found.strategies["ridge"]
    np.testing.assert_allclose(own.net, result.returns["ridge"], rtol=1e-5)
    table = result.predictions.query("strategy == 'ridge'").dropna(subset=["target"])
    assert np.nansum(own.error) == pytest.approx(
        ((table["prediction"] - table["target"]) ** 2).sum(), rel=1e-4
    )
    assert np.nansum(own.zero) == pytest.approx((table["target"] ** 2).sum(), rel=1e-4)


@pytest.mark.slow
def test_runs_that_are_there_are_not_made_again(tmp_path):
    market = random_market(count=500, assets=10)
    start = pd.Timestamp("2009-01-01", tz="UTC")
    for bars in market.values():
        bars.index = pd.date_range(start, periods=len(bars), freq="D", name="timestamp")
    wide = pd.DataFrame({name: bars["close"] for name, bars in market.items()})
    wide.to_csv(tmp_path / "bars.csv")
    options = {"stocks": tmp_path / "bars.csv", "quick": True, "out": tmp_path / "out"}
    options["methods"] = ["stocks-own20-ridge"]
    with pytest.raises(ConfigError, match="--show-only: .* holds none of these runs"):
        reproduce(EVIDENCE, **options, present=True)
    first = reproduce(EVIDENCE, **options)
    more = {**options, "methods": ["stocks-own20"], "present": True}
    assert "1 runs (7 more are not there yet)" in reproduce(EVIDENCE, **more)[0].note
    (file,) = (tmp_path / "out" / "results").iterdir()
    written = file.stat().st_mtime_ns
    assert reproduce(EVIDENCE, **options) == first
    assert file.stat().st_mtime_ns == written
    record = json.loads((tmp_path / "out" / "evidence.json").read_text())
    assert record["failed"] == [] and len(record["tables"]) == 2

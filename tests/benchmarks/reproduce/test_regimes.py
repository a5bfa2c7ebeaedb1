import json
import sys

import numpy as np
import pytest

from benchmarks.reproduce import REGIMES, regimes, reproduce
from benchmarks.reproduce.__main__ import main
from benchmarks.reproduce.regimes import Protocol, measure_errors
from benchmarks.reproduce.regimes_rows import BUCKETS, ROWS, WINDOW, WORLDS
from benchmarks.reproduce.training import Trained
from maml_jax.errors import ConfigError, TrainingError
from maml_jax.worlds.switching import SwitchingWorld, switching_panel

pytestmark = pytest.mark.slow

SHIFT = {"frozen": 0.5, "regime": 0.3, "true-regime": 0.2, "online": 0.4, "online-regime": 0.25}


@pytest.fixture
def walks(monkeypatch):
    """Stands in for training and walking: the truth, missed by a known share of its spread."""
    counted = []

    def walk(row, panel, truth, state, seed, protocol):
        counted.append((row.key, seed))
        share = SHIFT.get(row.key, 0.45) + 0.01 * (seed % 3)
        return truth.expected * (1 - share**0.5)

    monkeypatch.setattr(regimes, "_walk", walk)
    monkeypatch.setattr(regimes, "_train", lambda *settings: Trained(None, 1.0, 1.0))
    return counted


@pytest.fixture
def record(tmp_path, walks):
    tables = reproduce(REGIMES, seeds=2, out=tmp_path)
    return tables, json.loads((tmp_path / "regimes.json").read_text()), tmp_path


def test_errors_are_shares_of_the_signal_by_bars_since_the_switch():
    _, truth = switching_panel(SwitchingWorld(stay=40.0), 2, assets=3, bars=500)
    missed = 0.01 * (1 + np.maximum(truth.since, 0))
    found = measure_errors(truth.expected * (1 - missed**0.5), truth, 100)
    late = np.arange(500) >= 100
    ends = [*BUCKETS[1:], 10**9]
    for start, end, value in zip(BUCKETS, ends, found["curve"], strict=True):
        chosen = late & (truth.since >= start) & (truth.since < end)
        if not chosen.any():
            assert np.isnan(value)
            continue
        power = (truth.expected**2).mean(axis=0)[chosen]
        assert value == pytest.approx((missed[chosen] * power).mean() / power.mean())
        if end == start + 1:
            assert value == pytest.approx(0.01 * (1 + start))
    nothing = measure_errors(0 * truth.expected, truth, 100)
    assert all(v == pytest.approx(1) or np.isnan(v) for v in nothing["curve"])
    assert nothing["after"] == nothing["settled"] == pytest.approx(1)
    assert np.isnan(measure_errors(truth.expected, truth, 500)["all"])


def test_differences_are_to_frozen_and_paired_by_seed(record):
    tables, content, _ = record
    assert [table.title for table in tables] == [regimes.TITLES[name] for name in WORLDS]
    rows = {row[0]: row for row in tables[0].rows}
    assert len(rows) == 5 and len(tables[1].rows) == 6
    frozen, inferred = rows[ROWS[0].name], rows[ROWS[1].name]
    # Seeds 1 and 2: 0.51 and 0.52, at intervals of 12.7 standard errors of two values.
    assert frozen[1:] == ("0.515 ± 0.064", "", "0.515 ± 0.064", "0.515 ± 0.064", "")
    assert inferred[1].startswith("0.315") and inferred[2] == "-0.200 ± 0.000"
    assert {len(row) for table in tables for row in (table.columns, *table.rows)} == {6}
    cell = next(c for c in content["cells"] if (c["row"], c["world"]) == ("online", "changed"))
    assert [seed["after"] for seed in cell["seeds"]] == pytest.approx([0.41, 0.42], rel=1e-4)
    known = [v for v in cell["mean"] if v is not None]
    assert known == pytest.approx([0.415] * len(known), rel=1e-4)


def test_what_is_there_is_not_walked_again(record, walks):
    tables, _, out = record
    assert len(walks) == 2 * (5 + 6) and {seed for _, seed in walks} == {1, 2}
    assert (out / "regimes.png").stat().st_size > 1000
    assert tables[1].title in (out / "regimes.md").read_text()
    walks.clear()
    some = reproduce(REGIMES, seeds=2, methods=["online", "online-"], out=out)
    assert walks == []
    assert [row[0] for row in some[0].rows] == [ROWS[3].name, ROWS[4].name]
    assert all(row[2] == "" for row in some[0].rows)  # nothing to compare with


def test_the_command_calls_it(record, walks, monkeypatch, capsys):
    _, _, out = record
    walks.clear()
    asked = ["regimes", "--seeds", "2", "--method", "frozen", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["reproduce", *asked])
    with pytest.raises(SystemExit) as end:
        main()
        raise SystemExit(0)
    assert not end.value.code and walks == []
    assert ROWS[0].name in capsys.readouterr().out


def test_wrong_options_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="there are frozen, regime"):
        reproduce(REGIMES, methods=["luck"], out=tmp_path)
    with pytest.raises(ConfigError, match="--seeds"):
        reproduce(REGIMES, seeds=0, out=tmp_path)


def test_labels_are_those_of_the_row():
    panel, truth = switching_panel(SwitchingWorld(), 0, assets=2, bars=300)
    by_key = {row.key: regimes._labels(row, panel, truth) for row in ROWS}
    assert by_key["frozen"] is None and by_key["online"] is None
    assert by_key["regime"] is panel.regimes and by_key["online-regime"] is panel.regimes
    np.testing.assert_array_equal(by_key["true-regime"], np.stack([truth.regime] * 2))


def test_updates_that_fail_are_told(monkeypatch):
    protocol = Protocol(meta_steps=1, assets=2, bars=200, first=100)
    row = next(row for row in ROWS if row.key == "online")
    panel, truth = switching_panel(SwitchingWorld(), 0, assets=2, bars=200)

    class Failed:
        failed, bars = np.array([0, 3]), np.array([100, 121])

    monkeypatch.setattr(regimes, "walk_online", lambda *a, **k: Failed)
    with pytest.raises(TrainingError, match="3 meta-steps of updates were not finite"):
        regimes._walk(row, panel, truth, None, 1, protocol)


def test_supports_fit_into_a_stay():
    assert all(world.stay >= WINDOW for world in WORLDS.values())
    assert len({row.key for row in ROWS}) == len(ROWS)
    assert sorted(BUCKETS) == list(BUCKETS) and WINDOW in BUCKETS


@pytest.mark.slow
def test_the_walks_of_the_table_can_be_made(tmp_path):
    tables = reproduce(REGIMES, quick=True, steps=2, out=tmp_path)
    assert all("diverged" not in cell for t in tables for row in t.rows for cell in row)

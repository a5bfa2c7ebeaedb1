"""A run is judged with what was tried before on the same bars."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from market import MARKET, SMALL

from maml_jax.experiment import backtest, load, run
from maml_jax.experiment.evaluation.trials import LEDGER

pytestmark = pytest.mark.usefixtures("no_page")

LEAST = {"training": {"steps": 2}, "backtest": {"samples": 20, "baselines": []}}
TWO = {**LEAST, "learner": {"methods": ["ridge", "matching_networks"]}}
ONE = {**LEAST, "learner": {"methods": ["ridge"]}}


def tried(folder):
    return [json.loads(line) for line in (folder / LEDGER).read_text().splitlines()]


@pytest.mark.slow
def test_what_was_tried_before_on_the_same_bars_counts(tmp_path):
    first = run(SMALL, bars=MARKET, out=tmp_path / "first", **TWO)
    methods = list(first.checkpoints)
    assert first.evaluation.significance.loc["ridge", "trials"] == len(methods) == 2
    assert [each["method"] for each in tried(tmp_path)] == methods

    # Other costs are another trial; the same settings are not.
    second = backtest(
        tmp_path / "first", bars=MARKET, out=tmp_path / "second", backtest={"fee": 0.0}
    )
    assert second.evaluation.significance.loc["ridge", "trials"] == 4
    again = backtest(tmp_path / "first", bars=MARKET, out=tmp_path / "again", backtest={"fee": 0.0})
    assert again.evaluation.significance.loc["ridge", "trials"] == 4
    p_value = second.evaluation.significance.loc["ridge", "p_value"]
    adjusted = second.evaluation.significance.loc["ridge", "p_adjusted"]
    assert adjusted == pytest.approx(1 - (1 - p_value) ** 4)

    # Other bars know nothing of them.
    other = {name: bars * np.linspace(1, 2, len(bars))[:, None] for name, bars in MARKET.items()}
    third = run(SMALL, bars=other, out=tmp_path / "third", **TWO)
    assert third.evaluation.significance.loc["ridge", "trials"] == 2
    assert len(tried(tmp_path)) == 6


@pytest.mark.slow
def test_a_damaged_ledger_is_told_of(tmp_path):
    (tmp_path / LEDGER).write_text("{half a li\n")
    result = run(SMALL, bars=MARKET, out=tmp_path / "run", **ONE)
    assert any("cannot be read" in note.text and LEDGER in note.text for note in result.notes)
    assert load(tmp_path / "run").evaluation.significance.loc["ridge", "trials"] == 1


@pytest.mark.slow
@pytest.mark.long
def test_nothing_is_recorded_of_what_is_not_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run(SMALL, bars=MARKET, **ONE)
    assert result.evaluation.significance.loc["ridge", "trials"] == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_headline_is_ranked_among_its_positions_at_other_times():
    result = run(SMALL, bars=MARKET, **ONE)
    shares = result.evaluation.significance["random_share"]
    assert 0 <= shares["ridge"] <= 1
    assert shares.drop("ridge").isna().all()


def test_a_ledger_that_cannot_be_written_costs_the_record_alone(tmp_path, monkeypatch):
    from maml_jax.experiment.evaluation import inference
    from maml_jax.experiment.evaluation.trials import Trial

    own = [Trial("bars", str(number), "maml", 0.1 * number, 50) for number in range(3)]
    monkeypatch.setattr(inference, "trials_of", lambda *_: own)
    (tmp_path / "trials.jsonl").mkdir()
    counted, notes = inference._trials(
        SimpleNamespace(config=None), None, [], SimpleNamespace(close=None), tmp_path
    )
    assert counted.number == 3 and [note.kind for note in notes] == ["ledger", "ledger"]
    assert "later runs will not count the trials of this one" in notes[0].text

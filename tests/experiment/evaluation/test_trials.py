import json
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest

from maml_jax.errors import RunError
from maml_jax.experiment.config.loading import load_config
from maml_jax.experiment.evaluation.trials import (
    LEDGER,
    Trial,
    count,
    count_alone,
    data_digest,
    record,
    settings_digest,
    trials_of,
)

BARS = 50


def trial(number=0, data="bars", sharpe=0.1, method="maml"):
    return Trial(data, f"settings {number}", method, sharpe, BARS)


def closes(columns=("a", "b"), seed=0):
    index = pd.date_range("2024-01-01", periods=BARS, tz="UTC")
    walk = np.random.default_rng(seed).normal(size=(BARS, len(columns))).cumsum(axis=0)
    return pd.DataFrame(100 + walk, index, list(columns))


def test_distinct_trials_on_the_same_bars_are_counted_once_each(tmp_path):
    assert count(tmp_path, "bars") == (0, 0.0, 0)
    assert not (tmp_path / LEDGER).exists()
    record(tmp_path / "runs", [trial(0, sharpe=0.1), trial(1, sharpe=0.3)])
    record(tmp_path / "runs", [trial(0, sharpe=0.1), trial(0, method="reptile", sharpe=None)])
    record(tmp_path / "runs", [trial(2, data="other bars")])
    found = count(tmp_path / "runs", "bars")
    assert found.number == 3 and found.damaged == 0
    assert found.variance == pytest.approx(np.var([0.1, 0.3], ddof=1))
    assert count(tmp_path / "runs", "other bars").number == 1
    assert len((tmp_path / "runs" / LEDGER).read_text().splitlines()) == 4


def test_what_cannot_be_read_is_counted_apart_and_spoils_nothing(tmp_path):
    record(tmp_path, [trial(0)])
    path = tmp_path / LEDGER
    odd = [b"not json", b"[1, 2]", b'{"data": "bars"}', b"\xff\xfe", b"17"]
    false = {**trial(9)._asdict(), "sharpe": "high"}
    unnamed = {**trial(9)._asdict(), "method": None}
    odd += [json.dumps(false).encode(), json.dumps(unnamed).encode()]
    cut = json.dumps(trial(8)._asdict()).encode()[:-9]  # as a killed process leaves it
    path.write_bytes(path.read_bytes() + b"\n".join(odd) + b"\n\n" + cut)
    record(tmp_path, [trial(1)])
    assert count(tmp_path, "bars")[::2] == (2, len(odd) + 1)
    record(tmp_path, [trial(2)])
    assert count(tmp_path, "bars")[::2] == (3, len(odd) + 1)


def test_many_writers_lose_no_line(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: record(tmp_path, [trial(n), trial(0)]), range(40)))
    assert count(tmp_path, "bars").number == 40
    for line in (tmp_path / LEDGER).read_text().splitlines():
        json.loads(line)


def test_a_ledger_that_cannot_be_written_or_read_is_named(tmp_path):
    (tmp_path / LEDGER).mkdir()
    with pytest.raises(RunError, match=LEDGER):
        record(tmp_path, [trial()])
    with pytest.raises(RunError, match="cannot be read"):
        count(tmp_path, "bars")
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(RunError, match="cannot be written"):
        record(blocked / "runs", [trial()])


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="all is allowed to root")
def test_a_folder_without_leave_is_named(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(RunError, match="cannot be written"):
        record(tmp_path, [trial()])


def test_bars_are_told_apart_by_all_that_they_hold():
    table = closes()
    same = data_digest(table)
    assert data_digest(table[["b", "a"]]) == same == data_digest(table.copy())
    assert data_digest(table.astype(object).astype(float)) == same
    for other in (
        closes(seed=1),
        table.iloc[:-1],
        table.rename(columns={"a": "c"}),
        table.set_axis(table.index + pd.Timedelta(days=1)),
        table.assign(a=table["a"].where(np.arange(BARS) != 3)),
    ):
        assert data_digest(other) != same
    holed = table.copy()
    holed.iloc[3, 0] = np.nan
    odd = holed.copy()
    odd.iloc[3, 0] = -np.nan  # another pattern of bits
    assert data_digest(odd) == data_digest(holed)
    assert data_digest(table.iloc[:0]) != same


def test_settings_are_told_apart_by_what_decides_what_is_earned():
    def digest(**settings):
        return settings_digest(load_config({}, settings))

    same = digest()
    assert digest(learner={"methods": ["reptile", "maml"]}) == same
    assert digest(training={"devices": 1}, backtest={"chunk": 7, "samples": 50}) == same
    assert digest(data={"path": "elsewhere.csv"}) == same
    others = [
        digest(seed=1),
        digest(training={"steps": 7}),
        digest(backtest={"fee": 0.002}),
        digest(learner={"inner_steps": 2}),
        digest(data={"train_start": "2001-01-01"}),
    ]
    assert len({same, *others}) == 6


def test_a_run_makes_a_trial_of_each_method():
    config = load_config({}, {})
    rng = np.random.default_rng(0)
    net = pd.DataFrame({"maml": rng.normal(size=BARS), "idle": 0.0, "spoilt": np.nan, "held": 0.1})
    made = trials_of(config, net, ["maml", "idle", "spoilt"], closes())
    assert [each.method for each in made] == ["maml", "idle", "spoilt"]
    assert made[0].sharpe == pytest.approx(net["maml"].mean() / net["maml"].std())
    assert made[1].sharpe is None and made[2].sharpe is None
    assert count_alone([*made, made[0]]) == (3, 0.0, 0)


def test_trials_of_ones_own_count_though_the_ledger_lacks_them(tmp_path):
    assert count(tmp_path, "bars", [trial(0), trial(1)]).number == 2
    record(tmp_path, [trial(0), trial(2), trial(3, data="others")])
    assert count(tmp_path, "bars", [trial(0), trial(1)]).number == 3

"""Heavy checks against what is known: figures of papers, a market whose best answer can be
computed, and real stocks."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.reproduce import KNOWN_ANSWER, SINUSOID, reproduce
from maml_jax import Batch
from maml_jax.experiment import load_config
from maml_jax.experiment.evaluation.forecasts import predict_all
from maml_jax.experiment.learning.train import make_learner, meta_train
from maml_jax.experiment.preparation.bars import load_bars
from maml_jax.experiment.preparation.prepare import prepare

STOCKS = Path(__file__).parents[4] / "shared/data/stocks/us20_adjclose_daily_1990_2022.csv.gz"
SHARES = {
    "maml": (0.98, 0.97, 0.90),
    "fomaml": (0.97, 0.96, 0.88),
    "anil": (0.97, 0.96, 0.88),
    "meta-sgd": (0.97, 0.96, 0.88),
    "alpaca": (0.98, 0.96, 0.88),
}
"""Of the best possible IC at signal-to-noise ratios of 1, 0.1 and 0.02, by the defaults."""

ERRORS = {
    ("maml-0.01", 1): 0.48,
    ("maml-0.001", 10): 0.22,
    ("fomaml", 10): 0.21,
    ("meta-sgd-10", 1): 0.275,
    ("meta-sgd-5", 1): 0.515,
    ("cavia-2", 1): 0.24,
    ("cavia-5", 1): 0.21,
}
"""Mean squared errors in sinusoid regression after so many steps, from papers and check runs."""


@pytest.mark.slow
def test_learners_come_close_to_the_best_possible_at_the_noise_of_markets(tmp_path):
    reproduce(KNOWN_ANSWER, parts=["learners"], methods=list(SHARES), out=tmp_path)
    record = json.loads((tmp_path / "known-answer.json").read_text())["parts"]["learners"]
    found = {row["key"]: [cell["share"] for cell in row["cells"]] for row in record["rows"]}
    assert list(found) == list(SHARES)
    for key, shares in SHARES.items():
        assert (np.array(found[key]) >= shares).all(), (key, found[key])


@pytest.mark.slow
def test_figures_of_papers_are_reached(tmp_path):
    reproduce(SINUSOID, methods=[key for key, _ in ERRORS], out=tmp_path)
    record = json.loads((tmp_path / "sinusoid.json").read_text())["rows"]
    found = {
        (row["key"], figure["steps"]): figure["mean"] for row in record for figure in row["figures"]
    }
    for key, limit in ERRORS.items():
        assert found[key] <= limit, (key, found[key])


@pytest.mark.slow
@pytest.mark.skipif(not STOCKS.exists(), reason=f"needs {STOCKS.name}, which is not distributed")
def test_walk_forward_on_twenty_stocks_equals_a_naive_loop():
    config = load_config(
        Path(__file__).parents[3] / "examples/us20.toml",
        {"data.path": str(STOCKS), "learner.methods": ["maml"]},
    )
    prepared = prepare(config, load_bars(config))
    params, _ = meta_train(prepared, "maml")
    fast = predict_all(prepared, {"maml": params}).predicted["maml"].mean
    panel, learner = prepared.panel, make_learner(config, "maml")
    x, y = np.asarray(panel.features), np.asarray(panel.targets)
    valid, end = np.asarray(panel.valid), np.asarray(panel.label_end)
    window, count = config.task.support, 0
    for asset in prepared.test_assets:
        a = panel.assets.index(asset)
        for t in range(prepared.test_first, prepared.test_last + 1):
            known = np.flatnonzero(valid[a, :t] & (end[a, :t] <= t))[-window:]
            adapted = learner.adapt(params, Batch(x[a, known], y[a, known][:, None]))
            slow = float(learner.predict(adapted, x[a, t][None])[0, 0])
            assert abs(slow - fast.at[panel.timestamps[t], asset]) < 1e-5
            count += 1
    print(f"{count} windows agree")
    assert count > 16_000

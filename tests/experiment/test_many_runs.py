"""The job that blocked for ever now and then with jaxlib 0.10: fifteen assets, hourly bars."""

import os
import subprocess
import sys

import pandas as pd
import pytest
from helpers import random_market

RUNS = int(os.environ.get("MAML_JAX_TEST_RUNS", "20"))
LIMIT = 900
"""Seconds that one run may take; the first compiles, which takes a minute or two."""

CONFIG = """
[data]
path = "market.csv"
train_end = 2020-07-15
test_start = 2020-07-16
[learner]
methods = ["alpaca", "ridge"]
[training]
steps = 20
[backtest]
baselines = ["ridge"]
samples = 50
"""


@pytest.mark.slow
def test_many_runs_in_a_row_come_to_an_end(tmp_path):
    market = pd.concat(random_market(count=6000, assets=15, step="h"), names=["symbol"])
    market.reset_index().to_csv(tmp_path / "market.csv", index=False)
    (tmp_path / "config.toml").write_text(CONFIG)
    environment = os.environ | {
        "JAX_ENABLE_COMPILATION_CACHE": "true",
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "cache"),
        "JAX_NUM_CPU_DEVICES": "2",
        "NPROC": "2",  # no thread to spare
        "XLA_FLAGS": "",
    }
    command = [sys.executable, "-m", "maml_jax", "run", "config.toml", "--out"]
    for number in range(RUNS):
        process = subprocess.run(
            [*command, f"run-{number}"],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=LIMIT,
        )
        assert process.returncode == 0, process.stderr

"""Two processes that meet over loopback, with four devices each, against one process."""

import os
import socket
import subprocess
import sys

import jax
import numpy as np
import pandas as pd
import pytest
from helpers import random_market

from maml_jax.experiment import load, run

SETTINGS = {
    "data": {"path": "market.parquet", "train_end": "2020-06-08", "test_start": "2020-06-09"},
    "features": {"window": 5, "fast": 3, "slow": 5},
    "target": {"horizon": 3, "volatility_window": 5},
    "task": {"support": 10, "query": 5},
    "model": {"hidden": [8]},
    "learner": {"methods": ["maml"], "inner_steps": 2},
    "training": {"steps": 6, "meta_batch": 13},
}


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def start(arguments, process, port, folder):
    environment = os.environ | {
        "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
        "JAX_NUM_PROCESSES": "2",
        "JAX_PROCESS_ID": str(process),
        "JAX_ENABLE_COMPILATION_CACHE": "false",
        "XLA_FLAGS": os.environ["XLA_FLAGS"].replace("device_count=8", "device_count=4"),
    }
    return subprocess.Popen(
        [sys.executable, "-m", "maml_jax", *arguments, "--distributed"],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run_both(arguments, folder):
    port = free_port()
    processes = [start(arguments, number, port, folder) for number in range(2)]
    try:
        outputs = [process.communicate(timeout=300) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [p.returncode for p in processes], *zip(*outputs, strict=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("distributed")
    market = pd.concat(random_market(count=260, assets=2), names=["symbol"])
    market.reset_index().to_parquet(folder / "market.parquet")
    alone = SETTINGS | {"data": SETTINGS["data"] | {"path": str(folder / "market.parquet")}}
    result = run(alone)
    (folder / "config.toml").write_text(result.config.to_toml())
    result.save(folder / "alone")
    return folder


@pytest.mark.slow
def test_two_processes_do_what_one_does(folder):
    codes, out, err = run_both(["run", "config.toml", "--out", "both"], folder)
    assert codes == [0, 0], err
    assert "Sharpe Ratio" in out[0] and "Sharpe Ratio" not in out[1]
    assert {path.name for path in folder.glob(".*")} <= {".trials.lock"}

    alone, both = load(folder / "alone"), load(folder / "both")
    for a, b in zip(
        jax.tree.leaves(alone.checkpoints["maml"].params),
        jax.tree.leaves(both.checkpoints["maml"].params),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        alone.predictions["prediction"], both.predictions["prediction"], rtol=1e-4, atol=1e-5
    )
    np.testing.assert_allclose(alone.history["loss"], both.history["loss"], rtol=1e-5)
    assert (folder / "both" / "report.html").stat().st_size > 10_000


@pytest.mark.slow
def test_two_processes_walk_forward_with_what_one_trained(folder):
    codes, _, err = run_both(["backtest", "alone", "--out", "again"], folder)
    assert codes == [0, 0], err
    alone, again = load(folder / "alone"), load(folder / "again")
    np.testing.assert_allclose(
        alone.predictions["prediction"], again.predictions["prediction"], rtol=1e-4, atol=1e-5
    )

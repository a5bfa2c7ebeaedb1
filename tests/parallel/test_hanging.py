"""Nothing blocks for ever where XLA's pool has no more threads than there are CPU devices.

Each job is a process of its own: what blocks inside of compiled code is only ended from outside.
"""

import os
import subprocess
import sys

import pytest

LIMIT = 240
"""Seconds; a job takes a tenth of it on one slow core."""

START = """
import sys, jax, jax.numpy as jnp, numpy as np, optax
jax.config.update("jax_num_cpu_devices", {devices})
from helpers import sinusoid_sampler
from maml_jax import fit, maml, meta
from maml_jax.learners import alpaca, ridge
from maml_jax.meta import linalg
from maml_jax.parallel.machine import pool_threads
from maml_jax.parallel.map import map_tasks
from maml_jax.models import mlp
assert pool_threads() <= max({devices}, 2), pool_threads()
matrices = np.random.default_rng(0).standard_normal((4096, 11, 11)).astype("float32")
matrices = matrices @ matrices.swapaxes(-1, -2) + np.eye(11, dtype="float32")
"""

MAP = """
operations = {
    "eigh": lambda a: jnp.linalg.eigh(a)[0],
    "cholesky": jnp.linalg.cholesky,
    "solve": lambda a: jnp.linalg.solve(a, a[:, :1]) + jnp.linalg.solve(a, a[:, 1:2] + 1),
    "inv": jnp.linalg.inv,
    "fft": lambda a: jnp.abs(jnp.fft.fft(a)),
    "library": lambda a: linalg.solve_spd(a, a[:, :1]) + linalg.inverse_spd(a) + linalg.eigh(a)[1],
}
for size in (16, 512, 4096):
    for _ in range(3):
        found = map_tasks(operations["OPERATION"], matrices[:size], devices={devices}, chunk=1024)
        assert np.isfinite(found).all()
"""

CALLS = ("eigh", "cholesky", "solve", "inv", "fft", "library")

FIT = """
learners = {
    "alpaca": alpaca(mlp((16, 8))),
    "ridge": ridge(mlp((16, 8))),
    "own": maml(meta.Model(lambda key, x: {"w": jnp.eye(4)}, own), inner_steps=2),
}
for devices in (1, {devices}):
    state, history = fit(
        learners["LEARNER"], optax.sgd(1e-3), sinusoid_sampler(tasks=256), jax.random.key(0),
        steps=20, devices=devices, chunk=128,
    )
    assert np.isfinite(history.loss).all()
"""

OWN = """
def own(params, x):
    basis = jnp.concatenate([x, x**2, jnp.sin(x), jnp.ones_like(x)], axis=1)
    system = params["w"] @ params["w"].T + basis.T @ basis / len(x) + jnp.eye(4)
    return basis @ jnp.linalg.solve(system, jnp.ones((4, 1)))
"""

WALK = """
from helpers import random_market
from maml_jax.experiment import run
run(bars=random_market(count=1200, assets=3), data={"train_end": "2021-12-31"},
    learner={"methods": ["alpaca", "ridge"]}, model={"hidden": [8]}, training={"steps": 4},
    backtest={"baselines": ["ridge"], "samples": 50})
"""


def finish(script, devices):
    environment = {name: value for name, value in os.environ.items() if name != "NPROC"}
    environment["PYTHONPATH"] = os.pathsep.join(["tests", environment.get("PYTHONPATH", "")])
    environment["XLA_FLAGS"] = environment.get("XLA_FLAGS", "").replace(
        "--xla_force_host_platform_device_count=8", ""
    )
    if devices == 2:  # a pool of two threads however many cores there are
        environment["NPROC"] = "2"
    script = (START + script).replace("{devices}", str(devices))
    process = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", script],
        env=environment,
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    assert process.returncode == 0, process.stderr


def some_of(cases, often):
    """Each case takes seconds: some run with all tests, the rest with the slow ones."""
    marks = {True: pytest.mark.long, False: pytest.mark.slow}
    return [
        pytest.param(*(c if isinstance(c, tuple) else (c,)), marks=marks[c in often]) for c in cases
    ]


@pytest.mark.parametrize(
    ("name", "devices"),
    some_of(
        [
            (name, n)
            for name in ("eigh", "cholesky", "solve", "inv", "fft", "library")
            for n in (2, 8)
        ],
        [("solve", 8)],
    ),
)
def test_calls_of_tasks_on_all_devices_come_to_an_end(name, devices):
    finish(MAP.replace("OPERATION", name), devices)


@pytest.mark.parametrize(
    ("name", "devices"),
    some_of(
        [(name, n) for name in ("alpaca", "ridge", "own") for n in (2, 8)],
        [("own", 2)],
    ),
)
def test_training_comes_to_an_end_whatever_the_model_solves(name, devices):
    finish(OWN + FIT.replace("LEARNER", name), devices)


@pytest.mark.slow
@pytest.mark.parametrize("devices", some_of([2, 8], [2]))
def test_walking_forward_comes_to_an_end(devices):
    finish(WALK, devices)

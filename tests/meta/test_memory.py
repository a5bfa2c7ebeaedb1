"""Programs of learners that are gone are released."""

import subprocess
import sys

import pytest

SCRIPT = """
import jax, optax
from pathlib import Path
from maml_jax import fit, maml
from maml_jax.models import mlp
from maml_jax.worlds.sinusoid import sinusoid_sampler

def resident():
    (line,) = [l for l in Path("/proc/self/status").read_text().splitlines() if "VmRSS" in l]
    return int(line.split()[1]) / 1000

def train():
    learner = maml(mlp((16, 1)), inner_steps=2)
    sampler = sinusoid_sampler(meta_batch=4, shots=5)
    fit(learner, optax.adam(1e-3), sampler, jax.random.key(0), steps=3)

train()
before = resident()
for number in range(200):
    train()
    if number % 20 == 19:
        print(number + 1, round(resident() - before), flush=True)
"""


@pytest.mark.slow
def test_two_hundred_fresh_learners_leave_little_behind():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    number, grown = map(int, done.stdout.splitlines()[-1].split())
    assert number == 200
    assert grown < 100, done.stdout

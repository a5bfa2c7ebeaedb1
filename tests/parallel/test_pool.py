"""Programs whose calls could wait for XLA's own pool for ever take batches in turn."""

import jax
import jax.numpy as jnp
import jax.scipy.linalg
import numpy as np
import pytest

from maml_jax.meta import linalg
from maml_jax.parallel import machine, pool
from maml_jax.parallel.cost import count_cost
from maml_jax.parallel.map import map_tasks
from maml_jax.parallel.pool import FFT, LAPACK, find_calls, without_waiting

RNG = np.random.default_rng(0)
BATCH = RNG.standard_normal((2, 3, 4, 4)).astype(np.float32)
BATCH = jnp.asarray(BATCH @ BATCH.swapaxes(-1, -2) + 3 * np.eye(4, dtype=np.float32))

OPERATIONS = {
    "eigh": lambda a: jnp.linalg.eigh(a),
    "cholesky": jnp.linalg.cholesky,
    "solve": lambda a: jnp.linalg.solve(a, a[..., :2] + 1),
    "inv": jnp.linalg.inv,
    "cho_solve": lambda a: jax.scipy.linalg.cho_solve(jax.scipy.linalg.cho_factor(a), a),
    "triangular": lambda a: jax.scipy.linalg.solve_triangular(a, a[..., 0], lower=True),
    "qr": jnp.linalg.qr,
    "svd": lambda a: jnp.linalg.svd(a)[1],
    "det": jnp.linalg.slogdet,
    "eig": lambda a: jnp.sort(jnp.linalg.eig(a)[0].real, -1),
    "fft": lambda a: jnp.abs(jnp.fft.fft(a)),
    "irfft2": lambda a: jnp.fft.irfft2(jnp.fft.rfft2(a) * 2),
    "gradient": lambda a: jax.grad(lambda a: jnp.linalg.slogdet(a @ a.mT)[1].sum())(a),
    "scan": lambda a: jax.lax.scan(lambda c, x: (jnp.linalg.inv(x + c), c), a[0], a)[0],
    "while": lambda a: jax.lax.fori_loop(0, 3, lambda _, a: jnp.linalg.inv(a), a),
    "cond": lambda a: jax.lax.cond(a.sum() > 0, jnp.linalg.inv, lambda a: a, a),
    "remat": lambda a: jax.grad(lambda a: jax.checkpoint(jnp.linalg.inv)(a).sum())(a),
}


@pytest.fixture
def small_pool(monkeypatch):
    monkeypatch.setattr(pool, "waiting_calls", lambda: LAPACK | FFT)
    monkeypatch.setattr(pool, "pool_threads", lambda: 8)


@pytest.mark.slow
@pytest.mark.parametrize("name", OPERATIONS)
def test_what_is_taken_in_turn_has_the_same_results_and_nothing_to_wait_for(name, small_pool):
    function = jax.vmap(OPERATIONS[name])
    safe = without_waiting(function)
    expected, found = jax.jit(function)(BATCH), jax.jit(safe)(BATCH)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-4, 1e-5), expected, found)
    before, after = (jax.make_jaxpr(each)(BATCH).jaxpr for each in (function, safe))
    assert find_calls(before, LAPACK | FFT, batched=True)
    assert not find_calls(after, LAPACK | FFT, batched=True)


def test_a_program_stays_as_it_is_where_the_pool_has_threads_to_spare(small_pool, monkeypatch):
    function = jax.vmap(jnp.linalg.cholesky)  # one call, on any of eight devices

    def calls():
        jaxpr = jax.make_jaxpr(without_waiting(function))(BATCH)
        return find_calls(jaxpr.jaxpr, LAPACK, batched=True)

    assert calls() == ()
    monkeypatch.setattr(pool, "pool_threads", lambda: 9)
    assert calls() == ("cholesky",)


def test_the_cost_of_a_task_names_the_calls_that_may_wait():
    def function(a):
        return jnp.linalg.eigh(a)[0] + jnp.abs(jnp.fft.fft(a[0])) + jnp.linalg.inv(a)[0]

    found = count_cost(jax.make_jaxpr(function)(BATCH[0, 0]).jaxpr).pool_calls
    assert {"eigh", "fft", "lu", "triangular_solve"} == set(found)
    assert count_cost(jax.make_jaxpr(lambda a: a @ a)(BATCH[0, 0]).jaxpr).pool_calls == ()


def test_one_matrix_after_another_is_no_batch(monkeypatch):
    monkeypatch.setattr(linalg, "lapack_waits", lambda: True)

    def function(a):
        return linalg.solve_spd(a, a) + linalg.inverse_spd(a) + linalg.eigh(a)[1]

    jaxpr = jax.make_jaxpr(jax.vmap(jax.vmap(function)))(BATCH).jaxpr
    assert find_calls(jaxpr, LAPACK)
    assert not find_calls(jaxpr, LAPACK, batched=True)


@pytest.mark.parametrize("devices", [1, 8])
def test_tasks_that_could_wait_are_taken_in_turn_and_the_log_says_why(
    devices, small_pool, monkeypatch, caplog
):
    monkeypatch.setattr("maml_jax.parallel.map.waiting_calls", lambda: LAPACK | FFT)
    caplog.set_level("INFO", "maml_jax")
    tasks = jnp.concatenate([BATCH.reshape(-1, 4, 4)] * 4)

    def function(a, scale):
        return jnp.linalg.inv(a) * scale

    found = map_tasks(function, tasks, 2.0, devices=devices)
    np.testing.assert_allclose(found, 2 * np.linalg.inv(tasks), rtol=1e-4, atol=1e-5)
    assert "could wait for XLA's pool of 8 threads" in caplog.text
    assert "batches are taken in turn" in caplog.text and "NPROC" in caplog.text


@pytest.mark.parametrize(
    ("version", "lapack", "fft"),
    [
        ("0.8.3", False, False),
        ("0.9.2", False, False),
        ("0.10.0", True, False),
        ("0.10.2", True, False),
        ("0.11.2", False, True),
        ("1.0", False, True),
    ],
)
def test_the_release_of_jaxlib_decides_what_waits(version, lapack, fft, monkeypatch):
    monkeypatch.setattr("jaxlib.version.__version__", version)
    assert (machine.lapack_waits(), machine.fft_waits()) == (lapack, fft)

"""Checks the shapes in signatures during tests, and gives JAX eight devices on the CPU.

Real bars lie beside the project on some machines.
"""

import atexit
import os
from importlib.metadata import version
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Tests wait for the compiler, hardly ever for what it made; without emitters of their own, which
# can be switched off up to 0.10, fusions are compiled in half of the time.
emitters = " --xla_cpu_use_fusion_emitters=false"
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    + emitters * (int(version("jaxlib").split(".")[1]) <= 10)
    + " --xla_force_host_platform_device_count=8",
)

# What one test compiles serves the others, and the processes that they start; it stays in no cache
# of the user's.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    folder = mkdtemp(prefix="maml-jax-tests-")
    atexit.register(rmtree, folder, ignore_errors=True)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = folder
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"

from jaxtyping import config, install_import_hook  # noqa: E402

CHECKED = [
    f"maml_jax.{name}" for name in ("parallel", "meta", "learners", "models", "tasks", "worlds")
]
install_import_hook(CHECKED, "beartype.beartype")

import jax  # noqa: E402
import pytest  # noqa: E402
from hypothesis import settings  # noqa: E402

settings.register_profile("default", deadline=None, derandomize=True)
settings.load_profile("default")

SHARED = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="module", autouse=True)
def drop_compiled_programs():
    """Keep the memory of a process that runs hundreds of tests in bounds."""
    yield
    jax.clear_caches()


@pytest.fixture
def unchecked(monkeypatch):
    """Call functions as users do, without a check of types that speaks before the library does."""
    monkeypatch.setattr(config, "jaxtyping_disable", True)


@pytest.fixture
def no_page(monkeypatch):
    """Write run directories with an empty page, where a test is of something else: it takes half
    of the time."""
    monkeypatch.setattr("maml_jax.experiment.tear_sheet.tear_sheet", lambda *_: None)
    monkeypatch.setattr("maml_jax.experiment.tear_sheet.render", lambda _: "<html></html>")


@pytest.fixture(scope="session")
def shared_data():
    if not SHARED.is_dir():
        pytest.skip(f"needs the real bars of {SHARED}")
    return SHARED


def pytest_collection_modifyitems(items):
    """Slow tests take minutes to hours: they end when they end, unless they say otherwise."""
    for item in items:
        if item.get_closest_marker("slow") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(0))

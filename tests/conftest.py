"""Checks the shapes in signatures during tests, and gives JAX eight devices on the CPU.

Real bars lie beside the project on some machines.
"""

import os
from importlib.metadata import version
from pathlib import Path

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

# What a test compiles stays in no cache of the user's.
os.environ.setdefault("JAX_ENABLE_COMPILATION_CACHE", "false")

from jaxtyping import install_import_hook  # noqa: E402

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

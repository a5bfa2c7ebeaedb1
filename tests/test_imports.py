"""What an import loads: seconds of libraries only where they are used."""

import json
import subprocess
import sys

import pytest

HEAVY = ("arch", "jax", "matplotlib", "pandas", "scipy.stats", "statsmodels", "yfinance")
TABLES = {*HEAVY} - {"pandas"}
STEPS = {
    "maml_jax": {*HEAVY},
    "maml_jax.cli.main": {*HEAVY},
    "maml_jax.data": TABLES,
    "maml_jax.features": TABLES,
    "maml_jax.backtest": TABLES - {"jax"},
    "maml_jax.report": TABLES - {"jax"},
}
"""What is imported, one after the other, and what must not be loaded by then."""

LOOK = """
import importlib, json, sys
seen = {}
for name, heavy in json.loads(sys.argv[1]).items():
    importlib.import_module(name)
    seen[name] = sorted({*heavy} & {*sys.modules})
print(json.dumps(seen))
"""


@pytest.fixture(scope="module")
def seen():
    wanted = json.dumps({name: sorted(heavy) for name, heavy in STEPS.items()})
    done = subprocess.run([sys.executable, "-c", LOOK, wanted], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", STEPS)
def test_an_import_loads_nothing_heavy(seen, name):
    assert seen[name] == []


def test_every_public_name_is_there():
    import maml_jax

    assert {*maml_jax.__all__} <= {*dir(maml_jax)}
    for name in maml_jax.__all__:
        assert getattr(maml_jax, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'mmal'"):
        maml_jax.mmal  # noqa: B018

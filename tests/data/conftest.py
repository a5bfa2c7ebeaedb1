"""An exchange, a store, and real bars that lie beside the project on some machines."""

from pathlib import Path

import pytest
from bybit_server import Exchange

from maml_jax.data import Store

SHARED = Path(__file__).parents[3] / "shared" / "data"


@pytest.fixture
def shared_data():
    if not SHARED.is_dir():
        pytest.skip(f"needs the real bars of {SHARED}")
    return SHARED


@pytest.fixture
def exchange():
    return Exchange()


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")

"""An exchange, an archive and a store."""

import pytest
from binance_server import Archive
from bybit_server import Exchange

from maml_jax.data import Store


@pytest.fixture
def exchange():
    return Exchange()


@pytest.fixture
def archive():
    return Archive()


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")

"""An exchange on loopback, a broker at it and a book."""

import exchange_server
import pytest
from exchange_server import Exchange, serving

from maml_jax.data.sources.http import Retries
from maml_jax.live.bybit_broker import BybitBroker
from maml_jax.live.order_book import OrderBook


@pytest.fixture(autouse=True)
def keys(monkeypatch):
    for name, value in exchange_server.KEYS.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def exchange():
    return Exchange()


@pytest.fixture
def broker(exchange):
    with serving(exchange) as address:
        yield BybitBroker(address, retries=Retries(4, first=0.001), per_second=None)


@pytest.fixture
def book(tmp_path):
    with OrderBook(tmp_path / "orders.db") as made:
        yield made

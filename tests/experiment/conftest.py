import pytest
from market import MARKET, SMALL

from maml_jax.experiment import run


@pytest.fixture(scope="package")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "first"
    return run(SMALL, bars=MARKET, out=path), path

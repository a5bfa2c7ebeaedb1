"""Real bars that lie beside the project on some machines."""

from pathlib import Path

import pytest

SHARED = Path(__file__).parents[3] / "shared" / "data"


@pytest.fixture
def shared_data():
    if not SHARED.is_dir():
        pytest.skip(f"needs the real bars of {SHARED}")
    return SHARED

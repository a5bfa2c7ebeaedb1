"""The page on own learners: its code is short and passes the battery."""

import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.long

PAGE = Path(__file__).parents[2] / "docs" / "own_learner.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)


@pytest.fixture(scope="module")
def names():
    found = {}
    for block in BLOCKS:
        exec(compile(block, str(PAGE), "exec"), found)
    return found


def test_a_learner_takes_less_than_25_lines():
    for block in BLOCKS[:2]:
        assert sum(bool(line.strip()) for line in block.splitlines()) < 25


@pytest.mark.parametrize(
    "name", ["test_recentred", pytest.param("test_rescaled", marks=pytest.mark.slow)]
)
def test_it_passes_the_battery(names, name):
    names[name]()

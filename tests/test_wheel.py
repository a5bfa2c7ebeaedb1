"""The wheel holds the library alone: studies, benchmarks and tests stay in the repository."""

import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_the_wheel_holds_all_of_the_library_and_nothing_else():
    setuptools = pytest.importorskip("setuptools")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    options = project["tool"]["setuptools"]["packages"]["find"]
    found = set(setuptools.find_namespace_packages(str(ROOT), **options))
    assert {name.split(".")[0] for name in found} == {"maml_jax"}
    code = {path.parent.relative_to(ROOT) for path in ROOT.glob("maml_jax/**/*.py")}
    assert {".".join(folder.parts) for folder in code} <= found

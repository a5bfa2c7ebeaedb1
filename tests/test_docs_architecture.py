"""The pages on the architecture are short, and name files and imports that there are."""

import html
import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "architecture"
PAGES = sorted(FOLDER.glob("*.md"))
FILES = {
    f"/{path.relative_to(ROOT)}"
    for folder in ("benchmarks", "docs", "examples", "maml_jax", "tests")
    for path in (ROOT / folder).rglob("*.*")
}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_is_short_and_every_package_has_one(page):
    assert page.read_text("utf-8").count("\n") <= 80
    packages = {path.parent.name for path in (ROOT / "maml_jax").glob("*/__init__.py")}
    assert packages <= set(re.findall(r"`(\w+)`", (FOLDER / "README.md").read_text("utf-8")))


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=lambda page: page.stem)
def test_files_that_are_named_exist(page):
    text = page.read_text("utf-8")
    named = set(re.findall(r"`([\w/]+\.(?:py|html|toml|json))`", text)) - {
        "about.json", "config.toml", "metrics.json",
    }  # fmt: skip
    assert not {name for name in named if not any(file.endswith(f"/{name}") for file in FILES)}
    links = re.findall(r"\]\((?!http)([^)#]+)\)", text)
    assert not {link for link in links if not (page.parent / link).exists()}


def test_the_picture_shows_the_imports():
    spec = importlib.util.spec_from_file_location("draw", FOLDER / "draw.py")
    assert spec is not None and spec.loader is not None
    draw = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(draw)
    picture = html.unescape(draw.PICTURE.read_text("utf-8"))
    assert draw.describe() in picture, "run `make architecture`"

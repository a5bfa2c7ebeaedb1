"""What the page on reports shows does what it says, and names what there is."""

import re
from pathlib import Path

from matplotlib.figure import Figure

from maml_jax import report

PAGE = Path(__file__).parents[2] / "docs" / "report.md"


def test_the_example_draws():
    text = PAGE.read_text(encoding="utf-8")
    (block,) = re.findall(r"```python\n(.*?)```", text, re.S)
    names = {}
    exec(compile(block.replace("\nplot_", "\n_ = plot_"), str(PAGE), "exec"), names)
    assert isinstance(names["_"], Figure)


def test_every_figure_is_named():
    text = PAGE.read_text(encoding="utf-8")
    there = {name for name in vars(report) if name.startswith("plot_")}
    assert there == set(re.findall(r"`(plot_\w+)`", text))

"""Tables of the tear sheet on choosing among methods, and on the paths of folds."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from maml_jax.report.run_tables import RunTables
from maml_jax.report.tear_sheet import Grid

_FIGURES = {
    "probability": (
        "risk that the pick was overfitted",
        "how often the best method on half of the bars ranks in the lower half of methods on the "
        "other half; about 0.5 where no method is better than the rest",
    ),
    "loss_probability": (
        "risk of loss",
        "how often the chosen method loses on the other half",
    ),
    "slope": (
        "slope",
        "how much its Sharpe ratio there rises with the one it was chosen for; negative where the "
        "best become the worst",
    ),
    "splits": ("splits", "ways to choose half of the bars, in blocks"),
    "methods": ("methods", "the candidates"),
}
"""Name and meaning of each figure."""


def describe_overfitting(tables: RunTables) -> list[Grid]:
    """Show how overfitted the choice of a method is, and how results differ between paths."""
    figures = dict(tables.overfitting)
    paths = figures.pop("paths", None)
    grids = [_show_figures(figures)] if figures else []
    if isinstance(paths, Mapping) and paths:
        grids.append(_show_paths(paths, tables))
    return grids


def _show_figures(figures: Mapping[str, Any]) -> Grid:
    rows, meanings = {}, []
    for key, value in figures.items():
        name, meaning = _FIGURES.get(key, (key.replace("_", " "), ""))
        rows[name] = ", ".join(map(str, value)) if isinstance(value, list | tuple) else value
        if meaning:
            meanings.append(f"{name}: {meaning}")
    caption = ". ".join(each[0].upper() + each[1:] for each in meanings)
    table = pd.DataFrame({"value": rows}, dtype=object)
    return Grid("Choosing among the methods", table, f"{caption}." if caption else "")


def _show_paths(paths: Mapping[str, Any], tables: RunTables) -> Grid:
    """Show the Sharpe ratios of every strategy on the paths of combinatorial folds."""
    rows = {}
    for name in [
        *(n for n in tables.order if n in paths),
        *(n for n in paths if n not in tables.order),
    ]:
        ratios = pd.to_numeric(pd.Series(list(paths[name]), dtype=object)).astype("float64")
        ratios = ratios.where(np.isfinite(ratios))
        rows[name] = {"lowest": ratios.min(), "median": ratios.median(), "highest": ratios.max(),
                      "paths": len(ratios)}  # fmt: skip
    table = pd.DataFrame.from_dict(rows, orient="index").astype({"paths": int})
    return Grid(
        "Sharpe ratio on each path",
        table.rename_axis("strategy"),
        "Combinatorial folds combine into several paths through the test span; all other tables "
        "show the first. They also train on later bars and share most of them, so lowest to "
        "highest is not a forecast interval.",
        tables.headline,
    )

"""The tables of a tear sheet that tell what choosing among methods and folds is worth."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from maml_jax.report.run_tables import RunTables
from maml_jax.report.tear_sheet import Grid

_FIGURES = {
    "probability": (
        "probability of overfitting",
        "how often the method that is best on half of the bars is in the lower half of the methods "
        "on the others; about 0.5 where none is better than the rest",
    ),
    "loss_probability": (
        "probability of loss",
        "how often the chosen method loses on the others",
    ),
    "slope": (
        "slope",
        "by how much its Sharpe ratio there rises with the one that it was chosen for; negative "
        "where the best become the worst",
    ),
    "splits": ("splits", "ways to take half of the bars, in blocks"),
    "methods": ("methods", "those that were chosen from"),
}
"""Names of figures, and what each is."""


def overfitting(tables: RunTables) -> list[Grid]:
    """Return what choosing the best method is worth, and how results differ from path to path."""
    told = dict(tables.overfitting)
    paths = told.pop("paths", None)
    grids = [_figures(told)] if told else []
    if isinstance(paths, Mapping) and paths:
        grids.append(_paths(paths, tables))
    return grids


def _figures(told: Mapping[str, Any]) -> Grid:
    rows, meant = {}, []
    for key, value in told.items():
        name, meaning = _FIGURES.get(key, (key.replace("_", " "), ""))
        rows[name] = ", ".join(map(str, value)) if isinstance(value, list | tuple) else value
        if meaning:
            meant.append(f"{name}: {meaning}")
    caption = ". ".join(each[0].upper() + each[1:] for each in meant)
    table = pd.DataFrame({"value": rows}, dtype=object)
    return Grid("Choosing among the methods", table, f"{caption}." if caption else "")


def _paths(paths: Mapping[str, Any], tables: RunTables) -> Grid:
    """Lay out the Sharpe ratios of every strategy on the paths of combinatorial folds."""
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
        "Sharpe ratio from path to path",
        table.rename_axis("strategy"),
        "Combinatorial folds join to several paths through the test span; every other table is of "
        "the first. They are trained on what came later too and share most of it, so that what "
        "lies between lowest and highest is no interval of what is to come.",
        tables.headline,
    )

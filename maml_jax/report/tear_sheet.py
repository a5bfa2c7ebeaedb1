"""The tear sheet: one HTML file that shows a run to a person, and needs nothing else."""

import base64
import io
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure

NONE = "–"


class TearSheet(NamedTuple):
    """What a tear sheet shows.

    Attributes:
        title: the heading.
        verdict: one sentence under it.
        notes: what a reader must know before the figures.
        figures: by caption.
        stats: one column per strategy, one row per figure.
        tables: by caption, further tables, such as one row per regime or per asset.
        settings: `section -> key -> value`.
        versions: `package -> version`.
    """

    title: str
    verdict: str
    notes: tuple[str, ...]
    figures: Mapping[str, Figure]
    stats: pd.DataFrame
    tables: Mapping[str, pd.DataFrame]
    settings: Mapping[str, Mapping[str, object]]
    versions: Mapping[str, str]


def render(sheet: TearSheet) -> str:
    """Return the tear sheet as one self-contained HTML page."""
    environment = Environment(
        loader=PackageLoader("maml_jax", "report"), autoescape=True, undefined=StrictUndefined
    )
    return environment.get_template("tear_sheet.html").render(
        sheet=sheet,
        images={caption: _image(figure) for caption, figure in sheet.figures.items()},
        stats=format_table(sheet.stats),
        tables={caption: format_table(table) for caption, table in sheet.tables.items()},
    )


def format_table(table: pd.DataFrame) -> pd.DataFrame:
    """Write every value of a table as a person reads it."""
    return table.astype(object).map(format_value)


def format_value(value: object) -> str:
    """Write one value as a person reads it.

    >>> [format_value(v) for v in (1234.5678, 0.01234, 3, float("nan"), pd.Timestamp("2020-01-02"))]
    ['1,234.57', '0.0123', '3', '–', '2020-01-02']
    """
    if isinstance(value, pd.Timestamp):
        at_midnight = value == value.normalize()
        return value.strftime("%Y-%m-%d" if at_midnight else "%Y-%m-%d %H:%M")
    if isinstance(value, pd.Timedelta):
        days = value / pd.Timedelta(days=1)
        return f"{days:,.0f} days" if days >= 2 else str(value)
    if value is None or value is pd.NaT or (isinstance(value, float) and value != value):
        return NONE
    if isinstance(value, bool | str):
        return str(value)
    if isinstance(value, int | np.integer):
        return f"{value:,d}"
    if not isinstance(value, float):
        return str(value)
    return f"{value:.4f}" if 0 < abs(value) < 0.1 else f"{value:,.2f}"


def _image(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=160)
    return base64.b64encode(buffer.getvalue()).decode("ascii")

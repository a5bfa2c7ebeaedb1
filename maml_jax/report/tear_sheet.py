"""The tear sheet: one self-contained HTML file."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
import pandas as pd

from maml_jax.atomic import write_atomically
from maml_jax.errors import RunError
from maml_jax.listing import MOST, join_names

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NONE = "–"

COLUMNS = 8
"""Columns that fit on paper; a wider table is split."""

_HEAVY = 250_000
"""Bytes of an SVG beyond which it becomes a PNG."""


class Tile(NamedTuple):
    """One figure of the strip at the top.

    Attributes:
        label: with units.
        value: formatted.
        detail: an interval, or a figure to compare with.
    """

    label: str
    value: str
    detail: str = ""


class Plot(NamedTuple):
    """A figure with a heading and a caption.

    Attributes:
        title: its heading.
        caption: one line that says how to read it; also the alternative text of the image.
        figure: the figure.
        narrow: the figure for phones, where a wide one would be too small to read.
        wide: whether it takes the whole width of the page, or half of it.
    """

    title: str
    caption: str
    figure: Figure
    narrow: Figure | None = None
    wide: bool = False


class Grid(NamedTuple):
    """A table with a heading and a caption.

    Attributes:
        title: its heading.
        table: the values, formatted when shown; text stays as it is.
        caption: how to read it.
        strong: the row to highlight.
        columns: how many fit side by side.
    """

    title: str
    table: pd.DataFrame
    caption: str = ""
    strong: object = None
    columns: int = COLUMNS


Block: TypeAlias = Plot | Grid


class Section(NamedTuple):
    """A section of the page: a heading, a sentence or two, figures and tables."""

    title: str
    blocks: tuple[Block, ...]
    text: str = ""


class TearSheet(NamedTuple):
    """What a tear sheet shows.

    Attributes:
        title: the heading.
        verdict: a few sentences that come first.
        notes: what to know before reading the figures.
        sections: figures and tables, in order; those without any are left out.
        settings: `section -> key -> value`.
        versions: `package -> version`.
        facts: one line under the heading, such as the period.
        tiles: the headline figures.
    """

    title: str
    verdict: str
    notes: tuple[str, ...]
    sections: Sequence[Section]
    settings: Mapping[str, Mapping[str, object]]
    versions: Mapping[str, str]
    facts: str = ""
    tiles: Sequence[Tile] = ()


def render(sheet: TearSheet) -> str:
    """Return the tear sheet as one self-contained HTML page."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("maml_jax", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    sections = [
        {
            "title": section.title,
            "key": re.sub(r"[^a-z]+", "-", section.title.lower()).strip("-"),
            "text": section.text,
            "blocks": [_prepare_block(block) for block in section.blocks],
        }
        for section in sheet.sections
        if section.blocks
    ]
    settings = {
        group: {key: _format_setting(value) for key, value in values.items()}
        for group, values in sheet.settings.items()
    }
    return environment.get_template("tear_sheet.html").render(
        sheet=sheet, sections=sections, settings=settings
    )


def write_page(path: str | Path, page: str) -> Path:
    """Write a page atomically, and return its path.

    Raises:
        RunError: if it cannot be written.
    """
    path = Path(path)
    try:
        with write_atomically(path) as partial:
            partial.write_text(page, encoding="utf-8")
    except OSError as error:
        raise RunError(f"{path}: cannot be written: {error.strerror or error}") from error
    return path


def format_table(table: pd.DataFrame) -> pd.DataFrame:
    """Format every value of a table for reading."""
    return table.astype(object).map(format_value)


def format_value(value: object) -> str:
    """Format one value for reading.

    >>> [format_value(v) for v in (1234.5678, 0.01234, 3, float("nan"), pd.Timestamp("2020-01-02"))]
    ['1,234.57', '0.0123', '3', '–', '2020-01-02']
    >>> [format_value(v) for v in (3.2e-7, -1e12, float("inf"), pd.Timedelta("30h"))]
    ['3.2e-07', '-1e+12', 'inf', '30 h']
    >>> format_value(pd.Timedelta("23min"))
    '23 min'
    >>> format_value(-2.7e-15)  # what rounding leaves of zero
    '0.00'
    """
    if isinstance(value, pd.Timestamp):
        at_midnight = value == value.normalize()
        return value.strftime("%Y-%m-%d" if at_midnight else "%Y-%m-%d %H:%M")
    if isinstance(value, pd.Timedelta):
        hours = value / pd.Timedelta(hours=1)
        if hours >= 36:
            return f"{hours / 24:,.0f} days"
        return f"{hours:,.4g} h" if hours >= 1 or not hours else f"{60 * hours:,.3g} min"
    if (
        value is None
        or value is pd.NaT
        or value is pd.NA
        or (isinstance(value, float) and value != value)
    ):
        return NONE
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, int | np.integer):
        return f"{value:,d}"
    if not isinstance(value, float):
        return str(value)
    if not np.isfinite(value):
        return str(value)
    value = 0.0 if abs(value) < 1e-12 else value
    size = abs(value)
    if size >= 1e9 or 0 < size < 5e-5:
        return f"{value:.3g}"
    return f"{value:.4f}" if 0 < size < 0.1 else f"{value:,.2f}"


def _format_setting(value: object) -> str:
    if isinstance(value, Mapping):
        return join_names((f"{key}: {_format_setting(each)}" for key, each in value.items()), MOST)
    if isinstance(value, tuple | list) and value:
        return join_names(map(_format_setting, value), MOST)
    return str(value) if value not in ((), [], "") else NONE


def _prepare_block(block: Block) -> dict[str, Any]:
    """Return what the template needs to show a block."""
    if isinstance(block, Grid):
        table = format_table(block.table)
        parts = -(-table.shape[1] // block.columns) or 1
        cuts = [
            table.iloc[:, list(places)] for places in np.array_split(range(table.shape[1]), parts)
        ]
        corner = "" if table.index.name is None else str(table.index.name)
        return {
            "kind": "grid",
            "title": block.title,
            "caption": block.caption,
            "corner": corner,
            "strong": [label == block.strong for label in table.index],
            "index": [str(x) if isinstance(x, int) else format_value(x) for x in table.index],
            "tables": cuts,
        }
    shown = {"kind": "plot", "title": block.title, "caption": block.caption, "wide": block.wide}
    shown["image"], (shown["width"], shown["height"]) = _image(block.figure)
    shown["narrow"] = None if block.narrow is None else _image(block.narrow)[0]
    return shown


def _image(figure: Figure) -> tuple[str, tuple[int, int]]:
    """Return a figure as a data URL, and its size in screen pixels."""
    import matplotlib as mpl

    width, height = (round(96 * float(inches)) for inches in figure.get_size_inches())
    # Text stays text: sharp at any size, a fifth of the bytes. Ids depend on what is drawn alone.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "maml_jax"}):
        buffer = io.StringIO()
        with _fixed_layout(figure):
            figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    drawing = re.sub(r"<[^>]*>", _shorten, buffer.getvalue())
    drawing = re.sub(r">\s+<", "><", drawing[drawing.index("<svg") :])
    if len(drawing) <= _HEAVY:
        return _data_url("svg+xml", drawing.encode()), (width, height)
    dots = io.BytesIO()
    figure.savefig(dots, format="png", dpi=170)
    return _data_url("png", dots.getvalue()), (width, height)


def _shorten(tag: re.Match[str]) -> str:
    """Cut coordinates in a tag to hundredths of a point; numbers in text stay as they are."""
    return re.sub(r"(\d\.\d\d)\d+", r"\1", tag.group())


@contextmanager
def _fixed_layout(figure: Figure) -> Iterator[None]:
    """Lay a figure out once; matplotlib would do so, and draw it, twice."""
    import matplotlib as mpl

    engine = figure.get_layout_engine()
    if engine is not None:
        engine.execute(figure)
        with mpl.rc_context({"figure.autolayout": False, "figure.constrained_layout.use": False}):
            figure.set_layout_engine(None)
    yield
    figure.set_layout_engine(engine)


def _data_url(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"

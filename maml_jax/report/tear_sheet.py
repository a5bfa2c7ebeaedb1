"""The tear sheet: one HTML file that shows a run to a person, and needs nothing else."""

import base64
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import matplotlib as mpl
import numpy as np
import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure

from maml_jax.atomic import whole_file
from maml_jax.errors import RunError
from maml_jax.listing import MOST, listed

NONE = "–"

COLUMNS = 8
"""Columns that fit on a sheet of paper; a wider table is cut into several."""

_HEAVY = 250_000
"""Bytes of a drawing beyond which it is kept as an image of dots."""


class Tile(NamedTuple):
    """One figure of the strip at the top.

    Attributes:
        label: what it is, with its units.
        value: as a person reads it.
        detail: an interval, or what it stands against.
    """

    label: str
    value: str
    detail: str = ""


class Plot(NamedTuple):
    """A figure and what to read from it.

    Attributes:
        title: its heading.
        caption: one line that says what to read from it; also told to those who cannot see it.
        figure: as it is shown.
        narrow: as it is shown on phones, where a wide one would become too small to read.
        wide: whether it takes the whole width of the page, or half of it.
    """

    title: str
    caption: str
    figure: Figure
    narrow: Figure | None = None
    wide: bool = False


class Grid(NamedTuple):
    """A table and what it holds.

    Attributes:
        title: its heading.
        table: values are written as a person reads them; text stays as it is.
        caption: how it is to be read.
        strong: the row that stands out.
        columns: how many fit beside each other.
    """

    title: str
    table: pd.DataFrame
    caption: str = ""
    strong: object = None
    columns: int = COLUMNS


Block: TypeAlias = Plot | Grid


class Part(NamedTuple):
    """A part of the page: a heading, a sentence or two, and what it shows."""

    title: str
    blocks: tuple[Block, ...]
    text: str = ""


class TearSheet(NamedTuple):
    """What a tear sheet shows.

    Attributes:
        title: the heading.
        verdict: what is to be said first, in a few sentences.
        notes: what a reader must know before the figures.
        parts: figures and tables, in order; parts without any are left out.
        settings: `section -> key -> value`.
        versions: `package -> version`.
        facts: one line under the heading, such as the span.
        tiles: the strip of headline figures.
    """

    title: str
    verdict: str
    notes: tuple[str, ...]
    parts: Sequence[Part]
    settings: Mapping[str, Mapping[str, object]]
    versions: Mapping[str, str]
    facts: str = ""
    tiles: Sequence[Tile] = ()


def render(sheet: TearSheet) -> str:
    """Return the tear sheet as one self-contained HTML page."""
    environment = Environment(
        loader=PackageLoader("maml_jax", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    parts = [
        {
            "title": part.title,
            "key": re.sub(r"[^a-z]+", "-", part.title.lower()).strip("-"),
            "text": part.text,
            "blocks": [_as_shown(block) for block in part.blocks],
        }
        for part in sheet.parts
        if part.blocks
    ]
    settings = {
        section: {key: _setting(value) for key, value in values.items()}
        for section, values in sheet.settings.items()
    }
    return environment.get_template("tear_sheet.html").render(
        sheet=sheet, parts=parts, settings=settings
    )


def write_page(path: str | Path, page: str) -> Path:
    """Write a page whole or not at all, and return its path.

    Raises:
        RunError: if it cannot be written.
    """
    path = Path(path)
    try:
        with whole_file(path) as partial:
            partial.write_text(page, encoding="utf-8")
    except OSError as error:
        raise RunError(f"{path}: cannot be written: {error.strerror}") from error
    return path


def format_table(table: pd.DataFrame) -> pd.DataFrame:
    """Write every value of a table as a person reads it."""
    return table.astype(object).map(format_value)


def format_value(value: object) -> str:
    """Write one value as a person reads it.

    >>> [format_value(v) for v in (1234.5678, 0.01234, 3, float("nan"), pd.Timestamp("2020-01-02"))]
    ['1,234.57', '0.0123', '3', '–', '2020-01-02']
    >>> [format_value(v) for v in (3.2e-7, -1e12, float("inf"), pd.Timedelta("30h"))]
    ['3.2e-07', '-1e+12', 'inf', '30 h']
    >>> format_value(-2.7e-15)  # what rounding leaves of zero
    '0.00'
    """
    if isinstance(value, pd.Timestamp):
        at_midnight = value == value.normalize()
        return value.strftime("%Y-%m-%d" if at_midnight else "%Y-%m-%d %H:%M")
    if isinstance(value, pd.Timedelta):
        hours = value / pd.Timedelta(hours=1)
        return f"{hours / 24:,.0f} days" if hours >= 36 else f"{hours:,.4g} h"
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


def _setting(value: object) -> str:
    if isinstance(value, Mapping):
        return listed((f"{key}: {_setting(each)}" for key, each in value.items()), MOST)
    if isinstance(value, tuple | list) and value:
        return listed(map(_setting, value), MOST)
    return str(value) if value not in ((), [], "") else NONE


def _as_shown(block: Block) -> dict[str, Any]:
    """Return what the template needs of a block."""
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
    """Return a figure as the address of an image, and its size in pixels of the screen."""
    width, height = (round(96 * float(inches)) for inches in figure.get_size_inches())
    # Text stays text: sharp at any size, a fifth of the bytes. Ids depend on what is drawn alone.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "maml_jax"}):
        buffer = io.StringIO()
        with _laid_out(figure):
            figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    drawing = re.sub(r"<[^>]*>", _shortened, buffer.getvalue())
    drawing = re.sub(r">\s+<", "><", drawing[drawing.index("<svg") :])
    if len(drawing) <= _HEAVY:
        return _address("svg+xml", drawing.encode()), (width, height)
    dots = io.BytesIO()
    figure.savefig(dots, format="png", dpi=170)
    return _address("png", dots.getvalue()), (width, height)


def _shortened(tag: re.Match[str]) -> str:
    """Cut what a tag says of places to hundredths of a point; numbers that are read stay whole."""
    return re.sub(r"(\d\.\d\d)\d+", r"\1", tag.group())


@contextmanager
def _laid_out(figure: Figure) -> Iterator[None]:
    """Lay a figure out once; matplotlib would do so, and draw it, twice."""
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.execute(figure)
        with mpl.rc_context({"figure.autolayout": False, "figure.constrained_layout.use": False}):
            figure.set_layout_engine(None)
    yield
    figure.set_layout_engine(engine)


def _address(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"

"""How figures look: one palette, one text size, axes of time and of growth.

matplotlib takes a second to import, so it is imported where something is drawn.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, ParamSpec

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Wong (2011), Points of view: Color blindness: distinct to the colour-blind, and in print.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f", "#222222")
GAIN, LOSS, QUIET = "#0072b2", "#d55e00", "#9a9a9a"

MOST_LINES = 8
"""Most lines in one figure; more cannot be distinguished."""

_TEXT = {
    "font.size": 9,
    "font.family": "sans-serif",
    "axes.labelsize": 9,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#888888",
    "axes.grid": True,
    "grid.color": "#e8e8e8",
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
    "timezone": "UTC",
    "text.parse_math": False,  # names of assets are not formulas
}

_Parameters = ParamSpec("_Parameters")


def apply_style(plot: Callable[_Parameters, Figure]) -> Callable[_Parameters, Figure]:
    """Decorate a function that draws: it draws in this style, and the caller's is left alone."""

    @functools.wraps(plot)
    def wrapped(*args: _Parameters.args, **options: _Parameters.kwargs) -> Figure:
        import matplotlib as mpl

        with mpl.rc_context():
            mpl.rcdefaults()
            mpl.rcParams.update(_TEXT)  # pyright: ignore[reportCallIssue, reportArgumentType]
            return plot(*args, **options)

    return wrapped


def canvas(width: float, height: float, title: str = "") -> tuple[Figure, Axes]:
    """Return a figure of one panel, sizes in inches."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title)
    return figure, axes


def panels(width: float, heights: Sequence[float], title: str = "") -> tuple[Figure, list[Axes]]:
    """Return a figure of stacked panels that share the time axis."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, sum(heights)), layout="constrained")
    axes = figure.subplots(len(heights), 1, sharex=True, height_ratios=heights, squeeze=False)
    axes[0, 0].set_title(title)
    return figure, list(axes[:, 0])


def drop_categories(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table with categories turned into plain values, which can be joined and sorted.

    For small tables: it uses the memory that categories save.
    """
    types = {
        name: column.cat.categories.dtype
        for name, column in table.items()
        if isinstance(column.dtype, pd.CategoricalDtype)
    }
    return table.astype(types) if types else table


def select_rows(table: pd.DataFrame, names: Sequence, column: str = "strategy") -> pd.DataFrame:
    """Return the rows with certain names, in the order of those names.

    Fast on millions of rows, whether names are categories or text.
    """
    named = table[column].astype("category").cat
    # The last place is that of code -1: of rows without a name.
    place = np.append(pd.Index(names).get_indexer(pd.Index(named.categories)), -1)
    places = place[named.codes.to_numpy()]
    wanted = np.flatnonzero(places >= 0)
    if len(wanted) == len(table) and (np.diff(places) >= 0).all():
        return table.copy(deep=False)
    return table.iloc[wanted[np.argsort(places[wanted], kind="stable")]]


def as_floats(values: pd.Series | pd.DataFrame, name: str = "strategy") -> pd.DataFrame:
    """Return a table of floats, with infinite values as NaN."""
    table = values.to_frame(values.name or name) if isinstance(values, pd.Series) else values
    table = table.astype("float64")
    return table.where(np.isfinite(table))


def choose(columns: Iterable, headline: Any = None, most: int = MOST_LINES) -> list:
    """Choose the columns that a figure shows: the headline (default: the first) comes first."""
    names = list(columns)
    if headline in names:
        names = [headline, *(name for name in names if name != headline)]
    return names[:most]


def shorten(name: object, most: int = 26) -> str:
    """Cut a name so that it leaves room for the figure beside it.

    >>> shorten("XRPUSDT"), shorten("a name that nobody wants to read", 12)
    ('XRPUSDT', 'a name that…')
    """
    text = str(name)
    return text if len(text) <= most else f"{text[: most - 1].rstrip()}…"


def line_styles(columns: Iterable, headline: Any = None) -> dict[Any, dict[str, Any]]:
    """Return the style of each column's line: the headline thick, the others thin and behind it.

    Colours follow the order of the columns, so that figures of the same table agree.
    """
    columns = list(columns)
    first = choose(columns, headline, len(columns))
    found = {}
    for place, name in enumerate(first):
        turn, colour = divmod(place, len(COLOURS))
        found[name] = {
            "color": COLOURS[colour],
            "linewidth": 1.9 if place == 0 else 1.1,
            "linestyle": ("-", "--", ":", "-.")[turn % 4],
            "zorder": 5 if place == 0 else 3,
        }
    return found


def draw_line(axes: Axes, values: pd.Series, **look: Any) -> None:
    """Draw a series; an isolated point becomes a dot."""
    known = values.notna()
    alone = known & ~known.shift(1, fill_value=False) & ~known.shift(-1, fill_value=False)
    axes.plot(positions(values.index), values.to_numpy(float), **look)
    if alone.any():
        dots = {"color": look.get("color"), "zorder": look.get("zorder", 3)}
        axes.plot(positions(values.index[alone]), values[alone], "o", markersize=3, **dots)


def thin(values: pd.Series, stretches: int = 450) -> pd.Series:
    """Keep the lowest and highest value of each stretch, in order.

    Drawn, the result looks like the whole series.
    """
    if len(values) <= 2 * stretches:
        return values
    numbers = values.to_numpy(float)
    length = -(-len(numbers) // stretches)
    padded = np.pad(numbers, (0, -len(numbers) % length), constant_values=np.nan)
    rows = padded.reshape(-1, length)
    first = length * np.arange(len(rows))
    low = first + np.where(np.isnan(rows), np.inf, rows).argmin(axis=1)
    high = first + np.where(np.isnan(rows), -np.inf, rows).argmax(axis=1)
    gap = np.isnan(numbers)
    edges = np.flatnonzero(gap[1:] != gap[:-1])  # else a line would cross a gap
    ends = np.array([0, len(numbers) - 1])
    kept = np.unique(np.concatenate([ends, low, high, edges, edges + 1]))
    return values.iloc[kept[kept < len(numbers)]]


def time_axis(axes: Axes, index: pd.Index, width: float) -> None:
    """Label the time axis, or an axis of bar numbers where the index holds no times."""
    if not isinstance(index, pd.DatetimeIndex):
        axes.set_xlabel("bar")
        return
    import matplotlib.dates as mdates

    locator = mdates.AutoDateLocator(minticks=2, maxticks=max(3, int(width)))
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(mdates.ConciseDateFormatter(locator))
    axes.margins(x=0.01)
    if len(index) == 1:
        day = pd.Timedelta(days=1)
        axes.set_xlim(mdates.date2num(index[0] - day), mdates.date2num(index[0] + day))


def growth_axis(axes: Axes, low: float, high: float) -> None:
    """Make an axis of positive numbers logarithmic, with plain labels."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

    axes.set_yscale("log")
    if high < 10 * low:
        axes.yaxis.set_major_locator(MaxNLocator(6))
    else:
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high < 1e3 * low else None))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.4g}"))


def legend_below(figure: Figure, axes: Axes | Sequence[Axes], width: float) -> None:
    """Put the legend of all panels below the figure, where it covers nothing."""
    handles, labels = [], []
    for each in axes if isinstance(axes, Sequence) else [axes]:
        for handle, label in zip(*each.get_legend_handles_labels(), strict=True):
            if label not in labels:
                handles.append(handle)
                labels.append(label)
    if not handles:
        return
    widest = max(len(str(label)) for label in labels)
    fitting = int((72 * width - 20) / (5.2 * widest + 34))
    figure.legend(
        handles, labels, loc="outside lower left", ncols=max(1, min(fitting, len(labels)))
    )


def empty_figure(width: float, title: str, why: str) -> Figure:
    """Return a figure that says why it is empty."""
    figure, axes = canvas(width, 1.4, title)
    axes.set_axis_off()
    axes.text(0.5, 0.5, why, ha="center", va="center", color="#666666", transform=axes.transAxes)
    return figure


def positions(index: pd.Index) -> Any:
    """Return the positions of an index on the axis."""
    if isinstance(index, pd.DatetimeIndex):  # with a time zone, numpy has no type for it
        return (index if index.tz is None else index.tz_convert(None)).to_numpy()
    return np.asarray(index)

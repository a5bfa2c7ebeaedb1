"""Pages of a thousand assets: small, short, true; and the same whatever holds the names."""

import base64
import re
import tracemalloc
from dataclasses import fields, replace
from html.parser import HTMLParser

import made_up_run
import numpy as np
import pandas as pd
import pytest

from maml_jax.listing import FEW, MOST, join_names, quote_names
from maml_jax.notes import Note
from maml_jax.report import plot_calibration, plot_predictions, render
from maml_jax.report.plots.style import select_rows
from maml_jax.report.sections.assets import ENDS, describe_assets
from maml_jax.report.tear_sheet import Grid, Plot
from maml_jax.report.text import shorten_notes

pytestmark = pytest.mark.long

STRATEGIES = ("maml", "no adaptation", "ridge", "buy and hold")
MANY = 1000
NAME = re.compile(r"\bA\d+\b")


def made(assets, bars=60, strategies=STRATEGIES):
    return made_up_run.with_unlike_assets(made_up_run.run_tables(bars, assets, strategies))


@pytest.fixture(scope="module")
def tables():
    found = made(MANY)
    assets = found.assets
    assets.loc[assets["asset"].isin(["A3", "A500"]), "Sharpe Ratio"] = np.nan
    return replace(found, assets=assets)


@pytest.fixture(scope="module")
def grids(tables):
    return {b.title: b.table for b in describe_assets(tables).blocks if isinstance(b, Grid)}


def _ratios(tables):
    return pd.DataFrame(
        {
            name: rows.set_index("asset")["Sharpe Ratio"]
            for name, rows in tables.assets.groupby("strategy")
        }
    )


class _Texts(HTMLParser):
    """The text of every element that has one, and the heads of rows of every table."""

    def __init__(self):
        super().__init__()
        self.open, self.texts, self.tables = [], [], []

    def handle_starttag(self, tag, attrs):
        if tag == "table":
            self.tables.append([])
        if tag not in {"meta", "img", "source", "br"}:
            self.open.append((tag, len(self.texts)))
            self.texts.append("")

    def handle_endtag(self, tag):
        self.open.pop()

    def handle_data(self, data):
        if self.open:
            tag, place = self.open[-1]
            self.texts[place] += data
            if tag == "th" and NAME.fullmatch(data):
                self.tables[-1].append(data)


@pytest.mark.slow
def test_the_page_of_a_thousand_assets_is_small_and_lists_few_of_them(tables):
    names = tuple(f"A{number}" for number in range(MANY))
    ended = (Note("ended", f"{name}: no bar after 2020-01-{1 + len(name)}.") for name in names)
    sheet = made_up_run.sheet_of(tables, shorten_notes([*ended, Note("other", "Left to say.")]))
    classes = {name: "stocks" for name in names}
    data = {"test_assets": names, "classes": classes, "pairs": tuple(zip(names, names[1:]))}  # noqa: B905
    page = render(sheet._replace(settings={"data": data}))
    assert len(page.encode()) < 2_000_000
    seen = _Texts()
    seen.feed(page)
    assert sum("Left to say." in text for text in seen.texts) == 1
    drawings = re.findall(r"data:image/svg\+xml;base64,([^\" ]+)", page)
    for text in (*seen.texts, *(base64.b64decode(each).decode() for each in drawings)):
        assert len({*NAME.findall(text)}) <= MOST + 1  # pairs share names
    assert max(map(len, seen.tables)) == 2 * ENDS
    assert "1,000 assets" in page and "assets.parquet" in page and "and 970 more" in page


@pytest.mark.parametrize("assets", [2, MOST])
def test_of_a_few_assets_each_is_shown(assets):
    tables = made(assets)
    part = describe_assets(tables)
    assert [block.title for block in part.blocks] == [
        "Sharpe ratio of each asset",
        "maml, each asset traded alone",
        "Net Sharpe ratio of every strategy on each asset",
    ]
    labels = {label.get_text() for label in part.blocks[0].figure.axes[0].get_yticklabels()}
    names = {f"A{number}" for number in range(assets)}
    assert labels == names == {*part.blocks[1].table.index} == {*part.blocks[2].table.index}
    assert "assets.parquet" not in part.text


@pytest.mark.slow
def test_the_best_and_the_worst_are_so_and_every_number_is_the_tables(tables, grids):
    own = tables.assets.query("strategy == 'maml'").set_index("asset")
    order = own["Sharpe Ratio"].dropna().sort_values(ascending=False).index
    best, worst = grids["maml, the 10 best assets"], grids["maml, the 10 worst assets"]
    assert list(best.index) == list(order[:10]) and list(worst.index) == list(order[::-1][:10])
    for table in (best, worst):
        pd.testing.assert_frame_equal(table, own.loc[table.index, table.columns])
    every = grids["Net Sharpe ratio of every strategy on these assets"]
    assert list(every.index) == [*order[:10], *order[-10:]]
    ratios = tables.assets.set_index(["asset", "strategy"])["Sharpe Ratio"]
    for asset in every.index:
        assert all(every.loc[asset, name] == ratios[asset, name] for name in STRATEGIES)


def test_the_spread_and_the_comparison_are_those_of_a_plain_loop(tables, grids):
    wide = _ratios(tables)
    over, beside = (
        grids["Net Sharpe ratio over the assets"],
        grids["maml minus each other strategy, asset by asset"],
    )
    for name in STRATEGIES:
        known = [value for value in wide[name] if value == value]
        row = over.loc[name]
        assert (row["lowest"], row["highest"]) == (min(known), max(known))
        assert row["median"] == pytest.approx(np.median(known))
        assert row["above 0, %"] == pytest.approx(100 * sum(v > 0 for v in known) / len(known))
    assert set(beside.index) == {*STRATEGIES} - {"maml"} and (beside["assets"] == MANY - 2).all()
    for name in beside.index:
        less = (wide["maml"] - wide[name]).dropna()
        better, worse = sum(value > 0 for value in less), sum(value < 0 for value in less)
        assert beside.loc[name, "better, %"] == pytest.approx(100 * better / (MANY - 2))
        assert beside.loc[name, "worse, %"] == pytest.approx(100 * worse / (MANY - 2))
        assert beside.loc[name, "difference, median"] == pytest.approx(less.median())
    assert (
        "2 are not ranked, because the Sharpe Ratio of maml is unknown"
        in describe_assets(tables).text
    )


def test_the_distribution_is_drawn_with_its_ends_and_the_dots_are_the_assets(tables):
    spread, pairs = (b.figure.axes[0] for b in describe_assets(tables).blocks[:2])
    wide = _ratios(tables).dropna()
    x, y = spread.get_lines()[0].get_data()
    own = np.sort(wide["maml"])
    assert (x[0], x[-1]) == (own[0], own[-1]) and {*x} <= {*own} and (np.diff(y) > 0).all()
    # The share of assets below, at every value that is drawn.
    np.testing.assert_allclose(y, 100 * (np.searchsorted(own, x) + 0.5) / len(own))
    dots = [line for line in pairs.get_lines() if line.get_marker() == "o"]
    drawn = {point for line in dots for point in zip(*line.get_data(), strict=True)}
    assert drawn == {*zip(wide["buy and hold"], wide["maml"], strict=True)}
    better = (wide["maml"] > wide["buy and hold"]).sum()
    assert [line.get_label() for line in dots][0] == f"better: {better} assets"


@pytest.mark.parametrize(
    "change",
    [
        {"Sharpe Ratio": np.nan},
        {"Sharpe Ratio": 0.5},
        {"Sharpe Ratio": np.inf},
        {"strategy": "maml"},
        {"strategy": "ridge"},
    ],
)
def test_any_table_of_many_assets_makes_a_part(change):
    """Figures that are unknown or equal; the headline alone, or not at all."""
    tables = made(MOST + 1)
    changed = tables.assets.assign(**change).drop_duplicates(["strategy", "asset"])
    part = describe_assets(replace(tables, assets=changed))
    assert f"{MOST + 1} assets" in part.text
    for block in part.blocks:
        assert isinstance(block, Plot) or len(block.table) <= 2 * ENDS
    ends = [b.table.index for b in part.blocks if isinstance(b, Grid) and "10" in b.title]
    assert len(ends) in (0, 2) and (not ends or not {*ends[0]} & {*ends[1]})
    bare = describe_assets(replace(tables, assets=changed.drop(columns="Sharpe Ratio")))
    assert f"{MOST + 1} assets" in bare.text


def _with_categories(table):
    """Make categories of all columns of text, in no order, with one that no row has."""
    changed = {}
    for name, column in table.items():
        if isinstance(column.dtype, pd.StringDtype) or column.dtype == object:
            kinds = [*sorted(column.dropna().unique(), key=str)[::-1], "of no row"]
            changed[name] = pd.Categorical(column, kinds)
    return table.assign(**changed)


@pytest.mark.slow
@pytest.mark.parametrize("assets", [3, MOST + 1])
def test_categories_make_the_same_page_as_text(assets):
    tables = made(assets, 90)
    long = ("predictions", "trades", "assets", "regimes", "history", "intervals", "differences")
    assert {*long} <= {field.name for field in fields(tables)}
    changed = {name: _with_categories(getattr(tables, name)) for name in long}
    assert isinstance(changed["predictions"]["strategy"].dtype, pd.CategoricalDtype)
    pages = [render(made_up_run.sheet_of(t)) for t in (tables, replace(tables, **changed))]
    assert pages[0] == pages[1]


@pytest.mark.parametrize("kind", ["str", "object", "category"])
def test_rows_are_chosen_in_the_order_of_names_and_stay_in_their_own(kind):
    named = pd.Series(["b", None, "a", "c", "b", "a"], dtype=kind)
    table = pd.DataFrame({"strategy": named, "n": range(6)})
    assert list(select_rows(table, ["a", "gone", "b"])["n"]) == [2, 5, 0, 4]
    assert list(select_rows(table, [])["n"]) == []
    sorted_already = table.loc[[2, 5, 0, 4, 3]]
    own = select_rows(sorted_already, ["a", "b", "c"])
    own["n"] = 0
    assert list(sorted_already["n"]) == [2, 5, 0, 4, 3]


def test_figures_of_predictions_take_a_part_of_the_memory_of_the_table():
    days = pd.date_range("2020", periods=500, tz="UTC")
    names = [f"S{number}" for number in range(12)]
    table = made_up_run.predictions(days, [f"A{number}" for number in range(40)], names)
    table = table.astype({"asset": "category", "strategy": "category"})
    size = table.memory_usage(deep=True).sum()
    tracemalloc.start()
    plot_predictions(table)
    plot_calibration(table)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < size


def test_strategies_are_drawn_in_the_order_that_is_asked_for():
    table = made_up_run.predictions(pd.date_range("2020", periods=50), ["A"], ["a", "b", "c"])
    for plot in (plot_predictions, plot_calibration):
        _, labels = plot(table, strategies=["c", "gone", "a"]).axes[0].get_legend_handles_labels()
        assert [label[0] for label in labels if label[1:2] == ","] == ["c", "a"]


def test_a_few_notes_are_told_as_they_are_and_of_many_each_kind():
    few = [f"Note {number}, of A{number}." for number in range(MOST)]
    assert shorten_notes([Note("one", text) for text in few]) == tuple(few)
    ended = [f"A{number}: no bar after {2000 + number}-01-01." for number in range(MANY)]
    other = [f"Fold {number}: Left out: A{number} ({number})." for number in range(20)]
    kinds = {"ended": ended, "a": ["First."], "left out": other, "b": ["Last."]}
    told = shorten_notes([Note(kind, text) for kind, texts in kinds.items() for text in texts])
    assert len(told) <= MOST + 1 and told[0] == ended[0]
    assert {"First.", "Last.", other[0]} <= {*told}
    assert f"{MANY + 22 - (len(told) - 1):,} more notes" in told[-1] and "notes.json" in told[-1]
    assert sum(note in ended for note in told) == FEW
    text = f"Left out: {', '.join(f'A{number} (1)' for number in range(MANY))}."
    (cut,) = shorten_notes([Note("left out", text)])
    assert len(NAME.findall(cut)) == MOST and "notes.json" in cut
    apart = [Note(f"kind {number}", "A kind of its own.") for number in range(100)]
    assert len(shorten_notes(apart)) == MOST + 1


def test_names_are_listed_up_to_a_number_of_them():
    for count in (0, 1, FEW, FEW + 1, MANY):
        names = [f"A{number}" for number in range(count)]
        assert len(NAME.findall(join_names(names))) == min(count, FEW)
        assert len(NAME.findall(quote_names(names))) == min(count, MOST)
    assert join_names(["A"] * 2000, 2, "assets") == "A, A and 1,998 more assets"
    assert quote_names(["A", "B"]) == str(["A", "B"])

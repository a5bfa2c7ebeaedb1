"""The tear sheet: what stands in it, and what is left out where it is not known."""

import base64
import re
from dataclasses import replace
from html.parser import HTMLParser

import made_up_run
import numpy as np
import pandas as pd
import pytest
from made_up_run import SECTIONS, sheet_of

from maml_jax.report import TearSheet, render
from maml_jax.report.plots.style import canvas
from maml_jax.report.sections.assets import describe_assets
from maml_jax.report.sections.forecasts import describe_forecasts, describe_regimes
from maml_jax.report.sections.overfitting import describe_overfitting
from maml_jax.report.sections.returns import (
    describe_equity,
    describe_luck,
    describe_periods,
    describe_trading,
    make_tiles,
)
from maml_jax.report.tear_sheet import COLUMNS, Grid, Plot, Section, Tile, format_value
from maml_jax.report.text import format_intervals, format_number

pytestmark = pytest.mark.long

VOID = {"meta", "img", "source", "br"}


class _Checker(HTMLParser):
    """Whether tags close, ids are unique, images tell what they show and know their size."""

    def __init__(self):
        super().__init__()
        self.open, self.ids, self.images, self.headers, self.links = [], [], [], [], []

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        if "id" in found:
            self.ids.append(found["id"])
        if tag == "img":
            self.images.append(found)
        if tag == "th":
            self.headers.append(found)
        if tag == "a":
            self.links.append(found["href"])
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def checked(page):
    checker = _Checker()
    checker.feed(page)
    assert checker.open == []
    assert len(set(checker.ids)) == len(checker.ids)
    assert {link.lstrip("#") for link in checker.links} <= {*checker.ids}
    for image in checker.images:
        assert len(image["alt"]) > 20 and int(image["width"]) > 0 and int(image["height"]) > 0
    assert all(header["scope"] in ("row", "col") for header in checker.headers)
    assert 'lang="en"' in page
    return checker


@pytest.fixture(scope="module")
def tables():
    return made_up_run.run_tables()


@pytest.fixture(scope="module")
def page(tables):
    return render(sheet_of(tables, ("mind <this>",), facts="from then to now"))


def test_the_page_is_whole_and_needs_nothing_else(page):
    checker = checked(page)
    assert len(checker.images) >= 13
    assert "a &lt;title&gt;" in page and "mind &lt;this&gt;" in page
    assert not re.search(r"https?://|<script|<link|url\(", page)
    assert len(page) < 3_000_000
    assert page == page.strip() + "\n" or page.endswith("</html>")


def test_headline_and_verdict_come_first(page):
    places = [
        page.index(text)
        for text in ('class="tiles"', 'class="verdict"', 'class="notes"', "<h2>Equity", "<h2>Skill",
                     "<h2>Strategies", "<h2>Over time", "<h2>Trading", "<h2>Forecasts",
                     "<h2>Assets", "<h2>Regimes", "<h2>Settings", "maml-jax 0")
    ]  # fmt: skip
    assert places == sorted(places)


def test_every_strategy_stands_in_a_table(page):
    for name in made_up_run.STRATEGIES:
        assert f'<th scope="row">{name}</th>' in page


def test_the_same_table_makes_the_same_page(tables):
    plot = Section("p", (describe_equity(tables).blocks[0],))
    again = Section("p", (describe_equity(tables).blocks[0],))
    pages = [render(TearSheet("t", "v", (), [part], {}, {})) for part in (plot, again)]
    assert pages[0] == pages[1]


def test_figures_are_drawings_with_text(page):
    drawings = re.findall(r'src="data:image/svg\+xml;base64,([^"]+)"', page)
    text = base64.b64decode(drawings[0]).decode()
    assert ">buy and hold</text>" in text and "growth of 1" in text
    narrow = re.findall(r'srcset="data:image/svg\+xml;base64,[^" ]+"', page)
    assert len(narrow) == 3


def test_numbers_in_figures_are_read_as_they_were_written():
    """Places of lines are cut to hundredths of a point; 1.1987 stays 1.1987."""
    figure, axes = canvas(4.0, 2.0)
    axes.plot([0.123456, 0.987654])
    axes.set_yticks([0.5], ["1.1987"])
    page = render(
        TearSheet("t", "v", (), [Section("p", (Plot("f", "told here", figure),))], {}, {})
    )
    (drawing,) = re.findall(r'src="data:image/svg\+xml;base64,([^"]+)"', page)
    text = base64.b64decode(drawing).decode()
    assert ">1.1987</text>" in text
    assert not re.search(r' d="[^"]*\d\.\d\d\d', text)


def test_the_strip_tells_figures_format_intervals(tables):
    tiles = {tile.label: tile for tile in make_tiles(tables)}
    sharpe = tiles["Sharpe ratio, net"]
    assert sharpe.value == format_number(tables.stats.loc["Sharpe Ratio", "maml"])
    assert sharpe.detail == "95 %: -1.00 to 0.30"
    assert tiles["Alpha over buy and hold, % per year"] == Tile(
        "Alpha over buy and hold, % per year", "1.00", "90 %: -3.00 to 5.00"
    )
    assert tiles["Chance of a result this good by luck"].value == "76 %"
    assert tiles["Chance of a result this good by luck"].detail == "best of 4 trials"
    bare = replace(tables, intervals=pd.DataFrame(), significance=pd.DataFrame())
    tiles = {tile.label: tile for tile in make_tiles(bare)}
    other = format_number(tables.stats.loc["Sharpe Ratio", "buy and hold"])
    assert tiles["Sharpe ratio, net"].detail == f"buy and hold {other}"
    assert not any("luck" in label for label in tiles)


EMPTY = ("gross", "turnover", "exposure", "predictions", "trades", "assets", "regimes", "history",
         "adaptation", "intervals", "differences", "significance")  # fmt: skip


def test_what_is_not_known_is_left_out(tables):
    bare = replace(tables, **{name: pd.DataFrame() for name in EMPTY}, overfitting={}, cost=None)
    page = render(sheet_of(bare))
    checked(page)
    titles = re.findall(r"<h2>(.*?)</h2>", page)
    assert titles == ["Equity", "Strategies and baselines", "Over time", "Settings"]
    assert "Skill or luck" not in page


@pytest.mark.parametrize("missing", [EMPTY[::2], EMPTY[1::2], EMPTY[:3], EMPTY[3:6]])
def test_any_table_may_be_missing(missing):
    small = made_up_run.run_tables(40, 2, ("maml", "no adaptation", "buy and hold"))
    bare = replace(small, **{name: pd.DataFrame() for name in missing})
    assert all(block.title for describe in SECTIONS for block in describe(bare).blocks)


def test_one_asset_has_no_part_of_its_own_and_no_deviation_no_calibration(tables):
    assert describe_assets(made_up_run.run_tables(60, assets=1)).blocks == ()
    plain = replace(tables, predictions=tables.predictions.drop(columns="std"))
    titles = [block.title for block in describe_forecasts(plain).blocks]
    assert "Predictions and outcomes" in titles
    assert "Calibration of predicted intervals" not in titles


@pytest.mark.parametrize("bars", [1, 2])
def test_a_few_bars_make_a_page(bars):
    strategies = ("maml", "no adaptation", "buy and hold")
    tables = made_up_run.run_tables(bars, 1, strategies, step="h")
    checked(render(sheet_of(tables)))


def test_a_few_bars_of_a_regime_are_not_annualised(tables):
    part = describe_regimes(made_up_run.run_tables(60))
    mean, ratio = (block.table for block in part.blocks[1:])
    assert list(mean["bars"]) == [10, 50]
    for table in (mean, ratio):
        assert table.drop(columns="bars").iloc[0].isna().all()
        assert table.iloc[1].notna().all()
    assert "fewer than 20 bars are not annualised" in part.text
    assert "fewer" not in describe_regimes(tables).text


def test_no_trades_and_no_returns_make_a_page():
    tables = made_up_run.run_tables(60, 2, ("maml", "buy and hold"))
    nothing = replace(
        tables,
        trades=tables.trades.iloc[:0],
        returns=0 * tables.returns,
        gross=0 * tables.gross,
        turnover=0 * tables.turnover,
        exposure=0 * tables.exposure,
        stats=tables.stats.map(lambda value: np.nan if isinstance(value, float) else value),
        predictions=tables.predictions.assign(target=np.nan),
    )
    page = render(sheet_of(nothing))
    checked(page)
    assert "no prediction has a known outcome" in base64_text(page)


def base64_text(page):
    drawings = re.findall(r"data:image/svg\+xml;base64,([^\" ]+)", page)
    return "\n".join(base64.b64decode(each).decode() for each in drawings)


def test_wide_tables_are_cut_and_keep_every_column():
    table = pd.DataFrame(np.arange(40.0).reshape(2, 20), columns=[f"c{i}" for i in range(20)])
    sheet = TearSheet("t", "v", (), [Section("p", (Grid("g", table),))], {}, {})
    page = render(sheet)
    checked(page)
    cut = re.findall(r"<thead><tr>(.*?)</tr></thead>", page)
    assert [row.count('scope="col"') for row in cut] == [7, 7, 6]
    assert max(row.count("<th") for row in cut) <= COLUMNS
    assert all(f">c{i}</th>" in page for i in range(20))


def test_trades_shown_are_first_last_best_and_worst(tables):
    (grid,) = [b for b in describe_trading(tables).blocks if b.title.startswith("Trades")]
    own = tables.trades.query("strategy == 'maml'")
    assert f"{len(own)} in total" in grid.title
    table = grid.table
    assert list(dict.fromkeys(table.index)) == ["first", "last", "best", "worst"]
    closed = own[~own["open"]]
    assert table.loc["best", "net, %"].max() == pytest.approx(100 * closed["net"].max())
    assert table.loc["worst", "net, %"].min() == pytest.approx(100 * closed["net"].min())
    assert "open" in list(table["exit"])


def test_tests_and_intervals_stand_in_tables_of_their_own(tables):
    grids = {
        block.title: block.table
        for block in describe_luck(tables).blocks
        if isinstance(block, Grid)
    }
    assert list(grids["Figures with intervals"]) == ["Sharpe Ratio", "CAGR [%]"]
    assert grids["Figures with intervals"].loc["maml", "CAGR [%]"] == "0.00 [-0.60, 0.70]"
    assert grids["Tests"].loc["maml", "p, adjusted"] == 0.76
    assert "spa_p" not in grids["Tests"]  # not known of any
    assert grids["maml minus each other strategy"].index[0] == "buy and hold"
    assert set(grids["Figures with intervals"].index) == {*made_up_run.STRATEGIES}


def test_paths_have_a_table_and_only_what_is_there_is_explained(tables):
    grids = {
        block.title: block for block in describe_luck(tables).blocks if isinstance(block, Grid)
    }
    figures, paths = grids["Choosing among the methods"], grids["Sharpe ratio on each path"]
    told = figures.table["value"]
    assert list(told.index) == ["risk that the pick was overfitted", "splits", "methods"]
    assert told["methods"] == "maml, fomaml"
    assert "lower half" in figures.caption and "slope" not in figures.caption.lower()
    assert list(paths.table.index) == tables.order and paths.strong == "maml"
    assert dict(paths.table.loc["maml"]) == {
        "lowest": -0.25, "median": 0.5, "highest": 1.5, "paths": 4
    }  # fmt: skip
    more = {"slope": -0.5, "loss_probability": 0.3, "something_else": 1}
    (grid,) = describe_overfitting(replace(tables, overfitting=more))
    assert list(grid.table.index) == ["slope", "risk of loss", "something else"]
    assert "rises with" in grid.caption and "loses" in grid.caption
    assert "overfitted" not in grid.caption.lower()
    unknown = {"paths": {"maml": [None, float("nan")], "gone": [1.0]}}
    (grid,) = describe_overfitting(replace(tables, overfitting=unknown))
    assert list(grid.table.index) == ["maml", "gone"] and np.isnan(grid.table.loc["maml", "median"])
    assert describe_overfitting(replace(tables, overfitting={})) == []


def _costs_caption(tables):
    (plot,) = [b for b in describe_trading(tables).blocks if b.title == "Effect of costs"]
    lines = plot.figure.axes[0].get_legend_handles_labels()
    return plot.caption, [label for label in lines[1] if label.startswith("paid")]


def test_the_cost_that_is_marked_is_what_was_paid(tables):
    caption, labels = _costs_caption(tables)
    assert "maml paid 15 bp (the dashed line)." in caption and labels == ["paid, 15 bp"]
    borrowed = replace(tables, returns=tables.returns - 0.001 * tables.turnover - 1e-4)
    traded = tables.turnover["maml"].mean()
    caption, labels = _costs_caption(borrowed)
    told = f"{25 + 1e4 * 1e-4 / traded:.3g} bp"
    assert f"maml paid {told} (the dashed line) in total" in caption
    assert "15 bp of fee and slippage, and what the settings add or waive" in caption
    assert labels == [f"paid, {told}"]
    caption, labels = _costs_caption(replace(tables, returns=tables.gross - 0.01 * tables.turnover))
    assert "maml paid 100 bp (beyond the figure) in total" in caption and labels == []
    caption, labels = _costs_caption(replace(tables, turnover=0 * tables.turnover))
    assert "paid" not in caption and labels == []


def test_the_worst_drawdowns_come_deepest_first(tables):
    (grid,) = [b for b in describe_periods(tables).blocks if b.title.startswith("Worst")]
    depths = grid.table["depth [%]"]
    assert list(grid.table.index) == list(range(1, 1 + len(depths))) and len(depths) <= 5
    assert list(depths) == sorted(depths)
    assert depths[1] == pytest.approx(tables.stats.loc["Max. Drawdown [%]", "maml"])


def test_values_are_written_as_people_read_them():
    table = format_intervals(
        pd.DataFrame({"strategy": "a", "figure": ["x", "y"], "value": [1.0, np.nan],
                      "low": [-0.001, np.nan], "high": [1234.0, np.nan]})
    )  # fmt: skip
    assert table.loc["a", "x"] == "1.00 [0.00, 1,234]" and table.loc["a", "y"] == "–"
    assert format_value(True) == "yes" and format_value(pd.NaT) == "–"
    assert format_value(np.float64(2.0)) == "2.00"

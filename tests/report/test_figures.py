"""Figures show what they are given, have units and legends, and stand whatever they are given."""

import made_up_run
import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from maml_jax import report
from maml_jax.backtest.metrics import sharpe_ratio
from maml_jax.backtest.regime_results import summarise_by_regime
from maml_jax.errors import DataError
from maml_jax.report.plots import style

pytestmark = pytest.mark.filterwarnings("error")

NAMES = ("maml", "no adaptation", "buy and hold")


def drawn(figure):
    """Lay a figure out; nothing may stick out of it."""
    figure.draw_without_rendering()
    box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    assert min(box.x0, box.y0) > -0.03 and box.x1 < width + 0.03 and box.y1 < height + 0.03
    return figure


def words(figure):
    texts = figure.findobj(mpl.text.Text)
    return " | ".join(text.get_text() for text in texts if text.get_text())


def plots(net, gross, turnover, width):
    first = net.iloc[:, 0]
    regimes = pd.Series(np.arange(len(net)) % 3, net.index)
    alone = pd.DataFrame(
        {"strategy": np.repeat(list(net), 2), "asset": ["A", "B"] * net.shape[1]}
    ).assign(**{"Sharpe Ratio": np.resize([0.1, np.nan, -2.0], 2 * net.shape[1])})
    made = made_up_run.predictions(net.index, ["A"], list(net))
    made["target"] += np.resize(first.to_numpy(), len(made))
    return {
        "equity": lambda: report.plot_equity(net, gross, width=width),
        "drawdown": lambda: report.plot_drawdown(net, width=width),
        "rolling": lambda: report.plot_rolling_sharpe(net, 252.0, width=width),
        "months": lambda: report.plot_monthly_returns(first, width=width),
        "distribution": lambda: report.plot_return_distribution(first, width=width),
        "exposure": lambda: report.plot_exposure(turnover, turnover, width=width),
        "costs": lambda: report.plot_cost_sensitivity(
            gross, turnover, 252.0, cost=15.0, width=width
        ),
        "regimes": lambda: report.plot_regimes(
            summarise_by_regime(net, regimes, 252.0), 252.0, width=width
        ),
        "assets": lambda: report.plot_assets(alone, width=width),
        "spread": lambda: report.plot_asset_distribution(alone, width=width),
        "pairs": lambda: report.plot_assets_against(alone, str(net.columns[1]), width=width),
        "predictions": lambda: report.plot_predictions(made, overlap=5, width=width),
        "calibration": lambda: report.plot_calibration(made, width=width),
    }


def _world(kind):
    gross = made_up_run.returns(120, NAMES)
    if kind == "one bar":
        gross = gross.iloc[:1]
    elif kind == "nothing known":
        gross[:] = np.nan
    elif kind == "constant":
        gross[:] = 0.0
    elif kind == "ruined":
        gross.iloc[60:] = 0.0
        gross.iloc[60, 0] = -1.5
    elif kind == "gaps":
        gross.iloc[:20, 0], gross.iloc[40:50, 0], gross.iloc[-9:, 1] = np.nan, np.nan, np.inf
    elif kind == "extreme":
        gross.iloc[::7] = 30.0
        gross.iloc[3::7] = -0.9999
    elif kind == "many, hourly":
        gross = made_up_run.returns(3000, [f"strategy number {i}" for i in range(13)], step="h")
    elif kind == "numbered":
        gross = gross.set_axis(pd.RangeIndex(len(gross)))
    turnover = gross.abs() * 10
    return gross - 0.001 * turnover, gross, turnover


OF_ROWS = ("assets", "spread", "pairs", "predictions", "calibration")
WORLDS = ("one bar", "nothing known", "constant", "ruined", "gaps", "extreme")


@pytest.mark.slow
@pytest.mark.parametrize("world", WORLDS)
def test_every_figure_stands_every_world(world):
    tables = _world(world)
    for name, plot in plots(*tables, width=4.3).items():
        figure = drawn(plot())
        if world == "nothing known" and name not in OF_ROWS:
            assert not figure.axes[0].lines, name


@pytest.mark.slow
@pytest.mark.long
def test_many_strategies_and_hours_are_drawn_wide():
    tables = _world("many, hourly")
    for name, plot in plots(*tables, width=9.6).items():
        figure = drawn(plot())
        handles = figure.legends[0].get_texts() if figure.legends else []
        assert len(handles) <= style.MOST_LINES + 1, name
    points = sum(len(line.get_xdata()) for line in report.plot_equity(tables[0]).axes[0].lines)
    assert points < 8 * 1000 + 10


def test_numbers_may_stand_for_times():
    net, gross, _ = _world("numbered")
    assert "bar" in words(drawn(report.plot_equity(net, gross)))
    drawn(report.plot_drawdown(net))


def test_names_of_assets_leave_room_and_are_no_formulas():
    names = ["a name that nobody wants to read " * 3, "A$B_{x", "$y$"]
    alone = pd.DataFrame({"strategy": "maml", "asset": names, "Sharpe Ratio": [0.1, 0.2, 0.3]})
    figure = report.plot_assets(alone, width=4.0)
    figure.canvas.draw()
    told = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert {"A$B_{x", "$y$"} < {*told}
    assert max(map(len, told)) <= 26
    assert not any(label.get_parse_math() for label in figure.axes[0].get_yticklabels())


@pytest.mark.long
def test_every_figure_has_units_and_a_legend():
    units = {
        "equity": "growth of 1", "drawdown": "%", "rolling": "(ann.)", "months": "%",
        "distribution": "%", "exposure": "% of equity", "costs": "basis points", "regimes": "%",
        "assets": "Sharpe Ratio", "spread": "lower figure, %", "pairs": "Sharpe Ratio",
        "predictions": "mean outcome", "calibration": "%",
    }  # fmt: skip
    for name, plot in plots(*_world("usual"), width=9.6).items():
        figure = drawn(plot())
        labels = [label for axes in figure.axes for label in (axes.get_xlabel(), axes.get_ylabel())]
        assert units[name] in " ".join(labels).replace("\n", " "), name
        assert figure.legends or name == "months", name  # whose legend is the bar of colours


def test_the_callers_style_is_left_alone_and_has_no_say():
    net = _world("usual")[0]
    plain = report.plot_equity(net)
    with mpl.rc_context({"axes.grid": False, "font.size": 30}):
        figure = report.plot_equity(net)
        assert mpl.rcParams["font.size"] == 30
    sizes = [each.axes[0].yaxis.label.get_size() for each in (plain, figure)]
    assert sizes[0] == sizes[1] == 9


def test_equity_is_compounded_and_gross_is_told_apart():
    net, gross, _ = _world("usual")
    axes = report.plot_equity(net, gross).axes[0]
    lines = {line.get_label(): line.get_ydata() for line in axes.lines}
    assert lines["maml"][-1] == pytest.approx((1 + net["maml"]).prod())
    assert lines["maml, before costs"][-1] == pytest.approx((1 + gross["maml"]).prod())
    assert lines["maml"][-1] < lines["maml, before costs"][-1]
    assert axes.get_yscale() == "log"


def test_a_lost_account_is_named():
    assert "maml (lost)" in words(report.plot_equity(_world("ruined")[0]))


def test_drawdowns_are_below_the_highest_equity():
    net = pd.DataFrame({"a": [0.1, -0.2, 0.05, 0.3]}, pd.date_range("2020-01-01", periods=4))
    (line, *_) = report.plot_drawdown(net).axes[0].lines
    np.testing.assert_allclose(line.get_ydata(), [0.0, -20.0, -16.0, 0.0], atol=1e-12)


def test_the_rolling_ratio_is_that_of_its_window():
    net = _world("usual")[0]
    (line, *_) = report.plot_rolling_sharpe(net, 252.0, window=50).axes[0].lines
    assert line.get_ydata()[-1] == pytest.approx(sharpe_ratio(net["maml"].iloc[-50:], 252.0))
    assert np.isnan(line.get_ydata()[48]) and np.isfinite(line.get_ydata()[49])


def test_months_compound_to_years():
    returns = made_up_run.returns(800, ("maml",), start="2019-11-20")["maml"]
    table = report.monthly_returns(returns)
    assert list(table.index) == [2019, 2020, 2021, 2022]
    assert list(table.columns) == [*range(1, 13), "year"]
    months = table.drop(columns="year")
    np.testing.assert_allclose((1 + months).prod(axis=1) - 1, table["year"])
    assert months.loc[2019].notna().sum() == 2
    assert table.loc[2020, 2] == pytest.approx((1 + returns.loc["2020-02"]).prod() - 1)


def test_costs_are_taken_from_gross_returns():
    net, gross, turnover = _world("usual")
    table = report.cost_sensitivity(gross, turnover, 252.0)
    assert list(table.index) == list(range(0, 55, 5))
    for name in net:
        assert table.loc[0, name] == pytest.approx(sharpe_ratio(gross[name], 252.0))
        assert table.loc[10, name] == pytest.approx(sharpe_ratio(net[name], 252.0))
    even = report.break_even(gross, turnover)
    left = (gross - 1e-4 * even * turnover).mean()
    np.testing.assert_allclose(left, 0.0, atol=1e-12)
    assert report.break_even(gross, 0 * turnover).isna().all()
    with pytest.raises(DataError, match="differ in bars or strategies"):
        report.cost_sensitivity(gross, turnover.iloc[1:], 252.0)


def test_binned_outcomes_have_the_size_and_slope_of_the_rows():
    index = pd.date_range("2020-01-01", periods=5000)
    rows = made_up_run.predictions(index, ["A"], ["maml"], slope=0.5)
    table = report.binned_outcomes(rows, bins=10, overlap=4)
    assert list(table["rows"]) == [500] * 10
    assert np.polyfit(table["prediction"], table["target"], 1)[0] == pytest.approx(0.5, abs=0.03)
    single = report.binned_outcomes(rows, bins=10)
    np.testing.assert_allclose(table["error"], 2 * single["error"])
    weighted = (table["target"] * table["rows"]).sum() / table["rows"].sum()
    assert weighted == pytest.approx(rows["target"].mean())


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize(
    ("dates", "assets", "shared", "own"), [(150, 20, 0.7, 0.3), (150, 20, 0.7, 0.9), (300, 1, 0, 0)]
)
def test_intervals_of_bins_hold_the_truth_where_assets_share_their_shocks(
    dates, assets, shared, own
):
    """Intervals that count 20 assets of a date as independent hold it about half of the times."""
    rng = np.random.default_rng(5)

    def drawn_of(share):
        common, each = rng.standard_normal((dates, 1)), rng.standard_normal((dates, assets))
        return (np.sqrt(share) * common + np.sqrt(1 - share) * each).ravel()

    inside = []
    for _ in range(60):
        rows = pd.DataFrame(
            {"timestamp": np.repeat(pd.date_range("2020-01-01", periods=dates), assets)}
        )
        rows["prediction"] = drawn_of(own)
        rows["target"] = 0.3 * rows["prediction"] + drawn_of(shared)
        table = report.binned_outcomes(rows)
        inside.append((0.3 * table["prediction"]).between(table["low"], table["high"]))
    assert 0.9 <= np.mean(inside) <= 0.98
    axes = report.plot_predictions(rows).axes[0]
    spans = np.array([span[:, 1] for span in axes.collections[0].get_segments()])
    np.testing.assert_allclose(spans, table[["low", "high"]])


def test_a_bin_of_one_date_has_no_interval_and_order_does_not_matter():
    index = pd.date_range("2020-01-01", periods=40, tz="UTC")
    rows = made_up_run.predictions(index, ["A", "B", "C"], ["maml"])
    table = report.binned_outcomes(rows, bins=4)
    shuffled = rows.sample(frac=1.0, random_state=0).set_axis(np.zeros(len(rows)))
    pd.testing.assert_frame_equal(report.binned_outcomes(shuffled, bins=4), table)
    assert (table["dates"] < 40).all() and (table["dates"] > 1).all()
    one = report.binned_outcomes(rows[rows["timestamp"] == index[0]], bins=1)
    assert one["rows"].iloc[0] == 3 and one["dates"].iloc[0] == 1 and one["error"].isna().all()
    drawn(report.plot_predictions(rows[rows["timestamp"] == index[0]]))


def test_equal_predictions_are_one_bin():
    rows = pd.DataFrame({"prediction": 0.1, "target": [1.0, 2.0, np.nan, 3.0]})
    table = report.binned_outcomes(rows)
    assert len(table) == 1 and table["rows"].iloc[0] == 3 and table["target"].iloc[0] == 2.0
    drawn(report.plot_predictions(rows))


def test_true_intervals_lie_on_the_diagonal():
    index = pd.date_range("2020-01-01", periods=20000)
    rows = made_up_run.predictions(index, ["A"], ["maml"], slope=1.0)
    rows["std"] = 1.0
    line = report.plot_calibration(rows).axes[0].lines[0]
    np.testing.assert_allclose(line.get_xdata(), line.get_ydata(), atol=1.5)
    rows["std"] = 0.5
    line = report.plot_calibration(rows).axes[0].lines[0]
    at = list(line.get_xdata()).index(90.0)
    share = norm.cdf(0.5 * norm.ppf(0.95)) - norm.cdf(-0.5 * norm.ppf(0.95))
    assert line.get_ydata()[at] == pytest.approx(100 * share, abs=1.0)


def test_adaptation_begins_before_the_first_step():
    table = pd.DataFrame({"maml": [1.2, 1.0, 0.9], "fomaml": [1.3, np.nan, 1.1]}, [0, 1, 5])
    figure = drawn(report.plot_adaptation(table, {"ridge": 1.05}, width=4.7, height=3.0))
    maml, fomaml, *_ = figure.axes[0].lines
    assert list(maml.get_xdata()) == [0, 1, 5] and list(fomaml.get_xdata()) == [0, 5]
    assert "ridge" in words(figure)
    drawn(report.plot_adaptation(table * np.nan))
    drawn(report.plot_adaptation(table.iloc[:1]))


def test_intervals_are_drawn_as_they_are():
    made = made_up_run.intervals(made_up_run.returns(5), "strategy")
    figure = drawn(report.plot_intervals(made, headline="maml", width=4.7))
    span, dot = figure.axes[0].lines[:2]
    assert list(span.get_xdata()) == pytest.approx([-1.0, 0.3]) and dot.get_xdata()[0] == -0.4
    drawn(report.plot_intervals(made, "Calmar Ratio"))
    made[["low", "high"]] = np.nan
    drawn(report.plot_intervals(made))


def test_a_table_without_its_columns_is_refused():
    for plot, table in (
        (report.plot_predictions, pd.DataFrame({"prediction": [1.0]})),
        (report.plot_calibration, pd.DataFrame({"prediction": [1.0], "target": [1.0]})),
        (report.plot_intervals, pd.DataFrame({"strategy": ["a"]})),
    ):
        with pytest.raises(DataError, match="lacks"):
            plot(table)


def test_training_is_drawn_and_may_be_empty():
    history = pd.DataFrame({"method": "maml", "step": range(100), "loss": 1.0})
    history.loc[0, "loss"] = 50.0
    drawn(report.plot_training(history))
    drawn(report.plot_training(history.iloc[:1]))
    drawn(report.plot_training(history.iloc[:0]))


def test_every_fold_is_a_line_of_its_own_that_never_runs_back():
    history = pd.concat(
        pd.DataFrame({"method": name, "fold": fold, "step": range(400), "loss": 1.0 + fold})
        for fold in range(3)
        for name in ("maml", "reptile")
    )
    history.loc[(history["fold"] == 1) & (history["step"] > 350), "loss"] = np.inf
    figure = drawn(report.plot_training(history))
    lines = figure.axes[0].lines
    assert len(lines) == 6 and len({line.get_color() for line in lines}) == 2
    assert all((np.diff(line.get_xdata()) > 0).all() for line in lines)
    assert {*np.unique(lines[0].get_ydata())} == {1.0} and lines[2].get_ydata()[-1] == 3.0
    told = [each.get_text() for each in figure.legends[0].get_texts()]
    assert told == ["maml, each of 3 folds", "reptile, each of 3 folds"]
    alone = report.plot_training(history[history["fold"] == 0])
    assert [each.get_text() for each in alone.legends[0].get_texts()] == ["maml", "reptile"]
    assert alone.axes[0].lines[0].get_linewidth() > lines[0].get_linewidth()


def test_turnover_tells_over_how_many_bars_it_is_averaged():
    turnover = _world("usual")[2]
    label = report.plot_exposure(turnover, turnover).axes[1].get_ylabel()
    assert label.endswith("mean\nof 2 bars")
    few = turnover.iloc[:60]
    assert "mean" not in report.plot_exposure(few, few).axes[1].get_ylabel()


def test_what_was_paid_is_all_that_lies_between_gross_and_net():
    net, gross, turnover = _world("usual")
    np.testing.assert_allclose(report.effective_cost(gross, net, turnover), 10.0)
    assert report.effective_cost(gross, net, 0 * turnover).isna().all()
    even = report.break_even(gross, turnover) - report.effective_cost(gross, net, turnover)
    assert (np.sign(even) == np.sign(net.mean())).all()


def test_thinning_keeps_ends_extremes_and_gaps():
    rng = np.random.default_rng(0)
    values = pd.Series(rng.standard_normal(10_000))
    values.iloc[4000:4500] = np.nan
    kept = style.thin(values, 100)
    assert len(kept) < 250
    assert kept.index[0] == 0 and kept.index[-1] == 9999
    assert kept.max() == values.max() and kept.min() == values.min()
    assert {3999, 4500} <= {*kept.index}
    assert not {*kept.dropna().index} & {*range(4000, 4500)}
    short = values.iloc[:50]
    assert style.thin(short, 100) is short

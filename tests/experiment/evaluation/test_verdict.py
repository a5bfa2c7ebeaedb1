import re
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from maml_jax.backtest import r_squared_difference
from maml_jax.backtest.inference import (
    Roles,
    assess_significance,
    bootstrap_differences,
    bootstrap_intervals,
)
from maml_jax.experiment.evaluation.evaluate import Evaluation
from maml_jax.experiment.evaluation.verdict import _number, is_significant
from maml_jax.experiment.evaluation.verdict import verdict as verdict_of

HELD, UNADAPTED = "buy and hold", "no adaptation"


def run(edge=0.0, bars=600, methods=("maml",), trials=None, kind="return", seed=0, **tables):
    """What verdicts read of a run whose methods earn an edge beside random sides."""
    rng = np.random.default_rng(seed)
    index = pd.date_range("2020-01-01", periods=bars, tz="UTC", name="timestamp")
    market = rng.normal(0.0004, 0.01, bars)
    net = pd.DataFrame(index=index)
    for method in methods:
        net[method] = rng.choice([-1.0, 1.0], bars) * market + edge
    net[UNADAPTED] = rng.choice([-1.0, 1.0], bars) * market
    net[HELD] = market
    return of_returns(net, methods, trials, kind, **tables)


def of_returns(
    net,
    methods=("maml",),
    trials=None,
    kind="return",
    fill="next_close",
    folds="single",
    **tables,
):
    sharpe = net.mean() / net.std().where(net.std() > 0) * np.sqrt(365)
    rows = {"Start": net.index[0], "End": net.index[-1]}
    stats = pd.DataFrame(
        {n: pd.Series({**rows, "Sharpe Ratio": sharpe[n]}, dtype=object) for n in net}
    )
    drawn = {"bars_per_year": 365, "seed": 0, "samples": 199}
    told = {
        "intervals": bootstrap_intervals(net, **drawn),
        "differences": bootstrap_differences(net, methods[0], list(net.columns), **drawn),
        "significance": assess_significance(
            net,
            Roles(methods[0], methods, [UNADAPTED, HELD]),
            trials=trials or len(methods),
            trial_variance=0.001,
            **drawn,
        ),
        **tables,
    }
    empty = pd.DataFrame()
    evaluation = Evaluation(stats, empty, net, empty, empty, empty, empty, **told)
    return SimpleNamespace(
        config=SimpleNamespace(
            target=SimpleNamespace(kind=kind, horizon=5, fill=fill),
            folds=SimpleNamespace(kind=folds),
            seed=0,
        ),
        evaluation=evaluation,
    )


def verdict(result):
    return verdict_of(result.config, result.evaluation)


def test_luck_is_not_called_significant():
    result = run()
    said = verdict(result)
    row = result.evaluation.significance.loc["maml"]
    assert not is_significant(result.evaluation)
    assert said.startswith("From 2020-01-01 to 2021-08-22 (600 bars), after costs, maml had a")
    sharpe = result.evaluation.stats.loc["Sharpe Ratio", "maml"]
    assert f"Sharpe ratio of {_number(sharpe)} (95 % interval" in said
    assert f"alpha over buy and hold is {row['alpha [%]']:.2f} % a year (90 % interval" in said
    assert "not significant at 5 %" in said and "not distinguishable from 0" in said
    assert f"p = {row['p_value']:.2f}, one-sided)" in said
    assert "only recorded trial on these bars" in said
    assert "Hansen's SPA test finds no evidence that it beats every baseline" in said
    assert said.endswith("One stretch of history proves little by itself.")
    assert "nan" not in said


def test_an_edge_is_called_significant_and_still_one_stretch_of_history():
    result = run(edge=0.004)
    said = verdict(result)
    assert is_significant(result.evaluation)
    assert "significant at 5 %" in said and "not significant" not in said
    assert "): it helped." in said and "Hansen's SPA test finds evidence that it beats" in said
    assert said.endswith("proves little by itself.")
    assert "): it hurt." in verdict(run(edge=-0.004))


def test_what_is_significant_alone_is_not_as_the_best_of_many():
    alone, many = run(edge=0.0008), run(edge=0.0008, trials=60)
    assert alone.evaluation.significance.loc["maml", "p_value"] < 0.05
    assert is_significant(alone.evaluation) and not is_significant(many.evaluation)
    said = verdict(many)
    assert "not significant at 5 %" in said and "adjusted for 60 trials" in said
    assert "luck alone gives the best of 60 recorded trials" in said


def test_several_methods_tell_what_choosing_the_best_is_worth():
    result = run(methods=("maml", "reptile"), overfitting={"probability": 0.25})
    said = verdict(result)
    assert "some method of this run beats" in said
    assert "methods is overfitted: 25 %." in said
    assert "adjusted for 2 trials" in said


def test_few_bars_are_said_to_be_few():
    assert "60 bars are few" in verdict(run(bars=60))
    said = verdict(run(bars=10))
    assert "cannot be tested, so no significance is claimed" in said and "nan" not in said
    assert not is_significant(run(bars=10).evaluation)


def test_the_same_as_without_adaptation_is_told_as_such():
    net = run().evaluation.returns
    said = verdict(of_returns(net.assign(**{UNADAPTED: net["maml"]})))
    assert "Adapting changed nothing: without it the returns are the same." in said
    assert "distinguishable" not in said and "-0.00 " not in said


def test_without_a_trade_or_without_tables_nothing_is_significant():
    idle = run().evaluation.returns.assign(maml=0.0)
    result = of_returns(idle)
    assert verdict(result).endswith("maml took no position.")
    assert not is_significant(result.evaluation)
    empty = pd.DataFrame()
    old = run(edge=0.004, intervals=empty, differences=empty, significance=empty)
    assert not is_significant(old.evaluation)
    sharpe = old.evaluation.stats.loc["Sharpe Ratio"]
    assert verdict(old) == (
        f"From 2020-01-01 to 2021-08-22, after costs, maml had a Sharpe ratio of "
        f"{sharpe['maml']:.2f}, against {sharpe[UNADAPTED]:.2f} for no adaptation (beaten), "
        f"{sharpe[HELD]:.2f} for buy and hold (beaten). One stretch of history proves little by "
        "itself."
    )


@pytest.mark.parametrize("kind", ["return", "volatility"])
def test_costs_beyond_the_gross_profit_come_first(kind):
    result = run(kind=kind)
    stats = result.evaluation.stats
    stats.loc["R2"] = 0.5
    result.evaluation = result.evaluation._replace(
        predictions=pd.DataFrame({"strategy": ["x"], "prediction": [0.0]})
    )
    for gross, net, exceeded in ((3.0, -1.5, True), (3.0, 1.5, False), (-1.0, -2.0, False)):
        stats.loc["Gross Return [%]", "maml"], stats.loc["Return [%]", "maml"] = gross, net
        said = verdict(result)
        first = "Costs exceed the gross profit: maml made 3.00 % before costs and lost 1.50 % after"
        assert said.startswith(first) is exceeded
        assert "Costs exceed" not in said[10:]


def test_of_forecasts_of_volatility_the_explained_share_is_told_with_its_difference():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(2, 400))
    found = {"maml": truth + rng.normal(0, 0.3, truth.shape)}
    found[UNADAPTED] = truth + rng.normal(0, 0.6, truth.shape)
    times = pd.date_range("2020-01-01", periods=400, tz="UTC")
    rows = [
        {"timestamp": time, "asset": asset, "strategy": name, "prediction": p, "target": y}
        for name, values in found.items()
        for asset, line, outcomes in zip("ab", values, truth, strict=True)
        for time, p, y in zip(times, line, outcomes, strict=True)
        if not (name == "maml" and time == times[7])  # one did not forecast everywhere
    ]
    result = run(kind="volatility")
    result.evaluation.stats.loc["R2"] = [0.9, 0.6, np.nan]
    result.evaluation = result.evaluation._replace(predictions=pd.DataFrame(rows))
    keep = np.arange(400) != 7
    expected = r_squared_difference(
        found["maml"][:, keep], found[UNADAPTED][:, keep], truth[:, keep], block=21
    )
    said = verdict(result)
    assert re.search(r"by maml had an R2 of 0\.900?, against 0\.600? for no adaptation", said)
    assert (
        f"Its R2 minus that of no adaptation is {expected.value:.3f} (95 % interval "
        f"{expected.low:.3f} to {expected.high:.3f})."
    ) in said
    assert "har" not in said
    assert "Of positions sized by these forecasts: its alpha over buy and hold is" in said


@pytest.mark.parametrize("column", ["p_adjusted", "deflated_sharpe", "spa_p"])
def test_what_is_not_defined_is_left_out(column):
    result = run()
    result.evaluation.significance[column] = np.nan
    assert "nan" not in verdict(result)

"""Risk by the learner of a run whose target is a volatility, in place of weights that ship.

The run adapts to each asset as `maml-jax adapt` does and forecasts its last bar. What its forecasts
left over in its own test span gives the quantiles of the return and the bounds of the volatility.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeGuard

import numpy as np
import pandas as pd
from jaxtyping import Float

from maml_jax.errors import ConfigError, DataError, MamlJaxError
from maml_jax.listing import join_names
from maml_jax.risk.forecast import Forecast
from maml_jax.risk.histories import Histories, Scaling, make_histories, outcome
from maml_jax.risk.model import CARD, RiskModel
from maml_jax.risk.residuals import AGES, Residuals, measure_residuals

if TYPE_CHECKING:
    from maml_jax.experiment import Result

_LEAST = 100
"""Forecasts of the test span that quantiles are measured on, at least."""

_NOTHING = Scaling(np.zeros(0), np.ones(0), 0.0, 1.0)


class OfRun(NamedTuple):
    """What a run forecasts of assets.

    Attributes:
        model: name, bars and residuals of the run; without members, since the run itself forecasts.
        histories: of the assets that it could forecast.
        forecasts: of each, at its last bar alone.
        notes: what these rest on, and what was left out.
    """

    model: RiskModel
    histories: Histories
    forecasts: list[Forecast]
    notes: list[str]


def is_run(model: Any) -> TypeGuard[str | Path]:
    """Say whether a model is named by a run directory, and not by a folder of weights."""
    if not isinstance(model, str | Path):
        return False
    folder = Path(model)
    return (folder / "checkpoints").is_dir() and not (folder / CARD).is_file()


def forecast_by_run(
    path: str | Path, bars: Mapping[str, pd.DataFrame], horizon: int | None
) -> OfRun:
    """Adapt a run to each asset, and forecast its volatility.

    Args:
        path: a run directory.
        bars: in normal form, by asset.
        horizon: None, or that of the run's target.

    Raises:
        ConfigError: if the run does not forecast volatility, or another horizon, or the bars that
            it was tested on cannot be read.
        DataError: if it can forecast no asset.
        RunError: if the directory cannot be read.
    """
    from maml_jax.experiment import load
    from maml_jax.experiment.process import set_up

    set_up()
    result = load(path, page=False)
    _require_volatility(result, path, horizon)
    [method, checkpoint] = next(iter(result.checkpoints.items()))
    horizon = result.config.target.horizon
    residuals, count = _residuals(result, path, method, horizon)
    kept, means, reasons = {}, [], []
    for name, frame in bars.items():
        try:
            means.append(_forecast(result, name, frame))
            kept[name] = frame
        except DataError as error:
            reasons.append(f"{error}")
    if not kept:
        raise DataError(join_names(reasons, 3))
    histories = make_histories(kept)
    about = f"{join_names(list(checkpoint.config.data.train_assets or ()), 5)} by its own settings"
    model = RiskModel(
        name=f"{method} of {Path(path).resolve().name}",
        interval=checkpoint.interval,
        network=(),
        mean_network=(),
        heteroscedastic=False,
        members=(),
        scaling=_NOTHING,
        residuals={horizon: residuals},
        rate=0.0,
        card={"about": about},
    )
    forecasts = [
        _at_last(returns, mean, horizon)
        for returns, mean in zip(histories.returns, means, strict=True)
    ]
    notes = [
        f"Forecast by {method} of {path}, adapted to the last labelled rows of each asset. VaR, "
        f"ES, stops and bounds: from what {count:,} forecasts of its test span left over."
    ]
    notes += [f"Left out: {reason}." for reason in reasons]
    return OfRun(model, histories, forecasts, notes)


def _require_volatility(result: "Result", path: str | Path, horizon: int | None) -> None:
    target = result.config.target
    if target.kind != "volatility":
        raise ConfigError(
            f"model {str(path)!r}: this run predicts a {target.kind}; risk needs one with "
            'target.kind = "volatility", or leave --model out for the weights that ship'
        )
    if horizon not in (None, target.horizon):
        raise ConfigError(
            f"horizon {horizon}: this run forecasts the next {target.horizon} bars and no others; "
            "leave --horizon out, or --model for the weights that ship"
        )
    if result.evaluation is None:
        raise ConfigError(
            f"model {str(path)!r}: this run was trained, and not tested, so nothing is known of "
            f"its tails: maml-jax backtest {path} first, or leave --model out"
        )


def _forecast(result: "Result", name: str, frame: pd.DataFrame) -> float:
    """Forecast the log of volatility per bar after the last bar of an asset."""
    frame = frame[frame["close"].notna()]
    predicted = result.adapt({name: frame}).predict({name: frame})
    mean = predicted["mean"] if isinstance(predicted, pd.DataFrame) else predicted
    if mean.index[-1] != frame.index[-1] or not np.isfinite(mean.iloc[-1]):
        raise DataError(f"{name}: the run has no features at its last bar, {frame.index[-1]}")
    return float(mean.iloc[-1])


def _at_last(returns: Float[np.ndarray, " bar"], mean: float, horizon: int) -> Forecast:
    last = len(returns) - 1
    unknown = np.array([np.nan])
    return Forecast(last, np.array([last]), np.array([mean]), np.ones(1), unknown, unknown, horizon)


def _residuals(
    result: "Result", path: str | Path, method: str, horizon: int
) -> tuple[Residuals, int]:
    """Measure what the forecasts of a run left over in its test span, the same for every age."""
    mean, ahead, total = _tested(result, path, method, horizon)
    if len(mean) < _LEAST:
        raise ConfigError(
            f"model {str(path)!r}: {len(mean)} forecasts of its test span have an outcome, and "
            f"quantiles need {_LEAST}: test on more bars, or leave --model out"
        )
    times = len(AGES)
    age = np.repeat(AGES, len(mean))
    mean, ahead, total = (np.tile(each, times) for each in (mean, ahead, total))
    return measure_residuals(age, mean, np.ones_like(mean), ahead, total, horizon), len(
        age
    ) // times


def _tested(
    result: "Result", path: str | Path, method: str, horizon: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the forecasts of the test span, and what came: volatility, and return."""
    from maml_jax.data import clean_bars
    from maml_jax.experiment.preparation.bars import load_bars

    config = result.config
    try:
        frames = clean_bars(load_bars(config), config.data.policies).bars
    except MamlJaxError as error:
        raise ConfigError(
            f"model {str(path)!r}: its tails need the bars that it was tested on: {error}; or "
            "leave --model out for the weights that ship"
        ) from error
    table = result.predictions
    table = table[table["strategy"] == method]
    found: list[Sequence[np.ndarray]] = []
    for name in table["asset"].unique():
        if name not in frames:
            continue
        own = table[table["asset"] == name]
        histories = make_histories({name: frames[name]})
        at = histories.times[0].get_indexer(pd.DatetimeIndex(own["timestamp"]))
        ahead, total = (each[at] for each in outcome(histories.returns[0], horizon))
        mean = own["prediction"].to_numpy(float)
        known = (at >= 0) & np.isfinite(mean) & np.isfinite(ahead) & np.isfinite(total)
        found.append([each[known] for each in (mean, ahead, total)])
    none = np.empty(0)
    mean, ahead, total = (np.concatenate([none, *(each[i] for each in found)]) for i in range(3))
    return mean, ahead, total

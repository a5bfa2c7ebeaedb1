"""The main job: bars to meta-training to walk-forward to results, in one call."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import jax
import pandas as pd

from maml_jax.data import Store, bar_interval, require_same_interval
from maml_jax.errors import ConfigError
from maml_jax.experiment.checkpoint import Checkpoint
from maml_jax.experiment.config import Config
from maml_jax.experiment.config_file import load_config
from maml_jax.experiment.evaluate import evaluate
from maml_jax.experiment.learn import make_learner, meta_train, predicts_deviation
from maml_jax.experiment.prepare import Prepared, prepare
from maml_jax.experiment.reading import BUILTIN, MEMORY, is_stored, load_bars
from maml_jax.experiment.result import (
    Result,
    add_evaluation,
    load,
    require_new,
    require_no_evaluation,
)
from maml_jax.experiment.stages import stage
from maml_jax.experiment.trade import NEED_DEVIATION

Bars = pd.DataFrame | Mapping[str, pd.DataFrame]
Source = str | Path | Mapping | Config | None

CHANGEABLE = (
    "backtest.",
    "data.path",
    "data.assets",
    "data.test_",
    "data.missing",
    "data.policies",
    "data.store",
    "data.timezone",
    "online.",
    "task.pairs",
)
"""What a backtest of a trained run may set anew; the rest belongs to what was trained."""


def run(
    config: Source = None,
    *,
    bars: Bars | None = None,
    out: str | Path | None = None,
    **overrides,
) -> Result:
    """Meta-train, walk forward, simulate and measure.

    Args:
        config: a TOML file, a mapping, or None for the built-in example (for the defaults where
            `bars` are given).
        bars: bars to use instead of those that the settings name: a table in any layout that
            `maml_jax.data.to_bars` reads, or `{asset: table}`.
        out: run directory to write, which must not exist; None writes nothing. What was trained is
            there before the walk-forward begins, so that nothing that happens later loses it.
        **overrides: settings by section, as in `training={"steps": 100}`, or `seed=1`.

    Returns:
        The result. The same settings, bars and seed give the same numbers.

    Raises:
        ConfigError: naming the key of a wrong setting.
        DataError: naming what is wrong with the bars.
        TrainingError: if meta-training met a loss that is not finite.
        RunError: if `out` exists or cannot be written.

    >>> from maml_jax.experiment import run
    >>> result = run(training={"steps": 2, "meta_batch": 4}, learner={"methods": ["maml"]})
    >>> list(result.stats)[:4]
    ['maml', 'no adaptation', 'from scratch', 'ridge regression']
    >>> list(result.stats)[4:]
    ['momentum', 'random positions', 'buy and hold']
    """
    return _run(config, bars, out, overrides, backtested=True)


def train(
    config: Source = None,
    *,
    bars: Bars | None = None,
    out: str | Path | None = None,
    **overrides,
) -> Result:
    """Meta-train only; arguments, errors and result as for `run`, without its evaluation."""
    return _run(config, bars, out, overrides, backtested=False)


def backtest(
    trained: Result | str | Path,
    *,
    bars: Bars | None = None,
    out: str | Path | None = None,
    **overrides,
) -> Result:
    """Walk forward, simulate and measure with what was trained before.

    Args:
        trained: a result, or a run directory. A directory that holds no backtest yet receives this
            one, unless `out` names another.
        bars: bars to use instead of those that the settings name; all of their assets are tested
            unless those of the settings are among them.
        out: run directory to write, which must not exist.
        **overrides: settings of the section `backtest`, and of `data` those that choose the bars
            and the test span.

    Raises:
        ConfigError: also if an override would change what was trained.
        RunError: if there is nothing trained there, or a backtest already.
    """
    result = trained if isinstance(trained, Result) else load(trained)
    if out is not None:
        require_new(out)
    elif not isinstance(trained, Result):
        require_no_evaluation(trained)
    config = _named(load_config(result.config, overrides), bars)
    _require_untouched(result.config, config)
    _require_devices(config)
    _require_methods(config)
    frames = load_bars(config, bars)
    if bars is not None and not {*(config.data.test_assets or ())} <= {*frames}:
        data = config.data.model_copy(update={"test_assets": None})
        config = config.model_copy(update={"data": data})
    checkpoint = next(iter(result.checkpoints.values()))
    prepared = prepare(config, frames, checkpoint.fitted)
    require_same_interval(prepared.bars, checkpoint.interval)
    result = _evaluated(result, prepared)
    if out is not None:
        result.save(out)
    elif not isinstance(trained, Result):
        add_evaluation(result, trained)
    return result


def _run(config, bars, out, overrides, backtested: bool) -> Result:
    if out is not None:
        require_new(out)
    if config is None and bars is not None:
        config = Config()  # the built-in example names assets that these bars do not hold
    settings = _named(load_config(config, overrides), bars)
    _require_devices(settings)
    _require_methods(settings)
    with stage("reading and preparing bars"):
        prepared = prepare(settings, load_bars(settings, bars))
    interval = bar_interval(next(iter(prepared.bars.values())))
    trained = {}
    for method in settings.learner.methods:
        with stage(f"meta-training {method}"):
            trained[method] = meta_train(prepared, method)
    result = Result(
        config=prepared.config,
        checkpoints={
            method: Checkpoint(
                method, prepared.config, prepared.scaler, params, interval, prepared.chain
            )
            for method, (params, _) in trained.items()
        },
        history=_history(trained),
        notes=prepared.notes,
    )
    if out is not None:
        with stage("writing checkpoints"):
            result.save(out)
    if backtested:
        result = _evaluated(result, prepared)
        if out is not None:
            with stage("writing tables and report"):
                add_evaluation(result, out)
    return result


def _evaluated(result: Result, prepared: Prepared) -> Result:
    params = {name: checkpoint.params for name, checkpoint in result.checkpoints.items()}
    evaluation = evaluate(prepared, params)
    notes = (*prepared.notes, *evaluation.notes)
    return replace(result, config=prepared.config, notes=notes, evaluation=evaluation)


def _history(trained) -> pd.DataFrame:
    tables = {method: history.reset_index() for method, (_, history) in trained.items()}
    return pd.concat(tables, names=["method"]).reset_index("method").reset_index(drop=True)


def _named(config: Config, bars: Bars | None) -> Config:
    """Note in the settings where bars and modules are, wherever they are read again."""
    path, store = config.data.path, config.data.store
    if bars is not None:
        path = MEMORY
    elif is_stored(path):
        store = str(Store(store).root.absolute())
    elif path not in (BUILTIN, MEMORY):
        paths = [path] if isinstance(path, str) else path
        absolute = tuple(str(Path(each).absolute()) for each in paths)
        path = absolute[0] if isinstance(path, str) else absolute
    modules = tuple(
        str(Path(each).absolute()) if each.endswith(".py") else each
        for each in config.features.modules
    )
    return config.model_copy(
        update={
            "data": config.data.model_copy(update={"path": path, "store": store}),
            "features": config.features.model_copy(update={"modules": modules}),
        }
    )


def _require_untouched(before: Config, after: Config) -> None:
    old, new = _flat(before), _flat(after)
    for key in sorted(old.keys() | new.keys()):
        if old.get(key) != new.get(key) and not key.startswith(CHANGEABLE):
            raise ConfigError(
                f"key {key!r}: belongs to what was trained; train anew to change it, a backtest "
                f"may set what begins with {', '.join(CHANGEABLE)}"
            )


def _require_methods(config: Config) -> None:
    """Make every method's learner once, and refuse those that cannot do what the settings ask."""
    learners = {method: make_learner(config, method) for method in config.learner.methods}
    without = [method for method, learner in learners.items() if learner.update is None]
    if without and config.backtest.window == "growing":
        raise ConfigError(
            f"key 'backtest.window': growing windows need methods that take in one row after the "
            f"other, and {', '.join(without)} of 'learner.methods' cannot; use \"rolling\""
        )
    rule = config.position_rule()
    sure = [method for method in learners if not predicts_deviation(config, method)]
    if sure and rule in NEED_DEVIATION:
        raise ConfigError(
            f"key 'backtest.positions': {rule!r} needs methods that predict a deviation, such as "
            f"alpaca or ensemble, and {', '.join(sure)} of 'learner.methods' predict none"
        )


def _require_devices(config: Config) -> None:
    present = jax.device_count()
    for section in ("training", "backtest"):
        wanted = getattr(config, section).devices
        if wanted is not None and wanted > present:
            raise ConfigError(
                f"key '{section}.devices': {wanted} devices are asked for, there are {present}"
            )


def _flat(config: Config) -> dict:
    return {
        f"{section}.{key}": value
        for section, values in config.model_dump().items()
        for key, value in (values.items() if isinstance(values, dict) else [("", values)])
    }

"""The main job: bars to meta-training to walk-forward to results, in one call."""

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import jax
import pandas as pd

from maml_jax import interrupts
from maml_jax.data import Store, require_same_interval
from maml_jax.errors import ConfigError
from maml_jax.experiment.config.backtest import NEED_DEVIATION
from maml_jax.experiment.config.config import Config
from maml_jax.experiment.config.loading import load_config
from maml_jax.experiment.config.messages import require_text
from maml_jax.experiment.folds.evaluate import evaluate_folds
from maml_jax.experiment.folds.prepare import Folds, prepare_again, prepare_folds
from maml_jax.experiment.learning.train import make_learner, predicts_deviation
from maml_jax.experiment.memory import say_memory
from maml_jax.experiment.preparation.bars import BUILTIN, MEMORY, is_stored, load_bars
from maml_jax.experiment.preparation.prepare import prepare
from maml_jax.experiment.reservation import reserved
from maml_jax.experiment.result import (
    Result,
    add_evaluation,
    load,
    require_new,
    require_no_evaluation,
)
from maml_jax.experiment.timing import stage
from maml_jax.experiment.training import OF_TRAINING, train_folds
from maml_jax.experiment.working_directory import WorkingDirectory, require_no_work
from maml_jax.experiment.write_result import (
    attach,
    is_evaluated,
    tidy,
    write_evaluated,
    write_trained,
)
from maml_jax.meta import TensorBoardLogger

Bars = pd.DataFrame | Mapping[str, pd.DataFrame]
Source = str | Path | Mapping | Config | None

CHANGEABLE = (
    "backtest.",
    "data.path",
    "data.assets",
    "data.columns",
    "data.date_format",
    "data.decimal",
    "data.layout",
    "data.encoding",
    "data.skip_lines",
    "data.symbol",
    "data.test_",
    "data.missing",
    "data.policies",
    "data.store",
    "data.timezone",
    "online.",
    "task.pairs",
)
"""What a backtest of a trained run may override; the rest is fixed at training time."""


def run(
    config: Source = None,
    *,
    bars: Bars | None = None,
    out: str | Path | None = None,
    **overrides,
) -> Result:
    """Meta-train, walk forward, simulate and measure.

    A call that hangs is not ended: only the command line ends its process (`maml_jax.watchdog`).

    Args:
        config: a TOML file, a mapping, or None for the built-in example (for the defaults where
            `bars` are given).
        bars: bars to use instead of those that the settings name: a table in any layout that
            `maml_jax.data.to_bars` reads, or `{asset: table}`.
        out: run directory to write, which must not exist; None writes nothing. What was trained is
            there before the walk-forward begins, so that nothing that happens later loses it. Until
            the run is complete checkpoints lie in `<out>.partial`, from which `resume` goes on.
        **overrides: settings by section, as in `training={"steps": 100}`, or `seed=1`.

    Returns:
        The result. The same settings, bars and seed give the same numbers.

    Raises:
        ConfigError: naming the key of a wrong setting.
        DataError: naming what is wrong with the bars.
        TrainingError: if meta-training met a loss that is not finite.
        RunError: if `out` exists, cannot be written, or is being written by another process; its
            `result` holds what was found.

    >>> from maml_jax.experiment import run
    >>> result = run(
    ...     training={"steps": 2, "meta_batch": 4},
    ...     learner={"methods": ["maml"]},
    ...     data={"test_end": "2010-12-31"},
    ...     backtest={"baselines": ["momentum"], "samples": 50},
    ... )
    >>> list(result.stats)
    ['maml', 'no adaptation', 'from scratch', 'momentum', 'buy and hold']
    """
    with reserved(out):
        return _run(config, bars, out, overrides, backtested=True)


def train(
    config: Source = None,
    *,
    bars: Bars | None = None,
    out: str | Path | None = None,
    **overrides,
) -> Result:
    """Meta-train only; arguments, errors and result as for `run`, without its evaluation."""
    with reserved(out):
        return _run(config, bars, out, overrides, backtested=False)


def backtest(
    trained: Result | str | Path,
    *,
    bars: Bars | None = None,
    out: str | Path | None = None,
    trust: bool = False,
    **overrides,
) -> Result:
    """Walk forward, simulate and measure with what was trained before.

    Args:
        trained: a result, or a run directory. A directory that holds no backtest yet receives this
            one, unless `out` names another.
        bars: bars to use instead of those that the settings name; all of their assets are tested
            unless those of the settings are among them.
        out: run directory to write, which must not exist.
        trust: run the code of the modules that a run directory names for its features.
        **overrides: settings of the section `backtest`, and of `data` those that choose the bars
            and the test span.

    Raises:
        ConfigError: also if an override would change what was trained.
        RunError: if there is nothing trained there, or a backtest already; if `out` cannot be
            written, with the result as its `result`.
    """
    result = trained if isinstance(trained, Result) else load(trained, trust=trust)
    with reserved(trained if out is None and not isinstance(trained, Result) else out):
        return _backtest(result, trained, bars, out, overrides)


def _backtest(result: Result, trained, bars, out, overrides) -> Result:
    if out is not None:
        require_text("out", str(Path(out).absolute()))
        require_new(out)
    elif not isinstance(trained, Result):
        require_no_evaluation(trained)
    config = _resolve_paths(load_config(result.config, overrides, trust=False), bars)
    _require_untouched(result.config, config)
    _require_devices(config)
    _require_methods(config)
    frames = load_bars(config, bars)
    if bars is not None and not {*(config.data.test_assets or ())} <= {*frames}:
        config = config.changed(data={"test_assets": None})
    checkpoint = next(iter(result.checkpoints.values()))
    if result.folds:
        _require_same_paths(result.config, config)
        folds = prepare_again(config, frames, result.folds)
    else:
        prepared = prepare(config, frames, checkpoint.fitted)
        folds = Folds(prepared.config, [prepared], [0], prepared, prepared.notes)
    require_same_interval(folds.joined.bars, checkpoint.interval)
    result = _evaluate(result, folds, out if isinstance(trained, Result) else out or trained)
    with attach(result):
        if out is not None:
            result.save(out)
        elif not isinstance(trained, Result):
            add_evaluation(result, trained)
    return result


def resume(path: str | Path, *, bars: Bars | None = None, trust: bool = False) -> Result:
    """Go on with a call of `run` or `train` that was killed, interrupted, or failed.

    What was trained is not trained again. The result is that of an undisturbed call, to the byte.

    Args:
        path: the `out` of that call, or the working directory beside it, `<out>.partial`. Of a run
            that is complete the result is loaded.
        bars: the same bars, where they were passed in memory.
        trust: run the code of the modules that the settings kept there name for their features.

    Raises:
        DataError: if the bars have changed.
        RunError: if there is no such run, another process is at work on it, or a file is damaged.
        ConfigError, TrainingError: as for `run`.
    """
    work = WorkingDirectory.find(path)
    if work is None:
        return load(path, trust=trust)
    with reserved(work.out):
        return _carry_out(work.config(trust), bars, work.out, work.backtested, work)


def _run(config, bars, out, overrides, backtested: bool) -> Result:
    if out is not None:
        require_text("out", str(Path(out).absolute()))
        require_new(out)
        require_no_work(out)
    if config is None and bars is not None:
        config = Config()  # the built-in example names assets that these bars do not hold
    settings = _resolve_paths(load_config(config, overrides), bars)
    return _carry_out(settings, bars, None if out is None else Path(out), backtested)


def _carry_out(
    settings: Config,
    bars: Bars | None,
    out: Path | None,
    backtested: bool,
    work: WorkingDirectory | None = None,
) -> Result:
    """Do what a call of `run` or `train` does, or what is left of it."""
    _require_devices(settings)
    _require_methods(settings)
    _require_logs(settings, out)
    with stage("reading and preparing bars"):
        frames = load_bars(settings, bars)
        if work is not None:
            work.require_same(frames)
        folds = prepare_folds(settings, frames)
    if backtested:
        say_memory(folds)
    if out is None:
        result = train_folds(folds, None)
        return _evaluate(result, folds, None) if backtested else result
    if work is None:
        work = WorkingDirectory.create(out, settings, frames, backtested)
    with work.held():
        tidy(out)
        if is_evaluated(out):  # the process ended just before it could say so
            work.finish()
            return load(out)
        # Several processes end together or not at all: a signal to one of them ends it at once.
        with interrupts.deferred() if jax.process_count() == 1 else nullcontext():
            result = train_folds(folds, work)
        if backtested:
            with attach(result):
                result = _evaluate(result, folds, out)
            with stage("writing tables and report"):
                write_evaluated(result, out)
        else:
            with attach(result):
                write_trained(result, out)
        work.finish()
    return result


def _evaluate(result: Result, folds: Folds, path: str | Path | None) -> Result:
    params = [
        {name: checkpoint.params for name, checkpoint in fold.items()}
        for fold in result.folds or (result.checkpoints,)
    ]
    evaluation = evaluate_folds(
        folds,
        [params[number] for number in folds.numbers],
        ledger=None if path is None else Path(path).absolute().parent,
    )
    trained = [note for note in result.notes if note.kind in OF_TRAINING]
    notes = (*folds.notes, *trained, *evaluation.notes)
    return replace(result, config=folds.config, notes=notes, evaluation=evaluation)


def _resolve_paths(config: Config, bars: Bars | None) -> Config:
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
    require_text("data.path", *([path] if isinstance(path, str) else path))
    require_text("data.store", store)
    require_text("features.modules", *modules)
    return config.changed(data={"path": path, "store": store}, features={"modules": modules})


def _require_untouched(before: Config, after: Config) -> None:
    old, new = _flat(before), _flat(after)
    for key in sorted(old.keys() | new.keys()):
        if old.get(key) != new.get(key) and not key.startswith(CHANGEABLE):
            raise ConfigError(
                f"key {key!r}: is fixed at training time; retrain to change it. A backtest can "
                f"only override keys that start with {', '.join(CHANGEABLE)}"
            )


def _require_same_paths(before: Config, after: Config) -> None:
    """Refuse another end of the test of combinatorial folds, whose groups are what they were."""
    if before.folds.kind == "combinatorial" and before.data.test_end != after.data.test_end:
        raise ConfigError(
            "key 'data.test_end': combinatorial folds are tested on the groups that the bars were "
            "split into; retrain to change it"
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


def _require_logs(config: Config, out: Path | None) -> None:
    """Refuse logs for TensorBoard that cannot be written, before anything is trained."""
    if not config.training.tensorboard:
        return
    if out is None:
        raise ConfigError(
            "key 'training.tensorboard': logs are written to the run directory; name one with out"
        )
    TensorBoardLogger(out)


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

"""The main job: bars to meta-training to walk-forward to results, in one call."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import jax
import pandas as pd

from maml_jax.data import Store, bar_interval, require_same_interval
from maml_jax.errors import ConfigError, TrainingError
from maml_jax.experiment.config.backtest import NEED_DEVIATION
from maml_jax.experiment.config.config import Config
from maml_jax.experiment.config.loading import load_config
from maml_jax.experiment.folds.evaluate import evaluate_folds
from maml_jax.experiment.folds.prepare import Folds, prepare_again, prepare_folds
from maml_jax.experiment.learning.checkpoint import Checkpoint
from maml_jax.experiment.learning.train import make_learner, meta_train, predicts_deviation
from maml_jax.experiment.memory import say_memory
from maml_jax.experiment.preparation.bars import BUILTIN, MEMORY, is_stored, load_bars
from maml_jax.experiment.preparation.prepare import prepare
from maml_jax.experiment.reservation import reserved
from maml_jax.experiment.result import (
    Result,
    add_evaluation,
    add_fold,
    load,
    require_new,
    require_no_evaluation,
)
from maml_jax.experiment.timing import stage
from maml_jax.notes import Note

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
"""What a backtest of a trained run may override; the rest is fixed at training time."""

CUT_OFF = "cut off"
"""The kind of the note on folds that were not trained."""


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
            there before the walk-forward begins, so that nothing that happens later loses it.
        **overrides: settings by section, as in `training={"steps": 100}`, or `seed=1`.

    Returns:
        The result. The same settings, bars and seed give the same numbers.

    Raises:
        ConfigError: naming the key of a wrong setting.
        DataError: naming what is wrong with the bars.
        TrainingError: if meta-training met a loss that is not finite.
        RunError: if `out` exists, cannot be written, or is being written by another process.

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
        RunError: if there is nothing trained there, or a backtest already.
    """
    result = trained if isinstance(trained, Result) else load(trained, trust=trust)
    with reserved(trained if out is None and not isinstance(trained, Result) else out):
        return _backtest(result, trained, bars, out, overrides)


def _backtest(result: Result, trained, bars, out, overrides) -> Result:
    if out is not None:
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
    settings = _resolve_paths(load_config(config, overrides), bars)
    _require_devices(settings)
    _require_methods(settings)
    with stage("reading and preparing bars"):
        folds = prepare_folds(settings, load_bars(settings, bars))
    if backtested:
        say_memory(folds)
    result = _train_folds(folds, out)
    if backtested:
        result = _evaluate(result, folds, out)
        if out is not None:
            with stage("writing tables and report"):
                add_evaluation(result, out)
    return result


def _train_folds(folds: Folds, out: str | Path | None) -> Result:
    """Meta-train every method in every fold, and keep what is trained as soon as it is."""
    several = folds.config.folds.several()
    done: tuple[dict[str, Checkpoint], ...] = ()
    histories, result = [], None
    for number, part in enumerate(folds.parts):
        fold = f", fold {number} of {len(folds.parts)}" if several else ""
        interval = bar_interval(next(iter(part.bars.values())))
        checkpoints = {}
        for method in folds.config.learner.methods:
            with stage(f"meta-training {method}{fold}"), _name_fold(fold, result, out):
                params, history = meta_train(part, method)
            checkpoints[method] = Checkpoint(
                *(method, part.config, part.scaler, params, interval, part.chain),
                spans=part.spans if several else None,
            )
            history = history.reset_index()
            history.insert(0, "method", method)
            histories.append(history.assign(fold=number))
        done = (*done, checkpoints)
        left = len(folds.parts) - len(done)
        result = Result(
            config=folds.config,
            checkpoints=checkpoints,
            history=pd.concat(histories, ignore_index=True),
            notes=(*folds.notes, *([_cut_off(len(done), len(folds.parts))] if left else [])),
            folds=done if several else (),
        )
        if out is not None:
            with stage("writing checkpoints"):
                result.save(out) if len(done) == 1 else add_fold(result, out)
    assert result is not None
    return result


def _cut_off(done: int, folds: int) -> Note:
    text = f"Meta-training was interrupted after {done} of {folds} folds"
    return Note(CUT_OFF, f"{text}; the last trained model is used for all later test bars.")


@contextmanager
def _name_fold(fold: str, before: Result | None, out: str | Path | None) -> Iterator[None]:
    """Say in which fold training failed, and where the folds before it are."""
    try:
        yield
    except TrainingError as error:
        if not fold:
            raise
        kept = f"; the folds before are in {out}" if before is not None and out else ""
        raise TrainingError(
            f"{fold.removeprefix(', ')}: {error}{kept}", step=error.step, tasks=error.tasks
        ) from error


def _evaluate(result: Result, folds: Folds, path: str | Path | None) -> Result:
    trained = [
        {name: checkpoint.params for name, checkpoint in fold.items()}
        for fold in result.folds or (result.checkpoints,)
    ]
    evaluation = evaluate_folds(
        folds,
        [trained[number] for number in folds.numbers],
        ledger=None if path is None else Path(path).absolute().parent,
    )
    cut_off = [note for note in result.notes if note.kind == CUT_OFF]
    notes = (*folds.notes, *cut_off, *evaluation.notes)
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

"""The settings of a run: one TOML file, checked before anything else happens."""

from collections.abc import Mapping
from datetime import date, datetime
from typing import Annotated, Any, Literal, TypeAlias

import tomli_w
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    field_validator,
    model_validator,
)

from maml_jax.data.cleaning import Policy, read_policies
from maml_jax.data.interval import require_zone
from maml_jax.features import Feature, find_features, import_features
from maml_jax.features.catalogue import DEFAULT_GROUP

DEFAULT_LENGTH = 16
"""Bars that a sequence model reads where the settings do not say."""

NO_BOUND = "none"
"""How a bound that is switched off is written; TOML has no null."""

Whole = Annotated[int, Field(ge=0, strict=True)]
Count = Annotated[int, Field(ge=1, strict=True)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False, strict=True)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False, strict=True)]
Rate = Annotated[float, Field(ge=0, lt=1, strict=True)]
Switch = Annotated[bool, Field(strict=True)]


def _moment(value: Any) -> Any:
    """Take a TOML date or a text; keep the text, so that a plain day stays one."""
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, str):
        try:
            datetime.fromisoformat(value)
        except ValueError:
            raise ValueError("not a date such as 2009-12-31 or 2009-12-31T16:00Z") from None
    return value


def _bound(value: Any) -> Any:
    return None if value == NO_BOUND else value


def _followed(value: Any) -> Any:
    if not isinstance(value, str | Mapping):
        raise ValueError('expected "keep", "drop" or "mask", or a table of one for each kind')
    read_policies(value)  # pyright: ignore[reportArgumentType]
    return value


MethodName: TypeAlias = Literal[
    "maml",
    "fomaml",
    "reptile",
    "anil",
    "meta_sgd",
    "maml_plus_plus",
    "cavia",
    "imaml",
    "meta_curvature",
    "ridge",
    "alpaca",
    "matching",
    "matching_direction",
    "prototypes",
    "joint_training",
]
"""See `maml_jax.experiment.methods`."""

STORED = "store:"
"""What a path begins with that names bars of a store."""

Moment = Annotated[str, BeforeValidator(_moment)]
Bound = Annotated[Positive | None, BeforeValidator(_bound)]


class _Section(BaseModel, extra="forbid", frozen=True):
    pass


class DataConfig(_Section, frozen=True):
    """Which bars, which assets, which dates."""

    path: str | tuple[str, ...] = "builtin"
    """CSV, Parquet or JSON files, relative to the working directory; "builtin" for the built-in
    bars; "store:SOURCE/INTERVAL" for bars that were fetched, as "store:bybit-linear/1h"."""
    store: str | None = None
    """Directory of the store; default `$MAML_JAX_STORE` or the user's data directory."""
    assets: tuple[str, ...] | None = None
    """Assets to read; default all."""
    train_assets: tuple[str, ...] | None = None
    """Assets to meta-train on; default all."""
    test_assets: tuple[str, ...] | None = None
    """Assets to walk forward on; default all."""
    train_start: Moment | None = None
    train_end: Moment | None = None
    """Last moment of the meta-training span, inclusive; default: at 60 % of the bars."""
    test_start: Moment | None = None
    """First moment of the test span; default: the bar after `train_end`."""
    test_end: Moment | None = None
    timezone: Annotated[str, AfterValidator(require_zone)] = "UTC"
    date_format: str | None = None
    adjust: Switch = True
    missing: Literal["error", "drop"] = "error"
    policies: Annotated[Policy | dict[str, Policy], BeforeValidator(_followed)] = "keep"
    """What to do about faults that the checks find: "keep", "drop" or "mask" bars that are wrong
    for certain, or one for each kind, as in {bad_tick = "drop", gap = "mask"}."""


class FeaturesConfig(_Section, frozen=True):
    """Which features, over which windows (in bars)."""

    modules: tuple[str, ...] = ()
    """Modules that register features of your own, by name or as paths of `.py` files relative to
    the working directory. They are imported, and so run, wherever these settings are read."""
    names: tuple[str, ...] | None = None
    """Features, such as "rsi"; features some bars ago, such as "rsi_lag_3"; groups, such as "ohlc".
    Default: all of the group "technical" that the columns of the bars allow."""
    window: Annotated[int, Field(ge=2, strict=True)] = 20
    returns: tuple[Count, ...] = (1, 5, 10)
    fast: Count = 12
    slow: Count = 26
    clip: Bound = 5.0
    """Bound on a standardised feature; "none" for no bound."""

    @field_validator("modules")
    @classmethod
    def _can_be_imported(cls, value):
        for module in value:
            import_features(module)
        return value

    @model_validator(mode="after")
    def _known(self):
        if self.fast >= self.slow:
            raise ValueError(f"fast ({self.fast}) must be shorter than slow ({self.slow})")
        if not self.returns:
            raise ValueError("returns must name at least one lag")
        if self.names is not None:
            self.named()
        return self

    def named(self) -> list[Feature]:
        """Return the features that `names` stands for; the default ones where it is None."""
        names = (DEFAULT_GROUP,) if self.names is None else self.names
        return find_features(
            names, window=self.window, returns=self.returns, fast=self.fast, slow=self.slow
        )


class TargetConfig(_Section, frozen=True):
    """What is predicted and when decisions are executed; see `maml_jax.features.Target`."""

    kind: Literal["return", "direction", "volatility"] = "return"
    """The return that is traded, in trailing volatilities; its sign; or the log of the volatility
    over the next `horizon` bars."""
    horizon: Count = 5
    fill: Literal["next_open", "next_close", "close"] = "next_close"
    volatility_window: Annotated[int, Field(ge=2, strict=True)] = 20
    clip: Bound = 5.0
    flat: NotNegative = 0.0
    """Of kind "direction": returns of at most so many volatilities have none."""
    estimator: Literal["close", "garman_klass"] = "close"
    """Of kind "volatility": from closes, or from whole bars."""

    @model_validator(mode="after")
    def _of_its_kind(self):
        if self.flat and self.kind != "direction":
            raise ValueError(f'flat is of kind "direction"; this target is of kind "{self.kind}"')
        if self.estimator != "close" and self.kind != "volatility":
            raise ValueError(
                f'estimator is of kind "volatility"; this target is of kind "{self.kind}"'
            )
        return self


class TaskConfig(_Section, frozen=True):
    """Rows of a task."""

    support: Count = 20
    query: Count = 10
    embargo: Whole = 0
    """Rows left out between support and query beyond the label delay."""


class ModelConfig(_Section, frozen=True):
    """The network."""

    kind: Literal["mlp", "gru", "temporal_convolution", "transformer"] = "mlp"
    """All but "mlp" read sequences of bars."""
    length: Annotated[Count | None, Field(validate_default=True)] = None
    """Bars that a sequence model reads, the one predicted at last; default 16. None for "mlp"."""
    hidden: tuple[Count, ...] = (64, 64)
    """Width of each layer: of the mlp, of the gru's states, of the convolution's channels; those of
    a transformer are all the same."""
    activation: Literal["tanh", "gelu", "relu", "silu", "softplus"] = "tanh"
    """Of all but the gru, which has its own; in a transformer, of the feed-forward networks."""
    precision: Literal["float32", "tensorfloat32", "bfloat16"] = "float32"
    """In which it computes; parameters and losses are float32. The last two are for GPUs."""

    @field_validator("length")
    @classmethod
    def _fits_the_kind(cls, value, info):
        kind = info.data.get("kind", "mlp")
        if kind == "mlp":
            if value is not None:
                raise ValueError(
                    "an mlp reads one bar; leave length out, or choose a kind that reads "
                    "sequences: gru, temporal_convolution, transformer"
                )
            return None
        if value is not None and value < 2:
            raise ValueError(f"a {kind} reads sequences of at least 2 bars")
        return DEFAULT_LENGTH if value is None else value

    @model_validator(mode="after")
    def _has_layers(self):
        if self.kind != "mlp" and not self.hidden:
            raise ValueError(f"hidden must name the width of at least one layer of a {self.kind}")
        if self.kind == "transformer" and (len({*self.hidden}) > 1 or self.hidden[0] % 2):
            raise ValueError(
                f"hidden must name one even width for all layers of a transformer, such as "
                f"[32, 32]; it is {[*self.hidden]}"
            )
        return self


class LearnerConfig(_Section, frozen=True):
    """Which meta-learners, and how they adapt."""

    methods: tuple[MethodName, ...] = ("maml", "fomaml")
    """The first one is the headline; baselines start from its meta-parameters."""
    inner_optimizer: Literal["sgd", "momentum", "adam", "learned"] | None = None
    """Of methods that adapt by gradient descent and do not learn it themselves; "learned" learns a
    rate for each layer. Default: each method's own, as its function documents."""
    inner_learning_rate: Positive | None = None
    """Likewise; where rates are learned, what they begin with."""
    inner_steps: Whole | None = None
    """Steps of methods that take any; default: each method's own."""
    features: Count = 16
    """Outputs of the network under a head in closed form (`ridge`, `alpaca`), or of an embedding
    (`matching`, `prototypes`)."""
    remat: Switch | Literal["auto", "nested"] = "auto"
    """What differentiating the inner loop computes again to save memory; see `exact`."""

    @field_validator("methods")
    @classmethod
    def _some_and_once(cls, value):
        if not value or len(set(value)) < len(value):
            raise ValueError("must name at least one method, and none twice")
        return value


class TrainingConfig(_Section, frozen=True):
    """Meta-training."""

    steps: Count = 1000
    meta_batch: Count = 64
    learning_rate: Positive = 1e-3
    schedule: Literal["constant", "cosine"] = "cosine"
    max_grad_norm: Bound = 1.0
    chunk: Count | None = None
    """Tasks that are vectorised together; default: what the cache or the memory holds."""
    devices: Count | None = None
    """Devices that share the tasks; default: all, where the work is worth it."""


class BacktestConfig(_Section, frozen=True):
    """Walk-forward, positions and costs."""

    window: Literal["rolling", "growing"] = "rolling"
    """Adapt at each bar on the last `task.support` complete rows, or on all of them: by methods
    that take in one row after the other."""
    threshold: NotNegative = 0.0
    """Positions are taken where the prediction exceeds it, in volatilities over the horizon (of
    `prototypes` and `matching_direction`: in probability up less down); 0 follows its sign. (A
    threshold near the usual size of predictions trades more, not less.)"""
    fee: Rate = 0.001
    slippage: Rate = 0.0005
    capital: Positive = 10_000.0
    bars_per_year: Positive | None = None
    """Default: inferred from the timestamps."""
    inner_steps: Whole | None = None
    """Adaptation steps in the walk-forward, of methods that take any; default: as trained."""
    chunk: Count | None = None
    devices: Count | None = None

    @model_validator(mode="after")
    def _takes_rows_in_once(self):
        if self.window == "growing" and self.inner_steps is not None:
            raise ValueError(
                "growing windows take in each row once, without steps; leave inner_steps out"
            )
        return self


class Config(_Section, frozen=True):
    """All settings of a run."""

    seed: Annotated[int, Field(ge=0, lt=2**32, strict=True)] = 0
    data: DataConfig = DataConfig()
    features: FeaturesConfig = FeaturesConfig()
    target: TargetConfig = TargetConfig()
    task: TaskConfig = TaskConfig()
    model: ModelConfig = ModelConfig()
    learner: LearnerConfig = LearnerConfig()
    training: TrainingConfig = TrainingConfig()
    backtest: BacktestConfig = BacktestConfig()

    def to_toml(self) -> str:
        """Write the settings as TOML; those left open are left out."""
        return tomli_w.dumps(_without_null(self))


def _without_null(section: BaseModel) -> dict:
    """Return the settings without None: left out where that is the default, else as "none"."""
    values: dict = {}
    for key, field in type(section).model_fields.items():
        value = getattr(section, key)
        if isinstance(value, BaseModel):
            values[key] = _without_null(value)
        elif value is not None or field.default is not None:
            values[key] = NO_BOUND if value is None else value
    return values

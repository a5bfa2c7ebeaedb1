"""The settings of a run: one TOML file, checked before anything else happens."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeAlias, get_args

import tomli_w
from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    field_validator,
    model_validator,
)

from maml_jax.data.interval import require_zone
from maml_jax.data.layout import require_keys
from maml_jax.data.quality.cleaning import Policy, read_policies
from maml_jax.errors import ConfigError
from maml_jax.experiment.config.backtest import BacktestConfig
from maml_jax.experiment.config.fields import (
    Bound,
    Count,
    Moment,
    NotNegative,
    Positive,
    Section,
    Several,
    Share,
    Switch,
    Whole,
    without_null,
)
from maml_jax.experiment.config.folds import FoldsConfig, refuse_with_folds
from maml_jax.experiment.config.learning import (
    CLASSIFIERS,
    LearnerConfig,
    ModelConfig,
    OnlineConfig,
    TrainingConfig,
)
from maml_jax.features import STRATEGIES, Feature, find_features, is_imported
from maml_jax.features.catalogue import DEFAULT_GROUP
from maml_jax.listing import suggest

FamilyName: TypeAlias = Literal["asset", "regime", "month", "quarter", "year", "strategy"]
"""See `TaskConfig.family`."""


def _followed(value: Any) -> Any:
    each = value.values() if isinstance(value, Mapping) else [value]
    if not all(isinstance(policy, str) for policy in each):
        raise ValueError('expected "keep", "drop" or "mask", or a table of one for each kind')
    read_policies(value)  # pyright: ignore[reportArgumentType]
    return value


_MOST_ROWS = 100_000_000
"""Bars that a meta-step may read: some 10 GB."""

STORED = "store:"
"""What a path begins with that names bars of a store."""


def _of_families(value: Any) -> Any:
    """Refuse a wrong family with one message instead of one for each form that it may have."""
    names = get_args(FamilyName)
    given = value if isinstance(value, Mapping) else {value: 1.0} if isinstance(value, str) else {}
    if not given:
        raise ValueError(f"expected one of {', '.join(names)}, or a table of weights")
    unknown = [name for name in given if name not in names]
    if unknown:
        meant = suggest(str(unknown[0]), names)
        hint = f". Did you mean `{meant}`?" if meant else ""
        raise ValueError(f"no family {unknown[0]!r}; there are {', '.join(names)}{hint}")
    for name, weight in given.items():
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight < 1e9:
            raise ValueError(f"the weight of {name!r} must be a positive number below 1e9")
    return value if isinstance(value, str) else {k: float(w) for k, w in given.items()}


class DataConfig(Section, frozen=True):
    """Which bars, which assets, which dates."""

    path: str | tuple[str, ...] = "builtin"
    """CSV, JSON, Parquet, feather or Excel files, relative to the working directory; "builtin" for
    the built-in bars; "store:SOURCE/INTERVAL" for bars that were fetched, such as
    "store:bybit-linear/1h"."""
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
    timezone: Annotated[str, AfterValidator(require_zone)] | None = None
    """Of times without one, in files and in settings; default: what a file says, else UTC."""
    layout: str | None = None
    """Of files without a header: "binance", "kraken", "histdata", "mt4", or the names of their
    columns, as in "date,open,high,low,close,-,volume"."""
    encoding: str | None = None
    """Of text files that are not UTF-8, such as "gbk"."""
    skip_lines: Whole | None = None
    """Lines above the header of a file; default: found out, or refused where unclear."""
    symbol: str | None = None
    """The asset of a file that does not name it; default: the file's name."""
    date_format: str | None = None
    """How times are written, as in "%d/%m/%Y"; or the unit of numbers: "s", "ms", "us", "ns" or "D"
    since 1970, "excel" for days of spreadsheets. Default: found out, or refused where unclear."""
    columns: Annotated[dict[str, str] | None, AfterValidator(require_keys)] = None
    """Which columns hold what where their names do not say it, as in {close = "Schluss"}: keys
    timestamp, date, time, symbol, open, high, low, close, adj_close, volume; "" leaves one out."""
    decimal: Literal[".", ","] | None = None
    """The mark of decimals; default: found out, or refused where unclear."""
    adjust: Switch = True
    missing: Literal["error", "drop"] = "error"
    classes: dict[str, str] | None = None
    """Class of each asset, as in {BTCUSDT = "coins"}; a cross-section is of one class. Assets that
    are not named form one of their own."""
    policies: Annotated[Policy | dict[str, Policy], BeforeValidator(_followed)] = "keep"
    """What to do about faults that the checks find: "keep", "drop" or "mask" bars that are wrong
    for certain, or one for each kind, as in {bad_tick = "drop", gap = "mask"}."""


class FeaturesConfig(Section, frozen=True):
    """Which features, over which windows (in bars)."""

    modules: tuple[str, ...] = ()
    """Modules that register features of your own, by name or as paths of `.py` files relative to
    the working directory. `load_config` imports them, and so runs them, for settings that the user
    names; those of a run directory only if told to trust it."""
    names: tuple[str, ...] | None = None
    """Features, such as "rsi"; features some bars ago, such as "rsi_lag_3"; groups, such as "ohlc".
    Default: all of the group "technical" that the columns of the bars allow."""
    window: Several = 20
    returns: tuple[Count, ...] = (1, 5, 10)
    fast: Count = 12
    slow: Count = 26
    clip: Bound = 5.0
    """Bound on a standardised feature; "none" for no bound."""

    @model_validator(mode="after")
    def _known(self):
        if self.fast >= self.slow:
            raise ValueError(f"fast ({self.fast}) must be shorter than slow ({self.slow})")
        if not self.returns:
            raise ValueError("returns must name at least one lag")
        if self.names is not None and not self.not_imported():
            self.named()
        return self

    def not_imported(self) -> list[str]:
        """Return the modules that were not imported; features of theirs may be unknown."""
        return [module for module in self.modules if not is_imported(module)]

    def named(self) -> list[Feature]:
        """Return the features that `names` stands for; the default ones where it is None.

        Raises:
            ConfigError: if one is unknown; one of a module that was not imported, perhaps.
        """
        names = (DEFAULT_GROUP,) if self.names is None else self.names
        windows = {"window": self.window, "returns": self.returns}
        try:
            return find_features(names, fast=self.fast, slow=self.slow, **windows)
        except ConfigError as error:
            strange = self.not_imported()
            if not strange:
                raise
            raise ConfigError(
                f"key 'features.modules': the features need {', '.join(strange)}, and code that a "
                "run directory names is run only if you trust it: look at it, then use --trust "
                f"(load(..., trust=True) in Python). Without it: {error}"
            ) from None


class TargetConfig(Section, frozen=True):
    """What is predicted and when decisions are executed; see `maml_jax.features.Target`."""

    kind: Literal["return", "direction", "volatility"] = "return"
    """The return that is traded, in trailing volatilities; its sign; or the log of the volatility
    over the next `horizon` bars."""
    horizon: Count = 5
    fill: Literal["next_open", "next_close", "close"] = "next_close"
    volatility_window: Several = 20
    clip: Bound = 5.0
    flat: NotNegative = 0.0
    """Of kind "direction": returns of at most so many volatilities have none."""
    estimator: Literal["close", "garman_klass"] = "close"
    """Of kind "volatility": from closes, or from whole bars."""

    @model_validator(mode="after")
    def _of_its_kind(self):
        if self.flat and self.kind != "direction":
            raise ValueError(f'flat applies only to kind = "direction", not "{self.kind}"')
        if self.estimator != "close" and self.kind != "volatility":
            raise ValueError(f'estimator applies only to kind = "volatility", not "{self.kind}"')
        return self


class TaskConfig(Section, frozen=True):
    """What a task is: which rows go together, and how many."""

    family: Annotated[FamilyName | dict[FamilyName, Positive], BeforeValidator(_of_families)] = (
        "asset"
    )
    """Support and query are rows of one "asset", of one "regime", of one "month", "quarter" or
    "year", or of one "strategy": then series that follow a rule take the place of assets, and what
    is predicted is what the rule pays from here. Several families with weights, as in
    {asset = 2, regime = 1}, are drawn in proportion."""
    support: Count = 20
    min_support: Whole | None = None
    """Fewest rows of a support set: assets are predicted from so many complete rows on, and
    meta-training draws sets of so many to `support` rows. Default: only whole sets are used."""
    forget: Share = 1.0
    """Weight of a support row in units of that of the next newer one; 0.98 halves it in 34 rows."""
    query: Count = 10
    embargo: Whole = 0
    """Rows left out between support and query beyond the label delay."""
    support_from: Literal["asset", "cross_section", "mixed"] = "asset"
    """Whose rows a support set holds: the asset's own; the latest of all assets (of its class,
    where `data.classes` tells some); or half of each."""
    strategies: tuple[str, ...] = tuple(STRATEGIES)
    """Rules of the family "strategy"."""
    pairs: Whole | tuple[tuple[str, str], ...] = 3
    """Pairs of the strategy "arbitrage": how many of the assets that belong together most in the
    meta-training span (for training and testing each), or which."""

    @field_validator("strategies")
    @classmethod
    def _are_rules(cls, value):
        unknown = [name for name in value if name not in STRATEGIES]
        meant = suggest(unknown[0], STRATEGIES) if unknown else ""
        if meant:
            raise ValueError(f"no strategy {unknown[0]!r}. Did you mean `{meant}`?")
        if unknown or not value or len({*value}) < len(value):
            raise ValueError(f"must list one or more of {', '.join(STRATEGIES)}, without repeats")
        return value

    @field_validator("pairs")
    @classmethod
    def _of_two(cls, value):
        same = [pair for pair in value if pair[0] == pair[1]] if isinstance(value, tuple) else []
        if same:
            raise ValueError(f"a pair is made of two assets, not of {same[0][0]} twice")
        return value

    @model_validator(mode="after")
    def _has_families(self):
        if not self.families():
            raise ValueError("family must name at least one family")
        if self.support_from == "mixed" and self.support < 2:
            raise ValueError("a mixed support set needs at least 2 rows")
        if self.min_support is not None and self.min_support > self.support:
            raise ValueError(
                f"min_support ({self.min_support}) must not exceed support ({self.support})"
            )
        return self

    def families(self) -> dict[str, float]:
        """Return the families and their weights."""
        return {self.family: 1.0} if isinstance(self.family, str) else {**self.family}


class RegimesConfig(Section, frozen=True):
    """How regimes are inferred; see `maml_jax.features.signals.regimes` and `markov`."""

    kind: Literal["trend", "markov"] = "trend"
    """From the trend and the rank of volatility of trailing windows; or the most probable state of
    a Markov chain that was fitted on the meta-training span, filtered."""
    of: Literal["asset", "market"] | None = None
    """Whose regime it is; default each asset's own, and the market's for "markov"."""
    trend_window: Several = 60
    volatility_window: Several = 20
    history: Several = 252
    """Bars whose volatility the present one is ranked among; bars that the probabilities of the
    chain are made from."""
    states: Annotated[int, Field(ge=2, le=3, strict=True)] = 2
    """Of the Markov chain."""

    @model_validator(mode="after")
    def _can_be_told(self):
        if self.kind == "markov" and self.of == "asset":
            raise ValueError('the chain is fitted to the market; use of = "market"')
        return self

    def market_wide(self) -> bool:
        """Say whether regimes are of the market and not of each asset."""
        return self.kind == "markov" or self.of == "market"

    def windows(self) -> dict[str, int]:
        """Return the windows of kind "trend", as its functions take them."""
        return {
            name: getattr(self, name) for name in ("trend_window", "volatility_window", "history")
        }


class Config(Section, frozen=True):
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
    regimes: RegimesConfig = RegimesConfig()
    online: OnlineConfig = OnlineConfig()
    folds: FoldsConfig = FoldsConfig()

    @model_validator(mode="after")
    def _goes_together(self):
        rule, kind, families = self.backtest.positions, self.target.kind, self.task.families()
        if kind == "volatility" and rule not in (None, "volatility_target"):
            raise ValueError(
                f"backtest.positions: a volatility forecast has no direction, so {rule!r} cannot "
                'trade it; use "volatility_target"'
            )
        classifiers = [name for name in self.learner.methods if name in CLASSIFIERS]
        if kind == "volatility" and classifiers:
            raise ValueError(
                f"learner.methods: {', '.join(classifiers)} are classifiers and cannot "
                "predict a volatility; use matching_networks or any regression method"
            )
        if kind == "volatility" and "strategy" in families:
            raise ValueError(
                'task.family: "strategy" predicts what a rule pays; set target.kind to "return" or '
                '"direction"'
            )
        if self.backtest.window == "growing" and (
            self.task.support_from != "asset" or self.adapts_within_regimes()
        ):
            raise ValueError(
                'backtest.window: growing windows take in all rows of one asset; use "rolling" '
                "with task.support_from or regimes"
            )
        if self.backtest.window == "growing" and self.task.forget < 1:
            raise ValueError(
                'backtest.window: growing windows weigh all rows equally; use "rolling" with '
                "task.forget"
            )
        if self.backtest.window == "growing" and self.online.variants:
            raise ValueError(
                'online.variants: they adapt on rolling windows; use backtest.window = "rolling"'
            )
        if rule == "kelly" and kind == "direction":
            raise ValueError(
                "backtest.positions: the Kelly rule needs predicted returns; for target.kind = "
                '"direction" use "confident"'
            )
        if self.backtest.sides == "market_neutral" and "strategy" in families:
            raise ValueError(
                'backtest.sides: "market_neutral" would override the sides of rules; use '
                '"long_short" or "long_only" with task.family = "strategy"'
            )
        if "incremental" in self.online.variants and "joint_training" not in self.learner.methods:
            raise ValueError(
                'online.variants: "incremental" goes on with joint_training; name it in '
                "learner.methods"
            )
        rows = self.training.meta_batch * (self.task.support + self.task.query)
        rows *= self.model.length or 1
        if rows > _MOST_ROWS:
            raise ValueError(
                f"training.meta_batch: a meta-step would read {rows:,} bars, meta_batch x "
                f"(support + query) x length; at most {_MOST_ROWS:,} fit into memory"
            )
        refuse_with_folds(self)
        return self

    def position_rule(self) -> str:
        """Return the rule that makes positions of predictions."""
        if self.backtest.positions is not None:
            return self.backtest.positions
        return "volatility_target" if self.target.kind == "volatility" else "threshold"

    def adapts_within_regimes(self) -> bool:
        """Say whether the walk-forward adapts on past bars of the regime in force."""
        if self.backtest.same_regime is not None:
            return self.backtest.same_regime
        return "regime" in self.task.families()

    def to_toml(self) -> str:
        """Write the settings as TOML, without those left open, and without secrets of addresses."""
        return tomli_w.dumps(without_null(self))

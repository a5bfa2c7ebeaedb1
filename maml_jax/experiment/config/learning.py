"""Settings of networks, learners, and how they are trained."""

from itertools import pairwise
from typing import Annotated, Literal, TypeAlias

from pydantic import Field, field_validator, model_validator

from maml_jax.experiment.config.fields import (
    Bound,
    Count,
    Positive,
    Section,
    Steps,
    Switch,
    Whole,
    Width,
)

_MOST_WEIGHTS = 100_000_000
"""Of a network: 400 MB, several times in training."""

DEFAULT_LENGTH = 16
"""Bars that a sequence model reads where the settings do not say."""

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
    "matching_networks",
    "matching_networks_direction",
    "prototypical_networks",
    "joint_training",
    "alfa",
    "double_adapt",
    "hierarchical_maml",
    "bayesian_maml",
    "gaussian_maml",
    "ensemble",
]
"""See `maml_jax.experiment.learning.methods`."""


_RENAMED = {
    "prototypes": "prototypical_networks",
    "matching": "matching_networks",
    "matching_direction": "matching_networks_direction",
    "hierarchical": "hierarchical_maml",
}

CLASSIFIERS = ("matching_networks_direction", "prototypical_networks")
"""Methods that predict the direction of returns alone."""


class ModelConfig(Section, frozen=True):
    """The network."""

    kind: Literal["mlp", "gru", "temporal_convolution", "transformer"] = "mlp"
    """All but "mlp" read sequences of bars."""
    length: Annotated[Count | None, Field(validate_default=True)] = None
    """Bars that a sequence model reads, the one predicted at last; default 16. None for "mlp"."""
    hidden: Annotated[tuple[Width, ...], Field(max_length=64)] = (64, 64)
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
        weights = sum(before * width for before, width in pairwise(self.hidden))
        if weights > _MOST_WEIGHTS:
            raise ValueError(
                f"hidden asks for {weights:,} weights between its layers; at most "
                f"{_MOST_WEIGHTS:,} fit into memory"
            )
        if self.kind != "mlp" and not self.hidden:
            raise ValueError(f"hidden must name the width of at least one layer of a {self.kind}")
        if self.kind == "transformer" and (len({*self.hidden}) > 1 or self.hidden[0] % 2):
            raise ValueError(
                f"hidden must name one even width for all layers of a transformer, such as "
                f"[32, 32]; it is {[*self.hidden]}"
            )
        return self


class LearnerConfig(Section, frozen=True):
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
    members: Annotated[int, Field(ge=2, le=1_000, strict=True)] = 5
    """Particles of `bayesian_maml`, networks of `ensemble`."""
    features: Width = 16
    """Outputs of the network under a head in closed form (`ridge`, `alpaca`), or of an embedding
    (`matching_networks`, `prototypical_networks`)."""
    remat: Switch | Literal["auto", "nested"] = "auto"
    """What differentiating the inner loop computes again to save memory; see `exact`."""

    @field_validator("methods", mode="before")
    @classmethod
    def _not_renamed(cls, value):
        for name in value if isinstance(value, list | tuple) else ():
            if isinstance(name, str) and name in _RENAMED:
                raise ValueError(f'method "{name}" was renamed "{_RENAMED[name]}"')
        return value

    @field_validator("methods")
    @classmethod
    def _some_and_once(cls, value):
        if not value or len(set(value)) < len(value):
            raise ValueError("must name at least one method, and none twice")
        return value


class TrainingConfig(Section, frozen=True):
    """Meta-training."""

    steps: Steps = 1000
    meta_batch: Count = 64
    learning_rate: Positive = 1e-3
    schedule: Literal["constant", "cosine"] = "cosine"
    max_grad_norm: Bound = 1.0
    chunk: Count | None = None
    """Tasks that are vectorised together; default: what the cache or the memory holds."""
    devices: Count | None = None
    """Devices that share the tasks; default: all, where the work is worth it."""
    checkpoint_every: Count = 100
    """The most meta-steps between two checkpoints, two validations, two lines of the logs."""
    validation: Annotated[float, Field(ge=0, lt=1, strict=True)] = 0.0
    """Share of the bars of the meta-training span, its last ones, that tasks are validated on and
    not trained on; the parameters with the lowest validation loss are kept."""
    patience: Count | None = None
    """Stop after so many validations in a row without a lower loss; default: never."""
    tensorboard: Switch = False
    """Whether the logs are written for TensorBoard too."""

    @model_validator(mode="after")
    def _has_something_to_wait_for(self):
        if self.patience is not None and not self.validation:
            raise ValueError(
                "patience counts validations without a lower loss; set validation, such as 0.1"
            )
        return self


class OnlineConfig(Section, frozen=True):
    """Variants of the headline method whose meta-training goes on during the walk-forward."""

    variants: tuple[Literal["online", "retrained", "incremental"], ...] = ()
    """"online": meta-parameters are updated every few bars. "retrained": they are retrained from
    scratch. "incremental": the network of `joint_training`, which must be among the methods, is
    trained on without ever adapting to a task."""
    every: Count = 21
    """Bars between two updates."""
    steps: Count = 5
    """Meta-steps of an update."""
    meta_batch: Count = 16
    learning_rate: Positive = 3e-4
    recent: Count | None = None
    """Updates draw tasks that were completed in the last so many bars; default: all so far."""
    retrain_every: Count = 63
    """Bars between two trainings from scratch, of `training.steps` meta-steps each."""

    @field_validator("variants")
    @classmethod
    def _none_twice(cls, value):
        if len(set(value)) < len(value):
            raise ValueError("must name no variant twice")
        return value

"""The section `folds` of the settings: how bars are split into meta-training and test spans."""

from math import comb
from typing import Annotated, Any, Literal

import pandas as pd
from pydantic import BeforeValidator, Field, model_validator

from maml_jax.experiment.config.fields import MOST, Section, Switch, Whole

_LONGEST = pd.Timedelta(days=36_525)

_MOST_FOLDS = 1_000
"""Combinatorial ones, each of which is trained."""


def _size(value: Any) -> Any:
    """Take a number of bars, or a time; one message instead of one for each."""
    if isinstance(value, str):
        try:
            possible = pd.Timedelta(0) < pd.Timedelta(value) <= _LONGEST
        except (ValueError, OverflowError):
            possible = False
    else:
        possible = isinstance(value, int) and not isinstance(value, bool) and 0 < value <= MOST
    if not possible:
        raise ValueError(
            f"expected a positive number of bars up to {MOST:,}, or a time such as "
            '"365D" or "12h" up to a century'
        )
    return value


Size = Annotated[int | str, BeforeValidator(_size)]
"""So many bars, or all bars within a time."""


class FoldsConfig(Section, frozen=True):
    """Whether there is one fold, or meta-training is repeated as time goes on."""

    kind: Literal["single", "rolling", "anchored", "combinatorial"] = "single"
    """One fold, as the dates of `data` say. "rolling": meta-train on `train_size` bars, test on the
    next `test_size`, and again from there on. "anchored": the same, but all earlier bars are
    trained on. "combinatorial": each choice of `test_groups` of `groups` is tested by what was
    trained on the other groups, later ones too: no walk-forward, but a distribution of results."""
    train_size: Size | None = None
    """Bars, or time as in "730D", of a meta-training span (of the first one, where it is anchored);
    default: all bars before `data.test_start`, or 60 % of the bars."""
    test_size: Size | None = None
    """Bars, or time, of a test span; default: a fourth of the bars that are left."""
    purge: Whole = 0
    """Bars left out between a meta-training and a test span. Labels are complete within their span
    even at 0."""
    embargo: Whole = 0
    """Further bars left out: of "combinatorial" after each test span, of the others added to
    `purge`."""
    reduce_test: Switch = True
    """Whether what is left at the end makes a shorter last test span, or is left out."""
    groups: Annotated[int, Field(ge=3, le=20, strict=True)] = 6
    """Of "combinatorial"."""
    test_groups: Annotated[int, Field(ge=1, le=20, strict=True)] = 2
    """Of "combinatorial": so many groups are tested at a time."""

    @model_validator(mode="after")
    def _of_its_kind(self):
        given = self.model_fields_set
        combinatorial = {"groups", "test_groups"}
        sizes = {"train_size", "test_size"}
        out_of_place = {
            "single": {*sizes, *combinatorial, "purge", "embargo"},
            "combinatorial": {*sizes},
        }.get(self.kind, combinatorial)
        defaults = type(self).model_fields
        for name in sorted(out_of_place & given):
            if getattr(self, name) != defaults[name].default:
                raise ValueError(f'{name} does not go with kind "{self.kind}"')
        if self.kind == "combinatorial" and self.test_groups >= self.groups:
            raise ValueError(
                f"test_groups ({self.test_groups}) must be fewer than groups ({self.groups}), or "
                "nothing is left to train on"
            )
        count = comb(self.groups, self.test_groups)
        if self.kind == "combinatorial" and count > _MOST_FOLDS:
            raise ValueError(
                f"groups ({self.groups}) and test_groups ({self.test_groups}) make {count:,} "
                f"folds, each of which is trained; at most {_MOST_FOLDS:,}"
            )
        return self

    def several(self) -> bool:
        """Say whether there is more than the one fold that the dates of the settings name."""
        return self.kind != "single"


def refuse_with_folds(config: Any) -> None:
    """Refuse settings that do not work with several folds.

    Raises:
        ValueError: naming the key.
    """
    kind = config.folds.kind
    if not config.folds.several():
        return
    if config.data.train_end is not None:
        raise ValueError(
            f'data.train_end: folds of kind "{kind}" end their meta-training spans themselves; '
            "leave it out, or set folds.train_size"
        )
    if kind != "combinatorial":
        return
    if config.data.test_start is not None:
        raise ValueError(
            "data.test_start: every group of combinatorial folds is tested; leave it out"
        )
    if config.online.variants:
        raise ValueError(
            "online.variants: they learn in the order of time, which combinatorial folds do not "
            'keep; use folds.kind "rolling" or "anchored"'
        )
    if config.regimes.kind == "markov" and (
        "regime" in config.task.families() or config.adapts_within_regimes()
    ):
        raise ValueError(
            'regimes.kind: "markov" is fitted to one stretch of bars, and combinatorial folds '
            'train on several; use "trend"'
        )
    if "strategy" in config.task.families() and isinstance(config.task.pairs, int):
        if config.task.pairs and "arbitrage" in config.task.strategies:
            raise ValueError(
                "task.pairs: name the pairs, since with combinatorial folds there is no span "
                "before all tests to choose them from; or leave arbitrage out of task.strategies"
            )

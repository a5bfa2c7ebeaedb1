"""What the settings are made of: kinds of values, and the base of every section."""

from collections.abc import Mapping
from datetime import date, datetime
from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, Field, ValidationError

from maml_jax.errors import ConfigError, mask_values

NO_BOUND = "none"
"""How a bound that is switched off is written; TOML has no null."""

MOST = 1_000_000
"""Bound on numbers of bars, tasks, samples: no series that is read is longer by much."""

Whole = Annotated[int, Field(ge=0, le=MOST, strict=True)]
Count = Annotated[int, Field(ge=1, le=MOST, strict=True)]
Several = Annotated[int, Field(ge=2, le=MOST, strict=True)]
Steps = Annotated[int, Field(ge=1, le=10 * MOST, strict=True)]
"""Of meta-training, of which each is recorded."""
Width = Annotated[int, Field(ge=1, le=2**14, strict=True)]
"""Of a layer."""
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False, strict=True)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False, strict=True)]
Share = Annotated[float, Field(gt=0, le=1, strict=True)]
Rate = Annotated[float, Field(ge=0, lt=1, strict=True)]
AnnualRate = Annotated[float, Field(ge=0, le=10, strict=True)]
"""Up to 1,000 % a year."""
Switch = Annotated[bool, Field(strict=True)]


YEARS = (1678, 2261)
"""What times in nanoseconds can hold."""


def _moment(value: Any) -> Any:
    """Take a TOML date or a text; keep the text, so that a plain day stays one."""
    if isinstance(value, date):
        value = value.isoformat()
    if isinstance(value, str):
        try:
            year = datetime.fromisoformat(value).year
        except ValueError:
            raise ValueError("not a date such as 2009-12-31 or 2009-12-31T16:00Z") from None
        if not YEARS[0] <= year <= YEARS[1]:
            raise ValueError(
                f"dates lie between the years {YEARS[0]} and {YEARS[1]}; leave it out for no end"
            )
    return value


def _bound(value: Any) -> Any:
    return None if value == NO_BOUND else value


Moment = Annotated[str, BeforeValidator(_moment)]
Bound = Annotated[Positive | None, BeforeValidator(_bound)]
ShareBound = Annotated[
    Annotated[float, Field(gt=0, lt=1, strict=True)] | None, BeforeValidator(_bound)
]


class Section(BaseModel, extra="forbid", frozen=True):
    """A section of the settings; unknown keys are refused."""

    def changed(self, **changes: Any) -> Self:
        """Return these settings with some of them changed, checked like those of a file.

        Args:
            **changes: new values; a mapping changes single settings of a section.

        Raises:
            ConfigError: naming the key.
        """
        values = {name: getattr(self, name) for name in type(self).model_fields}
        for name, change in changes.items():
            section = values.get(name)
            if isinstance(section, Section) and isinstance(change, Mapping):
                change = section.changed(**change)
            values[name] = change
        try:
            return type(self).model_validate(values)
        except ValidationError as error:
            problems = []
            for each in error.errors(include_url=False, include_input=False):
                key = ".".join(map(str, each["loc"]))
                said = each["msg"].removeprefix("Value error, ")
                problems.append(f"key {key!r}: {said}" if key else said)
            raise ConfigError("; ".join(problems)) from None


def without_null(section: BaseModel) -> dict:
    """Return the settings without None: left out where that is the default, else as "none"."""
    values: dict = {}
    for key, field in type(section).model_fields.items():
        value = getattr(section, key)
        if isinstance(value, BaseModel):
            values[key] = without_null(value)
        elif value is not None or field.default is not None:
            values[key] = NO_BOUND if value is None else mask_values(value)
    return values

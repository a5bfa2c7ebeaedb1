"""What the settings are made of: kinds of values, and the base of every section."""

from collections.abc import Mapping
from datetime import date, datetime
from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, Field

NO_BOUND = "none"
"""How a bound that is switched off is written; TOML has no null."""

Whole = Annotated[int, Field(ge=0, strict=True)]
Count = Annotated[int, Field(ge=1, strict=True)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False, strict=True)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False, strict=True)]
Share = Annotated[float, Field(gt=0, le=1, strict=True)]
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
        """
        values = {name: getattr(self, name) for name in type(self).model_fields}
        for name, change in changes.items():
            section = values.get(name)
            if isinstance(section, Section) and isinstance(change, Mapping):
                change = section.changed(**change)
            values[name] = change
        return type(self).model_validate(values)

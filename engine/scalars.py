"""What every model of the definition is made of: durations, ids, names, and the strictness of all models."""

from datetime import timedelta
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, TypeAdapter, ValidationError
from pydantic.alias_generators import to_camel

_TIMEDELTA = TypeAdapter(timedelta)

LARGEST_DURATION = timedelta(days=3650).total_seconds()
_UNREADABLE = "a duration is ISO 8601 text such as PT30S, or a number of seconds"
_OUT_OF_RANGE = "a duration is longer than nothing and at most ten years"


def seconds(value: object) -> float:
    """ISO 8601 (`PT30S`) or a number of seconds → seconds; positive and at most ten years.

    Raises ValueError.
    """
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(_UNREADABLE)
    if isinstance(value, str) and not value.startswith("P"):
        raise ValueError(_UNREADABLE)
    if not isinstance(value, str) and not 0 < value <= LARGEST_DURATION:
        raise ValueError(_OUT_OF_RANGE)
    try:
        length = _TIMEDELTA.validate_python(value).total_seconds()
    except ValidationError as error:
        raise ValueError(_UNREADABLE) from error
    if not 0 < length <= LARGEST_DURATION:
        raise ValueError(_OUT_OF_RANGE)
    return length


Duration = Annotated[float, BeforeValidator(seconds)]
Id = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_-]{0,99}$")]
Name = Annotated[str, Field(min_length=1, max_length=200)]
Text = Annotated[str, Field(max_length=10_000)]
Code = Annotated[str, Field(min_length=1, max_length=200)]
JsonObject = dict[str, JsonValue]
Condition = str | JsonObject


class Model(BaseModel):
    """camelCase outside, snake_case inside; unknown fields refused; never changed after reading."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=False,
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
    )

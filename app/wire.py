"""What all shapes on the wire share: camelCase, nothing unknown, pages and their cursors."""

import base64
import binascii
import re
from datetime import datetime
from typing import Annotated, Any, Generic, TypeVar
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

from app.errors import Invalid

Item = TypeVar("Item")

_SEPARATOR = "|"
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")

Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]
JsonObject = dict[str, Any]


def _written_out(value: object) -> object:
    # pydantic takes a number, also as text, for seconds since 1970: `createdAfter=2026` would mean every execution.
    if isinstance(value, datetime) or (isinstance(value, str) and _DATE.match(value)):
        return value
    raise PydanticCustomError("time_invalid", "a time is ISO 8601 text with its zone, such as 2026-01-31T09:00:00Z")


Moment = Annotated[AwareDatetime, BeforeValidator(_written_out)]


class Taken(BaseModel):
    """A shape that comes in."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=False, extra="forbid", allow_inf_nan=False)


class Given(BaseModel):
    """A shape that goes out."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid")


class Page(Given, Generic[Item]):
    """A part of a list; `nextCursor` leads to the next part and is null at the end."""

    items: list[Item]
    next_cursor: str | None = Field(default=None)


def encode_cursor(*parts: str) -> str:
    """An opaque text that `decode_cursor` reads."""
    return base64.urlsafe_b64encode(_SEPARATOR.join(parts).encode()).decode().rstrip("=")


def decode_cursor(cursor: str, count: int) -> list[str]:
    """The parts of a cursor; raises `Invalid` for one that was not given out here."""
    try:
        padded = cursor.encode() + b"=" * (-len(cursor) % 4)
        parts = base64.b64decode(padded, altchars=b"-_", validate=True).decode().split(_SEPARATOR)
    except (binascii.Error, ValueError) as error:
        raise bad_cursor() from error
    if len(parts) != count:
        raise bad_cursor()
    return parts


def bad_cursor() -> Invalid:
    """What is said of a cursor that was not given out here."""
    return Invalid("CURSOR_INVALID", "The cursor was not given out by this list.")


def read_id_cursor(cursor: str | None) -> UUID | None:
    """The id in the cursor of a list that is ordered by id."""
    if cursor is None:
        return None
    try:
        return UUID(decode_cursor(cursor, 1)[0])
    except ValueError as error:
        raise bad_cursor() from error

"""What an entry of the trigger registry may be, whoever makes it: people, or Millrace for what it listens to."""

from typing import Annotated, Any, Final

from pydantic import BaseModel, Field, StringConstraints

from app.db.statuses import EventSource, TriggerCategory
from app.trigger_keys import TriggerKey
from app.wire import JsonObject, Name

MOST_PROPERTIES: Final = 200
MOST_VARIABLES: Final = 500

Description = Annotated[str, StringConstraints(max_length=10_000)]


class Variable(BaseModel):
    """Something in the payload that people can refer to."""

    path: str = Field(min_length=1, max_length=500)
    type: str = Field(default="any", min_length=1, max_length=30)
    description: Description | None = None


class Entry(BaseModel):
    """A kind of event. `properties` is a form of what a subscription may be given."""

    key: TriggerKey
    name: Name
    description: Description | None = None
    category: TriggerCategory
    source: EventSource
    properties: list[JsonObject] = Field(default=[], max_length=MOST_PROPERTIES)
    sample_payload: Any = None
    variables: list[Variable] = Field(default=[], max_length=MOST_VARIABLES)

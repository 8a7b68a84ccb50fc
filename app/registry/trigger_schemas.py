"""Triggers of the registry on the wire."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from pydantic import Field, StringConstraints

from app.db.statuses import EventSource, TriggerCategory
from app.subscriptions.schemas import ExplainedView
from app.trigger_keys import TriggerKey
from app.wire import Given, JsonObject, Name, Taken

Description = Annotated[str, StringConstraints(max_length=10_000)]


class Variable(Taken):
    """Something in the payload that people can refer to."""

    path: str = Field(min_length=1, max_length=500)
    type: str = Field(default="any", min_length=1, max_length=30)
    description: Description | None = None


class TriggerCreate(Taken):
    """A new kind of event. `properties` is a form of what a subscription may be given."""

    key: TriggerKey
    name: Name
    description: Description | None = None
    category: TriggerCategory
    source: EventSource
    properties: list[JsonObject] = Field(default=[], max_length=200)
    sample_payload: Any = None
    variables: list[Variable] = Field(default=[], max_length=500)


class TriggerChange(Taken):
    """What may be changed; what is left out stays as it is."""

    name: Name = ""
    description: Description | None = None
    category: TriggerCategory = TriggerCategory.MANUAL
    properties: list[JsonObject] = Field(default=[], max_length=200)
    sample_payload: Any = None
    variables: list[Variable] = Field(default=[], max_length=500)


class TriggerEntry(Given):
    """A trigger as users read it."""

    key: str
    name: str
    description: str | None
    category: TriggerCategory
    source: EventSource
    properties: list[JsonObject]
    sample_payload: Any
    variables: list[JsonObject]
    built_in: bool
    created_at: datetime
    updated_at: datetime


class TriggerTest(Taken):
    """An event to try a trigger with; its sample payload unless another is given. With `dryRun` nothing happens."""

    payload: Any = None
    dry_run: bool = False


class TestedSubscription(ExplainedView):
    """What a subscription would make of the event; `delivers` says whether it would start or resume anything."""

    subscription_id: UUID
    template: str
    status: str
    delivers: bool


class TriggerTestView(Given):
    """The event's id in the inbox, or, of a dry run, what each subscription would make of it."""

    event_record_id: UUID | None = None
    dry_run: bool
    subscriptions: list[TestedSubscription] | None = None


class LoadOptions(Taken):
    """Options that a field loads by a `method`; `values` are those of the fields that they depend on."""

    method: str = Field(min_length=1, max_length=200)
    values: JsonObject = {}
    pagination_token: str | None = Field(default=None, max_length=500)
    limit: int = Field(default=100, ge=1, le=500)


class SearchOptions(LoadOptions):
    """The same, with a text that is looked for."""

    text: str | None = Field(default=None, max_length=200)


class OptionView(Given):
    """One option: `value` is stored, `name` is shown."""

    name: str
    value: bool | int | float | str
    description: str | None = None


class OptionsView(Given):
    """Options, and what leads to the next part of a long list."""

    results: list[OptionView]
    pagination_token: str | None

"""Subscriptions on the wire."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from pydantic import Field, StringConstraints

from app.db.statuses import SubscriptionMode, SubscriptionStatus
from app.trigger_keys import TriggerKey
from app.wire import Given, JsonObject, Taken

Description = Annotated[str, StringConstraints(max_length=10_000)]
Signal = Annotated[str, StringConstraints(min_length=1, max_length=200)]


class _Wanted(Taken):
    description: Description | None = None
    mode: SubscriptionMode = SubscriptionMode.START
    filter: JsonObject | None = None
    properties: JsonObject = {}
    context: Any = None
    name: Any = None
    signal: Signal | None = None
    correlation_key: Any = None


class SubscriptionCreate(_Wanted):
    """A template (id or slug) that is to hear of a trigger. `context`, `name` and `correlationKey` are values over
    `__trigger__`, the payload; without `context` the payload is the context.
    """

    template_id: str = Field(min_length=1, max_length=100, description="a template's id or slug")
    trigger_key: TriggerKey
    status: SubscriptionStatus = SubscriptionStatus.ACTIVE


class SubscriptionChange(_Wanted):
    """What may be changed; what is left out stays as it is."""


class Warned(Given):
    """Something that does not hinder, and should be known."""

    code: str
    message: str


class SubscriptionView(Given):
    """A subscription as users read it; `filterText` is the filter in words."""

    id: UUID
    template_id: UUID
    template: str
    trigger_key: str
    description: str | None
    status: SubscriptionStatus
    mode: SubscriptionMode
    filter: JsonObject | None
    filter_text: str
    properties: JsonObject
    context: Any
    name: Any
    signal: str | None
    correlation_key: Any
    warnings: list[Warned]
    created_at: datetime
    updated_at: datetime


class ExplainRequest(Taken):
    """A payload, or the id of an event in the inbox; one of the two."""

    payload: Any = None
    event_record_id: UUID | None = None


class PropertyFinding(Given):
    """What a property that narrows said of the event."""

    property: str
    holds: bool
    reason: str | None


class ConditionFinding(Given):
    """What became of one part of the filter: what was compared, whether it held, and why it could not be decided."""

    path: str
    text: str
    holds: bool
    left: Any = None
    right: Any = None
    reason: str | None = None
    parts: list["ConditionFinding"] = []


class ExplainedView(Given):
    """Whether an event matches, and why; and what would be made of it. `problem` says what could not be worked out,
    `warnings` are the subscription's.
    """

    holds: bool
    properties: list[PropertyFinding]
    filter: ConditionFinding
    context: JsonObject | None = None
    name: str | None = None
    correlation_key: str | None = None
    problem: Warned | None = None
    warnings: list[Warned] = []

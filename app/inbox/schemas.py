"""Events on the wire."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from app.db.event_tables import TriggerDelivery, TriggerEvent
from app.db.statuses import DeliveryKind, DeliveryStatus, EventSource, EventStatus
from app.wire import Given


class DeliveryView(Given):
    """What became of an event at a target: `link`, `template` or `subscription:<id>`.

    `code` and `message` say what refused it, or what it waits for; it is looked at again at `dueAt` while PENDING.
    """

    target: str
    kind: DeliveryKind
    status: DeliveryStatus
    template: str | None
    subscription_id: UUID | None
    execution_id: UUID | None
    correlation_key: str | None
    code: str | None
    message: str | None
    attempts: int
    due_at: datetime | None
    updated_at: datetime


class EventView(Given):
    """An event in the inbox; `times` is how often it was received."""

    id: UUID
    source: EventSource
    trigger_key: str
    dedupe_key: str
    summary: str
    entity_type: str | None
    entity_id: str | None
    status: EventStatus
    times: int
    received_at: datetime
    last_received_at: datetime
    deliveries: list[DeliveryView]


class EventDetail(EventView):
    """An event with what it brought; headers are without secrets."""

    payload: Any
    headers: dict[str, Any] | None


Deliveries = Sequence[tuple[TriggerDelivery, str | None]]


def event_view(event: TriggerEvent, deliveries: Deliveries) -> EventView:
    """The event of a row."""
    return EventView(**_fields(event, deliveries))


def event_detail(event: TriggerEvent, deliveries: Deliveries) -> EventDetail:
    """The event of a row, with payload and headers."""
    return EventDetail(**_fields(event, deliveries), payload=event.payload, headers=event.headers)


def _fields(event: TriggerEvent, deliveries: Deliveries) -> dict[str, Any]:
    return {
        "id": event.id,
        "source": event.source,
        "trigger_key": event.trigger_key,
        "dedupe_key": event.dedupe_key,
        "summary": event.summary,
        "entity_type": event.entity_type,
        "entity_id": event.entity_id,
        "status": event.status,
        "times": event.times,
        "received_at": event.received_at,
        "last_received_at": event.last_received_at,
        "deliveries": [_delivery(row, slug) for row, slug in deliveries if row.event_id == event.id],
    }


def _delivery(row: TriggerDelivery, slug: str | None) -> DeliveryView:
    return DeliveryView(
        target=row.target,
        kind=DeliveryKind(row.kind),
        status=DeliveryStatus(row.status),
        template=slug,
        subscription_id=row.subscription_id,
        execution_id=row.execution_id,
        correlation_key=row.correlation_key,
        code=row.code,
        message=row.message,
        attempts=row.attempts,
        due_at=row.due_at if row.status == DeliveryStatus.PENDING else None,
        updated_at=row.updated_at,
    )

"""`/trigger-events`: the inbox."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Path, Query

from app.addresses import id_of
from app.db.statuses import EventSource, EventStatus
from app.dependencies import CallerPart, Cursor, DatabasePart, Limit, SessionPart, SettingsPart, TemporalPart
from app.inbox import service
from app.inbox.queries import EventFilter, list_deliveries, list_events
from app.inbox.schemas import EventDetail, EventView, event_view
from app.problem_details import problem_responses
from app.wire import Moment, Page, encode_cursor, read_id_cursor

router = APIRouter(prefix="/trigger-events", tags=["trigger events"], responses=problem_responses(404, 422, 503))

EventId = Annotated[
    UUID, id_of("trigger event"), Path(alias="event", description="`eventRecordId` of what the event started")
]


@router.get("", summary="List events", name="listTriggerEvents")
async def list_(
    *,
    session: SessionPart,
    source: EventSource | None = None,
    trigger_key: Annotated[str | None, Query(alias="triggerKey", max_length=200)] = None,
    status: EventStatus | None = None,
    refused: Annotated[bool | None, Query(description="only those that a target refused, or only the others")] = None,
    entity_type: Annotated[str | None, Query(alias="entityType", max_length=30)] = None,
    entity_id: Annotated[str | None, Query(alias="entityId", max_length=200)] = None,
    execution_id: Annotated[UUID | None, Query(alias="executionId", description="which started or resumed it")] = None,
    received_after: Annotated[Moment | None, Query(alias="receivedAfter")] = None,
    received_before: Annotated[Moment | None, Query(alias="receivedBefore")] = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Page[EventView]:
    """The newest first, without payloads."""
    wanted = EventFilter(
        source,
        trigger_key,
        status,
        entity_type,
        entity_id,
        execution_id,
        refused,
        received_after,
        received_before,
    )
    found = await list_events(session, wanted, below=read_id_cursor(cursor), limit=limit + 1)
    shown = found[:limit]
    deliveries = await list_deliveries(session, [event.id for event in shown])
    following = encode_cursor(str(shown[-1].id)) if len(found) > limit else None
    return Page(items=[event_view(event, deliveries) for event in shown], next_cursor=following)


@router.get("/{event}", summary="Read an event", name="getTriggerEvent")
async def get(event: EventId, session: SessionPart) -> EventDetail:
    """Codes: TRIGGER_EVENT_NOT_FOUND."""
    return await service.get_event(session, event)


@router.post(
    "/{event}/redeliver",
    status_code=202,
    summary="Deliver an event again",
    responses=problem_responses(409),
    name="redeliverTriggerEvent",
)
async def redeliver(
    *, event: EventId, database: DatabasePart, temporal: TemporalPart, settings: SettingsPart, caller: CallerPart
) -> EventDetail:
    """Tries again what was refused, and what nothing wanted. What was started is never started again. A repetition
    with the same `Idempotency-Key` tries nothing.

    Codes: TRIGGER_EVENT_NOT_FOUND, NOTHING_TO_DELIVER.
    """
    return await service.redeliver(database, temporal, settings, event, caller)

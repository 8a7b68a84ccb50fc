"""What people do with events: look at them, and have them delivered again."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

from sqlalchemy import case, func, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.audit.service import Deed, audited_once
from app.db.event_tables import TriggerDelivery, TriggerEvent
from app.db.session import Database
from app.db.statuses import DeliveryStatus, EventStatus
from app.errors import Conflict, NotFound
from app.executions.control import Caller
from app.inbox.delivering import deliver
from app.inbox.queries import delete_old_events, list_deliveries
from app.inbox.schemas import EventDetail, event_detail
from app.settings import Settings
from app.temporal import Temporal

# For so long the dispatcher leaves to whoever asks what he asks for.
ASKED_FOR = timedelta(seconds=10)


async def get_event(session: AsyncSession, event_id: UUID) -> EventDetail:
    """An event with all that is stored of it, and what became of it. Raises TRIGGER_EVENT_NOT_FOUND."""
    event = await _find(session, event_id)
    return event_detail(event, await list_deliveries(session, [event_id]))


async def redeliver(
    database: Database, temporal: Temporal, settings: Settings, event_id: UUID, caller: Caller
) -> EventDetail:
    """Tries again what was refused or waits, and looks anew what an event is for that nothing wanted. A repetition with
    the caller's key tries nothing, and sees what has become of it.

    What has been started or signalled is left alone. Raises TRIGGER_EVENT_NOT_FOUND, NOTHING_TO_DELIVER.
    """
    key = caller.update_id(f"REDELIVER {event_id}")
    deed = Deed("REDELIVER", "TRIGGER_EVENT", str(event_id), caller.actor, key=key)
    async with audited_once(database, deed) as done:
        if done is None:
            await temporal.assure()
            async with database.transaction() as session:
                await _open_again(session, event_id)
            delivered = await deliver(database, temporal, settings, [event_id])
            deed.after = {each.target: each.status.value for each in delivered}
    async with database.transaction() as session:
        return await get_event(session, event_id)


async def purge_events(session: AsyncSession, older_than: timedelta) -> int:
    """Deletes settled events of that age; how many."""
    return await delete_old_events(session, datetime.now(UTC) - older_than)


async def _open_again(session: AsyncSession, event_id: UUID) -> None:
    event = await _find(session, event_id, locked=True)
    refused = col(TriggerDelivery.status) == DeliveryStatus.REFUSED
    retried = await session.execute(
        update(TriggerDelivery)
        .where(
            col(TriggerDelivery.event_id) == event_id,
            col(TriggerDelivery.status).in_((DeliveryStatus.REFUSED, DeliveryStatus.PENDING)),
        )
        .values(
            status=DeliveryStatus.PENDING,
            due_at=func.now() + ASKED_FOR,
            # What has refused it has not taken it: who gets it is found anew.
            execution_id=case((refused, None), else_=col(TriggerDelivery.execution_id)),
            wait_id=case((refused, None), else_=col(TriggerDelivery.wait_id)),
        )
        .returning(col(TriggerDelivery.id))
    )
    waiting = event.status != EventStatus.HANDLED
    if not retried.all() and not waiting:
        raise Conflict("NOTHING_TO_DELIVER", "Everything that the event is for has been started or signalled.")
    await session.execute(
        update(TriggerEvent)
        .where(col(TriggerEvent.id) == event_id)
        .values(
            status=EventStatus.PENDING,
            matched_at=None if event.status == EventStatus.UNMATCHED else event.matched_at,
            due_at=func.now() + ASKED_FOR,
        )
    )


async def _find(session: AsyncSession, event_id: UUID, *, locked: bool = False) -> TriggerEvent:
    event = await session.get(TriggerEvent, event_id, with_for_update=locked)
    if event is None:
        raise NotFound("trigger event", event_id)
    return event

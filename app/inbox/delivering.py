"""From events to running executions: what they ask for is committed, then Temporal is asked."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import structlog
from asyncpg import DataError

from app.contracts import readable
from app.db.session import Connection, Database
from app.db.statuses import DeliveryStatus
from app.errors import AppError, Unavailable
from app.executions import updates
from app.executions.starting_many import launch_all
from app.inbox.queries import Event, find_deliveries, lock_due, lock_pending
from app.inbox.settling import CONCLUDE, Delivered, Handover, Settled, as_delivered, settle
from app.run_contracts import SignalDelivery
from app.settings import Settings
from app.temporal import Temporal

log = structlog.get_logger(__name__)

SIGNALS_AT_ONCE = 10
EXECUTION_ENDED = "EXECUTION_ENDED"
AGAIN = timedelta(seconds=1)
LATER = timedelta(seconds=10)

NOTE_SIGNAL = """
    UPDATE trigger_delivery
    SET status = $2, code = $3, message = $4, due_at = now() + $5, updated_at = now()
    WHERE id = $1
    RETURNING event_id
"""

PUT_OFF = "UPDATE trigger_event SET due_at = now() + $2 WHERE id = $1"


async def deliver(
    database: Database, temporal: Temporal, settings: Settings, event_ids: Sequence[UUID]
) -> list[Delivered]:
    """Delivers those of the events that are PENDING, due or not; what has become of each at each target.

    Raises `Unavailable` when PostgreSQL or Temporal cannot be reached: the events stay PENDING.
    """
    await temporal.assure()
    async with database.driver() as connection:
        async with connection.transaction():
            settled = await settle(connection, settings, await lock_pending(connection, event_ids), early=True)
        tried = {each.id: each for each in await perform(connection, temporal, settled)}
        # Others may have been at it: their deliveries are as good.
        found = await find_deliveries(connection, event_ids)
        return [tried.get(delivery.id) or as_delivered(delivery) for delivery in found]


async def deliver_due(database: Database, temporal: Temporal, settings: Settings) -> int:
    """Delivers events that are due, at most a batch; how many there were. Any number of processes may do this.

    Raises `Unavailable` when PostgreSQL or Temporal cannot be reached.
    """
    await temporal.assure()
    async with database.driver() as connection:
        async with connection.transaction():
            events = await lock_due(connection, settings.inbox.batch)
            if not events:
                return 0
            settled = await _settle_apart(connection, settings, events)
        for each in settled:
            await perform(connection, temporal, each)
    return len(events)


async def perform(connection: Connection, temporal: Temporal, settled: Settled) -> list[Delivered]:
    """Starts what was written and hands signals over; how everything stands then."""
    await launch_all(connection, temporal, settled.launches)
    if not settled.handovers:
        return settled.delivered
    room = asyncio.Semaphore(SIGNALS_AT_ONCE)
    errors = await asyncio.gather(*[_hand_over(temporal, each, room) for each in settled.handovers])
    found = {each.id: each for each in settled.delivered}
    for handover, error in zip(settled.handovers, errors, strict=True):
        status, wait = _fate(handover, error)
        code, message = (None, None) if error is None else (error.code, readable(error.message))
        event_id = await connection.fetchval(NOTE_SIGNAL, handover.delivery_id, status.value, code, message, wait)
        await connection.execute(CONCLUDE, [event_id])
        found[handover.delivery_id] = replace(found[handover.delivery_id], status=status, error=error)
    return [*found.values()]


async def _settle_apart(connection: Connection, settings: Settings, events: Sequence[Event]) -> list[Settled]:
    """All of them at once; where PostgreSQL refuses one, each by itself, and that one is put off."""
    try:
        async with connection.transaction():
            return [await settle(connection, settings, events)]
    except DataError as error:
        if len(events) == 1:
            log.error("event_not_deliverable", event_id=str(events[0].id), reason=str(error))
            await connection.execute(PUT_OFF, events[0].id, LATER)
            return []
    apart = [await _settle_apart(connection, settings, [event]) for event in events]
    return [settled for one in apart for settled in one]


async def _hand_over(temporal: Temporal, handover: Handover, room: asyncio.Semaphore) -> AppError | None:
    signal = SignalDelivery(name=handover.signal, payload=handover.payload, correlation_key=handover.correlation_key)
    async with room:
        try:
            await updates.deliver_signal(temporal, handover.execution_id, signal, f"delivery:{handover.delivery_id}")
        except AppError as error:
            return error
    return None


def _fate(handover: Handover, error: AppError | None) -> tuple[DeliveryStatus, timedelta]:
    """What a handed-over signal comes to, and when it is tried again if it is still PENDING."""
    if error is None:
        return DeliveryStatus.SIGNALLED, timedelta(0)
    if isinstance(error, Unavailable):
        return DeliveryStatus.PENDING, LATER
    if error.code == EXECUTION_ENDED:
        # Its row will say so in a moment; then another one is looked for, or started.
        return DeliveryStatus.PENDING, AGAIN
    return DeliveryStatus.REFUSED, timedelta(0)

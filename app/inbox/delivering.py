"""From events to running executions: what they ask for is committed, then Temporal is asked."""

import asyncio
from collections.abc import Callable, Sequence
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
from app.inbox.awaiting import end_wait
from app.inbox.queries import Event, find_deliveries, lock_due, lock_pending
from app.inbox.settling import CONCLUDE, Delivered, Handover, Settled, as_delivered, settle
from app.inbox.storing import CHANNEL
from app.run_contracts import AwaitedSignal, SignalDelivery
from app.settings import Settings
from app.temporal import Temporal

log = structlog.get_logger(__name__)

SIGNALS_AT_ONCE = 10
EXECUTION_ENDED = "EXECUTION_ENDED"
NOT_AWAITED = "NOT_AWAITED"
# It has not been taken, and somebody else may want it.
LOOKING_ON = frozenset({EXECUTION_ENDED, NOT_AWAITED})
AGAIN = timedelta(seconds=1)
LATER = timedelta(seconds=10)

LOCK_EVENT = """
    SELECT FROM trigger_event AS event JOIN trigger_delivery AS delivery ON delivery.event_id = event.id
    WHERE delivery.id = $1 FOR UPDATE OF event
"""
# Whoever was slower takes nothing back; and the longer it has waited, the more seldom it is tried.
NOTE_SIGNAL = """
    UPDATE trigger_delivery
    SET status = $2, code = $3, message = $4, updated_at = now(),
        -- It is known not to have taken it: another one is looked for.
        execution_id = CASE WHEN $8 THEN NULL ELSE execution_id END,
        wait_id = CASE WHEN $8 THEN NULL ELSE wait_id END,
        -- A wait that is over is not found again; that an execution is over its row may not say yet.
        due_at = now() + CASE WHEN $8 AND wait_id IS NOT NULL THEN interval '0'
            ELSE greatest($5, least((now() - created_at) / 10, interval '5 minutes')) END
    WHERE id = $1 AND status = 'PENDING' AND execution_id = $6 AND wait_id IS NOT DISTINCT FROM $7
    RETURNING event_id
"""

CALL = f"SELECT pg_notify('{CHANNEL}', '')"

HandOver = Callable[[Sequence[Handover]], None]

DUE_IDS = "SELECT id FROM trigger_event WHERE status = 'PENDING' AND due_at <= now() ORDER BY due_at, id LIMIT $1"
PUT_OFF = """
    UPDATE trigger_event
    SET due_at = now() + greatest($2, least((now() - received_at) / 10, interval '5 minutes')) WHERE id = $1
"""


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


async def deliver_due(
    database: Database, temporal: Temporal, settings: Settings, hand_over_later: HandOver | None = None
) -> int:
    """Delivers events that are due, at most a batch; how many there were. Any number of processes may do this.

    Signals are handed over before it ends, unless there is somebody to `hand_over_later`: a run may keep them waiting.
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
            if hand_over_later is None:
                await perform(connection, temporal, each)
            else:
                await launch_all(connection, temporal, each.launches)
                hand_over_later(each.handovers)
    return len(events)


async def find_due(database: Database, limit: int) -> list[UUID]:
    """Events that are due, the longest waiting first, whoever is at them."""
    async with database.driver() as connection:
        return [row["id"] for row in await connection.fetch(DUE_IDS, limit)]


async def put_off(database: Database, event_id: UUID) -> None:
    """Has an event wait, the longer the older it is."""
    async with database.driver() as connection:
        await connection.execute(PUT_OFF, event_id, LATER)


async def perform(connection: Connection, temporal: Temporal, settled: Settled) -> list[Delivered]:
    """Starts what was written and hands signals over; how everything stands then."""
    await launch_all(connection, temporal, settled.launches)
    found = {each.id: each for each in settled.delivered}
    for handover, error in await _hand_over_all(temporal, settled.handovers):
        status = await _note(connection, handover, error)
        found[handover.delivery_id] = replace(found[handover.delivery_id], status=status, error=error)
    return [*found.values()]


async def hand_over(database: Database, temporal: Temporal, handovers: Sequence[Handover]) -> None:
    """Hands signals over and notes what became of them. What fails is tried again in its time."""
    told = await _hand_over_all(temporal, handovers)
    async with database.driver() as connection:
        for handover, error in told:
            await _note(connection, handover, error)


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


async def _hand_over_all(temporal: Temporal, handovers: Sequence[Handover]) -> list[tuple[Handover, AppError | None]]:
    """Those of one execution in order, and no more of them once it has not answered."""
    of: dict[UUID, list[Handover]] = {}
    for handover in handovers:
        of.setdefault(handover.execution_id, []).append(handover)
    room = asyncio.Semaphore(SIGNALS_AT_ONCE)
    told = await asyncio.gather(*[_hand_over(temporal, each, room) for each in of.values()])
    return [one for each in told for one in each]


async def _hand_over(
    temporal: Temporal, handovers: Sequence[Handover], room: asyncio.Semaphore
) -> list[tuple[Handover, AppError | None]]:
    told: list[tuple[Handover, AppError | None]] = []
    error: AppError | None = None
    async with room:
        for one in handovers:
            if not isinstance(error, Unavailable):
                error = await _hand_one_over(temporal, one)
            told.append((one, error))
    return told


async def _hand_one_over(temporal: Temporal, one: Handover) -> AppError | None:
    # The id of the signal, by which the run knows a repetition, and of the update, by which the server does.
    name = f"delivery:{one.delivery_id}"
    update_id = name if one.wait is None else f"{name}:{one.wait.id}"
    given = {"name": one.signal, "payload": one.payload, "correlation_key": one.correlation_key, "id": name}
    try:
        if one.wait is None:
            await updates.deliver_signal(temporal, one.execution_id, SignalDelivery(**given), update_id)
        else:
            signal = AwaitedSignal(**given, wait_key=one.wait.key)
            await updates.deliver_awaited(temporal, one.execution_id, signal, update_id)
    except AppError as error:
        if error.code != EXECUTION_ENDED:
            return error
        over = error
    else:
        return None
    try:
        # It may have been taken before, and the answer was lost.
        return None if await updates.was_signalled(temporal, one.execution_id, name, update_id) else over
    except Unavailable as unknown:
        return unknown


async def _note(connection: Connection, handover: Handover, error: AppError | None) -> DeliveryStatus:
    status, wait = _fate(error)
    code, message = (None, None) if error is None else (error.code, readable(error.message))
    async with connection.transaction():
        # Before the delivery, as everybody does; and nobody adds to what is counted meanwhile.
        await connection.execute(LOCK_EVENT, handover.delivery_id)
        wait_id = None if handover.wait is None else handover.wait.id
        looks_on = code in LOOKING_ON
        noted = (handover.delivery_id, status.value, code, message, wait, handover.execution_id, wait_id, looks_on)
        event_id = await connection.fetchval(NOTE_SIGNAL, *noted)
        if event_id is not None:
            await connection.execute(CONCLUDE, [event_id])
        if looks_on and wait_id is not None:
            await end_wait(connection, wait_id)
            await connection.execute(CALL)
    return status


def _fate(error: AppError | None) -> tuple[DeliveryStatus, timedelta]:
    """What a handed-over signal comes to, and when it is tried again if it is still PENDING."""
    if error is None:
        return DeliveryStatus.SIGNALLED, timedelta(0)
    if isinstance(error, Unavailable):
        return DeliveryStatus.PENDING, LATER
    if error.code in LOOKING_ON:
        # Another one is looked for, or started. The row of one that has ended will say so in a moment.
        return DeliveryStatus.PENDING, AGAIN
    return DeliveryStatus.REFUSED, timedelta(0)

"""The next rows of a backfill become events of the inbox, are delivered, and get what became of them.

Repeating it after a kill, wherever that came, starts nothing twice: which event a row became is written with the
event, and an event starts everything once.
"""

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from asyncpg import Record

from app.backfill_contracts import StartedRows, StartRows
from app.backfills.loading import MAKE, event_key
from app.canonical import canonical_json
from app.db.session import Connection, Database
from app.db.statuses import BackfillStatus, EventSource, EventStatus
from app.inbox.delivering import deliver
from app.inbox.storing import Incoming, store
from app.settings import Settings
from app.temporal import Temporal
from app.triggers.service import KINDS

# Seconds. As long as that one call waits for executions to end before it says that there was no room.
LONGEST_WAIT = 20.0
LOOK_EVERY = 0.5

# The lock lets a pause wait until these rows are stored, and this wait until a start is committed.
BACKFILL = """
    SELECT id, status, name, template_id, entity_type, concurrency FROM backfill WHERE id = $1 FOR SHARE
"""
LOCK = "SELECT FROM backfill WHERE id = $1 FOR UPDATE"
CLOSE = """
    UPDATE backfill_row AS one SET open = false
    FROM workflow_execution AS execution
    WHERE one.backfill_id = $1 AND one.open AND execution.id = one.execution_id
        AND (execution.closed_as IS NOT NULL OR execution.status NOT IN ('CREATED', 'STARTED'))
"""
OPEN = "SELECT count(*) FROM backfill_row WHERE backfill_id = $1 AND open AND execution_id IS NOT NULL"
NEXT = """
    SELECT number, event_id, entity_id, name, context::text AS context, trigger_event_id
    FROM backfill_row WHERE backfill_id = $1 AND status = 'PENDING' ORDER BY number LIMIT $2
"""
UNDER_WAY = """
    SELECT trigger_event_id FROM backfill_row
    WHERE backfill_id = $1 AND status = 'PENDING' AND trigger_event_id IS NOT NULL
"""
# A row that had been stored by an attempt before keeps what was found then.
STORED = """
    UPDATE backfill_row AS one
    SET trigger_event_id = stored.trigger_event_id, repeated = stored.repeated, updated_at = now(),
        code = CASE WHEN stored.conflicting THEN 'CONTENT_DIFFERS' END,
        message = CASE WHEN stored.conflicting THEN 'The event was received before with another content, which counts.'
            END
    FROM jsonb_to_recordset($2::text::jsonb)
        AS stored (number int, trigger_event_id uuid, repeated boolean, conflicting boolean)
    WHERE one.backfill_id = $1 AND one.number = stored.number AND one.trigger_event_id IS NULL
"""
# Of several targets the one that an execution was started for speaks for the row, then the first. From the events to
# their rows, and to these by their place (a row that another settles meanwhile has none any more): what PostgreSQL
# believes of a backfill that was loaded a moment ago is that it has one row, and it would compare all of them with each
# other.
SETTLE = """
    WITH delivered AS MATERIALIZED (
        SELECT DISTINCT ON (event.id) event.id, event.status AS event_status, delivery.status, delivery.execution_id,
            delivery.code, delivery.message
        FROM trigger_event AS event
        LEFT JOIN trigger_delivery AS delivery ON delivery.event_id = event.id
        WHERE event.id = ANY($2)
        ORDER BY event.id, delivery.status = 'STARTED' DESC, delivery.status = 'PENDING' DESC, delivery.created_at
    ), judged AS MATERIALIZED (
        SELECT one.place, delivered.execution_id, delivered.code, delivered.message,
            CASE
                WHEN delivered.event_status = 'UNMATCHED' THEN 'UNMATCHED'
                WHEN delivered.status IN ('STARTED', 'SIGNALLED') THEN
                    CASE WHEN one.repeated THEN 'REPEATED' ELSE 'STARTED' END
                WHEN delivered.status = 'REFUSED' AND delivered.code = 'IDEMPOTENCY_CONFLICT' THEN 'REPEATED'
                WHEN delivered.status = 'REFUSED' THEN 'REFUSED'
                ELSE 'PENDING'
            END AS outcome
        FROM delivered CROSS JOIN LATERAL (
            SELECT ctid AS place, backfill_id, status, repeated FROM backfill_row
            WHERE trigger_event_id = delivered.id OFFSET 0
        ) AS one
        WHERE one.backfill_id = $1 AND one.status = 'PENDING'
    )
    UPDATE backfill_row AS one
    SET status = CASE judged.outcome WHEN 'UNMATCHED' THEN 'REFUSED' ELSE judged.outcome END,
        execution_id = judged.execution_id,
        open = judged.outcome = 'STARTED' AND judged.execution_id IS NOT NULL,
        -- What it waited for is over once it has been started; how its content differs is not.
        code = CASE judged.outcome
            WHEN 'UNMATCHED' THEN 'UNLINKED'
            ELSE coalesce(judged.code, CASE one.code WHEN 'CONTENT_DIFFERS' THEN one.code END)
        END,
        message = CASE judged.outcome
            WHEN 'UNMATCHED' THEN 'Nothing is linked to ' || coalesce(one.entity_id, 'it') || '.'
            ELSE coalesce(judged.message, CASE one.code WHEN 'CONTENT_DIFFERS' THEN one.message END)
        END,
        updated_at = now()
    FROM judged
    WHERE one.ctid = judged.place
    RETURNING one.status, one.code
"""
COMPLETE = """
    UPDATE backfill SET status = 'COMPLETED', ended_at = now(), updated_at = now()
    WHERE id = $1 AND status = 'RUNNING'
        AND NOT EXISTS (SELECT FROM backfill_row WHERE backfill_id = $1 AND status = 'PENDING')
    RETURNING id
"""
FAIL = """
    UPDATE backfill SET status = 'FAILED', status_reason = $2, ended_at = now(), updated_at = now()
    WHERE id = $1 AND status = 'RUNNING'
"""


@dataclass(frozen=True, slots=True)
class _Taken:
    """Rows that have become events, or why there are none."""

    status: BackfillStatus
    events: Sequence[UUID] = ()
    full: bool = False


async def start_rows(database: Database, temporal: Temporal, settings: Settings, asked: StartRows) -> StartedRows:
    """Starts the next rows; gives the backfill's status, and how many rows have had their turn.

    Where as many of its executions are open as may be, it waits for one to end, but not for ever. Raises
    `Unavailable`; what had been done by then is found by the next attempt.
    """
    patient = time.monotonic() + LONGEST_WAIT
    while True:
        taken = await _take(database, asked)
        if not taken.full or time.monotonic() > patient:
            break
        await asyncio.sleep(LOOK_EVERY)
    if taken.events:
        return await _deliver(database, temporal, settings, asked.backfill_id, taken)
    if taken.status in (BackfillStatus.PAUSED, BackfillStatus.CANCELLED):
        return await _follow_up(database, asked.backfill_id, taken.status)
    return StartedRows(status=taken.status.value)


async def _follow_up(database: Database, backfill_id: UUID, status: BackfillStatus) -> StartedRows:
    """Writes down what has become of rows that were under way when the backfill was paused or cancelled."""
    async with database.driver() as connection:
        events = [row[0] for row in await connection.fetch(UNDER_WAY, backfill_id)]
        settled = await connection.fetch(SETTLE, backfill_id, events) if events else []
    return StartedRows(status=status.value, waits=_reason(settled))


def _reason(settled: Sequence[Record]) -> str | None:
    """What the first row waits for that is still PENDING."""
    waiting = [row["code"] for row in settled if row["status"] == "PENDING"]
    return (waiting[0] or "DELIVERY_PENDING") if waiting else None


async def _take(database: Database, asked: StartRows) -> _Taken:
    async with database.driver() as connection, connection.transaction():
        backfill = await connection.fetchrow(BACKFILL, asked.backfill_id)
        if backfill is None:
            # Perhaps it is being made: then this waits for the commit.
            await connection.execute(MAKE, str(asked.backfill_id))
            backfill = await connection.fetchrow(BACKFILL, asked.backfill_id)
        if backfill is None:
            return _Taken(BackfillStatus.FAILED)
        status = BackfillStatus(backfill["status"])
        if status != BackfillStatus.RUNNING:
            return _Taken(status)
        if backfill["template_id"] is None and backfill["entity_type"] is None:
            await connection.execute(FAIL, asked.backfill_id, "Its template has been deleted.")
            return _Taken(BackfillStatus.FAILED)
        room = await _room(connection, backfill, asked.most)
        if room <= 0:
            return _Taken(status, full=True)
        rows = await connection.fetch(NEXT, asked.backfill_id, room)
        if not rows:
            await connection.execute(COMPLETE, asked.backfill_id)
            return _Taken(BackfillStatus.COMPLETED)
        return _Taken(status, await _store(connection, backfill, rows))


async def _room(connection: Connection, backfill: Record, most: int) -> int:
    await connection.execute(CLOSE, backfill["id"])
    if backfill["concurrency"] is None:
        return most
    opened: int = await connection.fetchval(OPEN, backfill["id"])
    room: int = min(most, backfill["concurrency"] - opened)
    return room


async def _store(connection: Connection, backfill: Record, rows: Sequence[Record]) -> list[UUID]:
    fresh = [row for row in rows if row["trigger_event_id"] is None]
    stored = await store(connection, [_incoming(backfill, row) for row in fresh])
    found = [
        {
            "number": row["number"],
            "trigger_event_id": str(event.id),
            # One that was there and has started nothing yet is started by this row.
            "repeated": event.repeated and event.status == EventStatus.HANDLED,
            "conflicting": event.conflicting,
        }
        for row, event in zip(fresh, stored, strict=True)
    ]
    await connection.execute(STORED, backfill["id"], canonical_json(found))
    return [event.id for event in stored] + [row["trigger_event_id"] for row in rows if row["trigger_event_id"]]


def _incoming(backfill: Record, row: Record) -> Incoming:
    context = json.loads(row["context"])
    named = {"name": row["name"]} if row["name"] else {}
    event_id, entity_type, template_id = row["event_id"], backfill["entity_type"], backfill["template_id"]
    summary = f"backfill {backfill['name']} · row {row['number']}"
    source, key = EventSource.BACKFILL, f"{backfill['id']}:{row['number']}"
    trigger_key, payload = source.value, {"context": context, **named}
    if event_id is not None:
        source, key = event_key(entity_type, template_id, event_id)
    if source in KINDS:
        # The very event that would come, or has come, by itself.
        trigger_key = KINDS[source][0]
        payload = {"eventId": event_id, "entityId": row["entity_id"], "context": context, **named}
    return Incoming(
        source=source,
        trigger_key=trigger_key,
        dedupe_key=key,
        summary=summary,
        payload=payload,
        entity_type=None if row["entity_id"] is None else entity_type,
        entity_id=row["entity_id"],
        template_id=template_id,
    )


async def _deliver(
    database: Database, temporal: Temporal, settings: Settings, backfill_id: UUID, taken: _Taken
) -> StartedRows:
    await deliver(database, temporal, settings, taken.events)
    async with database.driver() as connection:
        settled = await connection.fetch(SETTLE, backfill_id, list(taken.events))
        async with connection.transaction():
            # Rows that a retry makes PENDING before this has the lock are seen by the statement after it.
            await connection.execute(LOCK, backfill_id)
            completed = await connection.fetchval(COMPLETE, backfill_id)
    return StartedRows(
        status=taken.status.value if completed is None else BackfillStatus.COMPLETED.value,
        taken=sum(row["status"] != "PENDING" for row in settled),
        waits=_reason(settled),
    )

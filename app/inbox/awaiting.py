"""Executions that wait for a signal under a correlation key: their rows, and which of them an event is for.

Everything that is recorded may come twice and late: a record counts only when it is newer, by the run's own time, than
what the row says. A row's id is that of one wait; the next one of the same step has another.
"""

import hashlib
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from uuid import UUID

from app.contracts import WaitRecord
from app.db.session import Connection, Database
from app.db.tables import new_id
from app.inbox.storing import CHANNEL
from app.untrusted import made_storable

# Keys that are locked at once: PostgreSQL has room for some thousands of locks in all.
LOCKED_AT_ONCE = 50

TEMPLATE_OF = "SELECT template_id FROM workflow_execution WHERE id = $1"
LOCK = "SELECT pg_advisory_xact_lock(key) FROM unnest($1::bigint[]) AS key"
OPEN = """
    INSERT INTO signal_wait AS wait (id, execution_id, key, signal, correlation_key, opened_at, recorded_at)
    SELECT id, $1, key, signal, correlation_key, at, at
    FROM jsonb_to_recordset($2::text::jsonb) AS rows
        (id uuid, key text, signal text, correlation_key text, at timestamptz)
    ON CONFLICT (execution_id, key) DO UPDATE
        SET id = excluded.id, signal = excluded.signal, correlation_key = excluded.correlation_key,
            opened_at = excluded.opened_at, closed_at = NULL, recorded_at = excluded.recorded_at
        WHERE excluded.recorded_at > wait.recorded_at
"""
CLOSE = """
    UPDATE signal_wait AS wait SET closed_at = rows.at, recorded_at = rows.at
    FROM jsonb_to_recordset($2::text::jsonb) AS rows (key text, at timestamptz)
    WHERE wait.execution_id = $1 AND wait.key = rows.key AND wait.recorded_at < rows.at
"""
# Only the oldest events: each wait takes one of them, unless that has been refused meanwhile; hence some more.
WAKE = f"""
    WITH begun AS (
        SELECT signal, correlation_key, count(*) AS waits
        FROM jsonb_to_recordset($2::text::jsonb) AS wait (signal text, correlation_key text)
        GROUP BY signal, correlation_key
    ), fitting AS (
        SELECT delivery.id, delivery.event_id, begun.waits,
            row_number() OVER (PARTITION BY begun.signal, begun.correlation_key ORDER BY delivery.event_id) AS place
        FROM begun
        JOIN trigger_delivery AS delivery
            ON delivery.template_id = $1 AND delivery.correlation_key = begun.correlation_key
        JOIN subscription ON subscription.id = delivery.subscription_id AND subscription.signal = begun.signal
        WHERE delivery.status = 'PENDING' AND delivery.code IN ('NO_ONE_WAITS', 'EXECUTION_ENDED')
    ), first AS (
        SELECT id, event_id FROM fitting WHERE place <= waits + 10
    ), event AS (
        SELECT id FROM trigger_event WHERE id IN (SELECT event_id FROM first) ORDER BY id FOR UPDATE
    ), woken AS (
        UPDATE trigger_delivery SET due_at = now()
        WHERE id IN (SELECT first.id FROM first JOIN event ON event.id = first.event_id) AND status = 'PENDING'
        RETURNING event_id
    ), due AS (
        UPDATE trigger_event SET due_at = now() WHERE id IN (SELECT event_id FROM woken) RETURNING id
    )
    SELECT pg_notify('{CHANNEL}', '') FROM due LIMIT 1
"""
# The longest waiting first. What was given an event has it until that has been refused.
FIND = """
    SELECT wait.id, wait.execution_id, wait.key
    FROM signal_wait AS wait JOIN workflow_execution AS execution ON execution.id = wait.execution_id
    WHERE wait.signal = $2 AND wait.correlation_key = $3 AND wait.closed_at IS NULL
        AND execution.template_id = $1 AND execution.status IN ('CREATED', 'STARTED') AND wait.id <> ALL($4::uuid[])
        AND NOT EXISTS (
            SELECT FROM trigger_delivery AS delivery
            WHERE delivery.wait_id = wait.id AND delivery.status IN ('PENDING', 'SIGNALLED')
        )
    ORDER BY wait.opened_at, wait.id
    LIMIT 1
"""
KEY_OF = "SELECT key FROM signal_wait WHERE id = $1"
END = "UPDATE signal_wait SET closed_at = greatest(opened_at, now()) WHERE id = $1 AND closed_at IS NULL"


@dataclass(frozen=True, slots=True)
class Wait:
    """A wait of an execution; `key` is the engine's, None where its row is not there any more."""

    id: UUID
    execution_id: UUID
    key: str | None


async def record_waits(database: Database, execution_id: UUID, records: Sequence[WaitRecord]) -> None:
    """Writes which waits of an execution have begun and ended, and has events that wait for one delivered at once.

    Repeating it changes nothing. Raises `Unavailable`.
    """
    if not records:
        return
    last = {record.key: record for record in records}
    opened = [record for record in last.values() if record.signal is not None]
    closed = [record for record in last.values() if record.signal is None]
    async with database.driver() as connection:
        if closed:
            await connection.execute(CLOSE, execution_id, _rows(closed))
        template_id = await connection.fetchval(TEMPLATE_OF, execution_id) if opened else None
        if template_id is None:
            return
        for first in range(0, len(opened), LOCKED_AT_ONCE):
            some = opened[first : first + LOCKED_AT_ONCE]
            # Whoever looks for a wait under these keys has written what came of it, or will see the rows.
            async with connection.transaction():
                await lock_keys(connection, {(template_id, record.correlation_key or "") for record in some})
                await connection.execute(OPEN, execution_id, _rows(some))
            # Not under the locks: those who deliver an event have locked it first. An activity that fails in between
            # is repeated.
            await connection.fetchval(WAKE, template_id, _rows(some))


async def lock_keys(connection: Connection, keys: Collection[tuple[UUID, str]]) -> None:
    """Keeps everybody else from delivering, or waiting, under correlation keys (template, key) until the transaction
    ends. All that one transaction needs are locked at once, or two could wait for each other.
    """
    if keys:
        await connection.execute(LOCK, sorted({_number_of(template_id, key) for template_id, key in keys}))


async def find_wait(
    connection: Connection, template_id: UUID, signal: str, correlation_key: str, but: Collection[UUID]
) -> Wait | None:
    """The wait that a template's next signal under a key is for, `but` for some."""
    found = await connection.fetchrow(FIND, template_id, signal, correlation_key, list(but))
    return None if found is None else Wait(*found)


async def find_given(connection: Connection, wait_id: UUID, execution_id: UUID) -> Wait:
    """A wait of an execution that was given something before."""
    return Wait(wait_id, execution_id, await connection.fetchval(KEY_OF, wait_id))


async def end_wait(connection: Connection, wait_id: UUID) -> None:
    """The run says that a wait is over: it will say so in its own record, too, unless it was ended from outside."""
    await connection.execute(END, wait_id)


def _rows(records: Sequence[WaitRecord]) -> str:
    return json.dumps([made_storable({**record.model_dump(), "id": str(new_id())}) for record in records])


def _number_of(template_id: UUID, key: str) -> int:
    digest = hashlib.sha256(f"{template_id}\n{key}".encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)

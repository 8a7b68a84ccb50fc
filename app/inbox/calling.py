"""Calling what is queued, as far as there is room for it."""

import json
from uuid import UUID

from asyncpg import Record

from app.db.session import Connection, Database
from app.db.statuses import AtRest
from app.db.tables import TemplateStatus
from app.inbox.limiting import Limits, Room, read_room
from app.inbox.queueing import QUEUED
from app.settings import LimitSettings

# At most so many of a queue are called at once.
MOST = 500

QUEUES = f"""
    SELECT template.id, template.status, template.when_paused,
        template.limits::text AS limits, queue.length
    FROM (
        SELECT template_id, min(created_at) AS since, count(*) AS length
        FROM trigger_delivery WHERE {QUEUED} GROUP BY template_id
    ) AS queue
    JOIN workflow_template AS template ON template.id = queue.template_id
    ORDER BY queue.since
"""
# Events are locked before their deliveries, as whoever delivers them does; what is being delivered needs no call.
CALL = f"""
    WITH first AS (
        SELECT id, event_id FROM trigger_delivery WHERE template_id = $1 AND {QUEUED} ORDER BY event_id LIMIT $2
    ), event AS (
        SELECT id FROM trigger_event
        WHERE id IN (SELECT event_id FROM first) ORDER BY id FOR UPDATE SKIP LOCKED
    ), called AS (
        UPDATE trigger_delivery SET due_at = now()
        WHERE id IN (SELECT first.id FROM first JOIN event ON event.id = first.event_id) AND due_at > now()
        RETURNING event_id
    )
    UPDATE trigger_event SET due_at = now() WHERE id IN (SELECT event_id FROM called)
"""


async def call_queued(database: Database, settings: LimitSettings) -> None:
    """Makes due what is queued and may be started now, or will be refused. Raises `Unavailable`.

    No lock is held: who is called too many finds no room, and waits on.
    """
    of_all = Limits.of_all(settings)
    async with database.driver() as connection:
        queues = await connection.fetch(QUEUES)
        whole = await read_room(connection, of_all, None) if queues and of_all.limit else None
        for queue in queues:
            room = min(await _room(connection, queue, whole), queue["length"])
            if room > 0:
                await connection.execute(CALL, queue["id"], room)
                if whole is not None:
                    whole.use(room)


async def _room(connection: Connection, queue: Record, whole: Room | None) -> int:
    if queue["status"] == TemplateStatus.PAUSED and queue["when_paused"] == AtRest.QUEUE:
        return 0
    if queue["status"] != TemplateStatus.ACTIVE:
        # They will be refused.
        return MOST
    room = MOST if whole is None else whole.least(MOST)
    if queue["limits"] is None:
        return room
    template_id: UUID = queue["id"]
    return (await read_room(connection, Limits.of(json.loads(queue["limits"])), template_id)).least(room)

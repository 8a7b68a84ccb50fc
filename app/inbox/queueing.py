"""The queue of each template: deliveries that wait until it may be started again.

They wait until they are called. Only the dispatcher calls them, in the order in which their events came, and as soon
as it sees that there is room for them; so it does not matter who makes room, nor who looks at the same moment.
"""

from datetime import timedelta

from asyncpg import Record

from app.db.session import Database
from app.db.statuses import AtRest
from app.db.tables import TemplateStatus
from app.errors import AppError
from app.executions.schemas import ReadingProblem

# When what waits in a queue is looked at all the same: its template may have been deleted.
UNTIL_CALLED = timedelta(minutes=10)
# At most so many of a queue are called at once.
MOST = 500
QUEUED = "status = 'PENDING' AND code IN ('TEMPLATE_PAUSED', 'RATE_LIMITED', 'CONCURRENCY_LIMITED')"

QUEUES = f"""
    SELECT template.id, template.status, template.when_paused
    FROM (
        SELECT template_id, min(created_at) AS since FROM trigger_delivery WHERE {QUEUED} GROUP BY template_id
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


async def call_queued(database: Database) -> None:
    """Makes due what is queued and may be started now, or will be refused. Raises `Unavailable`."""
    async with database.driver() as connection:
        for queue in await connection.fetch(QUEUES):
            room = _room(queue)
            if room > 0:
                await connection.execute(CALL, queue["id"], room)


def _room(queue: Record) -> int:
    waits = queue["status"] == TemplateStatus.PAUSED and queue["when_paused"] == AtRest.QUEUE
    return 0 if waits else MOST


def queued_problem(error: AppError) -> ReadingProblem:
    """What is said to whoever asked for what is queued."""
    return ReadingProblem(code=error.code, message=error.message)

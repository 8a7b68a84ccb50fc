"""What is left over of executions that have ended, and goes: open tasks and incidents, waits, old dead letters."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from app.dead_letters.queries import delete_dead_letters

# The time is the execution's end, in the run's own time: should it be resumed, what it opens then is later.
CANCEL_TASKS = """
    UPDATE human_task AS task
    SET status = 'CANCELLED', closed_at = greatest(task.opened_at, execution.ended_at), updated_at = now(),
        recorded_at = greatest(task.recorded_at, execution.ended_at)
    FROM workflow_execution AS execution
    WHERE execution.id = task.execution_id AND execution.ended_at IS NOT NULL
        AND task.status IN ('OPEN', 'CLAIMED')
"""
WITHDRAW_INCIDENTS = """
    UPDATE incident
    SET resolution = 'WITHDRAWN', resolved_at = greatest(incident.opened_at, execution.ended_at)
    FROM workflow_execution AS execution
    WHERE execution.id = incident.execution_id AND execution.ended_at IS NOT NULL AND incident.resolved_at IS NULL
"""
# What would still come of an ended run is older than what its next one says.
FORGET_WAITS = """
    DELETE FROM signal_wait AS wait USING workflow_execution AS execution
    WHERE execution.id = wait.execution_id AND execution.ended_at IS NOT NULL
"""
OF_THESE = " AND execution.id = ANY(:ids)"


async def close_left_open(session: AsyncSession, ids: Sequence[UUID] | None = None) -> int:
    """Closes open tasks (CANCELLED) and incidents (WITHDRAWN) of closed executions, or of these; how many.

    What these executions waited for is forgotten.
    """
    narrowed, given = ("", {}) if ids is None else (OF_THESE, {"ids": list(ids)})
    count = 0
    for statement in (CANCEL_TASKS, WITHDRAW_INCIDENTS):
        closed = await session.execute(text(f"{statement}{narrowed} RETURNING 1"), given)
        count += len(closed.all())
    await session.execute(text(f"{FORGET_WAITS}{narrowed}"), given)
    return count


async def purge_dead_letters(session: AsyncSession, older_than: timedelta) -> int:
    """Deletes dead letters of that age; how many."""
    return await delete_dead_letters(session, datetime.now(UTC) - older_than, None)

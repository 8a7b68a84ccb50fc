"""Human tasks that are open in their rows, and that no run waits for: nobody could complete them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

import structlog

from app.db.session import Database
from app.errors import Unavailable
from app.executions.runs import view_run
from app.run_contracts import RunView
from app.temporal import Temporal

log = structlog.get_logger(__name__)

# Runs that are asked in one pass. A worker that has put a run away must go through its history to answer.
PAGE = 5

# What changed a moment ago is let be: the run writes its rows a little after it has decided.
OPEN = """
    SELECT task.id, task.execution_id, task.step_id, task.visit, task.item, task.recorded_at
    FROM human_task AS task
    WHERE task.status IN ('OPEN', 'CLAIMED') AND greatest(task.recorded_at, task.updated_at) < $2
        AND task.execution_id IN (
            SELECT DISTINCT one.execution_id
            FROM human_task AS one JOIN workflow_execution AS execution ON execution.id = one.execution_id
            WHERE one.status IN ('OPEN', 'CLAIMED') AND execution.status = 'STARTED'
                AND ($1::uuid IS NULL OR one.execution_id > $1)
            ORDER BY one.execution_id LIMIT $3
        )
    ORDER BY task.execution_id
"""
# Where the page ends, whether or not its rows are old enough.
LAST = """
    SELECT max(id::text)::uuid, count(*) FROM (
        SELECT DISTINCT one.execution_id AS id
        FROM human_task AS one JOIN workflow_execution AS execution ON execution.id = one.execution_id
        WHERE one.status IN ('OPEN', 'CLAIMED') AND execution.status = 'STARTED'
            AND ($1::uuid IS NULL OR one.execution_id > $1)
        ORDER BY one.execution_id LIMIT $2
    ) AS page
"""
# The time that the run recorded stays: should it say more of the task after all, that is later and counts.
CLOSE = """
    UPDATE human_task
    SET status = 'CANCELLED', closed_at = greatest(opened_at, now()), updated_at = now()
    WHERE id = $1 AND recorded_at = $2 AND status IN ('OPEN', 'CLAIMED')
    RETURNING id
"""


@dataclass(frozen=True, slots=True)
class _Task:
    id: UUID
    execution_id: UUID
    step_id: str
    visit: int
    item: int | None
    recorded_at: datetime


async def close_abandoned(
    database: Database, temporal: Temporal, older_than: timedelta, after: UUID | None
) -> tuple[int, UUID | None]:
    """Closes abandoned tasks of a page of open executions, from above an id; how many, and where the next page begins.

    A run that no worker can answer for is left to a later round. Raises `Unavailable` when PostgreSQL is away.
    """
    async with database.driver() as connection:
        last, count = await connection.fetchrow(LAST, after, PAGE) or (None, 0)
        rows = await connection.fetch(OPEN, after, datetime.now(UTC) - older_than, PAGE)
    tasks = [_Task(*row) for row in rows]
    views: dict[UUID, RunView | None] = {}
    for execution_id in dict.fromkeys(task.execution_id for task in tasks):
        try:
            views[execution_id] = await view_run(temporal, execution_id)
        except Unavailable as error:
            log.warning("tasks_not_compared", execution_id=str(execution_id), code=error.code)
            break
    closed = await _close(database, [task for task in tasks if _is_abandoned(task, views.get(task.execution_id))])
    return closed, last if count == PAGE else None


def _is_abandoned(task: _Task, view: RunView | None) -> bool:
    """Whether the run says that it does not wait for the task. What it does not say of each item is let be."""
    if view is None or not view.steps:
        return False
    if task.item is not None:
        items = next((step.items for step in view.steps if step.id == task.step_id), None)
        if items is not None and items.open > 0:
            return False
    return not any(wait.step_id == task.step_id and wait.visit == task.visit for wait in view.waiting_for)


async def _close(database: Database, tasks: Sequence[_Task]) -> int:
    closed = 0
    async with database.driver() as connection:
        for task in tasks:
            if await connection.fetchval(CLOSE, task.id, task.recorded_at) is not None:
                log.warning("abandoned_task_closed", execution_id=str(task.execution_id), step_id=task.step_id)
                closed += 1
    return closed

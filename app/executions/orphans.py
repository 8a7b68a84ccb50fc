"""Children that have lost their parent.

A run ends its own children before it ends; one that was terminated, or ran into Temporal's own time limit, could not.
"""

from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import aliased
from sqlmodel import col

from app.db.session import Database
from app.db.tables import ClosedAs, RecordStatus, WorkflowExecution
from app.executions.runs import cancel_run, terminate_batches
from app.temporal import Temporal

BATCH = 100


async def end_orphans(database: Database, temporal: Temporal) -> int:
    """Cancels open children, other than detached ones, of parents that were ended from outside; how many.

    Raises `Unavailable`.
    """
    ended = 0
    after: UUID | None = None
    while True:
        found = await _list_orphans(database, after)
        for parent_id in dict.fromkeys(above for _, above in found):
            await terminate_batches(temporal, parent_id, "the execution was ended")
        for child_id, _ in found:
            ended += await cancel_run(temporal, child_id, "the parent was ended")
        if len(found) < BATCH:
            return ended
        after = found[-1][0]


async def _list_orphans(database: Database, after: UUID | None) -> list[tuple[UUID, UUID]]:
    """The next children, each with its parent."""
    parent = aliased(WorkflowExecution)
    statement = (
        select(col(WorkflowExecution.id), col(parent.id))
        .join(parent, col(WorkflowExecution.parent_id) == col(parent.id))
        .where(
            col(WorkflowExecution.status) == RecordStatus.STARTED,
            col(WorkflowExecution.detached).is_(False),
            col(parent.closed_as).in_((ClosedAs.TERMINATED, ClosedAs.TIMED_OUT)),
        )
        .order_by(col(WorkflowExecution.id))
        .limit(BATCH)
    )
    if after is not None:
        statement = statement.where(col(WorkflowExecution.id) > after)
    async with database.transaction() as session:
        return [(row[0], row[1]) for row in await session.execute(statement)]

"""Ending executions from outside: cancel, which the run carries out, and terminate, which nobody is asked about."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from uuid import UUID

import structlog
from sqlalchemy import func, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.audit.service import audited_once, of_execution
from app.db.session import Database
from app.db.tables import ClosedAs, RecordStatus, WorkflowExecution
from app.errors import AppError, Conflict, Unavailable
from app.executions import runs, updates
from app.executions.control import OPEN, Caller
from app.executions.control_schemas import CancelRequest
from app.executions.queries import ExecutionRow
from app.executions.reading import get_row
from app.executions.tidying import close_left_open
from app.run_contracts import ControlRequest
from app.temporal import Temporal

log = structlog.get_logger(__name__)

# The status reason of an execution that was ended before it was started, while Temporal could not be asked
# whether that is true. The reconciler asks again.
CANCEL_UNCONFIRMED = "CANCEL_UNCONFIRMED"

# Calls to Temporal at once for one request, and rows looked at in one round.
AT_ONCE = 10
ROUND = 1_000

TREE = """
    WITH RECURSIVE tree AS (
        SELECT id, status, detached, 0 AS depth FROM workflow_execution WHERE id = :id
        UNION ALL
        SELECT child.id, child.status, child.detached, tree.depth + 1
        FROM workflow_execution AS child JOIN tree ON child.parent_id = tree.id
    )
"""
OPEN_BELOW = text(f"""
    {TREE}
    SELECT id FROM tree WHERE status IN ('CREATED', 'STARTED') AND NOT (id = ANY(:seen)) ORDER BY depth, id LIMIT :limit
""")
DETACHED_BELOW = text(
    f"{TREE} SELECT id FROM tree WHERE status = 'STARTED' AND detached AND depth > 0 ORDER BY depth, id"
)


async def cancel_execution(
    database: Database, temporal: Temporal, execution_id: UUID, request: CancelRequest, caller: Caller
) -> RecordStatus:
    """Ends an execution and its descendants; one that has not been started never will be.

    With compensation it is Temporal's own cancel, which needs no worker to be taken; without, the run must be asked.
    Raises EXECUTION_ENDED (unless detached children are meant, too, and some are open), NOT_YET_STARTED for a child
    that its parent is about to start, IDEMPOTENCY_CONFLICT.
    """
    row = await get_row(database, execution_id)
    said = request.model_dump(mode="json", by_alias=True, exclude={"reason"})
    key = caller.update_id("cancel")
    deed = of_execution("CANCEL", execution_id, caller.actor, said, request.reason, key)
    async with audited_once(database, deed) as done:
        if done is not None and done.after is not None:
            return RecordStatus(done.after["status"])
        deed.before = {"status": row.status}
        detached = await _detached_below(database, execution_id) if request.include_detached else []
        status = row.status
        if not detached or status != RecordStatus.COMPLETED:
            status = await _cancel(database, temporal, row, request, caller)
        # The children that they wait for in turn are theirs to cancel.
        await each(detached, lambda one: _ask_to_end(temporal, one, request, caller))
        deed.after = {"status": status, "detached": len(detached)}
    log.info("cancel_requested", execution_id=str(execution_id), actor=caller.actor)
    return status


async def _cancel(
    database: Database, temporal: Temporal, row: ExecutionRow, request: CancelRequest, caller: Caller
) -> RecordStatus:
    reason = _reason("cancelled", caller, request.reason)
    status = row.status
    if row.status == RecordStatus.CREATED and row.parent_id is None:
        # Whoever is starting it holds the row: this waits, and then sees what has become of it.
        async with database.transaction() as session:
            status = await _close_unstarted(session, temporal, row.id, ClosedAs.CANCELLED, reason)
        if status == RecordStatus.COMPLETED:
            return status
    if status not in OPEN:
        raise runs.ended()
    if not await _ask_to_end(temporal, row.id, request, caller):
        if status == RecordStatus.CREATED:
            raise Conflict("NOT_YET_STARTED", "The parent has not started this child yet; cancel the parent.")
        raise runs.ended()
    return status


async def _ask_to_end(temporal: Temporal, execution_id: UUID, request: CancelRequest, caller: Caller) -> bool:
    """Cancels a run with compensation or without. False when it has ended, or there is none."""
    if request.compensate:
        return await runs.cancel_run(temporal, execution_id, _reason("cancelled", caller, request.reason))
    run = await runs.find_run(temporal, execution_id)
    if run is None or run.status != runs.RuntimeStatus.IN_PROGRESS:
        return False
    reason = _reason("cancelled", caller, request.reason)
    asked = ControlRequest(what="CANCEL", compensate=False, reason=reason, actor=caller.actor)
    try:
        await updates.control(temporal, execution_id, asked)
    except AppError as error:
        if error.code == "EXECUTION_ENDED":
            return False
        raise
    return True


async def _detached_below(database: Database, execution_id: UUID) -> list[UUID]:
    async with database.transaction() as session:
        return list((await session.execute(DETACHED_BELOW, {"id": execution_id})).scalars())


async def terminate_execution(
    database: Database, temporal: Temporal, execution_id: UUID, reason: str | None, caller: Caller
) -> int:
    """Ends an execution and every open descendant at once, without compensation; how many there were.

    Parents go before their children, so that none is told of a child's end. Raises EXECUTION_ENDED when all had
    ended already.
    """
    row = await get_row(database, execution_id)
    key = caller.update_id("terminate")
    deed = of_execution("TERMINATE", execution_id, caller.actor, reason=reason, key=key)
    async with audited_once(database, deed) as done:
        if done is not None and done.after is not None:
            return int(done.after["terminated"])
        deed.before = {"status": row.status}
        said = _reason("terminated", caller, reason)
        count = 0
        if row.status == RecordStatus.CREATED and row.parent_id is None:
            async with database.transaction() as session:
                closed = await _close_unstarted(session, temporal, execution_id, ClosedAs.TERMINATED, said)
            count += closed == RecordStatus.COMPLETED
        count += await _terminate_tree(database, temporal, execution_id, said)
        deed.after = {"terminated": count}
        if count == 0:
            raise runs.ended()
    log.info("execution_terminated", execution_id=str(execution_id), actor=caller.actor, count=count)
    return count


async def _terminate_tree(database: Database, temporal: Temporal, execution_id: UUID, reason: str) -> int:
    seen: list[UUID] = []
    count = 0
    while found := await _open_below(database, execution_id, seen):
        seen += found
        # The first one alone: it is the parent, directly or not, of all the others.
        first = await each(found[:1], lambda one: _terminate_one(temporal, one, reason))
        others = await each(found[1:], lambda one: _terminate_one(temporal, one, reason))
        ended = [one for one, over in zip(found, first + others, strict=True) if over]
        async with database.transaction() as session:
            count += await _close_terminated(session, ended, reason)
            await close_left_open(session, ended)
    return count


async def _terminate_one(temporal: Temporal, execution_id: UUID, reason: str) -> bool:
    """Whether its row is to be closed as terminated: not when the run had ended by itself."""
    ended = await runs.terminate_run(temporal, execution_id, reason)
    await runs.terminate_batches(temporal, execution_id, reason)
    if ended:
        return True
    return await runs.find_run(temporal, execution_id) is None


async def _close_terminated(session: AsyncSession, ids: Sequence[UUID], reason: str) -> int:
    statement = (
        update(WorkflowExecution)
        .where(col(WorkflowExecution.id).in_(ids), col(WorkflowExecution.status).in_(OPEN))
        .values(
            status=RecordStatus.COMPLETED,
            status_reason=reason,
            started_at=func.coalesce(WorkflowExecution.started_at, WorkflowExecution.created_at),
            ended_at=func.now(),
            closed_as=ClosedAs.TERMINATED,
        )
        .returning(col(WorkflowExecution.id))
        .execution_options(synchronize_session=False)
    )
    return len((await session.execute(statement)).all())


async def _open_below(database: Database, execution_id: UUID, seen: Sequence[UUID]) -> list[UUID]:
    async with database.transaction() as session:
        found = await session.execute(OPEN_BELOW, {"id": execution_id, "seen": list(seen), "limit": ROUND})
        return list(found.scalars())


async def each(ids: Sequence[UUID], call: Callable[[UUID], Awaitable[bool]]) -> list[bool]:
    """What the call answers for each id, in their order; at most ten calls at once."""
    places = asyncio.Semaphore(AT_ONCE)

    async def one(execution_id: UUID) -> bool:
        async with places:
            return await call(execution_id)

    return list(await asyncio.gather(*(one(execution_id) for execution_id in ids)))


async def _close_unstarted(
    session: AsyncSession, temporal: Temporal, execution_id: UUID, closed_as: ClosedAs, reason: str
) -> RecordStatus:
    """CREATED → COMPLETED; the status of a row that is no longer CREATED."""
    statement = select(col(WorkflowExecution.status)).where(col(WorkflowExecution.id) == execution_id)
    status = RecordStatus((await session.execute(statement.with_for_update())).scalar_one())
    if status != RecordStatus.CREATED:
        return status
    try:
        if await runs.find_run(temporal, execution_id) is not None:
            # A start whose answer was lost: the row only has not heard of it.
            return RecordStatus.STARTED
    except Unavailable:
        reason = CANCEL_UNCONFIRMED
    await session.execute(
        update(WorkflowExecution)
        .where(col(WorkflowExecution.id) == execution_id)
        .values(status=RecordStatus.COMPLETED, status_reason=reason, ended_at=func.now(), closed_as=closed_as)
    )
    return RecordStatus.COMPLETED


def _reason(what: str, caller: Caller, reason: str | None) -> str:
    said = f"{what} by {caller.actor}" if caller.actor else what
    return f"{said}: {reason}" if reason else said

"""What can be done with executions: start, complete a step, cancel."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from uuid import UUID

import structlog
from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.contracts import StepCompletion
from app.db.session import Connection, Database
from app.db.tables import ClosedAs, RecordStatus, WorkflowExecution
from app.errors import Conflict, NotFound, Unavailable
from app.executions import runs
from app.executions.queries import Target, find_execution
from app.executions.reading import error_view, get_row
from app.executions.schemas import CompletedStep, ReadingProblem, StartView, StepCompletionRequest
from app.executions.starting import StartRequest, accept, launch
from app.settings import Settings
from app.temporal import Temporal

log = structlog.get_logger(__name__)

# The status reason of an execution that was cancelled before it was started, while Temporal could not be asked
# whether that is true. The reconciler asks again.
CANCEL_UNCONFIRMED = "CANCEL_UNCONFIRMED"

FindTarget = Callable[[Connection], Awaitable[Target | None]]


@dataclass(frozen=True, slots=True)
class Started:
    """An execution that a request got; `repeated` when it had got it before."""

    execution_id: UUID
    status: RecordStatus
    reason: str | None
    repeated: bool


async def start_execution(
    database: Database, temporal: Temporal, settings: Settings, find: FindTarget, request: StartRequest
) -> Started | None:
    """Starts what `find` finds; None when it finds nothing. Raises what `accept` raises.

    The row is committed before Temporal is asked; from then on nothing is lost.
    """
    async with database.driver() as connection:
        target = await find(connection)
        if target is None:
            return None
        accepted = await accept(connection, temporal, target, request, settings.api.max_context_bytes)
        if accepted.launch is None:
            return Started(accepted.execution_id, accepted.status, None, repeated=True)
        launched = await launch(connection, temporal, accepted.launch)
    return Started(accepted.execution_id, launched.status, launched.reason, repeated=False)


def start_problem(started: Started, polled: bool | None) -> ReadingProblem | None:
    """What a new execution is up against, as far as is known: `polled` tells whether a worker polled a moment ago."""
    if started.repeated or polled is not False or started.status == RecordStatus.FAILED_TO_START:
        return None
    message = "No worker polls the task queue. The execution is stored and runs as soon as one does."
    return ReadingProblem(code="WORKER_UNAVAILABLE", message=message)


async def wait_for_end(database: Database, temporal: Temporal, started: Started, seconds: float) -> StartView | None:
    """How the execution ended; None when it has not after so many seconds."""
    if started.status not in (RecordStatus.STARTED, RecordStatus.COMPLETED):
        return None
    try:
        outcome = await runs.find_outcome(temporal, started.execution_id, seconds)
        if outcome is None:
            return None
        row = await get_row(database, started.execution_id)
    except Unavailable:
        # The start is stored; that it cannot be followed now takes nothing away from it.
        return None
    view = StartView(execution_id=row.id, status=row.status, runtime_status=outcome.status)
    if outcome.error is not None:
        view.error = error_view(outcome)
    else:
        view.output = outcome.output
    return view


async def complete_step(
    database: Database,
    temporal: Temporal,
    execution_id: UUID,
    step_id: str,
    request: StepCompletionRequest,
    actor: str | None,
    idempotency_key: str | None,
) -> CompletedStep:
    """Completes an open human step. Raises what the run refuses with, and WORKER_UNAVAILABLE.

    With an idempotency key a repetition gets the first answer, also when the run has ended meanwhile.
    """
    row = await get_row(database, execution_id)
    if row.status == RecordStatus.CREATED and await runs.find_run(temporal, execution_id) is None:
        raise Conflict("STEP_NOT_OPEN", "The execution has not begun.")
    over = row.status not in (RecordStatus.CREATED, RecordStatus.STARTED)
    if row.status == RecordStatus.FAILED_TO_START or (over and idempotency_key is None):
        raise runs.ended()
    completion = StepCompletion(
        step_id=step_id,
        outcome=request.outcome,
        comment=request.comment,
        visit=request.visit,
        completed_by=actor,
    )
    update_id = None if idempotency_key is None else f"{step_id}:{idempotency_key}"
    answer = await runs.complete_step(temporal, execution_id, completion, update_id)
    log.info("step_completed", execution_id=str(execution_id), step_id=step_id, actor=actor)
    return CompletedStep(
        execution_id=execution_id,
        step_id=step_id,
        visit=answer["visit"],
        status=answer["status"],
        output=answer["output"],
    )


async def cancel_execution(
    database: Database, temporal: Temporal, execution_id: UUID, actor: str | None
) -> RecordStatus:
    """Ends an execution and its descendants; one that has not been started never will be.

    Raises EXECUTION_ENDED, NOT_YET_STARTED for a child that its parent is about to start.
    """
    reason = f"cancelled by {actor}" if actor else "cancelled"
    async with database.transaction() as session:
        row = await find_execution(session, execution_id)
        if row is None:
            raise NotFound("execution", execution_id)
        if row.status == RecordStatus.CREATED and row.parent_id is None:
            # Whoever is starting it holds the row: this waits, and then sees what has become of it.
            status = await _cancel_unstarted(session, temporal, execution_id, reason)
        else:
            status = row.status
    if status in (RecordStatus.CREATED, RecordStatus.STARTED) and not await runs.cancel_run(
        temporal, execution_id, reason
    ):
        if status == RecordStatus.CREATED:
            raise Conflict("NOT_YET_STARTED", "The parent has not started this child yet; cancel the parent.")
        raise runs.ended()
    if status == RecordStatus.FAILED_TO_START or row.status == RecordStatus.COMPLETED:
        raise runs.ended()
    log.info("cancel_requested", execution_id=str(execution_id), actor=actor)
    return status


async def _cancel_unstarted(session: AsyncSession, temporal: Temporal, execution_id: UUID, reason: str) -> RecordStatus:
    """CREATED → COMPLETED as CANCELLED; the status of a row that is no longer CREATED."""
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
        .values(
            status=RecordStatus.COMPLETED,
            status_reason=reason,
            ended_at=func.now(),
            closed_as=ClosedAs.CANCELLED,
        )
    )
    return RecordStatus.COMPLETED

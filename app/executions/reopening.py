"""Retry and resume-from: a closed execution gets another Temporal run, which goes on from a repaired state.

Two transactions, so that a crash between them loses nothing and starts nothing twice. The first decides: the row is
open again, and a PENDING lineage row holds the state. The second begins: under the lineage row's lock it looks
whether the latest run is still the one that was repaired, and only then starts the next. What the first has decided
and the second has not done, the reconciler does.
"""

import json
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import structlog
from asyncpg import Record
from sqlalchemy import func, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.audit.service import REPEATED, Deed, audited_once, of_execution
from app.contracts import ExecutionStart, readable
from app.db.session import Database
from app.db.statuses import LineageKind, LineageStatus
from app.db.tables import ClosedAs, DeadLetter, ExecutionLineage, RecordStatus, WorkflowExecution, new_id
from app.dead_letters.queries import find_dead_letter
from app.errors import Conflict, Invalid, Unavailable
from app.executions import runs
from app.executions.control import OPEN, Caller
from app.executions.control_schemas import ReopenedView, ResumePoint
from app.executions.lineage import find_by_key, find_to_begin
from app.executions.queries import ExecutionRow, find_execution, is_detached
from app.executions.reading import get_row
from app.executions.repair import Document, Repair, repaired
from app.executions.starting import Launch, StartRefused, start_run
from app.temporal import Temporal
from app.versions.queries import find_version

log = structlog.get_logger(__name__)

BEGUN = "UPDATE execution_lineage SET status = 'DONE', run_id = $2, state = NULL WHERE id = $1"
REFUSED = (
    "UPDATE execution_lineage SET status = 'REFUSED', note = $2, state = NULL, idempotency_key = NULL WHERE id = $1"
)
CLOSE_AGAIN = """
    UPDATE workflow_execution
    SET status = 'COMPLETED', closed_as = $2, ended_at = $3, status_reason = $4, updated_at = now()
    WHERE id = $1 AND status = 'STARTED'
"""
# It was accepted, and whoever asked has been told so: the audit says what came of it, and the key is free again.
AUDIT_REFUSED = """
    UPDATE audit_event SET result = 'START_REFUSED', reason = coalesce(reason, $3)
    WHERE execution_id = $1 AND result = 'DONE' AND after->>'lineageId' = $2
"""
KEEP_LETTER = "UPDATE dead_letter SET retried_at = NULL WHERE execution_id = $1"


@dataclass(frozen=True, slots=True)
class Ended:
    """What is left of a run: its memory, the version that it ran, and its id where Temporal still has it."""

    state: Document
    version_id: UUID
    run_id: str | None


async def reopen(
    database: Database,
    temporal: Temporal,
    repair: Repair,
    execution_id: UUID,
    point: ResumePoint | None,
    caller: Caller,
    reason: str | None = None,
) -> ReopenedView:
    """Lets a closed execution go on: from a point, or without one from what had failed.

    Raises EXECUTION_OPEN, EXECUTION_NEVER_STARTED, RETRY_FROM_ROOT, STATE_GONE, what `repaired` raises,
    START_REFUSED, and WORKER_UNAVAILABLE when the state must be asked of a worker and none answers.
    """
    kind = LineageKind.RETRY if point is None else LineageKind.RESUME
    row = await get_row(database, execution_id)
    deed = _deed(execution_id, point, caller, reason)
    async with audited_once(database, deed):
        # The lineage knows also what was decided by a process that died over it.
        repeated = await _repeated(database, execution_id, kind, caller)
        if repeated is not None:
            deed.result = REPEATED
            return repeated
        deed.before = {"status": row.status, "closedAs": row.closed_as}
        ended = await _ended(database, temporal, row)
        async with database.transaction() as session:
            version = await find_version(session, ended.version_id)
        assert version is not None
        state = await repaired(repair, version.definition, ended.state, point)
        lineage = _lineage(row, ended, state, point, caller, reason)
        async with database.transaction() as session:
            await _decide(session, row, ended, lineage)
        run_id = await _begin_now(database, temporal, lineage.id)
        deed.before |= {"runId": ended.run_id}
        deed.after = {"status": RecordStatus.STARTED, "runId": run_id, "lineageId": str(lineage.id)}
    log.info("execution_reopened", execution_id=str(execution_id), kind=kind, run_id=run_id)
    return ReopenedView(execution_id=execution_id, kind=kind, previous_run_id=ended.run_id, run_id=run_id)


def _deed(execution_id: UUID, point: ResumePoint | None, caller: Caller, reason: str | None) -> Deed:
    if point is None:
        return of_execution("RETRY", execution_id, caller.actor, reason=reason, key=caller.update_id("retry"))
    said = point.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude={"reason"})
    return of_execution("RESUME_FROM", execution_id, caller.actor, said, reason, caller.update_id("resume-from"))


async def _repeated(database: Database, execution_id: UUID, kind: LineageKind, caller: Caller) -> ReopenedView | None:
    if caller.key is None:
        return None
    async with database.transaction() as session:
        earlier = await find_by_key(session, execution_id, _key(kind, caller) or "")
    if earlier is None or earlier.status == LineageStatus.REFUSED:
        return None
    return ReopenedView(
        execution_id=execution_id, kind=kind, previous_run_id=earlier.previous_run_id, run_id=earlier.run_id
    )


def _key(kind: LineageKind, caller: Caller) -> str | None:
    return None if caller.key is None else f"{kind}:{caller.key}"


async def _ended(database: Database, temporal: Temporal, row: ExecutionRow) -> Ended:
    """What is left of the run. Raises when the execution is not closed, or nothing is left."""
    if row.status in OPEN:
        raise execution_open()
    if row.status == RecordStatus.FAILED_TO_START:
        raise Conflict("EXECUTION_NEVER_STARTED", "The execution was never started; replay it.")
    async with database.transaction() as session:
        letter = await find_dead_letter(session, row.id)
        parent = None if row.parent_id is None else await find_execution(session, row.parent_id)
        detached = await is_detached(session, row.id)
    if row.parent_id is not None and not detached and letter is None:
        raise _belongs_to_its_parent(row, parent)
    run = await runs.find_run(temporal, row.id)
    if run is not None and run.status == runs.RuntimeStatus.IN_PROGRESS:
        raise execution_open()
    run_id = None if run is None else run.run_id
    kept = letter is not None and letter.retried_at is None and row.closed_as == ClosedAs.FAILED
    if kept and letter is not None and letter.state is not None:
        return Ended(letter.state, row.version_id, run_id)
    dump = None if run is None else await runs.find_state(temporal, row.id)
    if dump is None or dump.state is None:
        raise Conflict("STATE_GONE", "Neither Temporal nor a dead letter has the state of this execution any more.")
    return Ended(dump.state, dump.version_id, run_id)


def _belongs_to_its_parent(row: ExecutionRow, parent: ExecutionRow | None) -> Conflict:
    """A parent that waited for a child has taken note of its end: only the parent can do the child again."""
    if parent is not None and parent.status in OPEN:
        return Conflict(
            "RETRY_FROM_PARENT", f"Its parent {parent.id} is open and has taken note of its end; steer the parent."
        )
    return Conflict("RETRY_FROM_ROOT", f"Its parent has ended; retry or resume the root {row.root_id}.")


def _lineage(
    row: ExecutionRow, ended: Ended, state: Document, point: ResumePoint | None, caller: Caller, reason: str | None
) -> ExecutionLineage:
    kind = LineageKind.RETRY if point is None else LineageKind.RESUME
    return ExecutionLineage(
        id=new_id(),
        execution_id=row.id,
        kind=kind,
        status=LineageStatus.PENDING,
        actor=caller.actor,
        note=reason,
        previous_run_id=ended.run_id,
        step_id=None if point is None else point.step_id,
        visit=None if point is None else point.visit,
        item=None if point is None else point.item,
        closed_as=row.closed_as,
        ended_at=row.ended_at,
        status_reason=row.status_reason,
        idempotency_key=_key(kind, caller),
        state=state,
    )


async def _decide(session: AsyncSession, row: ExecutionRow, ended: Ended, lineage: ExecutionLineage) -> None:
    """The row is open again, and the lineage says from where. Raises EXECUTION_OPEN when somebody else was first."""
    reopened = await session.execute(
        update(WorkflowExecution)
        .where(
            col(WorkflowExecution.id) == row.id,
            col(WorkflowExecution.status) == RecordStatus.COMPLETED,
            col(WorkflowExecution.ended_at) == row.ended_at,
        )
        .values(
            status=RecordStatus.STARTED,
            closed_as=None,
            ended_at=None,
            status_reason=None,
            version_id=ended.version_id,
        )
        .returning(col(WorkflowExecution.id))
    )
    if reopened.scalar_one_or_none() is None:
        raise execution_open()
    await session.execute(
        update(DeadLetter).where(col(DeadLetter.execution_id) == row.id).values(retried_at=func.now())
    )
    session.add(lineage)


async def _begin_now(database: Database, temporal: Temporal, lineage_id: UUID) -> str | None:
    try:
        return await begin(database, temporal, lineage_id)
    except Unavailable as error:
        # It is decided and stored: the reconciler begins it.
        log.warning("reopening_postponed", lineage_id=str(lineage_id), code=error.code)
        return None


async def begin(database: Database, temporal: Temporal, lineage_id: UUID) -> str | None:
    """Starts the run that a lineage row waits for, once, whoever asks and how often; the run's id.

    None when somebody else has begun it. Raises START_REFUSED when it never will be, after closing the row as it was
    before; `Unavailable` when Temporal or PostgreSQL cannot be reached.
    """
    refusal = None
    async with database.driver() as connection, connection.transaction():
        found = await find_to_begin(connection, lineage_id)
        if found is None:
            return None
        run_id = await _newer_run(temporal, found)
        if run_id is None:
            try:
                run_id = await start_run(temporal, _launch_of(found)) or await _newer_run(temporal, found)
            except StartRefused as error:
                refusal = str(error)
        if refusal is None:
            await connection.execute(BEGUN, lineage_id, run_id)
        else:
            await connection.execute(REFUSED, lineage_id, refusal)
            previous = (found["closed_as"], found["ended_at"], found["status_reason"])
            await connection.execute(CLOSE_AGAIN, found["execution_id"], *previous)
            await connection.execute(KEEP_LETTER, found["execution_id"])
            await connection.execute(AUDIT_REFUSED, found["execution_id"], str(lineage_id), readable(refusal))
    if refusal is not None:
        log.error("reopening_refused", lineage_id=str(lineage_id), reason=refusal)
        raise Invalid("START_REFUSED", f"Temporal does not take the run: {refusal}")
    return run_id


async def _newer_run(temporal: Temporal, found: Record) -> str | None:
    """The run that was started here before, if its answer was lost."""
    run = await runs.find_run(temporal, found["execution_id"])
    return None if run is None or run.run_id == found["previous_run_id"] else run.run_id


def _launch_of(found: Record) -> Launch:
    trigger: dict[str, Any] = json.loads(found["trigger"] or "{}")
    state: dict[str, Any] = json.loads(found["state"])
    parent_id = found["parent_id"]
    start = ExecutionStart(
        execution_id=found["execution_id"],
        name=found["name"],
        root_id=found["root_id"],
        parent_id=parent_id,
        template_id=found["template_id"],
        template=found["slug"],
        version_id=found["version_id"],
        version=found["version"],
        # The state has the context; what the run was first started with is in the row.
        context={},
        trigger=trigger or None,
        entity_type=trigger.get("entityType"),
        entity_id=trigger.get("entityId"),
        depth=state.get("run", {}).get("depth", 0),
        state=state,
        detached=parent_id is not None,
        local_actions=found["local_actions"],
        long_actions=found["long_actions"],
        recorded_until=found["recorded_until"],
    )
    return Launch(start, found["template_name"], found["definition"], again=True)


def execution_open() -> Conflict:
    """What is said when something is asked that only a closed execution can do."""
    return Conflict("EXECUTION_OPEN", "The execution is open.")

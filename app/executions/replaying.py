"""Replay: a new execution of the same version, with the same trigger and context."""

from uuid import UUID

from sqlalchemy import select
from sqlmodel import col

from app.audit.service import audited_once, of_execution
from app.db.session import Database
from app.db.statuses import LineageKind, LineageStatus
from app.db.tables import ExecutionLineage, RecordStatus, WorkflowExecution, new_id
from app.errors import NotFound
from app.executions.control import Caller
from app.executions.control_schemas import ReplayRequest
from app.executions.queries import find_target
from app.executions.reading import get_row
from app.executions.service import Started, start_execution
from app.executions.starting import StartRequest
from app.settings import Settings
from app.temporal import Temporal


async def replay_execution(
    database: Database,
    temporal: Temporal,
    settings: Settings,
    execution_id: UUID,
    request: ReplayRequest,
    caller: Caller,
) -> Started:
    """Starts the execution anew, as a root. Raises what a start raises: TEMPLATE_PAUSED, TEMPLATE_ARCHIVED …"""
    row = await get_row(database, execution_id)
    deed = of_execution("REPLAY", execution_id, caller.actor, reason=request.reason, key=caller.update_id("replay"))
    # A repetition finds the execution by its own key, and how it stands now.
    async with audited_once(database, deed):
        async with database.transaction() as session:
            statement = select(col(WorkflowExecution.context)).where(col(WorkflowExecution.id) == execution_id)
            context = (await session.execute(statement)).scalar_one()
        key = None if caller.key is None else f"replay:{execution_id}:{caller.key}"
        started = await start_execution(
            database,
            temporal,
            settings,
            lambda connection: find_target(connection, str(row.template_id), row.version, key),
            StartRequest(
                context=context,
                # A child was started by its parent and has no trigger of its own.
                trigger=row.trigger or {"source": "replay", "summary": f"replay of {execution_id}"},
                name=request.name or row.name,
                key=key,
                version=row.version,
            ),
        )
        if started is None:
            raise NotFound("template", row.template)
        deed.after = {"executionId": str(started.execution_id), "status": started.status}
        if not started.repeated:
            await _remember(database, started, execution_id, caller, request.reason)
    return started


async def _remember(database: Database, started: Started, source_id: UUID, caller: Caller, reason: str | None) -> None:
    if started.status == RecordStatus.FAILED_TO_START:
        return
    async with database.transaction() as session:
        session.add(
            ExecutionLineage(
                id=new_id(),
                execution_id=started.execution_id,
                kind=LineageKind.REPLAY,
                status=LineageStatus.DONE,
                actor=caller.actor,
                note=reason,
                source_id=source_id,
            )
        )

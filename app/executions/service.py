"""How executions are started, and waited for."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from uuid import UUID

import structlog

from app.db.session import Connection, Database
from app.db.tables import RecordStatus
from app.errors import Unavailable
from app.executions import runs
from app.executions.queries import Target
from app.executions.reading import error_view, get_row
from app.executions.schemas import ReadingProblem, StartView
from app.executions.starting import StartRequest, accept, launch
from app.settings import Settings
from app.temporal import Temporal

log = structlog.get_logger(__name__)

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

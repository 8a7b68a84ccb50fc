"""What is kept of runs that failed while Postgres was away, so that they could not say so themselves."""

from collections.abc import Iterable
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from app.contracts import DeadLetterRecord
from app.db.session import Database
from app.errors import Unavailable
from app.executions.queries import find_execution, is_detached
from app.executions.runs import Outcome, RuntimeStatus, find_outcome, find_state
from app.payloads.errors import GONE
from app.temporal import Temporal

log = structlog.get_logger(__name__)


async def find_dead_letters(
    database: Database, temporal: Temporal, failed: Iterable[UUID]
) -> dict[UUID, DeadLetterRecord]:
    """The dead letters of runs that failed for good, but of those whose parents are there to be told.

    The error is in Temporal's history, the state is asked of a worker; without one the letter has none, and a retry
    asks again.
    """
    letters: dict[UUID, DeadLetterRecord] = {}
    answers = True
    for execution_id in failed:
        async with database.transaction() as session:
            wanted = await _leaves_one(session, execution_id)
        outcome = await _outcome(temporal, execution_id) if wanted else None
        if outcome is None or outcome.error is None or outcome.status != RuntimeStatus.FAILED:
            continue
        state = None
        if answers:
            try:
                dump = await find_state(temporal, execution_id)
                state = None if dump is None else dump.state
            except Unavailable as error:
                # The next one would be waited for as long, and this pass has other things to do.
                answers = False
                log.warning("state_of_failed_run_unknown", execution_id=str(execution_id), code=error.code)
        error_view = outcome.error
        letters[execution_id] = DeadLetterRecord(
            step_id=error_view.step_id,
            code=error_view.code,
            message=error_view.message,
            attempts=error_view.attempts,
            state=state,
        )
    return letters


async def _outcome(temporal: Temporal, execution_id: UUID) -> Outcome | None:
    """How the run ended; None also where payload storage has lost what it said: its row is closed without a letter."""
    try:
        return await find_outcome(temporal, execution_id)
    except Unavailable as error:
        if error.code not in GONE:
            raise
        log.warning("failure_of_run_unknown", execution_id=str(execution_id), code=error.code)
        return None


async def _leaves_one(session: AsyncSession, execution_id: UUID) -> bool:
    row = await find_execution(session, execution_id)
    return row is not None and (row.parent_id is None or await is_detached(session, execution_id))

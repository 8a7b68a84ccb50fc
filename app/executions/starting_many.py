"""Starting many executions at once: three statements for all of them, and Temporal asked for several at a time."""

import asyncio
from collections.abc import Sequence

import structlog

from app.db.session import Connection
from app.db.session import translated as database_errors
from app.errors import Unavailable
from app.executions.starting import GIVE_UP, Launch, StartRefused, start_run
from app.temporal import Temporal

log = structlog.get_logger(__name__)

AT_ONCE = 20

CLAIM_ALL = """
    UPDATE workflow_execution
    SET status = 'STARTED', started_at = coalesce(started_at, now()), updated_at = now()
    WHERE id = ANY($1) AND status = 'CREATED'
    RETURNING id, set_config('synchronous_commit', 'off', true)
"""
LEAVE_CREATED = """
    UPDATE workflow_execution SET status = 'CREATED', started_at = NULL, updated_at = now() WHERE id = ANY($1)
"""


async def launch_all(connection: Connection, temporal: Temporal, launches: Sequence[Launch]) -> None:
    """Starts what was written CREATED. Never raises because something is down: the reconciler starts what is left.

    The rows stay locked until Temporal has answered for all of them.
    """
    if not launches:
        return
    try:
        with database_errors():
            async with connection.transaction():
                await _launch_locked(connection, temporal, launches)
    except Unavailable as error:
        log.warning("starts_postponed", executions=len(launches), code=error.code)


async def _launch_locked(connection: Connection, temporal: Temporal, launches: Sequence[Launch]) -> None:
    claimed = {row[0] for row in await connection.fetch(CLAIM_ALL, [each.start.execution_id for each in launches])}
    room = asyncio.Semaphore(AT_ONCE)

    async def start(launch: Launch) -> StartRefused | Unavailable | None:
        async with room:
            try:
                await start_run(temporal, launch)
            except (StartRefused, Unavailable) as error:
                return error
            return None

    mine = [each for each in launches if each.start.execution_id in claimed]
    left = []
    for launch, failure in zip(mine, await asyncio.gather(*map(start, mine)), strict=True):
        execution_id = launch.start.execution_id
        match failure:
            case StartRefused():
                log.error("start_refused", execution_id=str(execution_id), reason=str(failure))
                await connection.execute(GIVE_UP, execution_id, str(failure))
            case Unavailable():
                log.warning("start_postponed", execution_id=str(execution_id), code=failure.code)
                left.append(execution_id)
    if left:
        await connection.execute(LEAVE_CREATED, left)

"""What a tick does: it becomes an event in the inbox; and what becomes of what earlier ones have started."""

from datetime import datetime
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import func, update
from sqlmodel import col

from app.contracts import readable
from app.db.schedule_tables import ScheduleTrigger
from app.db.session import Database
from app.db.statuses import EventSource, OverlapPolicy
from app.errors import AppError
from app.executions.control import Caller
from app.executions.control_schemas import CancelRequest
from app.executions.ending import cancel_execution, each, terminate_execution
from app.inbox.storing import Incoming, store
from app.schedules import carrying, queries
from app.schedules.queries import find_schedule
from app.temporal import Temporal
from app.tick_contracts import TickRequest, TickStored
from engine.errors import EngineError
from engine.event_values import read_event_value
from engine.json_types import Undefined

log = structlog.get_logger(__name__)

# The trigger key of events that name their template themselves.
DIRECT = "schedule"
OVERTAKEN = "SCHEDULE_OVERTAKEN"
LONGEST_NAME = 200

WITHDRAW_DELIVERIES = """
    UPDATE trigger_delivery AS delivery SET status = 'REFUSED', code = $2, message = $3, updated_at = now()
    FROM trigger_event AS event
    WHERE event.id = delivery.event_id AND event.source = 'schedule' AND event.dedupe_key = $1
        AND delivery.status = 'PENDING'
"""
WITHDRAW_EVENT = """
    UPDATE trigger_event SET status = 'HANDLED' WHERE source = 'schedule' AND dedupe_key = $1 AND status = 'PENDING'
"""


def dedupe_key(about: TickRequest) -> str:
    """What makes repetitions of a tick one."""
    return f"{about.schedule_id}:{about.at}"


async def store_tick(database: Database, temporal: Temporal, about: TickRequest) -> TickStored:
    """Puts a tick into the inbox, once for each nominal time. One of a schedule that is gone is none.

    With TERMINATE_OTHER, what earlier ticks have started is terminated first: Temporal has ended their workflows and
    nobody else can. When context or name cannot be worked out the schedule's row says why, and there is no event.
    """
    async with database.transaction() as session:
        row = await find_schedule(session, str(about.schedule_id))
    if row is None:
        return TickStored()
    if row.overlap == OverlapPolicy.TERMINATE_OTHER:
        await _terminate_left(database, temporal, row, about)
    remaining = None
    if row.max_executions is not None:
        remaining = await carrying.remaining_actions(temporal, row.id)
    try:
        event = tick_event(row, about)
    except EngineError as error:
        said = f"{error.code}: {readable(error.message)}"
        await note_failure(database, row.id, said)
        return TickStored(error=said)
    async with database.driver() as connection, connection.transaction():
        await store(connection, [event])
        await connection.execute(
            "UPDATE schedule_trigger SET last_run_at = $2, last_error = NULL, failures = 0,"
            " remaining = coalesce($3, remaining) WHERE id = $1",
            row.id,
            datetime.fromisoformat(about.at),
            remaining,
        )
    log.info("schedule_ticked", schedule_id=str(row.id), name=row.name, at=about.at)
    return TickStored(events=1)


async def note_failure(database: Database, schedule_id: UUID, message: str) -> None:
    """Writes down that a tick came to nothing, and why."""
    async with database.transaction() as session:
        failed = {
            "last_run_at": func.now(),
            "last_error": message,
            "last_error_at": func.now(),
            "failures": ScheduleTrigger.failures + 1,
        }
        await session.execute(update(ScheduleTrigger).where(col(ScheduleTrigger.id) == schedule_id).values(**failed))


def tick_event(row: ScheduleTrigger, about: TickRequest) -> Incoming:
    """The event of a tick. Raises `EngineError` when context or name cannot be worked out."""
    crons = row.spec.get("cron") or []
    tick = {
        "scheduleId": str(row.id),
        "scheduleName": row.name,
        "cronExpression": crons[0] if len(crons) == 1 else None,
        "triggerTime": about.at,
        "timezone": row.spec.get("timeZone", "UTC"),
    }
    when = crons[0] if len(crons) == 1 else "at its time"
    return Incoming(
        source=EventSource.SCHEDULE,
        trigger_key=row.trigger_key or DIRECT,
        dedupe_key=dedupe_key(about),
        summary=f"schedule {row.name} · {when} · {about.at}",
        payload=started_with(row, tick, {}),
        template_id=row.template_id,
    )


def started_with(row: ScheduleTrigger, payload: dict[str, Any], context: Any) -> dict[str, Any]:
    """A payload, with the `context` and `name` that a template is started with where the row names one.

    `context` is what there is without one in the row. Raises `EngineError`: CONTEXT_INVALID when it is no object.
    """
    if row.template_id is None:
        return payload
    found = context if row.context is None else value_of(row.context, payload)
    if not isinstance(found, dict):
        raise EngineError("CONTEXT_INVALID", "A context is an object.", "context")
    name = None if row.execution_name is None else value_of(row.execution_name, payload)
    named = {} if name is None else {"name": str(name).strip()[:LONGEST_NAME]}
    return {**payload, "context": found, **named}


def value_of(raw: Any, payload: Any) -> Any:
    """What a stored value is for a payload; None when it has none. Raises `EngineError`."""
    value, problems = read_event_value(raw, "value")
    if problems:
        raise EngineError(problems[0].code, problems[0].message, problems[0].path)
    found = value.of(payload)
    return None if isinstance(found, Undefined) else found


async def tick_is_over(database: Database, about: TickRequest) -> bool:
    """Whether a tick's event has been delivered and all that it started has ended."""
    async with database.driver() as connection:
        return await queries.is_over(connection, dedupe_key(about))


async def withdraw_tick(database: Database, temporal: Temporal, about: TickRequest) -> None:
    """Cancels what a tick has started, and has not delivered what of it still waits."""
    key = dedupe_key(about)
    ids = await _taken_back(database, key)
    caller = Caller(f"schedule {about.schedule_id}")
    request = CancelRequest(reason="the schedule's next time has come")

    async def cancel(execution_id: UUID) -> bool:
        try:
            await cancel_execution(database, temporal, execution_id, request, caller)
        except AppError as error:
            return _unless_ended(error)
        return True

    await each(ids, cancel)


async def _terminate_left(database: Database, temporal: Temporal, row: ScheduleTrigger, about: TickRequest) -> None:
    async with database.driver() as connection:
        keys = await queries.list_left_open(connection, row.id, dedupe_key(about))
    caller = Caller(f"schedule {row.id}")

    async def terminate(execution_id: UUID) -> bool:
        try:
            await terminate_execution(database, temporal, execution_id, "the schedule's next time has come", caller)
        except AppError as error:
            return _unless_ended(error)
        return True

    for key in keys:
        await each(await _taken_back(database, key), terminate)


async def _taken_back(database: Database, key: str) -> list[UUID]:
    """Sees to it that an event starts nothing more; what it has started and is open."""
    async with database.driver() as connection, connection.transaction():
        message = "The schedule's next time came before this was delivered."
        await connection.execute(WITHDRAW_EVENT, key)
        await connection.execute(WITHDRAW_DELIVERIES, key, OVERTAKEN, message)
        return await queries.list_open_of(connection, key)


def _unless_ended(error: AppError) -> bool:
    if error.code != "EXECUTION_ENDED":
        raise error
    return False

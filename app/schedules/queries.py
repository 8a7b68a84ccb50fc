"""Questions about schedules: one function for each."""

from collections.abc import Collection, Sequence
from uuid import UUID

from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.db.schedule_tables import ScheduleTrigger
from app.db.session import Connection
from app.db.statuses import ScheduleKind
from app.versions.queries import as_uuid

# Events of one schedule: its id begins their keys. The operators are those of the index.
OF_SCHEDULE = "source IN ('schedule', 'poll') AND dedupe_key ~>=~ {first} AND dedupe_key ~<~ {last}"
RUNS = text(f"""
    SELECT event.id AS event_record_id, event.received_at, event.summary, event.status,
        array(SELECT execution_id FROM trigger_delivery
              WHERE event_id = event.id AND execution_id IS NOT NULL ORDER BY id) AS execution_ids
    FROM trigger_event AS event
    WHERE {OF_SCHEDULE.format(first=":first", last=":last")}
        AND (CAST(:below AS uuid) IS NULL OR event.id < :below)
    ORDER BY event.id DESC LIMIT :limit
""")
OPEN_OF_EVENT = """
    SELECT execution.id
    FROM trigger_event AS event
    JOIN trigger_delivery AS delivery ON delivery.event_id = event.id
    JOIN workflow_execution AS execution ON execution.id = delivery.execution_id
    WHERE event.source = 'schedule' AND event.dedupe_key = $1 AND execution.status IN ('CREATED', 'STARTED')
"""
IS_PENDING = """
    SELECT EXISTS (SELECT FROM trigger_event WHERE source = 'schedule' AND dedupe_key = $1 AND status = 'PENDING')
"""
LEFT_OPEN = f"""
    SELECT DISTINCT event.dedupe_key
    FROM trigger_event AS event
    LEFT JOIN trigger_delivery AS delivery ON delivery.event_id = event.id
    LEFT JOIN workflow_execution AS execution ON execution.id = delivery.execution_id
    WHERE {OF_SCHEDULE.format(first="$1", last="$2")} AND event.dedupe_key <> $3
        AND (event.status = 'PENDING' OR execution.status IN ('CREATED', 'STARTED'))
"""


def keys_of(schedule_id: UUID) -> tuple[str, str]:
    """Between which two texts the dedupe keys of a schedule's events are."""
    return f"{schedule_id}:", f"{schedule_id};"


async def find_schedule(session: AsyncSession, reference: str, *, lock: bool = False) -> ScheduleTrigger | None:
    """A schedule by id or name; with `lock` nobody else changes it before this transaction ends."""
    found = as_uuid(reference)
    column, value = (col(ScheduleTrigger.name), reference) if found is None else (col(ScheduleTrigger.id), found)
    statement = select(ScheduleTrigger).where(column == value)
    if lock:
        statement = statement.with_for_update().execution_options(populate_existing=True)
    return (await session.execute(statement)).scalar_one_or_none()


async def list_schedules(
    session: AsyncSession, *, kind: ScheduleKind | None, paused: bool | None, before: UUID | None, limit: int
) -> Sequence[ScheduleTrigger]:
    """Schedules, the newest first, from below an id."""
    statement = select(ScheduleTrigger)
    if kind is not None:
        statement = statement.where(col(ScheduleTrigger.kind) == kind)
    if paused is not None:
        statement = statement.where(col(ScheduleTrigger.paused) == paused)
    if before is not None:
        statement = statement.where(col(ScheduleTrigger.id) < before)
    return (await session.execute(statement.order_by(col(ScheduleTrigger.id).desc()).limit(limit))).scalars().all()


async def list_all(session: AsyncSession) -> Sequence[ScheduleTrigger]:
    """Every schedule."""
    return (await session.execute(select(ScheduleTrigger).order_by(col(ScheduleTrigger.id)))).scalars().all()


async def existing(session: AsyncSession, ids: Collection[UUID]) -> set[UUID]:
    """Those of the ids that are schedules."""
    statement = select(col(ScheduleTrigger.id)).where(col(ScheduleTrigger.id) == func.any(list(ids)))
    return set((await session.execute(statement)).scalars())


async def is_over(connection: Connection, dedupe_key: str) -> bool:
    """Whether an event has been delivered, or is gone, and nothing that it started is open."""
    if await connection.fetchval(IS_PENDING, dedupe_key):
        return False
    return await connection.fetchval(OPEN_OF_EVENT, dedupe_key) is None


async def list_open_of(connection: Connection, dedupe_key: str) -> list[UUID]:
    """The open executions that an event started."""
    return [row["id"] for row in await connection.fetch(OPEN_OF_EVENT, dedupe_key)]


async def list_left_open(connection: Connection, schedule_id: UUID, but: str) -> list[str]:
    """The keys of a schedule's events, but one, that are not over."""
    return [row["dedupe_key"] for row in await connection.fetch(LEFT_OPEN, *keys_of(schedule_id), but)]

"""Bringing rows and Temporal's schedules together: what is missing is made, what differs is put right, what nobody
has any more is deleted. Any number of processes may do this at the same time.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

import structlog

from app.contracts import schedule_id_of
from app.db.schedule_tables import ScheduleTrigger
from app.db.session import Database
from app.errors import Invalid
from app.schedules import carrying, service
from app.schedules.queries import existing, find_schedule, list_all
from app.temporal import Temporal, translated
from app.versions.queries import as_uuid

log = structlog.get_logger(__name__)

_PREFIX = schedule_id_of("")
# A schedule is made before its row is committed, and a preview is there while somebody looks at it.
_YOUNG = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class SchedulesReconciled:
    """What a pass has done."""

    pushed: int
    deleted: int


@dataclass(frozen=True, slots=True)
class _Carried:
    note: str | None
    paused: bool


async def reconcile_schedules(
    database: Database, temporal: Temporal, younger_than: timedelta = _YOUNG
) -> SchedulesReconciled:
    """One pass over all of them. What Temporal has and no row does is let be when it is younger than `younger_than`.

    Raises `Unavailable` when PostgreSQL or Temporal cannot be reached.
    """
    carried, previews = await _list_carried(temporal)
    async with database.transaction() as session:
        rows = await list_all(session)
    pushed = 0
    for row in rows:
        if not row.synced or _differs(row, carried.get(row.id)):
            pushed += await _push(database, temporal, row.id)
    deleted = 0
    now = datetime.now(UTC)
    async with database.transaction() as session:
        kept = await existing(session, list(carried))
    for trigger_id in carried.keys() - kept:
        if now - _made_at(trigger_id) >= younger_than:
            await carrying.remove(temporal, schedule_id_of(trigger_id))
            deleted += 1
    for schedule_id, created_at in previews:
        if now - created_at >= younger_than:
            await carrying.remove(temporal, schedule_id)
            deleted += 1
    if pushed or deleted:
        log.info("schedules_reconciled", pushed=pushed, deleted=deleted)
    return SchedulesReconciled(pushed, deleted)


async def _push(database: Database, temporal: Temporal, trigger_id: UUID) -> int:
    async with database.transaction() as session:
        # The lock: who changes the row hands it to Temporal as well, and the last word must be the same in both.
        row = await find_schedule(session, str(trigger_id), lock=True)
        if row is None:
            return 0
        try:
            await service.sync(temporal, row)
        except Invalid as error:
            row.synced, row.sync_error = False, f"{error.code}: {error.message}"
            return 0
        return 1 if row.synced else 0


async def _list_carried(temporal: Temporal) -> tuple[dict[UUID, _Carried], list[tuple[str, datetime]]]:
    """Temporal's schedules of this installation: of rows, and those that were made for a preview."""
    client = await temporal.client()
    carried: dict[UUID, _Carried] = {}
    previews: list[tuple[str, datetime]] = []
    with translated():
        async for one in await client.list_schedules(rpc_timeout=temporal.timeout):
            if await one.memo_value(carrying.MEMO_TASK_QUEUE, None) != temporal.settings.task_queue:
                continue
            trigger_id = as_uuid(one.id.removeprefix(_PREFIX))
            if one.id.startswith(carrying.PREVIEW_PREFIX):
                previews.append((one.id, _made_at(UUID(one.id.removeprefix(carrying.PREVIEW_PREFIX)))))
            elif one.id.startswith(_PREFIX) and trigger_id is not None:
                state = None if one.schedule is None else one.schedule.state
                carried[trigger_id] = _Carried(state.note if state else None, bool(state and state.paused))
    return carried, previews


def _differs(row: ScheduleTrigger, carried: _Carried | None) -> bool:
    return carried is None or carried.note != carrying.configured_note(row) or carried.paused != row.paused


def _made_at(trigger_id: UUID) -> datetime:
    """When an id of ours was made: it begins with the time."""
    return datetime.fromtimestamp((trigger_id.int >> 80) / 1000, UTC)

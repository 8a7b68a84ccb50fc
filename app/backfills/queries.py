"""Questions about backfills: one function for each."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from sqlalchemy import Select, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.db.backfill_tables import Backfill, BackfillRow
from app.db.statuses import BackfillRowStatus, BackfillStatus
from app.db.tables import RecordStatus, WorkflowExecution, WorkflowTemplate

BackfillAndSlug = tuple[Backfill, str | None]


@dataclass(slots=True)
class Progress:
    """How far a backfill is: rows by status, the last row's number, and executions that are open."""

    by_status: dict[str, int] = field(default_factory=dict)
    last_number: int | None = None
    open: int = 0


async def find_backfill(session: AsyncSession, backfill_id: UUID, *, lock: bool = False) -> BackfillAndSlug | None:
    """A backfill with its template's slug; with `lock` nobody else changes it before this transaction ends."""
    statement = _backfills().where(col(Backfill.id) == backfill_id)
    if lock:
        statement = statement.with_for_update(of=Backfill).execution_options(populate_existing=True)
    row = (await session.execute(statement)).one_or_none()
    return None if row is None else (row[0], row[1])


async def list_backfills(
    session: AsyncSession, *, status: BackfillStatus | None, before: UUID | None, limit: int
) -> Sequence[BackfillAndSlug]:
    """Backfills with their templates' slugs, the newest first, from below `before`."""
    statement = _backfills()
    if status is not None:
        statement = statement.where(col(Backfill.status) == status)
    if before is not None:
        statement = statement.where(col(Backfill.id) < before)
    statement = statement.order_by(col(Backfill.id).desc()).limit(limit)
    return [(row[0], row[1]) for row in await session.execute(statement)]


async def find_progress(session: AsyncSession, backfills: Collection[Backfill]) -> dict[UUID, Progress]:
    """How far each of the backfills is; of one whose rows are deleted, how far it was."""
    found = {one.id: Progress(by_status=dict(one.row_counts or {})) for one in backfills}
    ids = [one.id for one in backfills if one.rows_deleted_at is None]
    counted = (
        select(
            col(BackfillRow.backfill_id),
            col(BackfillRow.status),
            func.count(),
            func.max(col(BackfillRow.number)),
        )
        .where(col(BackfillRow.backfill_id).in_(ids))
        .group_by(col(BackfillRow.backfill_id), col(BackfillRow.status))
    )
    for backfill_id, status, count, last in await session.execute(counted):
        progress = found[backfill_id]
        progress.by_status[status] = count
        progress.last_number = max(last, progress.last_number or 0)
    opened = (
        select(col(BackfillRow.backfill_id), func.count())
        .join(WorkflowExecution, col(WorkflowExecution.id) == BackfillRow.execution_id)
        .where(
            col(BackfillRow.backfill_id).in_(ids),
            # A row that is not open any more stays so; one that is may not have been looked at since.
            col(BackfillRow.open),
            col(WorkflowExecution.closed_as).is_(None),
            col(WorkflowExecution.status).in_((RecordStatus.CREATED, RecordStatus.STARTED)),
        )
        .group_by(col(BackfillRow.backfill_id))
    )
    for backfill_id, count in await session.execute(opened):
        found[backfill_id].open = count
    return found


async def reopen_refused(session: AsyncSession, backfill_id: UUID, code: str | None) -> int:
    """Has rows that were refused (with that code) started again when it is their turn; how many.

    Each is stored anew, as the event it was: the inbox tries again what was refused, and starts nothing twice.
    """
    refused = [col(BackfillRow.backfill_id) == backfill_id, col(BackfillRow.status) == BackfillRowStatus.REFUSED]
    if code is not None:
        refused.append(col(BackfillRow.code) == code)
    afresh = {
        "status": BackfillRowStatus.PENDING,
        "trigger_event_id": None,
        "repeated": False,
        "code": None,
        "message": None,
    }
    opened = await session.execute(update(BackfillRow).where(*refused).values(**afresh))
    return int(opened.rowcount)  # type: ignore[attr-defined]


async def list_rows(
    session: AsyncSession,
    backfill_id: UUID,
    *,
    statuses: Collection[BackfillRowStatus],
    code: str | None,
    after: int,
    limit: int,
) -> Sequence[BackfillRow]:
    """Rows of a backfill in the order of the source, from above `after`; of any status when none is named."""
    statement = select(BackfillRow).where(col(BackfillRow.backfill_id) == backfill_id, col(BackfillRow.number) > after)
    if statuses:
        statement = statement.where(col(BackfillRow.status).in_(statuses))
    if code is not None:
        statement = statement.where(col(BackfillRow.code) == code)
    return (await session.execute(statement.order_by(col(BackfillRow.number)).limit(limit))).scalars().all()


def _backfills() -> Select[Backfill, str]:
    return select(Backfill, col(WorkflowTemplate.slug)).join(
        WorkflowTemplate, col(WorkflowTemplate.id) == Backfill.template_id, isouter=True
    )

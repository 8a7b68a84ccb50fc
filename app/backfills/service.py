"""What can be done with backfills. Their rows in the database say what they are to do; their workflow looks there."""

from datetime import UTC, datetime
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncSession
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy

from app.audit.changes import Facts, record_change
from app.audit.repeating import Asked, find_made, record_made
from app.backfill_contracts import BACKFILL_CHANGED, BACKFILL_WORKFLOW, BackfillRun, backfill_workflow_id
from app.backfills.loading import check_target
from app.backfills.queries import BackfillAndSlug, find_backfill
from app.backfills.schemas import BackfillCreate
from app.contracts import summary
from app.db.backfill_tables import Backfill
from app.db.statuses import BackfillStatus
from app.errors import Conflict, NotFound
from app.executions.control import Caller
from app.templates.service import get_template, refuse_archived
from app.temporal import Temporal, translated

log = structlog.get_logger(__name__)

OVER = (BackfillStatus.COMPLETED, BackfillStatus.CANCELLED, BackfillStatus.FAILED)


async def create_backfill(session: AsyncSession, request: BackfillCreate, caller: Caller) -> BackfillAndSlug:
    """A new backfill that takes rows, or the one that was made under the caller's key.

    Raises TARGET_MISSING, TEMPLATE_NOT_FOUND, TEMPLATE_ARCHIVED, IDEMPOTENCY_CONFLICT.
    """
    said = request.model_dump(mode="json", by_alias=True, exclude_unset=True)
    asked = Asked("CREATE_BACKFILL", "BACKFILL", caller.actor, caller.key, said)
    made = await find_made(session, asked)
    return await make_backfill(session, request, asked) if made is None else await get_backfill(session, UUID(made))


async def make_backfill(session: AsyncSession, request: BackfillCreate, asked: Asked) -> BackfillAndSlug:
    """A new backfill that takes rows. Raises TARGET_MISSING, TEMPLATE_NOT_FOUND, TEMPLATE_ARCHIVED."""
    check_target(request.template, request.entity_type)
    template = None if request.template is None else await get_template(session, request.template)
    if template is not None:
        refuse_archived(template)
    fields = request.model_dump(exclude={"template"})
    backfill = Backfill(**fields, template_id=None if template is None else template.id, created_by=asked.actor)
    session.add(backfill)
    await session.flush()
    await record_made(session, asked, backfill.id, _facts(backfill))
    return backfill, None if template is None else template.slug


async def get_backfill(session: AsyncSession, backfill_id: UUID, *, lock: bool = False) -> BackfillAndSlug:
    """A backfill with its template's slug. Raises BACKFILL_NOT_FOUND."""
    found = await find_backfill(session, backfill_id, lock=lock)
    if found is None:
        raise NotFound("backfill", backfill_id)
    return found


async def start_backfill(
    session: AsyncSession, temporal: Temporal, backfill_id: UUID, actor: str | None
) -> BackfillAndSlug:
    """LOADING → RUNNING: no more rows are taken, and those that are there are started. Repeating it does no harm.

    Raises BACKFILL_PAUSED, BACKFILL_OVER when it was cancelled or has failed, `Unavailable`.
    """
    found = await get_backfill(session, backfill_id, lock=True)
    backfill = found[0]
    match backfill.status:
        case BackfillStatus.PAUSED:
            raise Conflict("BACKFILL_PAUSED", "The backfill is paused; resume it.")
        case BackfillStatus.CANCELLED | BackfillStatus.FAILED:
            raise _over(backfill)
        case BackfillStatus.COMPLETED:
            return found
    backfill.started_at = backfill.started_at or datetime.now(UTC)
    await _set_status(session, backfill, "START_BACKFILL", actor, BackfillStatus.RUNNING)
    await _tell(temporal, found)
    return found


async def pause_backfill(session: AsyncSession, backfill_id: UUID, actor: str | None) -> BackfillAndSlug:
    """RUNNING → PAUSED: rows that have had their turn are settled, and no others are started.

    Raises BACKFILL_OVER, BACKFILL_NOT_STARTED.
    """
    found = await get_backfill(session, backfill_id, lock=True)
    _refuse_unless_started(found[0])
    await _set_status(session, found[0], "PAUSE_BACKFILL", actor, BackfillStatus.PAUSED)
    return found


async def resume_backfill(
    session: AsyncSession, temporal: Temporal, backfill_id: UUID, actor: str | None
) -> BackfillAndSlug:
    """PAUSED → RUNNING. Raises BACKFILL_OVER, BACKFILL_NOT_STARTED, `Unavailable`."""
    found = await get_backfill(session, backfill_id, lock=True)
    _refuse_unless_started(found[0])
    await _set_status(session, found[0], "RESUME_BACKFILL", actor, BackfillStatus.RUNNING)
    await _tell(temporal, found)
    return found


async def cancel_backfill(
    session: AsyncSession, temporal: Temporal, backfill_id: UUID, actor: str | None
) -> BackfillAndSlug:
    """Any status that is not final → CANCELLED: no more rows are started; executions that have been go on.

    Raises BACKFILL_OVER when it has completed or failed, `Unavailable`.
    """
    found = await get_backfill(session, backfill_id, lock=True)
    backfill = found[0]
    if backfill.status == BackfillStatus.CANCELLED:
        return found
    if backfill.status in OVER:
        raise _over(backfill)
    begun = backfill.status != BackfillStatus.LOADING
    backfill.ended_at = datetime.now(UTC)
    await _set_status(session, backfill, "CANCEL_BACKFILL", actor, BackfillStatus.CANCELLED)
    if begun:
        await _tell(temporal, found)
    return found


async def _tell(temporal: Temporal, found: BackfillAndSlug) -> None:
    """Has the workflow look at the row, and starts it when there is none; the row is locked until that is committed,
    so the workflow sees what is being decided here or nothing yet.
    """
    backfill, slug = found
    client = await temporal.client()
    with translated():
        await client.start_workflow(
            BACKFILL_WORKFLOW,
            BackfillRun(backfill_id=backfill.id, rate=backfill.rate),
            id=backfill_workflow_id(backfill.id),
            task_queue=temporal.settings.task_queue,
            id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            start_signal=BACKFILL_CHANGED,
            static_summary=summary(f"{backfill.name} · backfill of {slug or backfill.entity_type}"),
            rpc_timeout=temporal.timeout,
        )
    log.info("backfill_told", backfill_id=str(backfill.id), status=backfill.status)


async def _set_status(
    session: AsyncSession, backfill: Backfill, action: str, actor: str | None, status: BackfillStatus
) -> None:
    before = _facts(backfill)
    backfill.status = status
    await session.flush()
    await record_change(session, action, ("BACKFILL", backfill.id), actor, before, _facts(backfill))


def _refuse_unless_started(backfill: Backfill) -> None:
    if backfill.status == BackfillStatus.LOADING:
        raise Conflict("BACKFILL_NOT_STARTED", "The backfill takes rows still; start it or cancel it.")
    if backfill.status in OVER:
        raise _over(backfill)


def _over(backfill: Backfill) -> Conflict:
    return Conflict("BACKFILL_OVER", f"The backfill is {backfill.status}.")


def _facts(backfill: Backfill) -> Facts:
    """What the audit says of a backfill."""
    return backfill.model_dump(
        mode="json", include={"name", "template_id", "entity_type", "rate", "concurrency", "status"}
    )

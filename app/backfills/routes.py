"""`/backfills`: executions for many past events."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Path, Query
from sqlalchemy.ext.asyncio import AsyncSession

from app.addresses import id_of
from app.backfills import loading, service
from app.backfills.queries import BackfillAndSlug, Progress, find_progress, list_backfills, list_rows
from app.backfills.schemas import (
    BackfillCreate,
    BackfillRowView,
    BackfillView,
    CheckRequest,
    CheckView,
    LoadView,
    RowCounts,
    RowsTaken,
)
from app.db.statuses import BackfillRowStatus, BackfillStatus
from app.dependencies import Actor, CallerPart, Cursor, DatabasePart, Limit, SessionPart, SettingsPart, TemporalPart
from app.problem_details import problem_responses
from app.wire import Page, bad_cursor, decode_cursor, encode_cursor, read_id_cursor

router = APIRouter(prefix="/backfills", tags=["backfills"], responses=problem_responses(404, 422, 503))

BackfillId = Annotated[UUID, id_of("backfill"), Path(alias="backfill", description="the backfill's id")]


@router.post("", status_code=201, summary="Create a backfill", name="createBackfill", responses=problem_responses(409))
async def create(request: BackfillCreate, session: SessionPart, caller: CallerPart) -> BackfillView:
    """It takes rows until it is started. A repetition with the same `Idempotency-Key` is answered with what the first
    has made. Codes: TARGET_MISSING, TEMPLATE_NOT_FOUND, TEMPLATE_ARCHIVED, IDEMPOTENCY_CONFLICT.
    """
    return await _shown(session, await service.create_backfill(session, request, caller))


@router.post("/check", summary="Check rows without starting them", name="checkBackfillRows")
async def check(request: CheckRequest, database: DatabasePart, settings: SettingsPart) -> CheckView:
    """Keeps nothing. Codes: TARGET_MISSING, TEMPLATE_NOT_FOUND; of a row UNLINKED, TEMPLATE_NOT_ACTIVE,
    CONTEXT_INVALID, CONTEXT_TOO_LARGE …
    """
    return await loading.check_rows(database, settings, request)


@router.get("", summary="List backfills", name="listBackfills")
async def list_(
    session: SessionPart,
    status: BackfillStatus | None = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Page[BackfillView]:
    """The newest first."""
    found = await list_backfills(session, status=status, before=read_id_cursor(cursor), limit=limit + 1)
    shown = found[:limit]
    progress = await find_progress(session, [backfill.id for backfill, _ in shown])
    following = encode_cursor(str(shown[-1][0].id)) if len(found) > limit else None
    return Page(items=[_view(one, progress[one[0].id]) for one in shown], next_cursor=following)


@router.get("/{backfill}", summary="Read a backfill", name="getBackfill")
async def get(backfill: BackfillId, session: SessionPart) -> BackfillView:
    """Codes: BACKFILL_NOT_FOUND."""
    return await _shown(session, await service.get_backfill(session, backfill))


@router.post(
    "/{backfill}/rows", summary="Load rows into a backfill", name="loadBackfillRows", responses=problem_responses(409)
)
async def load(backfill: BackfillId, request: RowsTaken, database: DatabasePart) -> LoadView:
    """Rows whose number is there already are left as they are. Codes: BACKFILL_NOT_LOADING, ROW_REPEATED."""
    return await loading.load_rows(database, backfill, request.rows)


@router.get("/{backfill}/rows", summary="List the rows of a backfill", name="listBackfillRows")
async def rows(
    backfill: BackfillId,
    session: SessionPart,
    status: Annotated[list[BackfillRowStatus] | None, Query(description="may be repeated")] = None,
    code: Annotated[str | None, Query(max_length=200)] = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Page[BackfillRowView]:
    """In the order of the source. Codes: BACKFILL_NOT_FOUND."""
    await service.get_backfill(session, backfill)
    found = await list_rows(
        session, backfill, statuses=status or [], code=code, after=_read_number(cursor), limit=limit + 1
    )
    items = [BackfillRowView.model_validate(row, from_attributes=True) for row in found[:limit]]
    following = encode_cursor(str(items[-1].number)) if len(found) > limit else None
    return Page(items=items, next_cursor=following)


@router.post(
    "/{backfill}/start",
    status_code=202,
    summary="Start the rows of a backfill",
    name="startBackfill",
    responses=problem_responses(409),
)
async def start(
    backfill: BackfillId, session: SessionPart, temporal: TemporalPart, actor: Actor = None
) -> BackfillView:
    """From then on it takes no rows; a repetition changes nothing. Codes: BACKFILL_PAUSED, BACKFILL_OVER."""
    return await _shown(session, await service.start_backfill(session, temporal, backfill, actor))


@router.post("/{backfill}/pause", summary="Pause a backfill", name="pauseBackfill", responses=problem_responses(409))
async def pause(backfill: BackfillId, session: SessionPart, actor: Actor = None) -> BackfillView:
    """Rows whose turn it is are still started. Codes: BACKFILL_NOT_STARTED, BACKFILL_OVER."""
    return await _shown(session, await service.pause_backfill(session, backfill, actor))


@router.post("/{backfill}/resume", summary="Resume a backfill", name="resumeBackfill", responses=problem_responses(409))
async def resume(
    backfill: BackfillId, session: SessionPart, temporal: TemporalPart, actor: Actor = None
) -> BackfillView:
    """Codes: BACKFILL_NOT_STARTED, BACKFILL_OVER."""
    return await _shown(session, await service.resume_backfill(session, temporal, backfill, actor))


@router.post("/{backfill}/cancel", summary="Cancel a backfill", name="cancelBackfill", responses=problem_responses(409))
async def cancel(
    backfill: BackfillId, session: SessionPart, temporal: TemporalPart, actor: Actor = None
) -> BackfillView:
    """Starts no more rows; executions that have been started go on. Codes: BACKFILL_OVER."""
    return await _shown(session, await service.cancel_backfill(session, temporal, backfill, actor))


async def _shown(session: AsyncSession, found: BackfillAndSlug) -> BackfillView:
    progress = await find_progress(session, [found[0].id])
    return _view(found, progress[found[0].id])


def _view(found: BackfillAndSlug, progress: Progress) -> BackfillView:
    backfill, slug = found
    counts = {status.lower(): count for status, count in progress.by_status.items()}
    return BackfillView(
        **backfill.model_dump(exclude={"updated_at"}),
        template=slug,
        rows=RowCounts(**counts, total=sum(counts.values())),
        last_number=progress.last_number,
        open=progress.open,
    )


def _read_number(cursor: str | None) -> int:
    if cursor is None:
        return 0
    (written,) = decode_cursor(cursor, 1)
    if not written.isdecimal() or len(written) > 10:
        raise bad_cursor()
    return int(written)

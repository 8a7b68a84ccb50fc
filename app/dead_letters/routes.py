"""`/dead-letters`: runs that failed for good. Each is named by its execution's id."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Path, Query

from app.addresses import id_of
from app.dead_letters import service
from app.dead_letters.queries import (
    DeadLetterFilter,
    find_dead_letter,
    find_dead_letter_row,
    list_dead_letters,
)
from app.dead_letters.schemas import DeadLetterDetail, DeadLetterView, PurgeRequest, PurgeView, dead_letter_view
from app.dependencies import Actor, CallerPart, Cursor, DatabasePart, Limit, RepairPart, SessionPart, TemporalPart
from app.errors import NotFound
from app.executions.control_schemas import ReasonGiven, ReopenedView
from app.executions.reopening import reopen
from app.problem_details import problem_responses
from app.wire import Moment, Page, bad_cursor, decode_cursor, encode_cursor

router = APIRouter(prefix="/dead-letters", tags=["dead letters"], responses=problem_responses(404, 422, 503))

ExecutionId = Annotated[
    UUID, id_of("dead letter"), Path(alias="execution", description="the id of the execution that failed")
]


@router.get("", summary="List dead letters", name="listDeadLetters")
async def list_(
    *,
    session: SessionPart,
    template: Annotated[str | None, Query(max_length=100, description="a template's id or slug")] = None,
    code: Annotated[str | None, Query(max_length=200, description="of the failure")] = None,
    retried: Annotated[bool | None, Query(description="only those retried, or only those not")] = None,
    created_after: Annotated[Moment | None, Query(alias="createdAfter", description="after this time")] = None,
    created_before: Annotated[Moment | None, Query(alias="createdBefore", description="before this time")] = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Page[DeadLetterView]:
    """The newest first."""
    wanted = DeadLetterFilter(template, code, retried, created_after, created_before)
    found = await list_dead_letters(session, wanted, before=_read_cursor(cursor), limit=limit + 1)
    shown = found[:limit]
    following = None
    if len(found) > limit:
        following = encode_cursor(shown[-1].created_at.isoformat(), str(shown[-1].id))
    return Page(items=[dead_letter_view(row) for row in shown], next_cursor=following)


@router.get("/{execution}", summary="Read a dead letter", response_model_exclude_unset=True, name="getDeadLetter")
async def get(
    execution: ExecutionId,
    session: SessionPart,
    with_state: Annotated[bool, Query(alias="state", description="with the state, which may be large")] = False,
) -> DeadLetterDetail:
    """Codes: DEAD_LETTER_NOT_FOUND."""
    row = await find_dead_letter_row(session, execution)
    if row is None:
        raise NotFound("dead letter", f"of execution {execution}")
    detail = DeadLetterDetail(**dead_letter_view(row).model_dump())
    if with_state:
        letter = await find_dead_letter(session, execution)
        detail.state = None if letter is None else letter.state
    return detail


@router.post(
    "/purge",
    summary="Delete dead letters",
    name="purgeDeadLetters",
)
async def purge(request: PurgeRequest, session: SessionPart, actor: Actor = None) -> PurgeView:
    """Codes: PURGE_UNBOUNDED."""
    return PurgeView(purged=await service.purge(session, request, actor), dry_run=request.dry_run)


@router.post(
    "/{execution}/retry",
    status_code=202,
    summary="Retry what a dead letter is about",
    responses=problem_responses(409),
    name="retryDeadLetter",
)
async def retry(
    *,
    execution: ExecutionId,
    request: ReasonGiven | None = None,
    database: DatabasePart,
    temporal: TemporalPart,
    repair: RepairPart,
    caller: CallerPart,
) -> ReopenedView:
    """The same as retrying its execution. Codes: DEAD_LETTER_NOT_FOUND, EXECUTION_OPEN, NOTHING_FAILED …"""
    async with database.transaction() as session:
        await service.check_dead_letter(session, execution)
    reason = None if request is None else request.reason
    return await reopen(database, temporal, repair, execution, None, caller, reason)


def _read_cursor(cursor: str | None) -> tuple[datetime, UUID] | None:
    if cursor is None:
        return None
    created_at, letter_id = decode_cursor(cursor, 2)
    try:
        return datetime.fromisoformat(created_at), UUID(letter_id)
    except ValueError as error:
        raise bad_cursor() from error

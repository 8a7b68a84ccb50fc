"""`/audit`, and the audit of one execution."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query
from sqlalchemy.ext.asyncio import AsyncSession

from app.audit.queries import AuditFilter, list_audit_events
from app.audit.schemas import AuditEventView, audit_view
from app.audit.words import Action, EntityKind
from app.dependencies import Cursor, Limit, SessionPart
from app.errors import NotFound
from app.executions.parameters import ExecutionId
from app.executions.queries import find_execution
from app.problem_details import problem_responses
from app.wire import Moment, Page, encode_cursor, read_id_cursor

router = APIRouter(tags=["audit"], responses=problem_responses(422, 503))


@router.get("/audit", summary="List what was done", name="listAuditEvents")
async def list_(
    *,
    session: SessionPart,
    actor: Annotated[str | None, Query(max_length=200, description="who did it")] = None,
    action: Annotated[Action | None, Query(description="what was done")] = None,
    execution_id: Annotated[UUID | None, Query(alias="executionId", description="to this execution")] = None,
    entity_kind: Annotated[EntityKind | None, Query(alias="entityKind", description="to what kind of thing")] = None,
    entity_id: Annotated[
        str | None, Query(alias="entityId", max_length=200, description="its id, or a trigger's key")
    ] = None,
    result: Annotated[
        str | None, Query(max_length=100, description="DONE, PENDING, REPEATED …, or a refusal's code")
    ] = None,
    after: Annotated[Moment | None, Query(description="at this time or later")] = None,
    before: Annotated[Moment | None, Query(description="before this time")] = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Page[AuditEventView]:
    """The latest first; refused requests are there too, with the code of the refusal as their result."""
    wanted = AuditFilter(actor, action, execution_id, entity_kind, entity_id, result, after, before)
    return await _page(session, wanted, cursor, limit)


@router.get(
    "/executions/{execution}/audit",
    summary="List what was done to an execution",
    name="getExecutionAudit",
    responses=problem_responses(404),
)
async def of_execution(
    *,
    execution: ExecutionId,
    session: SessionPart,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Page[AuditEventView]:
    """The latest first."""
    if await find_execution(session, execution) is None:
        raise NotFound("execution", execution)
    return await _page(session, AuditFilter(execution_id=execution), cursor, limit)


async def _page(session: AsyncSession, wanted: AuditFilter, cursor: str | None, limit: int) -> Page[AuditEventView]:
    found = await list_audit_events(session, wanted, below=read_id_cursor(cursor), limit=limit + 1)
    shown = found[:limit]
    following = encode_cursor(str(shown[-1].id)) if len(found) > limit else None
    return Page(items=[audit_view(event) for event in shown], next_cursor=following)

"""`/incidents`, and the incidents of one execution."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query
from sqlalchemy.ext.asyncio import AsyncSession

from app.dependencies import Cursor, Limit, SessionPart
from app.errors import NotFound
from app.executions.parameters import ExecutionId
from app.executions.queries import find_execution
from app.incidents.queries import IncidentFilter, list_incidents
from app.incidents.schemas import IncidentView, incident_view
from app.problem_details import problem_responses
from app.wire import Moment, Page, encode_cursor, read_id_cursor

router = APIRouter(tags=["incidents"], responses=problem_responses(404, 422, 503))

IsOpen = Annotated[bool | None, Query(alias="open", description="only open ones, or only resolved ones")]


@router.get("/incidents", summary="List incidents", name="listIncidents")
async def list_(
    *,
    session: SessionPart,
    is_open: IsOpen = None,
    execution_id: Annotated[UUID | None, Query(alias="executionId")] = None,
    root_id: Annotated[UUID | None, Query(alias="rootId")] = None,
    template: Annotated[str | None, Query(max_length=100, description="a template's id or slug")] = None,
    step_id: Annotated[str | None, Query(alias="stepId", max_length=200)] = None,
    code: Annotated[str | None, Query(max_length=200)] = None,
    opened_after: Annotated[Moment | None, Query(alias="openedAfter")] = None,
    opened_before: Annotated[Moment | None, Query(alias="openedBefore")] = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Page[IncidentView]:
    """The latest first, as runs record them."""
    wanted = IncidentFilter(is_open, execution_id, root_id, template, step_id, code, opened_after, opened_before)
    return await _page(session, wanted, cursor, limit)


@router.get("/executions/{execution}/incidents", summary="List an execution's incidents", name="getExecutionIncidents")
async def of_execution(
    *,
    execution: ExecutionId,
    session: SessionPart,
    is_open: IsOpen = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Page[IncidentView]:
    """The latest first."""
    if await find_execution(session, execution) is None:
        raise NotFound("execution", execution)
    return await _page(session, IncidentFilter(open=is_open, execution_id=execution), cursor, limit)


async def _page(session: AsyncSession, wanted: IncidentFilter, cursor: str | None, limit: int) -> Page[IncidentView]:
    found = await list_incidents(session, wanted, below=read_id_cursor(cursor), limit=limit + 1)
    shown = found[:limit]
    following = encode_cursor(str(shown[-1].incident.id)) if len(found) > limit else None
    return Page(items=[incident_view(row) for row in shown], next_cursor=following)

"""`/templates`."""

from typing import Annotated

from fastapi import APIRouter, Path, Query
from sqlalchemy.ext.asyncio import AsyncSession

from app.db.tables import TemplateStatus, WorkflowTemplate
from app.dependencies import Actor, CallerPart, Cursor, DatabasePart, Limit, SessionPart, TemporalPart
from app.problem_details import problem_responses
from app.templates import service
from app.templates.deleting import delete_template
from app.templates.queries import TemplateFilter, find_active_number, list_templates
from app.templates.schemas import TemplateChange, TemplateCreate, TemplateView
from app.wire import Page, encode_cursor, read_id_cursor

router = APIRouter(prefix="/templates", tags=["templates"], responses=problem_responses(422, 503))

Reference = Annotated[str, Path(alias="template", description="a template's id or slug", max_length=100)]
Word = Annotated[str | None, Query(max_length=200)]
NOT_FOUND = problem_responses(404)
STATE = problem_responses(404, 409)


@router.post("", status_code=201, summary="Create a template", responses=problem_responses(409), name="createTemplate")
async def create(request: TemplateCreate, session: SessionPart, caller: CallerPart) -> TemplateView:
    """In status DRAFT, without versions. A repetition with the same `Idempotency-Key` is answered with what the first
    has made. Codes: SLUG_INVALID, SLUG_TAKEN, IDEMPOTENCY_CONFLICT.
    """
    template = await service.create_template(session, request, caller.actor, caller.key)
    return _view(template, await find_active_number(session, template))


@router.get("", summary="List templates", name="listTemplates")
async def list_(
    session: SessionPart,
    status: Annotated[TemplateStatus | None, Query()] = None,
    segment: Word = None,
    category: Word = None,
    tag: Word = None,
    text: Word = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Page[TemplateView]:
    """The newest first."""
    wanted = TemplateFilter(status=status, segment=segment, category=category, tag=tag, text=text)
    rows = await list_templates(session, wanted, before=read_id_cursor(cursor), limit=limit + 1)
    items = [_view(template, version) for template, version in rows[:limit]]
    following = encode_cursor(str(items[-1].id)) if len(rows) > limit else None
    return Page(items=items, next_cursor=following)


@router.get("/{template}", summary="Read a template", responses=NOT_FOUND, name="getTemplate")
async def get(template: Reference, session: SessionPart) -> TemplateView:
    """By id or slug."""
    return await _answer(session, await service.get_template(session, template))


@router.patch("/{template}", summary="Change a template", responses=STATE, name="changeTemplate")
async def change(
    template: Reference, request: TemplateChange, session: SessionPart, actor: Actor = None
) -> TemplateView:
    """What is left out stays. Codes: SLUG_FIXED, SLUG_TAKEN, SLUG_INVALID."""
    changes = request.model_dump(exclude_unset=True)
    return await _answer(session, await service.change_template(session, template, changes, actor))


@router.delete("/{template}", status_code=204, summary="Delete a template", responses=STATE, name="deleteTemplate")
async def delete(template: Reference, database: DatabasePart, temporal: TemporalPart, actor: Actor = None) -> None:
    """With its versions, and its links, subscriptions, schedules and webhook endpoints. Codes: TEMPLATE_IN_USE when it
    has executions.
    """
    await delete_template(database, temporal, template, actor)


@router.post("/{template}/pause", summary="Pause a template", responses=STATE, name="pauseTemplate")
async def pause(template: Reference, session: SessionPart, actor: Actor = None) -> TemplateView:
    """Nothing new starts; what runs goes on. Codes: TEMPLATE_NOT_ACTIVE."""
    return await _answer(session, await service.pause_template(session, template, actor))


@router.post("/{template}/resume", summary="Resume a template", responses=STATE, name="resumeTemplate")
async def resume(template: Reference, session: SessionPart, actor: Actor = None) -> TemplateView:
    """From PAUSED or ARCHIVED. Codes: TEMPLATE_NOT_PAUSED."""
    return await _answer(session, await service.resume_template(session, template, actor))


@router.post("/{template}/archive", summary="Archive a template", responses=NOT_FOUND, name="archiveTemplate")
async def archive(template: Reference, session: SessionPart, actor: Actor = None) -> TemplateView:
    """Nothing new starts and nothing is edited; what runs goes on."""
    return await _answer(session, await service.archive_template(session, template, actor))


async def _answer(session: AsyncSession, template: WorkflowTemplate) -> TemplateView:
    return _view(template, await find_active_number(session, template))


def _view(template: WorkflowTemplate, active_version: str | None) -> TemplateView:
    return TemplateView(**template.model_dump(), active_version=active_version)

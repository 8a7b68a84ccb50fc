"""`/links`."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Response

from app.db.statuses import EntityType
from app.dependencies import Actor, Cursor, Limit, SessionPart
from app.links import service
from app.links.queries import LinkAndSlug, list_links
from app.links.schemas import LinkPut, LinkView
from app.problem_details import problem_responses
from app.templates.service import get_template
from app.wire import Page, encode_cursor, read_id_cursor

router = APIRouter(prefix="/links", tags=["links"], responses=problem_responses(404, 422, 503))

Type = Annotated[EntityType, Path(alias="entityType")]
# Ids of entities are somebody else's and may hold slashes.
EntityId = Annotated[str, Path(alias="entityId", min_length=1, max_length=200)]
PATH = "/{entityType}/{entityId:path}"


@router.put(
    PATH,
    summary="Link an entity to a template",
    responses={**problem_responses(409), 201: {"model": LinkView, "description": "the link is new"}},
    name="putLink",
)
async def put(
    entity_type: Type,
    entity_id: EntityId,
    request: LinkPut,
    session: SessionPart,
    response: Response,
    actor: Actor = None,
) -> LinkView:
    """201 when new, 200 when it was there. Codes: LINK_EXISTS, TEMPLATE_NOT_FOUND, TEMPLATE_ARCHIVED."""
    found, created = await service.put_link(session, entity_type, entity_id, request.template_id, actor)
    response.status_code = 201 if created else 200
    return _view(found)


@router.get(PATH, summary="Read an entity's link", name="getLink")
async def get(entity_type: Type, entity_id: EntityId, session: SessionPart) -> LinkView:
    """Codes: LINK_NOT_FOUND."""
    return _view(await service.get_link(session, entity_type, entity_id))


@router.delete(PATH, status_code=204, summary="Delete an entity's link", name="deleteLink")
async def delete(entity_type: Type, entity_id: EntityId, session: SessionPart, actor: Actor = None) -> None:
    """Codes: LINK_NOT_FOUND."""
    await service.delete_link(session, entity_type, entity_id, actor)


@router.get("", summary="List links", name="listLinks")
async def list_(
    session: SessionPart,
    entity_type: Annotated[EntityType | None, Query(alias="entityType", description="of this kind")] = None,
    template: Annotated[str | None, Query(max_length=100, description="a template's id or slug")] = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Page[LinkView]:
    """The newest first."""
    owner = None if template is None else await get_template(session, template)
    rows = await list_links(
        session,
        entity_type=entity_type,
        template_id=None if owner is None else owner.id,
        before=read_id_cursor(cursor),
        limit=limit + 1,
    )
    items = [_view(row) for row in rows[:limit]]
    following = encode_cursor(str(items[-1].id)) if len(rows) > limit else None
    return Page(items=items, next_cursor=following)


def _view(found: LinkAndSlug) -> LinkView:
    link, slug = found
    return LinkView(**link.model_dump(), template=slug)

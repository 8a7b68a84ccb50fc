"""Questions about links: one function for each."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import Select, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.db.statuses import EntityType
from app.db.tables import WorkflowTemplate, WorkflowTemplateLink

LinkAndSlug = tuple[WorkflowTemplateLink, str]


async def find_link(session: AsyncSession, entity_type: EntityType, entity_id: str) -> LinkAndSlug | None:
    """The link of an entity, with its template's slug."""
    statement = _links().where(
        col(WorkflowTemplateLink.entity_type) == entity_type,
        col(WorkflowTemplateLink.entity_id) == entity_id,
    )
    row = (await session.execute(statement)).one_or_none()
    return None if row is None else (row[0], row[1])


async def list_links(
    session: AsyncSession,
    *,
    entity_type: EntityType | None,
    template_id: UUID | None,
    before: UUID | None,
    limit: int,
) -> Sequence[LinkAndSlug]:
    """Links with their templates' slugs, the newest first, from below `before`."""
    statement = _links()
    if entity_type is not None:
        statement = statement.where(col(WorkflowTemplateLink.entity_type) == entity_type)
    if template_id is not None:
        statement = statement.where(col(WorkflowTemplateLink.template_id) == template_id)
    if before is not None:
        statement = statement.where(col(WorkflowTemplateLink.id) < before)
    statement = statement.order_by(col(WorkflowTemplateLink.id).desc()).limit(limit)
    return [(row[0], row[1]) for row in await session.execute(statement)]


def _links() -> Select[WorkflowTemplateLink, str]:
    return select(WorkflowTemplateLink, col(WorkflowTemplate.slug)).join(
        WorkflowTemplate, col(WorkflowTemplate.id) == WorkflowTemplateLink.template_id
    )

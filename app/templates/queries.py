"""Questions about templates: one function for each."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import exists, or_, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.db.event_tables import Subscription, WebhookEndpoint
from app.db.schedule_tables import ScheduleTrigger
from app.db.tables import (
    TemplateStatus,
    WorkflowExecution,
    WorkflowTemplate,
    WorkflowTemplateLink,
    WorkflowTemplateVersion,
)
from app.versions.queries import as_uuid


@dataclass(frozen=True, slots=True)
class TemplateFilter:
    """What a list of templates is narrowed to; `text` is looked for in name, slug and description."""

    status: TemplateStatus | None = None
    segment: str | None = None
    category: str | None = None
    tag: str | None = None
    text: str | None = None


async def find_template(session: AsyncSession, reference: str, *, lock: bool = False) -> WorkflowTemplate | None:
    """A template by id or slug; with `lock` nobody else changes it before this transaction ends."""
    found = as_uuid(reference)
    statement = select(WorkflowTemplate).where(
        col(WorkflowTemplate.slug) == reference if found is None else col(WorkflowTemplate.id) == found
    )
    if lock:
        statement = statement.with_for_update().execution_options(populate_existing=True)
    return (await session.execute(statement)).scalar_one_or_none()


async def find_active_number(session: AsyncSession, template: WorkflowTemplate) -> str | None:
    """The number of a template's active version."""
    if template.active_version_id is None:
        return None
    statement = select(col(WorkflowTemplateVersion.version)).where(
        col(WorkflowTemplateVersion.id) == template.active_version_id
    )
    return (await session.execute(statement)).scalar_one()


async def list_templates(
    session: AsyncSession, wanted: TemplateFilter, *, before: UUID | None, limit: int
) -> Sequence[tuple[WorkflowTemplate, str | None]]:
    """Templates with the numbers of their active versions, the newest first, from below `before`."""
    statement = select(WorkflowTemplate, col(WorkflowTemplateVersion.version)).join(
        WorkflowTemplateVersion,
        col(WorkflowTemplateVersion.id) == WorkflowTemplate.active_version_id,
        isouter=True,
    )
    for column, value in (
        (col(WorkflowTemplate.status), wanted.status),
        (col(WorkflowTemplate.segment), wanted.segment),
        (col(WorkflowTemplate.category), wanted.category),
    ):
        if value is not None:
            statement = statement.where(column == value)
    if wanted.tag is not None:
        statement = statement.where(col(WorkflowTemplate.tags).contains([wanted.tag]))
    if wanted.text is not None:
        searched = (WorkflowTemplate.name, WorkflowTemplate.slug, WorkflowTemplate.description)
        statement = statement.where(or_(*(col(column).icontains(wanted.text, autoescape=True) for column in searched)))
    if before is not None:
        statement = statement.where(col(WorkflowTemplate.id) < before)
    statement = statement.order_by(col(WorkflowTemplate.id).desc()).limit(limit)
    return [(row[0], row[1]) for row in await session.execute(statement)]


async def has_been_published(session: AsyncSession, template_id: UUID) -> bool:
    """Whether any version of a template has ever been published."""
    statement = select(
        exists().where(
            col(WorkflowTemplateVersion.template_id) == template_id,
            col(WorkflowTemplateVersion.published_at).is_not(None),
        )
    )
    return bool((await session.execute(statement)).scalar_one())


async def has_executions(session: AsyncSession, template_id: UUID) -> bool:
    """Whether a template was ever run."""
    statement = select(exists().where(col(WorkflowExecution.template_id) == template_id))
    return bool((await session.execute(statement)).scalar_one())


async def find_slugs(session: AsyncSession, template_ids: Collection[UUID]) -> dict[UUID, str]:
    """The slugs of templates; of none without a question."""
    if not template_ids:
        return {}
    statement = select(col(WorkflowTemplate.id), col(WorkflowTemplate.slug))
    found = await session.execute(statement.where(col(WorkflowTemplate.id).in_(template_ids)))
    return {row[0]: row[1] for row in found}


@dataclass(frozen=True, slots=True)
class Starting:
    """What would start a template: ids, and links as type and id of their entity."""

    schedules: Sequence[UUID]
    subscriptions: Sequence[UUID]
    endpoints: Sequence[UUID]
    links: Sequence[tuple[str, str]]


async def find_what_starts(session: AsyncSession, template_id: UUID) -> Starting:
    """All that names a template to be started, the earliest first; locked, so that none of it is given to another
    template before this transaction ends.
    """
    links = (
        select(col(WorkflowTemplateLink.entity_type), col(WorkflowTemplateLink.entity_id))
        .where(col(WorkflowTemplateLink.template_id) == template_id)
        .order_by(col(WorkflowTemplateLink.id))
        .with_for_update()
    )
    return Starting(
        schedules=await _ids(session, ScheduleTrigger, template_id),
        subscriptions=await _ids(session, Subscription, template_id),
        endpoints=await _ids(session, WebhookEndpoint, template_id),
        links=[(row[0], row[1]) for row in await session.execute(links)],
    )


async def _ids(
    session: AsyncSession, table: type[ScheduleTrigger | Subscription | WebhookEndpoint], template_id: UUID
) -> Sequence[UUID]:
    statement = (
        select(col(table.id)).where(col(table.template_id) == template_id).order_by(col(table.id)).with_for_update()
    )
    return (await session.execute(statement)).scalars().all()

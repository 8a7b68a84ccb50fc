"""Questions about versions: one function for each."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, SQLColumnExpression, Text, and_, cast, func, or_, select
from sqlalchemy.dialects.postgresql import JSONB, JSONPATH
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.db.tables import WorkflowTemplate, WorkflowTemplateVersion


def as_uuid(text: str) -> UUID | None:
    """The id that a text is, or None when it is a name."""
    try:
        return UUID(text)
    except ValueError:
        return None


@dataclass(frozen=True, slots=True)
class VersionReference:
    """A version as a sub-workflow or a start names it, without its definition.

    `input_schema` is the definition's; `child_versions` and `child_templates` are what its own sub-workflows
    name.
    """

    template_id: UUID
    template: str
    template_name: str
    template_status: str
    version_id: UUID | None
    version: str | None
    status: str | None
    input_schema: dict[str, Any] | None
    child_versions: list[str]
    child_templates: list[str]


async def find_version(
    session: AsyncSession, version_id: UUID, *, lock: bool = False
) -> WorkflowTemplateVersion | None:
    """A version by id; with `lock` nobody else changes it before this transaction ends."""
    return await session.get(WorkflowTemplateVersion, version_id, with_for_update=lock or None, populate_existing=lock)


async def definition_text(session: AsyncSession, version_id: UUID) -> str:
    """A version's definition to the letter: what runs are given, and their payload's name is the hash of."""
    statement = select(cast(col(WorkflowTemplateVersion.definition), Text)).where(
        col(WorkflowTemplateVersion.id) == version_id
    )
    text: str = (await session.execute(statement)).scalar_one()
    return text


async def step_ids(
    session: AsyncSession, template_id: UUID, version_ids: Collection[UUID] | None = None
) -> frozenset[str]:
    """The ids of all steps that a template's versions have: all of them, or those named."""
    statement = select(_members(col(WorkflowTemplateVersion.definition), "$.steps[*].id")).where(
        col(WorkflowTemplateVersion.template_id) == template_id
    )
    if version_ids is not None:
        statement = statement.where(col(WorkflowTemplateVersion.id).in_(version_ids))
    found = (await session.execute(statement)).scalars()
    return frozenset(name for names in found for name in _texts(names))


async def list_versions(
    session: AsyncSession, template_id: UUID, *, before: UUID | None, limit: int
) -> Sequence[WorkflowTemplateVersion]:
    """A template's versions, the newest first, from below `before`."""
    statement = select(WorkflowTemplateVersion).where(col(WorkflowTemplateVersion.template_id) == template_id)
    if before is not None:
        statement = statement.where(col(WorkflowTemplateVersion.id) < before)
    statement = statement.order_by(col(WorkflowTemplateVersion.id).desc()).limit(limit)
    return (await session.execute(statement)).scalars().all()


async def find_versions_by_reference(session: AsyncSession, references: Collection[str]) -> dict[str, VersionReference]:
    """Versions by id or `slug@1.0.0`, found by the reference as written."""
    by_id = {reference: found for reference in references if (found := as_uuid(reference))}
    by_name = {reference: reference.partition("@") for reference in references if reference not in by_id}
    conditions: list[ColumnElement[bool]] = []
    if by_id:
        conditions.append(col(WorkflowTemplateVersion.id).in_(by_id.values()))
    for slug, _, version in by_name.values():
        conditions.append(and_(col(WorkflowTemplate.slug) == slug, col(WorkflowTemplateVersion.version) == version))
    if not conditions:
        return {}
    versions = await _references(session, outer=False, condition=or_(*conditions))
    ids = {item.version_id: item for item in versions}
    names = {f"{item.template}@{item.version}": item for item in versions}
    result = {reference: ids[key] for reference, key in by_id.items() if key in ids}
    return result | {reference: names[reference] for reference in by_name if reference in names}


async def find_templates_by_reference(
    session: AsyncSession, references: Collection[str]
) -> dict[str, VersionReference]:
    """Templates by id or slug, each with its active version (`version_id` None without one)."""
    by_id = {reference: found for reference in references if (found := as_uuid(reference))}
    slugs = [reference for reference in references if reference not in by_id]
    if not references:
        return {}
    condition = or_(col(WorkflowTemplate.id).in_(by_id.values()), col(WorkflowTemplate.slug).in_(slugs))
    templates = await _references(session, outer=True, condition=condition)
    ids = {item.template_id: item for item in templates}
    names = {item.template: item for item in templates}
    result = {reference: ids[key] for reference, key in by_id.items() if key in ids}
    return result | {slug: names[slug] for slug in slugs if slug in names}


async def _references(session: AsyncSession, *, outer: bool, condition: ColumnElement[bool]) -> list[VersionReference]:
    definition = col(WorkflowTemplateVersion.definition)
    joined = (
        col(WorkflowTemplateVersion.id) == WorkflowTemplate.active_version_id
        if outer
        else col(WorkflowTemplateVersion.template_id) == WorkflowTemplate.id
    )
    statement = (
        select(
            col(WorkflowTemplate.id),
            col(WorkflowTemplate.slug),
            col(WorkflowTemplate.name),
            col(WorkflowTemplate.status),
            col(WorkflowTemplateVersion.id),
            col(WorkflowTemplateVersion.version),
            col(WorkflowTemplateVersion.status),
            cast(definition["inputSchema"], JSONB),
            _members(definition, "$.steps[*].childWorkflowTemplateVersionId"),
            _members(definition, "$.steps[*].childWorkflowTemplateId"),
        )
        .select_from(WorkflowTemplate)
        .join(WorkflowTemplateVersion, joined, isouter=outer)
        .where(condition)
    )
    rows = (await session.execute(statement)).all()
    return [VersionReference(*row[:8], *map(_texts, row[8:])) for row in (tuple(row) for row in rows)]


def _members(document: SQLColumnExpression[Any], path: str) -> ColumnElement[Any]:
    return func.jsonb_path_query_array(document, cast(path, JSONPATH), type_=JSONB)


def _texts(found: list[Any] | None) -> list[str]:
    return [item for item in found or () if isinstance(item, str)]

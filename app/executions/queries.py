"""Questions about executions: one function for each."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Select, false, literal, literal_column, or_, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.db.tables import (
    EntityType,
    RecordStatus,
    WorkflowExecution,
    WorkflowTemplate,
    WorkflowTemplateLink,
    WorkflowTemplateVersion,
)
from app.executions.runs import RuntimeStatus
from app.versions.queries import as_uuid


@dataclass(frozen=True, slots=True)
class ExecutionRow:
    """An execution with the names of what it runs; the context stays behind."""

    id: UUID
    name: str
    template_id: UUID
    template: str
    version_id: UUID
    version: str
    parent_id: UUID | None
    root_id: UUID
    status: RecordStatus
    status_reason: str | None
    trigger: dict[str, Any] | None
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    closed_as: str | None


@dataclass(frozen=True, slots=True)
class ExecutionFilter:
    """What a list of executions is narrowed to; `template` is an id or a slug."""

    template: str | None = None
    version_id: UUID | None = None
    entity_type: EntityType | None = None
    entity_id: str | None = None
    status: RecordStatus | None = None
    runtime_status: RuntimeStatus | None = None
    root_id: UUID | None = None
    parent_id: UUID | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None


@dataclass(frozen=True, slots=True)
class Earlier:
    """The execution that an idempotency key was used for."""

    id: UUID
    status: RecordStatus
    request_hash: str | None


@dataclass(frozen=True, slots=True)
class Target:
    """What a start would run, and the execution that its key was used for already.

    The version's fields are None when the template has no such version.
    """

    template_id: UUID
    template: str
    template_name: str
    template_status: str
    version_id: UUID | None
    version: str | None
    version_status: str | None
    definition: dict[str, Any] | None
    earlier: Earlier | None


async def find_linked_target(session: AsyncSession, entity_type: EntityType, entity_id: str, key: str) -> Target | None:
    """What the entity's link starts: link, template, active version and earlier execution at once."""
    active = col(WorkflowTemplateVersion.id) == WorkflowTemplate.active_version_id
    statement = (
        _targets(active, key)
        .join(WorkflowTemplateLink, col(WorkflowTemplateLink.template_id) == WorkflowTemplate.id)
        .where(
            col(WorkflowTemplateLink.entity_type) == entity_type,
            col(WorkflowTemplateLink.entity_id) == entity_id,
        )
    )
    return await _target(session, statement)


async def find_target(session: AsyncSession, reference: str, version: str | None, key: str | None) -> Target | None:
    """What a template (id or slug) starts: the version of that number, or the active one without a number."""
    found = as_uuid(reference)
    joined = (
        col(WorkflowTemplateVersion.id) == WorkflowTemplate.active_version_id
        if version is None
        else (col(WorkflowTemplateVersion.template_id) == WorkflowTemplate.id)
        & (col(WorkflowTemplateVersion.version) == version)
    )
    wanted = col(WorkflowTemplate.slug) == reference if found is None else col(WorkflowTemplate.id) == found
    return await _target(session, _targets(joined, key).where(wanted))


def _targets(version: ColumnElement[bool], key: str | None) -> Select[*tuple[Any, ...]]:
    earlier = (
        false()
        if key is None
        else (col(WorkflowExecution.template_id) == WorkflowTemplate.id)
        & (col(WorkflowExecution.idempotency_key) == key)
    )
    return (
        select(
            col(WorkflowTemplate.id),
            col(WorkflowTemplate.slug),
            col(WorkflowTemplate.name),
            col(WorkflowTemplate.status),
            col(WorkflowTemplateVersion.id),
            col(WorkflowTemplateVersion.version),
            col(WorkflowTemplateVersion.status),
            col(WorkflowTemplateVersion.definition),
            col(WorkflowExecution.id),
            col(WorkflowExecution.status),
            col(WorkflowExecution.request_hash),
        )
        .select_from(WorkflowTemplate)
        .join(WorkflowTemplateVersion, version, isouter=True)
        .join(WorkflowExecution, earlier, isouter=True)
    )


async def _target(session: AsyncSession, statement: Select[*tuple[Any, ...]]) -> Target | None:
    row = (await session.execute(statement)).one_or_none()
    if row is None:
        return None
    found = tuple(row)
    earlier = None if found[8] is None else Earlier(found[8], RecordStatus(found[9]), found[10])
    return Target(*(*found[:8], earlier))


async def find_earlier(session: AsyncSession, template_id: UUID, key: str) -> Earlier:
    """The execution that a key is known to have been used for."""
    statement = select(
        col(WorkflowExecution.id), col(WorkflowExecution.status), col(WorkflowExecution.request_hash)
    ).where(col(WorkflowExecution.template_id) == template_id, col(WorkflowExecution.idempotency_key) == key)
    row = (await session.execute(statement)).one()
    return Earlier(row[0], RecordStatus(row[1]), row[2])


async def find_execution(session: AsyncSession, execution_id: UUID) -> ExecutionRow | None:
    """An execution by id."""
    statement = _rows().where(col(WorkflowExecution.id) == execution_id)
    row = (await session.execute(statement)).one_or_none()
    return None if row is None else _row(row)


async def list_executions(
    session: AsyncSession, wanted: ExecutionFilter, *, before: tuple[datetime, UUID] | None, limit: int
) -> list[ExecutionRow]:
    """Executions, the newest first, from below `before` (time of creation and id)."""
    statement = _rows().where(*_conditions(wanted))
    place = tuple_(col(WorkflowExecution.created_at), col(WorkflowExecution.id))
    if before is not None:
        statement = statement.where(place < tuple_(literal(before[0]), literal(before[1])))
    statement = statement.order_by(col(WorkflowExecution.created_at).desc(), col(WorkflowExecution.id).desc()).limit(
        limit
    )
    return [_row(row) for row in await session.execute(statement)]


def _conditions(wanted: ExecutionFilter) -> list[ColumnElement[bool]]:
    template_id = None if wanted.template is None else as_uuid(wanted.template)
    slug = wanted.template if template_id is None else None
    equal: list[tuple[Any, Any]] = [
        (col(WorkflowExecution.template_id), template_id),
        (col(WorkflowTemplate.slug), slug),
        (col(WorkflowExecution.version_id), wanted.version_id),
        # Written as the index has them: an expression with parameters would not be found in it.
        (literal_column("workflow_execution.trigger->>'entityType'"), wanted.entity_type),
        (literal_column("workflow_execution.trigger->>'entityId'"), wanted.entity_id),
        (col(WorkflowExecution.status), wanted.status),
        (col(WorkflowExecution.root_id), wanted.root_id),
        (col(WorkflowExecution.parent_id), wanted.parent_id),
    ]
    conditions = [column == value for column, value in equal if value is not None]
    if wanted.created_after is not None:
        conditions.append(col(WorkflowExecution.created_at) > wanted.created_after)
    if wanted.created_before is not None:
        conditions.append(col(WorkflowExecution.created_at) < wanted.created_before)
    if wanted.runtime_status is not None:
        conditions.append(_as_recorded(wanted.runtime_status))
    return conditions


def _as_recorded(runtime_status: RuntimeStatus) -> ColumnElement[bool]:
    """Which rows can have a runtime status, as far as rows tell."""
    status = col(WorkflowExecution.status)
    match runtime_status:
        case RuntimeStatus.NOT_STARTED:
            return status.in_((RecordStatus.CREATED, RecordStatus.FAILED_TO_START))
        case RuntimeStatus.IN_PROGRESS:
            return status == RecordStatus.STARTED
        case closed:
            return col(WorkflowExecution.closed_as) == closed.value


async def list_tree(session: AsyncSession, root_id: UUID, limit: int) -> list[ExecutionRow]:
    """Every execution under a root, itself included, parents before their children."""
    statement = (
        _rows()
        .where(col(WorkflowExecution.root_id) == root_id)
        .order_by(
            col(WorkflowExecution.parent_id).is_not(None),
            col(WorkflowExecution.created_at),
            col(WorkflowExecution.id),
        )
        .limit(limit)
    )
    return [_row(row) for row in await session.execute(statement)]


async def list_open(session: AsyncSession, *, after: UUID | None, limit: int) -> Sequence[UUID]:
    """Executions whose row says that they run, and children whose row says that they are about to; by id."""
    statement = select(col(WorkflowExecution.id)).where(
        or_(
            col(WorkflowExecution.status) == RecordStatus.STARTED,
            (col(WorkflowExecution.status) == RecordStatus.CREATED) & col(WorkflowExecution.parent_id).is_not(None),
        )
    )
    if after is not None:
        statement = statement.where(col(WorkflowExecution.id) > after)
    statement = statement.order_by(col(WorkflowExecution.id)).limit(limit)
    return (await session.execute(statement)).scalars().all()


async def list_left_created(
    session: AsyncSession, *, created_before: datetime, except_for: Collection[UUID], limit: int
) -> list[tuple[WorkflowExecution, WorkflowTemplate, WorkflowTemplateVersion]]:
    """Roots left CREATED, the oldest first, locked; those that somebody else has locked are passed over."""
    statement = (
        select(WorkflowExecution, WorkflowTemplate, WorkflowTemplateVersion)
        .join(WorkflowTemplate, col(WorkflowTemplate.id) == WorkflowExecution.template_id)
        .join(WorkflowTemplateVersion, col(WorkflowTemplateVersion.id) == WorkflowExecution.version_id)
        .where(
            col(WorkflowExecution.status) == RecordStatus.CREATED,
            col(WorkflowExecution.parent_id).is_(None),
            col(WorkflowExecution.created_at) < created_before,
            col(WorkflowExecution.id).not_in(except_for),
        )
        .order_by(col(WorkflowExecution.created_at))
        .limit(limit)
        .with_for_update(skip_locked=True, of=WorkflowExecution)
    )
    return [(row[0], row[1], row[2]) for row in await session.execute(statement)]


def _rows() -> Select[*tuple[Any, ...]]:
    return (
        select(
            col(WorkflowExecution.id),
            col(WorkflowExecution.name),
            col(WorkflowExecution.template_id),
            col(WorkflowTemplate.slug),
            col(WorkflowExecution.version_id),
            col(WorkflowTemplateVersion.version),
            col(WorkflowExecution.parent_id),
            col(WorkflowExecution.root_id),
            col(WorkflowExecution.status),
            col(WorkflowExecution.status_reason),
            col(WorkflowExecution.trigger),
            col(WorkflowExecution.created_at),
            col(WorkflowExecution.started_at),
            col(WorkflowExecution.ended_at),
            col(WorkflowExecution.closed_as),
        )
        .select_from(WorkflowExecution)
        .join(WorkflowTemplate, col(WorkflowTemplate.id) == WorkflowExecution.template_id)
        .join(WorkflowTemplateVersion, col(WorkflowTemplateVersion.id) == WorkflowExecution.version_id)
    )


def _row(row: Any) -> ExecutionRow:
    found = tuple(row)
    return ExecutionRow(*(*found[:8], RecordStatus(found[8]), *found[9:]))

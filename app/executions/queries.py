"""Questions about executions: one function for each."""

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from asyncpg import Record
from sqlalchemy import ColumnElement, Select, literal, literal_column, or_, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.db.session import Connection
from app.db.statuses import EntityType
from app.db.tables import (
    ClosedAs,
    Incident,
    RecordStatus,
    WorkflowExecution,
    WorkflowTemplate,
    WorkflowTemplateVersion,
)
from app.executions.runs import RuntimeStatus
from app.versions.queries import as_uuid

# The keys of actions whose steps run as local activities, and of those that heartbeat. As text: what an array of
# varchar is, the driver asks PostgreSQL on each new connection, which takes longer than the whole accept.
LOCAL_ACTIONS = "ARRAY(SELECT key::text FROM action WHERE policies @> '{\"local\": true}' ORDER BY key)"
LONG_ACTIONS = "ARRAY(SELECT key::text FROM action WHERE policies @> '{\"long\": true}' ORDER BY key)"

# The statements that callers of a trigger wait for; $1 is the idempotency key.
TARGET = f"""
    SELECT template.id, template.slug, template.name, template.status,
        version.id, version.version, version.status,
        CASE WHEN earlier.id IS NULL THEN version.definition::text END, (version.definition->'inputSchema')::text,
        earlier.id, earlier.status, earlier.request_hash, {LOCAL_ACTIONS}, {LONG_ACTIONS}, template.when_paused,
        template.limits::text
    FROM workflow_template AS template
    LEFT JOIN workflow_execution AS earlier
        ON earlier.template_id = template.id AND earlier.idempotency_key = $1
"""
ACTIVE = "LEFT JOIN workflow_template_version AS version ON version.id = template.active_version_id"
NUMBERED = """
    LEFT JOIN workflow_template_version AS version ON version.template_id = template.id AND version.version = $3
"""
LINKED_TARGET = f"""
    {TARGET} {ACTIVE}
    JOIN workflow_template_link AS link ON link.template_id = template.id
    WHERE link.entity_type = $2 AND link.entity_id = $3
"""
EARLIER = "SELECT id, status, request_hash FROM workflow_execution WHERE template_id = $1 AND idempotency_key = $2"
LEFT_CREATED = f"""
    SELECT execution.id, execution.name, execution.context::text AS context, execution.trigger::text AS trigger,
        template.id AS template_id, template.slug, template.name AS template_name,
        version.id AS version_id, version.version, version.definition::text AS definition,
        {LOCAL_ACTIONS} AS local_actions, {LONG_ACTIONS} AS long_actions
    FROM workflow_execution AS execution
    JOIN workflow_template AS template ON template.id = execution.template_id
    JOIN workflow_template_version AS version ON version.id = execution.version_id
    WHERE execution.status = 'CREATED' AND execution.parent_id IS NULL AND execution.created_at < $1
    ORDER BY execution.created_at
    LIMIT 1
    FOR UPDATE OF execution SKIP LOCKED
"""


# What a row says of its run: not begun, open, or closed in some way.
Recorded = Literal["NOT_STARTED", "OPEN"] | ClosedAs


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
    """What a list of executions is narrowed to; `template` is an id or a slug.

    `open_only` means rows that are CREATED or STARTED, `parked_at` those with an open incident of that step.
    """

    template: str | None = None
    version_id: UUID | None = None
    entity_type: str | None = None
    entity_id: str | None = None
    status: RecordStatus | None = None
    runtime_status: RuntimeStatus | None = None
    root_id: UUID | None = None
    parent_id: UUID | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None
    ids: tuple[UUID, ...] | None = None
    root_only: bool = False
    open_only: bool = False
    parked_at: str | None = None


@dataclass(frozen=True, slots=True)
class Earlier:
    """The execution that an idempotency key was used for."""

    id: UUID
    status: RecordStatus
    request_hash: str | None


@dataclass(frozen=True, slots=True)
class Target:
    """What a start would run, and the execution that its key was used for already.

    The version's fields are None when the template has no such version; `definition` is JSON as text, None also when
    there is an earlier execution. `local_actions` and `long_actions` are keys of actions, whatever the version uses:
    its children use others.
    """

    template_id: UUID
    template: str
    template_name: str
    template_status: str
    version_id: UUID | None
    version: str | None
    version_status: str | None
    definition: str | None
    input_schema: dict[str, Any] | None
    earlier: Earlier | None
    local_actions: list[str]
    long_actions: list[str]
    when_paused: str
    limits: dict[str, Any] | None


async def find_linked_target(
    connection: Connection, entity_type: EntityType, entity_id: str, key: str
) -> Target | None:
    """What the entity's link starts: link, template, active version and earlier execution at once."""
    return _target(await connection.fetchrow(LINKED_TARGET, key, entity_type.value, entity_id))


async def find_target(connection: Connection, reference: str, version: str | None, key: str | None) -> Target | None:
    """What a template (id or slug) starts: the version of that number, or the active one without a number."""
    template_id = as_uuid(reference)
    wanted = "slug = $2" if template_id is None else "id = $2"
    named: str | UUID = reference if template_id is None else template_id
    if version is None:
        return _target(await connection.fetchrow(f"{TARGET} {ACTIVE} WHERE template.{wanted}", key, named))
    statement = f"{TARGET} {NUMBERED} WHERE template.{wanted}"
    return _target(await connection.fetchrow(statement, key, named, version))


async def find_target_of(connection: Connection, template_id: UUID, version: str | None) -> Target | None:
    """What a template starts, whatever was started before: the version of that number, or the active one."""
    if version is None:
        return _target(await connection.fetchrow(f"{TARGET} {ACTIVE} WHERE template.id = $2", None, template_id))
    statement = f"{TARGET} {NUMBERED} WHERE template.id = $2"
    return _target(await connection.fetchrow(statement, None, template_id, version))


def _target(row: Record | None) -> Target | None:
    if row is None:
        return None
    found = tuple(row)
    earlier = None if found[9] is None else Earlier(found[9], RecordStatus(found[10]), found[11])
    schema = None if found[8] is None else json.loads(found[8])
    return Target(*(*found[:8], schema, earlier, *found[12:15], None if found[15] is None else json.loads(found[15])))


async def find_earlier(connection: Connection, template_id: UUID, key: str) -> Earlier:
    """The execution that a key is known to have been used for."""
    row = await connection.fetchrow(EARLIER, template_id, key)
    assert row is not None
    return Earlier(row[0], RecordStatus(row[1]), row[2])


async def find_left_created(connection: Connection, created_before: datetime) -> Record | None:
    """The oldest root left CREATED, locked, with what it runs; one that somebody else has locked is passed over."""
    return await connection.fetchrow(LEFT_CREATED, created_before)


async def find_execution(session: AsyncSession, execution_id: UUID) -> ExecutionRow | None:
    """An execution by id."""
    statement = _rows().where(col(WorkflowExecution.id) == execution_id)
    row = (await session.execute(statement)).one_or_none()
    return None if row is None else _row(row)


async def is_detached(session: AsyncSession, execution_id: UUID) -> bool:
    """Whether an execution has a parent that does not wait for it."""
    statement = select(col(WorkflowExecution.detached)).where(col(WorkflowExecution.id) == execution_id)
    return bool((await session.execute(statement)).scalar_one_or_none())


async def list_executions(
    session: AsyncSession,
    wanted: ExecutionFilter,
    *,
    recorded: Recorded | None = None,
    before: tuple[datetime, UUID] | None,
    above: tuple[datetime, UUID] | None = None,
    limit: int,
) -> list[ExecutionRow]:
    """Executions, the newest first, from below `before` and not further down than `above` (time of creation and id).

    `recorded` narrows them to what rows say of their runs; the filter's own runtime status is Temporal's to judge.
    """
    statement = _rows().where(*_conditions(wanted))
    place = tuple_(col(WorkflowExecution.created_at), col(WorkflowExecution.id))
    if recorded is not None:
        statement = statement.where(_as_recorded(recorded))
    if before is not None:
        statement = statement.where(place < tuple_(literal(before[0]), literal(before[1])))
    if above is not None:
        statement = statement.where(place > tuple_(literal(above[0]), literal(above[1])))
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
    return conditions + _more_conditions(wanted)


def _more_conditions(wanted: ExecutionFilter) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if wanted.ids is not None:
        conditions.append(col(WorkflowExecution.id).in_(wanted.ids))
    if wanted.root_only:
        conditions.append(col(WorkflowExecution.parent_id).is_(None))
    if wanted.open_only:
        conditions.append(col(WorkflowExecution.status).in_((RecordStatus.CREATED, RecordStatus.STARTED)))
    if wanted.parked_at is not None:
        parked = select(col(Incident.execution_id)).where(
            col(Incident.step_id) == wanted.parked_at, col(Incident.resolved_at).is_(None)
        )
        conditions.append(col(WorkflowExecution.id).in_(parked))
    return conditions


def _as_recorded(recorded: Recorded) -> ColumnElement[bool]:
    status = col(WorkflowExecution.status)
    match recorded:
        case "NOT_STARTED":
            return status.in_((RecordStatus.CREATED, RecordStatus.FAILED_TO_START))
        case "OPEN":
            return status == RecordStatus.STARTED
        case closed_as:
            return col(WorkflowExecution.closed_as) == closed_as.value


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


async def list_started_before(
    session: AsyncSession, execution_ids: Collection[UUID], started_before: datetime
) -> Sequence[UUID]:
    """Those of the executions whose row says that they run and have for long."""
    statement = select(col(WorkflowExecution.id)).where(
        col(WorkflowExecution.id).in_(execution_ids),
        col(WorkflowExecution.status) == RecordStatus.STARTED,
        col(WorkflowExecution.started_at) < started_before,
    )
    return (await session.execute(statement)).scalars().all()


async def find_with_version(
    session: AsyncSession, execution_ids: Collection[UUID], version_id: UUID
) -> frozenset[UUID]:
    """Those of the executions that run, or ran at last, this version."""
    statement = select(col(WorkflowExecution.id)).where(
        col(WorkflowExecution.id).in_(execution_ids), col(WorkflowExecution.version_id) == version_id
    )
    return frozenset((await session.execute(statement)).scalars())


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

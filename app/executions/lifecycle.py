"""The life of an execution's row: CREATED, STARTED, COMPLETED, and the rows of children.

Each change is conditional, so that whoever comes second (a run, the API, the reconciler) changes nothing.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, Text, Uuid, any_, case, cast, exists, func, literal, not_, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.contracts import (
    ChildToRegister,
    CloseExecution,
    DeadLetterRecord,
    RegisterChildren,
    RegisteredChild,
    RegisteredChildren,
    RegisteredVersion,
    child_id,
    readable,
)
from app.db.tables import (
    ExecutionLineage,
    RecordStatus,
    TemplateStatus,
    VersionStatus,
    WorkflowExecution,
    WorkflowTemplate,
    WorkflowTemplateVersion,
    new_id,
)
from app.payloads.content import blob_of, definition_payload
from app.payloads.postgres import write_blobs
from app.untrusted import first_unstorable
from app.versions.queries import (
    VersionReference,
    find_templates_by_reference,
    find_versions_by_reference,
)
from engine.errors import EngineError
from engine.schema import violations

OPEN = (RecordStatus.CREATED, RecordStatus.STARTED)
MOST_VIOLATIONS = 3
LONGEST_NAME = 500

INSERT_CHILDREN = text("""
    INSERT INTO workflow_execution
        (id, name, version_id, template_id, parent_id, root_id, detached, context, status)
    SELECT id, name, :version_id, :template_id, :parent_id, :root_id, :detached, context, 'CREATED'
    FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS rows(id uuid, name text, context jsonb)
    ON CONFLICT (id) DO NOTHING
""")


# Only for a row that is closed as failed, and only once for each end: a repetition must not undo that it was retried.
KEEP_DEAD_LETTER = text("""
    INSERT INTO dead_letter AS letter
        (id, execution_id, step_id, code, message, attempts, failed_execution_id, state, created_at)
    SELECT CAST(:id AS uuid), execution.id, CAST(:step_id AS text), CAST(:code AS text), CAST(:message AS text),
        CAST(:attempts AS int), CAST(:failed_execution_id AS uuid), CAST(:state AS json),
        CAST(:ended_at AS timestamptz)
    FROM workflow_execution AS execution
    WHERE execution.id = :execution_id AND execution.closed_as = 'FAILED'
    ON CONFLICT (execution_id) DO UPDATE SET
        step_id = excluded.step_id, code = excluded.code, message = excluded.message, attempts = excluded.attempts,
        failed_execution_id = excluded.failed_execution_id, state = excluded.state, created_at = excluded.created_at,
        retried_at = NULL
    WHERE excluded.created_at > letter.created_at
""")


async def mark_started(session: AsyncSession, execution_id: UUID) -> bool:
    """CREATED → STARTED. True when the execution may run, false when its row is closed or there is none."""
    statement = (
        update(WorkflowExecution)
        .where(col(WorkflowExecution.id) == execution_id, col(WorkflowExecution.status).in_(OPEN))
        .values(
            status=RecordStatus.STARTED,
            started_at=func.coalesce(WorkflowExecution.started_at, func.now()),
        )
        .returning(col(WorkflowExecution.id))
    )
    return (await session.execute(statement)).scalar_one_or_none() is not None


async def close_execution(session: AsyncSession, close: CloseExecution, run_id: str | None = None) -> bool:
    """CREATED or STARTED → COMPLETED. False when the row was closed already, or there is none.

    `run_id` is the Temporal run that has ended: one that another run has followed since (a retry) closes nothing.
    A dead letter is kept also when somebody else closed the row first.
    """
    succeeded = exists().where(
        col(ExecutionLineage.execution_id) == close.execution_id, col(ExecutionLineage.previous_run_id) == run_id
    )
    statement = (
        update(WorkflowExecution)
        .where(
            col(WorkflowExecution.id) == close.execution_id,
            col(WorkflowExecution.status).in_(OPEN),
            not_(succeeded),
        )
        .values(
            status=RecordStatus.COMPLETED,
            status_reason=close.reason,
            started_at=func.coalesce(WorkflowExecution.started_at, WorkflowExecution.created_at),
            ended_at=datetime.fromisoformat(close.ended_at),
            closed_as=close.closed_as,
        )
        .returning(col(WorkflowExecution.id))
    )
    closed = (await session.execute(statement)).scalar_one_or_none() is not None
    if close.dead_letter is not None:
        await _keep_dead_letter(session, close, close.dead_letter)
    return closed


async def _keep_dead_letter(session: AsyncSession, close: CloseExecution, letter: DeadLetterRecord) -> None:
    """One for each execution: a run that failed again replaces what the one before left."""
    await session.execute(
        KEEP_DEAD_LETTER,
        {
            "id": new_id(),
            "execution_id": close.execution_id,
            "ended_at": datetime.fromisoformat(close.ended_at),
            "step_id": letter.step_id,
            "code": readable(letter.code),
            "message": readable(letter.message),
            "attempts": letter.attempts,
            "failed_execution_id": letter.failed_execution_id,
            "state": json.dumps(letter.state, allow_nan=False),
        },
    )


async def register_children(session: AsyncSession, request: RegisterChildren) -> RegisteredChildren:
    """Writes the rows of children, once, in a fixed number of statements.

    A child whose row exists keeps the version it was written with. One that cannot be written has a `code`:
    CHILD_NOT_FOUND, CHILD_NOT_ACTIVE, CHILD_NOT_PUBLISHED, CHILD_INPUT_INVALID.
    """
    ids = {child.key: child_id(str(request.parent_id), child.key, request.attempt) for child in request.children}
    written = await _written(session, list(ids.values()))
    missing = [child for child in request.children if ids[child.key] not in written]
    refused: dict[str, RegisteredChild] = {}
    if missing:
        refused = await _write(session, request, missing, ids)
        written = await _written(session, list(ids.values()))
    children = [
        refused[child.key] if child.key in refused else _registered(child.key, ids[child.key], written)
        for child in request.children
    ]
    used = {child.version_id for child in children if child.version_id is not None}
    return RegisteredChildren(children=children, versions=await _versions(session, used, set(request.known_versions)))


async def _written(session: AsyncSession, ids: Sequence[UUID]) -> dict[UUID, tuple[str, UUID]]:
    """Name and version of the rows that exist, by id."""
    statement = select(col(WorkflowExecution.id), col(WorkflowExecution.name), col(WorkflowExecution.version_id)).where(
        col(WorkflowExecution.id) == any_(literal(list(ids), ARRAY(Uuid)))
    )
    return {row[0]: (row[1], row[2]) for row in await session.execute(statement)}


async def _write(
    session: AsyncSession,
    request: RegisterChildren,
    missing: Sequence[ChildToRegister],
    ids: Mapping[str, UUID],
) -> dict[str, RegisteredChild]:
    """Inserts the rows that are missing; those refused, by key."""
    version = await _resolve(session, request)
    if isinstance(version, tuple):
        code, message = version
        return {child.key: _refused(child, ids[child.key], code, message) for child in missing}
    refused: dict[str, RegisteredChild] = {}
    rows: list[dict[str, Any]] = []
    for child in missing:
        fault = _input_fault(version.input_schema, child.context)
        if fault is not None:
            refused[child.key] = _refused(child, ids[child.key], "CHILD_INPUT_INVALID", fault)
            continue
        name = (child.name or version.template_name)[:LONGEST_NAME]
        rows.append({"id": str(ids[child.key]), "name": name, "context": child.context})
    if rows:
        await session.execute(
            INSERT_CHILDREN,
            {
                "version_id": version.version_id,
                "template_id": version.template_id,
                "parent_id": request.parent_id,
                "root_id": request.root_id,
                "detached": request.detached,
                "rows": json.dumps(rows, allow_nan=False),
            },
        )
    return refused


async def _resolve(session: AsyncSession, request: RegisterChildren) -> VersionReference | tuple[str, str]:
    """The version to run, or why there is none: a code and a sentence."""
    if request.version_ref is not None:
        found = (await find_versions_by_reference(session, [request.version_ref])).get(request.version_ref)
        if found is None:
            return "CHILD_NOT_FOUND", f"There is no version {request.version_ref}."
        if found.status == VersionStatus.DRAFT:
            return "CHILD_NOT_PUBLISHED", f"Version {found.template}@{found.version} is a draft."
        return found
    reference = request.template_ref or ""
    found = (await find_templates_by_reference(session, [reference])).get(reference)
    if found is None:
        return "CHILD_NOT_FOUND", f"There is no template {reference}."
    if found.version_id is None:
        return "CHILD_NOT_ACTIVE", f"Template {found.template} has no active version."
    if found.template_status != TemplateStatus.ACTIVE:
        return "CHILD_NOT_ACTIVE", f"Template {found.template} is {found.template_status}."
    return found


def _input_fault(schema: dict[str, Any] | None, context: dict[str, Any]) -> str | None:
    place = first_unstorable(context)
    if place is not None:
        return f"context.{place}: text must not contain NUL characters or lone surrogates"
    if schema is None:
        return None
    try:
        found = violations(schema, context, at="context")
    except EngineError as error:
        return str(error)
    if not found:
        return None
    named = "; ".join(f"{item.path}: {item.message}" for item in found[:MOST_VIOLATIONS])
    more = len(found) - MOST_VIOLATIONS
    return f"{named}; and {more} more" if more > 0 else named


def _refused(child: ChildToRegister, execution_id: UUID, code: str, message: str) -> RegisteredChild:
    return RegisteredChild(
        key=child.key, execution_id=execution_id, name=child.name or child.key, code=code, message=message
    )


def _registered(key: str, execution_id: UUID, written: Mapping[UUID, tuple[str, UUID]]) -> RegisteredChild:
    name, version_id = written[execution_id]
    return RegisteredChild(key=key, execution_id=execution_id, name=name, version_id=version_id)


async def _versions(session: AsyncSession, wanted: set[UUID], known: set[UUID]) -> list[RegisteredVersion]:
    """The versions; the definitions of those not known are put into payload storage by the same transaction."""
    if not wanted:
        return []
    version_id = col(WorkflowTemplateVersion.id)
    statement = (
        select(
            col(WorkflowTemplate.id),
            col(WorkflowTemplate.slug),
            col(WorkflowTemplate.name),
            version_id,
            col(WorkflowTemplateVersion.version),
            # As text, like the start of a root reads it: the same text is the same blob.
            case((version_id.in_(known), None), else_=cast(col(WorkflowTemplateVersion.definition), Text)),
        )
        .join(WorkflowTemplate, col(WorkflowTemplate.id) == WorkflowTemplateVersion.template_id)
        .where(version_id.in_(wanted))
        .order_by(version_id)
    )
    rows = (await session.execute(statement)).all()
    blobs = {row[3]: blob_of(definition_payload(row[5])) for row in rows if row[5] is not None}
    await write_blobs(session, dict(blobs.values()))
    return [
        RegisteredVersion(
            template_id=row[0],
            template=row[1],
            template_name=row[2],
            version_id=row[3],
            version=row[4],
            definition_sha256=blobs[row[3]][0] if row[3] in blobs else None,
        )
        for row in rows
    ]

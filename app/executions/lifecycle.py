"""The life of an execution's row: CREATED, STARTED, COMPLETED, and the rows of children.

Each change is conditional, so that whoever comes second (a run, the API, the reconciler) changes nothing.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, Text, Uuid, any_, case, cast, literal, select, text
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
from app.db.session import Connection
from app.db.tables import (
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

MOST_VIOLATIONS = 3
LONGEST_NAME = 500

INSERT_CHILDREN = text("""
    INSERT INTO workflow_execution
        (id, name, version_id, template_id, parent_id, root_id, detached, context, status)
    SELECT id, name, :version_id, :template_id, :parent_id, :root_id, :detached, context, 'CREATED'
    FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS rows(id uuid, name text, context jsonb)
    ON CONFLICT (id) DO NOTHING
""")


# Conditional, like every change of the status. `$5` is the run that has ended: one that another run of the execution
# has followed since (a retry) closes nothing.
CLOSE = """
    UPDATE workflow_execution
    SET status = 'COMPLETED', status_reason = $2, started_at = coalesce(started_at, created_at),
        ended_at = greatest(coalesce(started_at, created_at), $3), closed_as = $4, updated_at = now()
    WHERE id = $1 AND status IN ('CREATED', 'STARTED')
        AND NOT EXISTS (SELECT FROM execution_lineage WHERE execution_id = $1 AND previous_run_id = $5)
    RETURNING id
"""

START = """
    UPDATE workflow_execution
    SET status = 'STARTED', started_at = coalesce(started_at, now()), updated_at = now()
    WHERE id = $1 AND status IN ('CREATED', 'STARTED')
    RETURNING id
"""

# Only for a row that is closed as failed, and only once for each end: a repetition must not undo that it was retried.
KEEP_DEAD_LETTER = """
    INSERT INTO dead_letter AS letter
        (id, execution_id, step_id, code, message, attempts, failed_execution_id, state, created_at)
    SELECT $1, execution.id, $4, $5, $6, $7, $8, $9::text::json, $3
    FROM workflow_execution AS execution
    WHERE execution.id = $2 AND execution.closed_as = 'FAILED'
    ON CONFLICT (execution_id) DO UPDATE SET
        step_id = excluded.step_id, code = excluded.code, message = excluded.message, attempts = excluded.attempts,
        failed_execution_id = excluded.failed_execution_id, state = excluded.state, created_at = excluded.created_at,
        retried_at = NULL
    WHERE excluded.created_at > letter.created_at
"""


async def mark_started(connection: Connection, execution_id: UUID) -> bool:
    """CREATED → STARTED. True when the execution may run, false when its row is closed or there is none."""
    return await connection.fetchval(START, execution_id) is not None


async def close_execution(connection: Connection, close: CloseExecution, run_id: str | None = None) -> bool:
    """CREATED or STARTED → COMPLETED. False when the row was closed already, or there is none.

    `run_id` is the Temporal run that has ended. A dead letter is kept also when somebody else closed the row first.
    Who stamps the end and who stamped the beginning have clocks of their own: no row ends before it has begun.
    Every execution ends here, so the statement goes to the driver: by the ORM it took longer than a step.
    """
    if close.dead_letter is None:
        return await _close(connection, close, run_id)
    async with connection.transaction():
        closed = await _close(connection, close, run_id)
        await _keep_dead_letter(connection, close, close.dead_letter)
    return closed


async def _close(connection: Connection, close: CloseExecution, run_id: str | None) -> bool:
    ended_at = datetime.fromisoformat(close.ended_at)
    row = await connection.fetchval(CLOSE, close.execution_id, close.reason, ended_at, close.closed_as, run_id)
    return row is not None


async def _keep_dead_letter(connection: Connection, close: CloseExecution, letter: DeadLetterRecord) -> None:
    """One for each execution: a run that failed again replaces what the one before left."""
    await connection.execute(
        KEEP_DEAD_LETTER,
        new_id(),
        close.execution_id,
        datetime.fromisoformat(close.ended_at),
        letter.step_id,
        readable(letter.code),
        readable(letter.message),
        letter.attempts,
        letter.failed_execution_id,
        json.dumps(letter.state, allow_nan=False),
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

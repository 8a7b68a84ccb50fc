"""Rows of a source on their way into a backfill: kept, or only checked."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from asyncpg import Record

from app.backfills.schemas import CheckRequest, CheckView, LoadView, RowProblem, RowTaken
from app.canonical import canonical_json
from app.db.session import Connection, Database
from app.db.statuses import BackfillStatus, EntityType, EventSource
from app.errors import AppError, Conflict, Invalid, NotFound
from app.executions.queries import Target, find_linked_target, find_target
from app.executions.starting import StartRequest, check_start
from app.settings import Settings
from app.untrusted import made_storable

# A chunk that comes again changes nothing, and of two rows with the same event the one that came first counts. What is
# there already is found by the unique indexes, not by queries: until a large file is committed PostgreSQL knows nothing
# of its rows, and may read all of them for each.
LOAD = """
    WITH incoming AS (
        SELECT * FROM jsonb_to_recordset($2::text::jsonb) AS one
            (number int, event_id text, entity_id text, name text, context jsonb, raw jsonb, code text, message text)
    ), fresh AS (
        INSERT INTO backfill_row
            (backfill_id, number, event_id, entity_id, name, context, raw, status, code, message)
        SELECT $1, number, event_id, entity_id, name, context, raw,
            CASE WHEN code IS NULL THEN 'PENDING' ELSE 'INVALID' END, code, message
        FROM incoming ORDER BY number
        ON CONFLICT DO NOTHING
        RETURNING number, status
    ), twice AS (
        INSERT INTO backfill_row (backfill_id, number, entity_id, name, context, raw, status, code, message)
        SELECT $1, number, entity_id, name, context, raw, 'INVALID', 'EVENT_REPEATED',
            'The event ' || event_id || ' is in another row already.'
        FROM incoming WHERE event_id IS NOT NULL AND number NOT IN (SELECT number FROM fresh)
        ON CONFLICT (backfill_id, number) DO NOTHING
        RETURNING status
    )
    SELECT status FROM fresh UNION ALL SELECT status FROM twice
"""
LOCK = "SELECT status, template_id, entity_type FROM backfill WHERE id = $1 FOR UPDATE"
# Held until the commit by who makes a backfill and starts it at once: till then nobody can see its row, or wait for it.
MAKE = "SELECT pg_advisory_xact_lock(hashtextextended('millrace.backfill.' || $1::text, 0))"


async def load_rows(database: Database, backfill_id: UUID, rows: Sequence[RowTaken]) -> LoadView:
    """Keeps rows that are to be started; those whose number is there already are left as they are.

    Raises BACKFILL_NOT_FOUND, BACKFILL_NOT_LOADING once the backfill has been started, ROW_REPEATED when two have one
    number.
    """
    if len({row.number for row in rows}) < len(rows):
        raise Invalid("ROW_REPEATED", "Two rows have the same number.")
    async with database.driver() as connection, connection.transaction():
        found = await connection.fetchrow(LOCK, backfill_id)
        if found is None:
            raise NotFound("backfill", backfill_id)
        if found["status"] != BackfillStatus.LOADING:
            raise Conflict("BACKFILL_NOT_LOADING", f"The backfill is {found['status']}; it takes no more rows.")
        written = await insert_rows(connection, backfill_id, rows, by_link=found["template_id"] is None)
    invalid = sum(row["status"] == "INVALID" for row in written)
    return LoadView(loaded=len(written), invalid=invalid, repeated=len(rows) - len(written))


async def insert_rows(
    connection: Connection, backfill_id: UUID, rows: Sequence[RowTaken], *, by_link: bool
) -> list[Record]:
    """Keeps rows that are new, in the caller's transaction; the `status` of each. `by_link`: each needs an entity."""
    documents = canonical_json([_as_loaded(row, by_link) for row in rows])
    return await connection.fetch(LOAD, backfill_id, documents)


async def check_rows(database: Database, settings: Settings, request: CheckRequest) -> CheckView:
    """What would become of rows if they were started now; nothing is kept.

    Raises TARGET_MISSING, TEMPLATE_NOT_FOUND.
    """
    check_target(request.template, request.entity_type)
    found: dict[str | None, Target | None] = {}
    problems: list[RowProblem] = []
    repeated = 0
    async with database.driver() as connection:
        for row in request.rows:
            taken = _as_loaded(row, request.template is None)
            if taken["code"] is not None:
                problems.append(RowProblem(number=row.number, code=taken["code"], message=taken["message"] or ""))
                continue
            if row.event_id is not None or row.entity_id not in found:
                found[row.entity_id] = await _target(connection, request, row)
            target = found[row.entity_id]
            if target is not None and target.earlier is not None:
                repeated += 1
                continue
            problem = _problem(target, row, settings.api.max_context_bytes)
            if problem is not None:
                problems.append(problem)
    return CheckView(valid=len(request.rows) - repeated - len(problems), repeated=repeated, problems=problems)


def check_target(template: str | None, entity_type: EntityType | None) -> None:
    """Raises TARGET_MISSING unless it is said what is to be started."""
    if template is None and entity_type is None:
        raise Invalid("TARGET_MISSING", "Say what is to be started: a template, or the entityType whose links say it.")


def event_key(entity_type: str | None, template_id: UUID | None, event_id: str) -> tuple[EventSource, str]:
    """Under which source and key a row with an event id of its own is known to the inbox.

    A service request or a purchase is the same event that came, or will come, live. What is started by a template's
    name is the same in each backfill of that template.
    """
    if template_id is not None:
        return EventSource.BACKFILL, f"{template_id}:{event_id}"
    if entity_type == EntityType.PRODUCT:
        return EventSource.PRODUCT_PURCHASE, event_id
    return EventSource.SERVICE_REQUEST, event_id


async def _target(connection: Connection, request: CheckRequest, row: RowTaken) -> Target | None:
    if request.template is not None:
        target = await find_target(connection, request.template, None, None)
        if target is None:
            raise NotFound("template", request.template)
        if row.event_id is None:
            return target
        source, key = event_key(request.entity_type, target.template_id, row.event_id)
        return await find_target(connection, request.template, None, f"{source}:{key}")
    assert request.entity_type is not None
    assert row.entity_id is not None
    key = "" if row.event_id is None else ":".join(event_key(request.entity_type, None, row.event_id))
    return await find_linked_target(connection, request.entity_type, row.entity_id, key)


def _problem(target: Target | None, row: RowTaken, most_bytes: int) -> RowProblem | None:
    if target is None:
        return RowProblem(number=row.number, code="UNLINKED", message=f"Nothing is linked to {row.entity_id}.")
    start = StartRequest(context=row.context or {}, trigger={}, name=row.name, key=None)
    try:
        check_start(target, start, most_bytes)
    except AppError as error:
        details = "; ".join(f"{one['path']}: {one['message']}" for one in error.problems[:3])
        message = f"{error.message} {details}".strip()
        return RowProblem(number=row.number, code=error.code, message=message)
    return None


def _as_loaded(row: RowTaken, by_link: bool) -> dict[str, Any]:
    """The columns of a row; one that lacks what the backfill's target needs is INVALID."""
    columns = row.model_dump(mode="json")
    if row.code is None and row.context is None:
        columns |= {"code": "CONTEXT_MISSING", "message": "The row has no context."}
    elif row.code is None and by_link and row.entity_id is None:
        columns |= {"code": "ENTITY_MISSING", "message": "The row does not say whose link it is about."}
    storable: dict[str, Any] = made_storable(columns)
    return storable

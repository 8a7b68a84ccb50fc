"""`/change-sources`: tables whose changes are events; `/changes`: changes that somebody posts."""

from typing import Annotated, Any

from fastapi import APIRouter, Body, Path, Query

from app.changes import service
from app.changes.measuring import measure
from app.changes.posting import post_changes
from app.changes.queries import list_sources
from app.changes.schemas import (
    ChangeSourceDetail,
    ChangeSourceView,
    PostedView,
    WatchRequest,
    source_detail,
    source_view,
)
from app.db.statuses import ChangeSourceStatus
from app.dependencies import (
    Actor,
    CallerPart,
    ConnectionsPart,
    Cursor,
    DatabasePart,
    IdempotencyKey,
    Limit,
    SessionPart,
)
from app.problem_details import problem_responses
from app.wire import Page, encode_cursor, read_id_cursor

router = APIRouter(tags=["row changes"], responses=problem_responses(404, 422, 503))

PATH = "/change-sources/{source}"
Reference = Annotated[str, Path(alias="source", max_length=200, description="a source's id, or its trigger's key")]


@router.post(
    "/change-sources", status_code=201, summary="Watch a table", responses=problem_responses(409), name="watchTable"
)
async def watch(
    request: WatchRequest, database: DatabasePart, connections: ConnectionsPart, caller: CallerPart
) -> ChangeSourceView:
    """Its changes from now on are events. A repetition with the same `Idempotency-Key` is answered with what the first
    has made. Codes: IDEMPOTENCY_CONFLICT, CHANGE_SOURCE_EXISTS, CONNECTION_UNKNOWN, TABLE_UNKNOWN,
    COLUMN_UNKNOWN, FILTER_INVALID, REPLICATION_NOT_CONFIGURED, REPLICATION_NOT_PERMITTED, REPLICATION_SLOTS_FULL,
    REPLICA_IDENTITY_MISSING, BEFORE_NOT_KNOWN, OUTBOX_NOT_PERMITTED, TABLE_BUSY …
    """
    return source_view(await service.watch(database, connections, request, caller.actor, caller.key))


@router.get("/change-sources", summary="List watched tables", name="listChangeSources")
async def list_(
    session: SessionPart,
    connection: Annotated[str | None, Query(max_length=40)] = None,
    status: ChangeSourceStatus | None = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Page[ChangeSourceView]:
    """The newest first."""
    found = await list_sources(
        session, connection=connection, status=status, before=read_id_cursor(cursor), limit=limit + 1
    )
    items = [source_view(source) for source in found[:limit]]
    return Page(items=items, next_cursor=encode_cursor(str(items[-1].id)) if len(found) > limit else None)


@router.get(PATH, summary="Read a watched table", name="getChangeSource")
async def get(source: Reference, database: DatabasePart, connections: ConnectionsPart) -> ChangeSourceDetail:
    """With how far behind its reading is. Codes: CHANGE_SOURCE_NOT_FOUND."""
    async with database.transaction() as session:
        found = await service.get_source(session, source)
    return await measure(connections, found, source_detail(found))


@router.post(f"{PATH}/pause", summary="Pause a watched table", responses=problem_responses(409), name="pauseSource")
async def pause(
    source: Reference, database: DatabasePart, connections: ConnectionsPart, actor: Actor = None
) -> ChangeSourceView:
    """Its changes wait in its database, whose log grows. Codes: CHANGE_SOURCE_NOT_ACTIVE, REPLICATION_SLOTS_FULL."""
    return source_view(await service.pause(database, connections, source, actor))


@router.post(f"{PATH}/resume", summary="Resume a watched table", responses=problem_responses(409), name="resumeSource")
async def resume(
    source: Reference, database: DatabasePart, connections: ConnectionsPart, actor: Actor = None
) -> ChangeSourceView:
    """A paused one goes on where it was; a failed one gets what it has lost, and goes on from now."""
    return source_view(await service.resume(database, connections, source, actor))


@router.delete(
    PATH, status_code=204, summary="Watch a table no more", responses=problem_responses(409), name="unwatchTable"
)
async def unwatch(
    source: Reference,
    database: DatabasePart,
    connections: ConnectionsPart,
    abandon: Annotated[bool, Query(description="leave what was made in its database, which is not asked")] = False,
    actor: Actor = None,
) -> None:
    """Codes: CHANGE_SOURCE_NOT_FOUND, TRIGGER_IN_USE, CONNECTION_UNREACHABLE."""
    await service.unwatch(database, connections, source, actor, abandon=abandon)


@router.post(
    "/changes/debezium", status_code=202, summary="Post changes", responses=problem_responses(409), name="postChanges"
)
async def post_debezium(
    database: DatabasePart,
    body: Annotated[Any, Body(description="an event as Debezium writes it, or a list of them")] = None,
    table: Annotated[str | None, Query(max_length=63, description="where the events name none")] = None,
    idempotency_key: IdempotencyKey = None,
) -> PostedView:
    """All are stored, or none. Codes: CHANGE_SOURCE_NOT_FOUND, CHANGE_SOURCE_PAUSED, CHANGE_INVALID, TABLE_NOT_NAMED,
    DEDUPE_KEY_MISSING, BEFORE_NOT_KNOWN.
    """
    return await post_changes(database, body, table, idempotency_key)

"""`/executions`, and the manual start of a template."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Header, Path, Query, Response
from fastapi.responses import StreamingResponse
from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event
from pydantic import BeforeValidator

from app.db.statuses import EntityType
from app.db.tables import RecordStatus
from app.dependencies import (
    Actor,
    Cursor,
    DatabasePart,
    FollowersPart,
    IdempotencyKey,
    Limit,
    PollersPart,
    SettingsPart,
    TemporalPart,
)
from app.errors import Invalid, NotFound
from app.executions import reading, service
from app.executions.following import Subscription, is_end
from app.executions.listing import Lister, read_place, write_place
from app.executions.parameters import ExecutionId, StepId
from app.executions.queries import ExecutionFilter
from app.executions.runs import RuntimeStatus
from app.executions.schemas import (
    ExecuteRequest,
    ExecutionSummary,
    ExecutionTree,
    ExecutionView,
    StartView,
    StepDetail,
    StepsView,
)
from app.executions.step_reading import read_step
from app.executions.step_scan import Wanted
from app.inbox.by_hand import ByHand, start_by_hand
from app.inbox.queueing import queued_problem
from app.problem_details import problem_responses
from app.wire import Moment, Page

router = APIRouter(tags=["executions"], responses=problem_responses(404, 422, 503))


Reference = Annotated[str, Path(alias="template", description="a template's id or slug", max_length=100)]
Wait = Annotated[
    timedelta | None,
    BeforeValidator(lambda value: float(value) if str(value).isdecimal() else value),
    Query(ge=timedelta(0), description="ISO 8601 (`PT30S`) or seconds to wait for the end"),
]


@router.post(
    "/templates/{template}/execute",
    status_code=202,
    summary="Start a template by hand",
    responses={
        **problem_responses(409, 429),
        200: {"model": StartView, "description": "ended within `wait`, or started by an earlier request"},
    },
    response_model_exclude_unset=True,
    name="executeTemplate",
)
async def execute(
    *,
    template: Reference,
    request: ExecuteRequest,
    response: Response,
    database: DatabasePart,
    temporal: TemporalPart,
    settings: SettingsPart,
    pollers: PollersPart,
    actor: Actor = None,
    idempotency_key: IdempotencyKey = None,
    wait: Wait = None,
) -> StartView:
    """Runs the active version, or the one named.

    Codes: TEMPLATE_NOT_FOUND, TEMPLATE_NOT_ACTIVE, TEMPLATE_PAUSED, TEMPLATE_ARCHIVED, VERSION_NOT_FOUND,
    VERSION_NOT_PUBLISHED, CONTEXT_INVALID, CONTEXT_TOO_LARGE, RATE_LIMITED, CONCURRENCY_LIMITED, IDEMPOTENCY_CONFLICT,
    TEMPORAL_UNAVAILABLE.
    """
    _check_wait(wait, settings.api.longest_wait)
    wanted = ByHand(template, request.context, request.name, request.version, actor, idempotency_key)
    taken = await start_by_hand(database, temporal, settings, wanted)
    if taken is None:
        raise NotFound("template", template)
    started = taken.started
    if started is None:
        problem = None if taken.queued is None else queued_problem(taken.queued)
        return StartView(status="QUEUED", event_record_id=taken.event_id, problem=problem)
    if wait is not None and wait > timedelta(0):
        ended = await service.wait_for_end(database, temporal, started, wait.total_seconds())
        if ended is not None:
            response.status_code = 200
            return ended
    if started.repeated:
        response.status_code = 200
    view = StartView(execution_id=started.execution_id, status=started.status)
    if started.reason is not None:
        view.status_reason = started.reason
    problem = service.start_problem(started, pollers.known())
    if problem is not None:
        view.problem = problem
    return view


def _check_wait(wait: timedelta | None, longest: float) -> None:
    """Before anything is started: whoever waits for longer than is waited would take 202 for an answer."""
    if wait is not None and wait.total_seconds() > longest:
        message = f"at most {longest:g} seconds can be waited for"
        raise Invalid("REQUEST_INVALID", "The request is not valid.", [{"path": "query.wait", "message": message}])


@router.get("/executions", summary="List executions", response_model_exclude_unset=True, name="listExecutions")
async def list_(
    *,
    database: DatabasePart,
    temporal: TemporalPart,
    template: Annotated[str | None, Query(max_length=100, description="a template's id or slug")] = None,
    template_id: Annotated[UUID | None, Query(alias="templateId")] = None,
    version_id: Annotated[UUID | None, Query(alias="versionId")] = None,
    entity_type: Annotated[EntityType | None, Query(alias="entityType")] = None,
    entity_id: Annotated[str | None, Query(alias="entityId", max_length=200)] = None,
    status: Annotated[RecordStatus | None, Query(description="the record's status")] = None,
    runtime_status: Annotated[RuntimeStatus | None, Query(alias="runtimeStatus")] = None,
    root_id: Annotated[UUID | None, Query(alias="rootId")] = None,
    parent_id: Annotated[UUID | None, Query(alias="parentId")] = None,
    roots_only: Annotated[bool, Query(alias="rootsOnly", description="no children")] = False,
    created_after: Annotated[Moment | None, Query(alias="createdAfter")] = None,
    created_before: Annotated[Moment | None, Query(alias="createdBefore")] = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Page[ExecutionSummary]:
    """The newest first. A page has `limit` items where there are that many; a null `nextCursor` says it is the last.

    Only when 10,000 open executions of another runtime status lie between those asked for is a page shorter.
    """
    wanted = ExecutionFilter(
        template=template if template_id is None else str(template_id),
        version_id=version_id,
        entity_type=entity_type,
        entity_id=entity_id,
        status=status,
        runtime_status=runtime_status,
        root_id=root_id,
        parent_id=parent_id,
        root_only=roots_only,
        created_after=created_after,
        created_before=created_before,
    )
    listed = await Lister(database, temporal, wanted).page(read_place(cursor), limit)
    return Page(items=listed.items, next_cursor=write_place(listed.following))


@router.get(
    "/executions/{execution}",
    summary="Read an execution",
    response_model_exclude_unset=True,
    name="getExecution",
)
async def get(execution: ExecutionId, database: DatabasePart, temporal: TemporalPart) -> ExecutionView:
    """With its runtime status, what it waits for, and its output or error once it has ended."""
    return await reading.read_execution(database, temporal, execution)


@router.get("/executions/{execution}/tree", summary="Read a hierarchy", name="getExecutionTree")
async def tree(execution: ExecutionId, database: DatabasePart, temporal: TemporalPart) -> ExecutionTree:
    """The execution and its descendants."""
    return await reading.read_tree(database, temporal, execution)


@router.get("/executions/{execution}/steps", summary="Read an execution's steps", name="getExecutionSteps")
async def steps(execution: ExecutionId, database: DatabasePart, temporal: TemporalPart) -> StepsView:
    """In plan order. Codes: WORKER_UNAVAILABLE, RUN_NOT_FOUND."""
    return await reading.read_steps(database, temporal, execution)


class EventStream(StreamingResponse):
    """A stream of events written here: the framework's own class cannot answer 204 to who has seen the end."""

    media_type = "text/event-stream"


async def _listen(
    execution: ExecutionId,
    followers: FollowersPart,
    last_event_id: Annotated[str | None, Header(alias="Last-Event-ID", max_length=200)] = None,
) -> AsyncIterator[Subscription | None]:
    """A subscription that ends with the response, however that ends; None for those who have seen the end."""
    if is_end(last_event_id):
        yield None
        return
    async with followers.listen(execution) as subscription:
        yield subscription


@router.get(
    "/executions/{execution}/events",
    summary="Follow an execution",
    response_class=EventStream,
    responses={
        200: {"description": "`snapshot`, then `step`, `waiting` and `status` as they come, then `end`"},
        204: {"description": "the client has seen `end`, by its Last-Event-ID, and need not come back"},
    },
    name="followExecution",
)
async def events(subscription: Annotated[Subscription | None, Depends(_listen)], settings: SettingsPart) -> Response:
    """Server-sent events whose data are JSON: `snapshot` {execution, steps} first; then `step` (a step that changed),
    `waiting` {waitingFor, paused}, `status` {status, runtimeStatus, problem}; at last `end` {runtimeStatus, output or
    error}.

    A comment comes every 15 s while nothing happens. Whoever reconnects gets a fresh snapshot.
    Codes: EXECUTION_NOT_FOUND.
    """
    if subscription is None:
        return Response(status_code=204)
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return EventStream(_told(subscription, settings.api.heartbeat), headers=headers)


async def _told(subscription: Subscription, heartbeat: float) -> AsyncIterator[bytes]:
    while True:
        try:
            async with asyncio.timeout(heartbeat):
                change = await subscription.next()
        except TimeoutError:
            yield KEEPALIVE_COMMENT
            continue
        if change is None:
            return
        yield format_sse_event(data_str=change.data, event=change.event, id=change.id)


@router.get(
    "/executions/{execution}/steps/{step}",
    summary="Read a step",
    response_model_exclude_unset=True,
    name="getExecutionStep",
)
async def step(
    *,
    execution: ExecutionId,
    step: StepId,
    database: DatabasePart,
    temporal: TemporalPart,
    visit: Annotated[int | None, Query(ge=1, description="only this visit")] = None,
    item: Annotated[int | None, Query(ge=0, description="only this item, counted from 0")] = None,
    chunk: Annotated[str | None, Query(max_length=200, description="the key of a CHUNK: the calls of its run")] = None,
    cursor: Cursor = None,
    limit: Limit = 20,
) -> StepDetail:
    """Its visits with inputs, outputs, errors and attempts, the newest first, from history; `limit` counts calls.

    Codes: EXECUTION_NOT_FOUND, STEP_NOT_FOUND, CHUNK_NOT_FOUND, RUN_NOT_FOUND, CURSOR_INVALID, TEMPORAL_UNAVAILABLE.
    """
    wanted = Wanted(step, visit, item, chunk)
    return await read_step(database, temporal, execution, wanted, cursor=cursor, limit=limit)

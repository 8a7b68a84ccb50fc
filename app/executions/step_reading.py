"""One step of an execution: its inputs, outputs and errors, read from Temporal's history, the newest first.

A history may be long, and what is asked for is mostly near its end. So it is read backwards, page by page, run by run
along the continue-as-new chain, until there is enough. A page of calls costs at most one run read from its end, and
`MOST_EVENTS` beyond the place where the page before ended.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from temporalio.api.common.v1 import Payload, WorkflowExecution
from temporalio.api.failure.v1 import Failure
from temporalio.api.history.v1 import HistoryEvent
from temporalio.api.workflow.v1 import PendingActivityInfo
from temporalio.api.workflowservice.v1 import (
    DescribeWorkflowExecutionRequest,
    DescribeWorkflowExecutionResponse,
    GetWorkflowExecutionHistoryReverseRequest,
)
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from app.contracts import readable, reported_output, workflow_id
from app.db.session import Database
from app.errors import AppError, NotFound, Unavailable
from app.executions.history import Call, CallKey, CallKind, CallStatus, StepHistory, at, completes_a_step
from app.executions.reading import get_row
from app.executions.runs import view_run, worker_unavailable
from app.executions.schemas import ErrorView, ReadingProblem, StepCall, StepDetail, StepVisit
from app.run_contracts import RunView, StepView
from app.temporal import Temporal, translated
from app.versions.queries import find_version
from app.wire import bad_cursor, decode_cursor, encode_cursor

# Events that one page may cost, beyond those that the page before has seen.
MOST_EVENTS = 20_000
# Bytes of inputs and outputs after which a page ends.
MOST_BYTES = 8 * 1024 * 1024
# Events the server is asked for at once; it gives 256 unless it is configured otherwise.
_PAGE = 1_000
# Seconds that what history says waits for what the run says of itself.
_PATIENCE = 0.5


@dataclass(frozen=True, slots=True)
class Place:
    """Where a page ended: everything older than this event of this run is still to be read."""

    run_id: str
    event_id: int

    def cursor(self) -> str:
        """The place as a cursor."""
        return encode_cursor(self.run_id, str(self.event_id))

    @classmethod
    def read(cls, cursor: str | None) -> "Place | None":
        """The place that a cursor names. Raises CURSOR_INVALID."""
        if cursor is None:
            return None
        run_id, event_id = decode_cursor(cursor, 2)
        try:
            return cls(str(UUID(run_id)), int(event_id))
        except ValueError as error:
            raise bad_cursor() from error


@dataclass(frozen=True, slots=True)
class Wanted:
    """The calls that are asked for: of a step, of one visit and item if they are named, at what cost in events."""

    step_id: str
    visit: int | None = None
    item: int | None = None
    most_events: int = MOST_EVENTS

    def takes(self, key: CallKey) -> bool:
        """Whether a call is among them."""
        return self.visit in (None, key.visit) and self.item in (None, key.item)

    def begins_with(self, key: CallKey) -> bool:
        """Whether a call is the first of the visit that was named, so that older ones are hardly of interest."""
        item = 0 if self.item is None else self.item
        first = key.item in (None, item) and key.round in (None, 0) and key.role is None
        return self.visit is not None and self.takes(key) and first


@dataclass(slots=True)
class _Found:
    calls: list[Call]
    place: Place | None = None
    truncated: bool = False
    seen: int = 0
    size: int = 0


async def read_step(
    database: Database,
    temporal: Temporal,
    execution_id: UUID,
    wanted: Wanted,
    *,
    cursor: str | None,
    limit: int,
) -> StepDetail:
    """A step with its visits; at most `limit` calls, and `nextCursor` where there may be older ones.

    Raises EXECUTION_NOT_FOUND, STEP_NOT_FOUND, RUN_NOT_FOUND, CURSOR_INVALID, TEMPORAL_UNAVAILABLE.
    """
    after = Place.read(cursor)
    row = await get_row(database, execution_id)
    async with database.transaction() as session:
        version = await find_version(session, row.version_id)
    steps = [] if version is None else version.definition["steps"]
    step = next((step for step in steps if step["id"] == wanted.step_id), None)
    if step is None:
        raise NotFound("step", f"{wanted.step_id} in version {row.version} of {row.template}")
    if row.started_at is None:
        view = StepView(id=step["id"], name=step["name"], type=step["type"], status="NOT_STARTED", visits=0)
        return _detail(execution_id, step, RunView(steps=[view], waiting_for=[]), wanted, [], _Found([]))
    asking = asyncio.create_task(_view(temporal, execution_id))
    try:
        found, shown = await _calls(temporal, execution_id, wanted, after, limit)
        view_of_run, problem = await _patiently(asking)
    finally:
        asking.cancel()
    detail = _detail(execution_id, step, view_of_run, wanted, shown, found)
    if problem is not None:
        detail.problem = problem
    return detail


async def _view(temporal: Temporal, execution_id: UUID) -> tuple[RunView | None, ReadingProblem | None]:
    """What the run says of itself; history can be read without a worker, so that none answers is no failure."""
    try:
        return await view_run(temporal, execution_id), None
    except Unavailable as error:
        return None, ReadingProblem(code=error.code, message=error.message)


async def _patiently(
    asking: "asyncio.Task[tuple[RunView | None, ReadingProblem | None]]",
) -> tuple[RunView | None, ReadingProblem | None]:
    """What the run says if it says it soon: a worker that no longer holds it has to replay it first."""
    try:
        async with asyncio.timeout(_PATIENCE):
            return await asking
    except TimeoutError:
        error = worker_unavailable()
        return None, ReadingProblem(code=error.code, message="No worker answered soon enough.")


async def _calls(
    temporal: Temporal, execution_id: UUID, wanted: Wanted, after: Place | None, limit: int
) -> tuple[_Found, list[tuple[CallKey, StepCall]]]:
    client = await temporal.client()
    described = await _describe(temporal, client, execution_id)
    found = await _scan(temporal, client, described, wanted, after, limit)
    pending = {one.activity_id: one for one in described.pending_activities}
    shown = [(call.key, await _shown(client, call, pending)) for call in found.calls]
    return found, shown


async def _describe(temporal: Temporal, client: Client, execution_id: UUID) -> DescribeWorkflowExecutionResponse:
    request = DescribeWorkflowExecutionRequest(
        namespace=client.namespace, execution=WorkflowExecution(workflow_id=workflow_id(execution_id))
    )
    try:
        with translated():
            return await client.workflow_service.describe_workflow_execution(request, timeout=temporal.timeout)
    except RPCError as error:
        if error.status != RPCStatusCode.NOT_FOUND:
            raise
        raise NotFound("run", f"of execution {execution_id} in Temporal any more") from error


async def _scan(
    temporal: Temporal,
    client: Client,
    described: DescribeWorkflowExecutionResponse,
    wanted: Wanted,
    after: Place | None,
    limit: int,
) -> _Found:
    """Reads run after run, backwards, until there are enough calls or there is no older run."""
    workflow = described.workflow_execution_info.execution.workflow_id
    run_id = after.run_id if after is not None else described.workflow_execution_info.execution.run_id
    found = _Found([])
    while run_id:
        below = after.event_id if after is not None and after.run_id == run_id else None
        execution = WorkflowExecution(workflow_id=workflow, run_id=run_id)
        try:
            older = await _scan_run(temporal, client, execution, wanted, below, limit, found)
        except RPCError as error:
            if below is not None:
                raise bad_cursor() from error
            if error.status != RPCStatusCode.NOT_FOUND:
                raise
            # Temporal keeps each run for its own time: the older part of the chain has gone before the newer.
            found.truncated = True
            return found
        if older is None:
            return found
        run_id = older
    return found


async def _scan_run(
    temporal: Temporal,
    client: Client,
    execution: WorkflowExecution,
    wanted: Wanted,
    below: int | None,
    limit: int,
    found: _Found,
) -> str | None:
    """Reads one run into `found`; gives the run before it ("" when there is none), None when the page is full."""
    reader = StepHistory(wanted.step_id)
    older = ""
    async for event in _backwards(temporal, client, execution):
        call = reader.take(event, await _completion(client, event))
        if event.HasField("workflow_execution_started_event_attributes"):
            older = event.workflow_execution_started_event_attributes.continued_execution_run_id
        if below is not None and event.event_id >= below:
            continue
        found.seen += 1
        if call is not None:
            await _name_visit(client, call)
            if wanted.takes(call.key):
                found.calls.append(call)
                found.size += call.size
        enough = len(found.calls) == limit or (call is not None and wanted.begins_with(call.key))
        if enough or found.size > MOST_BYTES or found.seen == wanted.most_events:
            found.place = Place(execution.run_id, event.event_id)
            found.truncated = not enough
            return None
    return older


async def _backwards(temporal: Temporal, client: Client, execution: WorkflowExecution) -> AsyncIterator[HistoryEvent]:
    request = GetWorkflowExecutionHistoryReverseRequest(
        namespace=client.namespace, execution=execution, maximum_page_size=_PAGE
    )
    while True:
        with translated():
            answer = await client.workflow_service.get_workflow_execution_history_reverse(
                request, timeout=temporal.timeout
            )
        for event in answer.history.events:
            yield event
        if not answer.next_page_token:
            return
        request.next_page_token = answer.next_page_token


async def _completion(client: Client, event: HistoryEvent) -> Any:
    given = completes_a_step(event)
    return None if given is None or not given.payloads else await _decoded(client, given.payloads[0])


async def _name_visit(client: Client, call: Call) -> None:
    """A person who did not say which visit meant the one that was open; the run's answer names it."""
    if call.kind is not CallKind.PERSON or call.key.visit:
        return
    answer = await _decoded(client, call.output) if call.output is not None else None
    if isinstance(answer, dict) and isinstance(answer.get("visit"), int):
        call.key = replace(call.key, visit=answer["visit"], item=answer.get("item", call.key.item))


async def _shown(client: Client, call: Call, pending: dict[str, PendingActivityInfo]) -> StepCall:
    known: dict[str, Any] = {
        "key": str(call.key),
        "kind": call.kind,
        "name": call.name,
        "status": call.status,
        "item": call.key.item,
        "round": call.key.round,
        "role": call.key.role,
        "attempts": call.attempts,
        "execution_id": call.execution_id,
        "last_failure": _error(call.last_failure),
        "scheduled_at": call.scheduled_at,
        "started_at": call.started_at,
        "closed_at": call.closed_at,
        "due_at": call.due_at,
        "error": _error(call.failure),
    }
    under_way = pending.get(str(call.key)) if call.status is CallStatus.OPEN else None
    if under_way is not None and call.kind in (CallKind.ACTION, CallKind.DATA, CallKind.COMPENSATION):
        known |= _under_way(under_way)
    shown = {name: value for name, value in known.items() if value is not None}
    if call.local:
        shown["local"] = True
    return StepCall(**shown, **await _values(client, call))


def _under_way(activity: PendingActivityInfo) -> dict[str, Any]:
    known: dict[str, Any] = {"attempts": activity.attempt}
    if activity.HasField("last_started_time"):
        known["started_at"] = at(activity.last_started_time)
    if activity.HasField("last_failure"):
        known["last_failure"] = _error(activity.last_failure)
    return known


async def _values(client: Client, call: Call) -> dict[str, Any]:
    """Input and output as users know them, out of what history holds."""
    values: dict[str, Any] = {}
    if call.input is not None:
        values["input"] = await _decoded(client, call.input)
    if call.output is not None:
        values["output"] = reported_output(await _decoded(client, call.output))
    elif call.status is CallStatus.COMPLETED and call.kind is not CallKind.TIMER:
        values["output"] = None
    match call.kind:
        case CallKind.CHILD if isinstance(values.get("input"), dict):
            values["input"] = values["input"].get("context")
        case CallKind.PERSON:
            values["input"] = _without(values.get("input"), "stepId", "visit", "item")
            if isinstance(values.get("output"), dict):
                values["output"] = values["output"].get("output")
        case _ if call.local and isinstance(values.get("output"), dict):
            values = dict(values["output"])
    return {name: values[name] for name in ("input", "output") if name in values}


def _without(value: Any, *names: str) -> Any:
    if not isinstance(value, dict):
        return value
    return {name: member for name, member in value.items() if name not in names and member is not None}


async def _decoded(client: Client, payload: Payload) -> Any:
    """The value of a payload. Raises PAYLOAD_UNREADABLE for one that this process has no means to read."""
    try:
        [value] = await client.data_converter.decode([payload])
    except (RuntimeError, ValueError, KeyError) as error:
        raise AppError("PAYLOAD_UNREADABLE", 502, f"A value in history cannot be read: {error}") from error
    return value


def _error(failure: Failure | None) -> ErrorView | None:
    if failure is None:
        return None
    # A child's or an activity's failure may come wrapped: the cause is what happened.
    while failure.WhichOneof("failure_info") in _WRAPPERS and failure.HasField("cause"):
        failure = failure.cause
    kind = failure.WhichOneof("failure_info")
    code = failure.application_failure_info.type if kind == "application_failure_info" else _CODES.get(kind or "", "")
    return ErrorView(code=code or "FAILED", message=readable(failure.message))


_WRAPPERS = ("activity_failure_info", "child_workflow_execution_failure_info")
_CODES = {
    "timeout_failure_info": "STEP_TIMED_OUT",
    "canceled_failure_info": "CANCELLED",
    "terminated_failure_info": "TERMINATED",
}


def _detail(
    execution_id: UUID,
    step: dict[str, Any],
    run: RunView | None,
    wanted: Wanted,
    shown: Sequence[tuple[CallKey, StepCall]],
    found: _Found,
) -> StepDetail:
    view = next((one for one in run.steps if one.id == wanted.step_id), None) if run is not None else None
    error = None if view is None or view.error is None else view.error
    return StepDetail(
        execution_id=execution_id,
        step_id=wanted.step_id,
        name=step["name"],
        type=step["type"],
        status=None if view is None else view.status,
        visit_count=None if view is None else view.visits,
        started_at=None if view is None else view.started_at,
        ended_at=None if view is None else view.ended_at,
        error=None if error is None else ErrorView(code=error.code, message=error.message),
        visits=_visits(wanted, run, shown),
        next_cursor=None if found.place is None else found.place.cursor(),
        truncated=found.truncated,
    )


def _visits(wanted: Wanted, run: RunView | None, shown: Sequence[tuple[CallKey, StepCall]]) -> list[StepVisit]:
    visits: dict[int, StepVisit] = {}
    for wait in run.waiting_for if run is not None else []:
        if wait.step_id == wanted.step_id and wanted.visit in (None, wait.visit):
            visits.setdefault(wait.visit, StepVisit(visit=wait.visit, waiting_for=[], calls=[]))
            visits[wait.visit].waiting_for.append(wait)
    for key, call in shown:
        visits.setdefault(key.visit, StepVisit(visit=key.visit, waiting_for=[], calls=[])).calls.append(call)
    return [visits[number] for number in sorted(visits, reverse=True)]

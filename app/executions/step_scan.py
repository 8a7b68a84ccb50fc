"""Reads the history of a step: backwards, page by page, run by run, until there is enough.

A history may be long, and what is asked for is mostly near its end. A page of calls costs at most one run read from its
end, and `MOST_EVENTS` beyond the place where the page before ended.

The runs of an execution follow one another by Temporal's own chain, when history had grown long, or by the execution's
lineage, when it was taken up again after its end.
"""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from uuid import UUID

from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.history.v1 import HistoryEvent, WorkflowExecutionStartedEventAttributes
from temporalio.api.workflowservice.v1 import (
    DescribeWorkflowExecutionRequest,
    DescribeWorkflowExecutionResponse,
    GetWorkflowExecutionHistoryRequest,
    GetWorkflowExecutionHistoryReverseRequest,
)
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from app.db.statuses import LineageKind
from app.db.tables import ExecutionLineage
from app.errors import NotFound
from app.executions.history import Call, CallKind, CallStatus, StepHistory, at
from app.executions.schemas import StepRun
from app.executions.step_calls import chunk_of, placed, request_of
from app.temporal import Temporal, translated
from app.wire import bad_cursor, decode_cursor, encode_cursor
from engine.keys import Key

# Events that one page may cost, beyond those that the page before has seen.
MOST_EVENTS = 20_000
# Bytes of inputs and outputs after which a page ends.
MOST_BYTES = 8 * 1024 * 1024
# Events the server is asked for at once; it gives 256 unless it is configured otherwise.
_PAGE = 1_000


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
    """The calls that are asked for: of a step, of one visit and item if they are named, at what cost in events.

    With the key of a `chunk` it is the run of that chunk of items that is read.
    """

    step_id: str
    visit: int | None = None
    item: int | None = None
    chunk: str | None = None
    most_events: int = MOST_EVENTS

    def takes(self, key: Key) -> bool:
        """Whether a call is among them; a signal that no visit is known of may be."""
        first = chunk_of(key)
        if first is not None:
            return self.visit in (None, key.visit) and (self.item is None or self.item >= first)
        return self.visit in (None, key.visit or self.visit) and self.item in (None, key.item)

    def begins_with(self, key: Key) -> bool:
        """Whether a call is the first of the visit that was named, so that older ones are hardly of interest."""
        item = 0 if self.item is None else self.item
        first = key.item in (None, item) and key.round in (None, 0) and key.role is None
        return self.visit is not None and key.visit == self.visit and self.takes(key) and first


@dataclass(frozen=True, slots=True)
class Reader:
    """Where the histories of one execution are, or of the run of one of its chunks, and what tells its runs apart.

    `signal_names` are those by which a signal is known to be meant for the step; None where the step takes no signals.
    """

    temporal: Temporal
    client: Client
    workflow_id: str
    lineage: Mapping[str, ExecutionLineage]
    signal_names: frozenset[str] | None


@dataclass(slots=True)
class Found:
    """What has been read so far: the calls, the first events of the runs where they were come to, and the cost."""

    calls: list[Call] = field(default_factory=list)
    runs: dict[str, HistoryEvent | None] = field(default_factory=dict)
    place: Place | None = None
    truncated: bool = False
    seen: int = 0
    size: int = 0


async def describe(reader: Reader, wanted: Wanted) -> DescribeWorkflowExecutionResponse:
    """The latest run. Raises RUN_NOT_FOUND, CHUNK_NOT_FOUND."""
    request = DescribeWorkflowExecutionRequest(
        namespace=reader.client.namespace, execution=WorkflowExecution(workflow_id=reader.workflow_id)
    )
    try:
        with translated():
            service = reader.client.workflow_service
            return await service.describe_workflow_execution(request, timeout=reader.temporal.timeout)
    except RPCError as error:
        if error.status != RPCStatusCode.NOT_FOUND:
            raise
        if wanted.chunk is not None:
            raise NotFound("chunk", f"{wanted.chunk} in Temporal") from error
        raise NotFound("run", f"of execution {reader.workflow_id.partition('/')[2]} in Temporal any more") from error


async def scan(reader: Reader, newest: str, wanted: Wanted, after: Place | None, limit: int) -> Found:
    """Reads run after run, backwards, until there are enough calls or there is no older run."""
    run_id = after.run_id if after is not None else newest
    found = Found()
    while run_id:
        below = after.event_id if after is not None and after.run_id == run_id else None
        found.runs[run_id] = None
        try:
            older = await _scan_run(reader, run_id, wanted, below, limit, found)
        except RPCError as error:
            if below is not None:
                raise bad_cursor() from error
            if error.status != RPCStatusCode.NOT_FOUND:
                raise
            # Temporal keeps each run for its own time: the older part of the chain has gone before the newer.
            del found.runs[run_id]
            found.truncated = True
            return found
        if older is None:
            return found
        run_id = older
    return found


async def _scan_run(
    reader: Reader, run_id: str, wanted: Wanted, below: int | None, limit: int, found: Found
) -> str | None:
    """Reads one run into `found`; gives the run before it ("" when there is none), None when the page is full."""
    history = StepHistory(wanted.step_id)
    skips: list[Call] = []
    older = ""
    async for event in _backwards(reader, run_id):
        takes_signals = reader.signal_names is not None
        call = history.take(event, await request_of(reader.client, event, signals=takes_signals))
        if event.HasField("workflow_execution_started_event_attributes"):
            found.runs[run_id] = event
            older = _run_before(reader, run_id, event.workflow_execution_started_event_attributes)
        mine = call is not None and await placed(
            reader.client, call, wanted.step_id, reader.signal_names or frozenset()
        )
        if call is not None and mine:
            _note_skipped(call, skips)
        if below is not None and event.event_id >= below:
            continue
        found.seen += 1
        if call is not None and mine and wanted.takes(call.key):
            call.run_id = run_id
            found.calls.append(call)
            found.size += call.size
        enough = len(found.calls) == limit or (call is not None and mine and wanted.begins_with(call.key))
        if enough or found.size > MOST_BYTES or found.seen == wanted.most_events:
            found.place = Place(run_id, event.event_id)
            found.truncated = not enough
            return None
    return older


def _note_skipped(call: Call, skips: list[Call]) -> None:
    """A timer that was cancelled because somebody skipped it says so; `skips` are those requests, the newest first."""
    if call.kind is CallKind.CONTROL and call.name == "SKIP_TIMER" and call.status is CallStatus.COMPLETED:
        skips.append(call)
    if call.kind is not CallKind.TIMER or call.status is not CallStatus.CANCELLED or call.closed_at is None:
        return
    for skip in skips:
        same = (skip.key.visit, skip.key.item) == (call.key.visit, call.key.item)
        # The run takes the timer back in the workflow task that takes note of the request.
        if same and skip.started_at is not None and call.closed_at >= skip.started_at:
            call.status, call.who = CallStatus.SKIPPED, skip.who
            skips.remove(skip)
            return


def _run_before(reader: Reader, run_id: str, started: WorkflowExecutionStartedEventAttributes) -> str:
    """The run that another went on from: by Temporal's own chain, or by the execution's lineage after a retry."""
    turn = reader.lineage.get(run_id)
    return started.continued_execution_run_id or (turn.previous_run_id if turn is not None else None) or ""


async def run_shown(reader: Reader, run_id: str, first: HistoryEvent | None) -> StepRun:
    """Why a run began; its first event is asked for where the page has not come so far."""
    event = first or await _first_event(reader, run_id)
    if event is None:
        return StepRun(run_id=run_id, began=None, started_at=None, previous_run_id=None)
    started = event.workflow_execution_started_event_attributes
    view = StepRun(
        run_id=run_id,
        began="CONTINUED" if started.continued_execution_run_id else "STARTED",
        started_at=at(event.event_time),
        previous_run_id=_run_before(reader, run_id, started) or None,
    )
    turn = reader.lineage.get(run_id)
    if turn is not None and not started.continued_execution_run_id:
        view.began = "RETRY" if turn.kind == LineageKind.RETRY else "RESUME"
        view.actor, view.note, view.step_id = turn.actor, turn.note, turn.step_id
    return view


async def _first_event(reader: Reader, run_id: str) -> HistoryEvent | None:
    execution = WorkflowExecution(workflow_id=reader.workflow_id, run_id=run_id)
    request = GetWorkflowExecutionHistoryRequest(
        namespace=reader.client.namespace, execution=execution, maximum_page_size=1
    )
    with translated():
        service = reader.client.workflow_service
        answer = await service.get_workflow_execution_history(request, timeout=reader.temporal.timeout)
    return next(iter(answer.history.events), None)


async def _backwards(reader: Reader, run_id: str) -> AsyncIterator[HistoryEvent]:
    request = GetWorkflowExecutionHistoryReverseRequest(
        namespace=reader.client.namespace,
        execution=WorkflowExecution(workflow_id=reader.workflow_id, run_id=run_id),
        maximum_page_size=_PAGE,
    )
    while True:
        with translated():
            answer = await reader.client.workflow_service.get_workflow_execution_history_reverse(
                request, timeout=reader.temporal.timeout
            )
        for event in answer.history.events:
            yield event
        if not answer.next_page_token:
            return
        request.next_page_token = answer.next_page_token

"""Executions on the wire."""

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from app.db.tables import RecordStatus
from app.executions.history import CallKind, CallStatus
from app.executions.runs import RuntimeStatus
from app.run_contracts import ItemCounts, PauseView, StepView, WaitingFor
from app.versions.schemas import SemanticVersion
from app.wire import Given, JsonObject, Name, Taken

ExecutionName = Name


class ExecuteRequest(Taken):
    """A manual start. Without a `version` the active one is run."""

    context: JsonObject = {}
    name: ExecutionName | None = None
    version: SemanticVersion | None = None


class ErrorView(Given):
    """Why an execution failed."""

    code: str
    message: str
    step_id: str | None = None


class ReadingProblem(Given):
    """Why a part of the answer is missing or may be old; `attempt` and `cause` where a task keeps failing."""

    code: str
    message: str
    attempt: int | None = None


class StartView(Given):
    """An accepted start.

    A QUEUED one has no `executionId` yet: `problem` says what it waits for, and the event `eventRecordId` in the inbox
    will say what became of it. `runtimeStatus` and what follows it are there when `wait` was asked for and the run
    ended in time; `problem` is WORKER_UNAVAILABLE when no worker polled a moment ago, so that the run has to wait for
    one.
    """

    execution_id: UUID | None = None
    status: RecordStatus | Literal["QUEUED"]
    event_record_id: UUID | None = None
    status_reason: str | None = None
    runtime_status: RuntimeStatus | None = None
    output: Any = None
    error: ErrorView | None = None
    problem: ReadingProblem | None = None


class TriggerSummary(Given):
    """What started an execution: `summary` in one line, `eventRecordId` in the inbox, if it came that way."""

    source: str
    summary: str | None = None
    event_record_id: UUID | None = None


class ExecutionSummary(Given):
    """An execution in a list; `status` is the record's, `runtimeStatus` Temporal's. Children have no `trigger`."""

    id: UUID
    name: str
    template_id: UUID
    template: str
    version_id: UUID
    version: str
    parent_id: UUID | None
    root_id: UUID
    status: RecordStatus
    status_reason: str | None = None
    runtime_status: RuntimeStatus | None
    entity_type: str | None = None
    entity_id: str | None = None
    trigger: TriggerSummary | None = None
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    temporal_ui: str | None


class ExecutionView(ExecutionSummary):
    """One execution. `waitingFor` is null when nobody could be asked; `problem` then says why. `paused` is there while
    it is paused.
    """

    output: Any = None
    error: ErrorView | None = None
    waiting_for: list[WaitingFor] | None
    paused: PauseView | None = None
    problem: ReadingProblem | None = None


class ExecutionNode(Given):
    """An execution in its hierarchy."""

    id: UUID
    name: str
    template: str
    version: str
    parent_id: UUID | None
    status: RecordStatus
    runtime_status: RuntimeStatus | None
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    temporal_ui: str | None
    children: list["ExecutionNode"]


class ExecutionTree(Given):
    """The hierarchy under an execution; `truncated` when there are more than are shown."""

    root_id: UUID
    count: int
    truncated: bool
    tree: ExecutionNode


class StepsView(Given):
    """What an execution's steps are doing."""

    execution_id: UUID
    steps: list[StepView]
    waiting_for: list[WaitingFor]


class SnapshotView(Given):
    """The event `snapshot`: an execution as it is, with its steps; null when nobody could say."""

    execution: ExecutionView
    steps: list[StepView] | None


class WaitingView(Given):
    """The event `waiting`: what an execution waits for now; null when nobody could say."""

    waiting_for: list[WaitingFor] | None
    paused: PauseView | None


class StatusView(Given):
    """The event `status`: the execution's status has changed, or what is the matter with reading it."""

    status: RecordStatus
    runtime_status: RuntimeStatus | None
    problem: ReadingProblem | None


class EndView(Given):
    """The event `end`: how the execution ended. Nothing comes after it."""

    runtime_status: RuntimeStatus | None
    output: Any = None
    error: ErrorView | None = None


class ChunkItems(Given):
    """A chunk of a step's items, numbered from 0, and what they have come to; what is not known is left out."""

    first: int
    last: int | None = None
    open: int | None = None
    done: int | None = None
    failed: int | None = None


class StepCall(Given):
    """One thing that a step had done, or that was done to it; what is not known is left out.

    `kind` is ACTION, CHILD, CHUNK (a run of some of very many items: read its calls with `chunk=<key>`), PERSON,
    SIGNAL, CONTROL (an operator's request), TIMER, DATA (reading a datasource) or COMPENSATION; `name` the action's
    key, the child's template, the signal's name, what was requested, or what the timer is for. `local` tells that it
    ran beside the workflow, without a server round trip. `attempts` and `lastFailure` are also those of a call that is
    under way. `who` is the person, sender or operator; `answer` what the run said to a signal (DELIVERED, BUFFERED) or
    a request (APPLIED, UNCHANGED). `runId` is the Temporal run that it happened in.
    """

    key: str
    item: int | None = None
    round: int | None = None
    role: str | None = None
    run_id: str | None = None
    kind: CallKind
    name: str
    status: CallStatus
    local: bool = False
    attempts: int | None = None
    execution_id: UUID | None = None
    items: ChunkItems | None = None
    who: str | None = None
    reason: str | None = None
    correlation_key: str | None = None
    answer: str | None = None
    input: Any = None
    output: Any = None
    error: ErrorView | None = None
    last_failure: ErrorView | None = None
    scheduled_at: datetime | None = None
    started_at: datetime | None = None
    closed_at: datetime | None = None
    due_at: datetime | None = None


class StepVisit(Given):
    """One activation of a step: what it waits for now, and its calls, the newest first."""

    visit: int
    waiting_for: list[WaitingFor]
    calls: list[StepCall]


class StepRun(Given):
    """One Temporal run of the execution, and why it began: STARTED, CONTINUED (history had grown long), RETRY, RESUME.

    `actor`, `note` and `stepId` (where it was resumed from) are those of a retry or resumption. What Temporal has
    forgotten is null.
    """

    run_id: str
    began: Literal["STARTED", "CONTINUED", "RETRY", "RESUME"] | None
    started_at: datetime | None
    previous_run_id: str | None
    actor: str | None = None
    note: str | None = None
    step_id: str | None = None


class StepDetail(Given):
    """A step of an execution, with its visits from history, the newest first.

    `status`, `visitCount` and the times are the run's own and null when no worker could be asked; `problem` then says
    why. `items` counts those of an open step over items. A visit may go on in the next page. `signals` are signals of
    the step's name that no receipt ties to a visit: those that waited in the buffer, and plain Temporal signals. Where
    an expression gives that name, `signalNames` are those that it has given, the last twenty.
    `runs` are the runs that the page was read from. `truncated` tells that the page ended early for its cost, or that
    Temporal has forgotten the earlier part of the history.
    """

    execution_id: UUID
    step_id: str
    name: str
    type: str
    status: str | None
    visit_count: int | None
    started_at: datetime | None
    ended_at: datetime | None
    error: ErrorView | None
    items: ItemCounts | None
    signal_names: list[str] = []
    visits: list[StepVisit]
    signals: list[StepCall]
    runs: list[StepRun]
    next_cursor: str | None
    truncated: bool
    problem: ReadingProblem | None = None

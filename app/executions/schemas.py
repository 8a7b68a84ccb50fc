"""Executions on the wire."""

from datetime import datetime
from typing import Any
from uuid import UUID

from app.db.tables import EntityType, RecordStatus
from app.executions.runs import RuntimeStatus
from app.run_contracts import StepView, WaitingFor
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
    """An accepted start. The last three are there when `wait` was asked for and the run ended in time."""

    execution_id: UUID
    status: RecordStatus
    status_reason: str | None = None
    runtime_status: RuntimeStatus | None = None
    output: Any = None
    error: ErrorView | None = None


class ExecutionSummary(Given):
    """An execution in a list; `status` is the record's, `runtimeStatus` Temporal's."""

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
    entity_type: EntityType | None = None
    entity_id: str | None = None
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    temporal_ui: str | None


class ExecutionView(ExecutionSummary):
    """One execution. `waitingFor` is null when nobody could be asked; `problem` then says why."""

    output: Any = None
    error: ErrorView | None = None
    waiting_for: list[WaitingFor] | None
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

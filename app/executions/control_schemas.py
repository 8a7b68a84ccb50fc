"""What is asked of executions from outside, and what is answered, on the wire."""

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from app.db.statuses import LineageKind, LineageStatus
from app.db.tables import RecordStatus
from app.executions.schemas import ExecutionName
from app.wire import Given, JsonObject, Taken

Reason = Field(default=None, max_length=1_000, description="for the audit")
Visit = Field(default=None, ge=1, description="which visit, where several are open")
Item = Field(default=None, ge=0, description="which item, where several are open")


class StepCompletionRequest(Taken):
    """A person's answer; `visit` and `item` choose where a step is open several times.

    `data` is what its form was filled with, or the documents handed in by key.
    """

    outcome: str | None = Field(default=None, max_length=200)
    comment: str | None = Field(default=None, max_length=10_000)
    visit: int | None = Visit
    item: int | None = Item
    data: Any = None


class CompletedStep(Given):
    """A completed human step; `output` is what later steps see."""

    execution_id: UUID
    step_id: str
    visit: int
    item: int | None = None
    status: str
    output: Any = None


class ReasonGiven(Taken):
    """Why, for those who come after."""

    reason: str | None = Reason


class CancelRequest(ReasonGiven):
    """How to cancel. `includeDetached` reaches also children that were started to outlive their parent."""

    compensate: bool = True
    include_detached: bool = False


class CancelView(Given):
    """A cancel that was taken; the run ends soon, with its descendants."""

    execution_id: UUID
    status: RecordStatus


class TerminateView(Given):
    """What was terminated: `terminated` counts the execution and its descendants."""

    execution_id: UUID
    status: RecordStatus = RecordStatus.COMPLETED
    terminated: int


class SignalView(Given):
    """DELIVERED when a step took it, BUFFERED when it waits for one."""

    execution_id: UUID
    name: str
    status: Literal["DELIVERED", "BUFFERED"]


class ControlView(Given):
    """APPLIED, or UNCHANGED where it was so already; the step is there when it was about one."""

    execution_id: UUID
    status: Literal["APPLIED", "UNCHANGED"]
    step_id: str | None = None
    visit: int | None = None
    item: int | None = None


class StepChoice(ReasonGiven):
    """Which activation of a step, where several are open."""

    visit: int | None = Visit
    item: int | None = Item


class StepResumption(StepChoice):
    """What a suspended action is entered again with."""

    data: Any = None


class IncidentResolution(StepChoice):
    """What to do with an incident: retry (perhaps with other `parameters`), complete (with an `output`), or fail."""

    action: Literal["retry", "complete", "fail"]
    parameters: Any = None
    output: Any = None

    @model_validator(mode="after")
    def _fits(self) -> "IncidentResolution":
        for name, action in (("parameters", "retry"), ("output", "complete")):
            if getattr(self, name) is not None and self.action != action:
                raise PydanticCustomError("member_misplaced", f"`{name}` goes with {action}, not with {self.action}")
        return self


class ReplayRequest(ReasonGiven):
    """A new execution of the same version with the same trigger and context."""

    name: ExecutionName | None = None


class ReplayView(Given):
    """The new execution."""

    execution_id: UUID
    status: RecordStatus
    status_reason: str | None = None
    replay_of: UUID


class ResumePoint(StepChoice):
    """Where to go on from: a completed step, with an edited context or output."""

    step_id: str = Field(min_length=1, max_length=200)
    context: JsonObject | None = None
    output: Any = None


class ReopenedView(Given):
    """An execution that runs again; `runId` is missing while Temporal could not be asked yet."""

    execution_id: UUID
    kind: LineageKind
    status: RecordStatus = RecordStatus.STARTED
    previous_run_id: str | None
    run_id: str | None = None


class MigrateRequest(ReasonGiven):
    """The version to go on with; `mapping` says which of its steps an open step has become."""

    version_id: UUID
    mapping: dict[str, str] = Field(default={}, max_length=1_000)
    dry_run: bool = False


class MigrationFindingView(Given):
    """One open step that stands in the way."""

    step_id: str
    code: Literal["NEEDS_MAPPING", "IMPOSSIBLE"]
    reason: str


class MigrateView(Given):
    """Whether an execution can go on with the version, and whether it does now."""

    execution_id: UUID
    version_id: UUID
    version: str
    verdict: Literal["SAFE", "NEEDS_MAPPING", "IMPOSSIBLE"]
    findings: list[MigrationFindingView]
    migrated: bool


class LineageView(Given):
    """One turn in an execution's life: a retry, a resumption, a migration, or the replay that it is."""

    id: UUID
    kind: LineageKind
    status: LineageStatus
    at: datetime
    actor: str | None
    note: str | None
    previous_run_id: str | None
    run_id: str | None
    source_id: UUID | None
    step_id: str | None
    visit: int | None
    item: int | None
    from_version_id: UUID | None
    to_version_id: UUID | None
    closed_as: str | None
    ended_at: datetime | None


class LineageList(Given):
    """The earliest first."""

    items: list[LineageView]

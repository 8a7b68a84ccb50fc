"""What the API, the workflows and the activities agree on: names and shapes that cross a process border.

`app` starts workflows by these names, `workflows` call activities by these names; neither imports the other.
"""

from typing import Any, Literal
from uuid import UUID, uuid5

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from engine.steps import Retry

TASK_QUEUE = "millrace"

TELL_CHILD = "millrace.tell"
BATCH_WORKFLOW = "millrace.batch"
TICK_WORKFLOW = "millrace.tick"

# The one member of the result of an action that suspends itself.
SUSPENDED = "$suspend"

REGISTER_CHILDREN = "millrace.register_children"
RECORD_STEPS = "millrace.record_steps"
CHILD_OUTCOME = "millrace.child_outcome"
REQUEST_CANCEL = "millrace.request_cancel"
MARK_STARTED = "millrace.mark_started"
CLOSE_EXECUTION = "millrace.close_execution"

STORE_TICK = "millrace.store_tick"
TICK_IS_OVER = "millrace.tick_is_over"
WITHDRAW_TICK = "millrace.withdraw_tick"
POLL_SOURCE = "millrace.poll_source"

START_ROWS = "millrace.start_rows"

# What every worker has besides actions.
OWN_ACTIVITIES = (
    MARK_STARTED,
    CLOSE_EXECUTION,
    REGISTER_CHILDREN,
    RECORD_STEPS,
    CHILD_OUTCOME,
    REQUEST_CANCEL,
    STORE_TICK,
    TICK_IS_OVER,
    WITHDRAW_TICK,
    POLL_SOURCE,
    START_ROWS,
)

# What the driver and the engine do changes with it: workflows/revisions.py says how.
ENGINE_REVISION = 5

# Metadata of payloads. The role says what a payload is; the other is the SHA-256, in hexadecimal, under which it is
# kept outside history: a payload that has it need not be stored again.
PAYLOAD_ROLE = "millrace-role"
ROLE_DEFINITION = b"definition"
PAYLOAD_SHA256 = "millrace-sha256"

# The type of the failure by which a local activity asks to be done over as an ordinary one.
NOT_LOCAL = "millrace.not_local"

# Bytes of JSON. All local activities of one workflow task are reported in one message, and the server takes 4 MiB.
LARGEST_LOCAL_INPUT = 16_384
LARGEST_LOCAL_RECORD = 32_768

# Characters. A message goes into history, into rows and into answers; a page of HTML that some library raised is none.
LONGEST_MESSAGE = 2_000

# Characters. Waits for signals with longer names or correlation keys are not recorded: no subscription can mean them.
LONGEST_SIGNAL = 200
LONGEST_CORRELATION_KEY = 400

# Bytes; the server takes 400.
LONGEST_SUMMARY = 380
_KEY_MARK = " · "

# Search attributes, all of type Keyword.
ATTRIBUTE_TEMPLATE = "MillraceTemplate"
ATTRIBUTE_VERSION = "MillraceVersion"
ATTRIBUTE_ROOT = "MillraceRootExecution"
ATTRIBUTE_PARENT = "MillraceParentExecution"
ATTRIBUTE_ENTITY_TYPE = "MillraceEntityType"
ATTRIBUTE_ENTITY_ID = "MillraceEntityId"
ATTRIBUTE_WAITING_FOR = "MillraceWaitingFor"
SEARCH_ATTRIBUTES = (
    ATTRIBUTE_TEMPLATE,
    ATTRIBUTE_VERSION,
    ATTRIBUTE_ROOT,
    ATTRIBUTE_PARENT,
    ATTRIBUTE_ENTITY_TYPE,
    ATTRIBUTE_ENTITY_ID,
    ATTRIBUTE_WAITING_FOR,
)


def workflow_id(execution_id: UUID | str) -> str:
    """The Temporal workflow id of an execution."""
    return f"execution/{execution_id}"


def schedule_id_of(trigger_id: UUID | str) -> str:
    """The id of the Temporal Schedule that carries a schedule of ours."""
    return f"schedule/{trigger_id}"


def batch_workflow_id(execution_id: UUID | str, key: str) -> str:
    """The Temporal workflow id of the run of a chunk of a step's items."""
    return f"batch/{execution_id}/{key}"


def child_id(parent_id: str, key: str, attempt: int) -> UUID:
    """A child's id: the same for the same (parent, step, visit, item, attempt), so it is never spawned twice."""
    return uuid5(UUID(parent_id), f"{key}/attempt/{attempt}")


def readable(message: str) -> str:
    """A message that every store takes: no NUL, no half characters, at most 2,000 characters."""
    whole = message.encode(errors="replace").decode(errors="replace")
    return whole.replace("\0", "\ufffd")[:LONGEST_MESSAGE]


def summary(text: str) -> str:
    """A summary for Temporal's UI, as long as the server takes it."""
    return text.encode()[:LONGEST_SUMMARY].decode(errors="ignore")


def keyed_summary(text: str, key: str) -> str:
    """A summary for Temporal's UI, as long as the server takes it, that ends with the key of its command.

    Timers and children have no id of our choosing in history; by this their steps are found again.
    """
    end = f"{_KEY_MARK}{key}".encode()
    return (text.encode()[: max(LONGEST_SUMMARY - len(end), 0)] + end).decode(errors="ignore")


def key_of_summary(summary: str) -> str:
    """The key at the end of a summary; the whole summary when it has none."""
    return summary.rpartition(_KEY_MARK)[2]


class Contract(BaseModel):
    """A shape that crosses a process border."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True, allow_inf_nan=False
    )


class ExecutionStart(Contract):
    """The first argument of every execution; the definition, as stored, is the second.

    `state` and `inbox` are only there when a run continues as new, or is taken up again. `engine_revision` is the
    behaviour of the engine that the run began with. `has_search_attributes` tells whether the server knows Millrace's
    search attributes. A child that `reports` gives `{output, compensations}` to its parent instead of the output
    alone; one that is `detached` has a parent that does not wait for it. `children` are those that were open when the
    run continued as new, by command key; `recorded_until` is the time of the last row that the run before this one has
    written, in milliseconds since the epoch. A `batch` is no execution of its own: it runs some items of one.
    `local_actions` are the keys of the actions that run as local activities, `long_actions` those that heartbeat, as
    they were registered when the root was accepted: what a run does depends on its input, not on the worker it is on.
    """

    execution_id: UUID
    name: str
    root_id: UUID
    parent_id: UUID | None = None
    template_id: UUID
    template: str
    version_id: UUID
    version: str
    context: dict[str, Any]
    trigger: dict[str, Any] | None = None
    entity_type: str | None = None
    entity_id: str | None = None
    depth: int = 0
    engine_revision: int = ENGINE_REVISION
    has_search_attributes: bool = True
    local_actions: list[str] = []
    long_actions: list[str] = []
    state: dict[str, Any] | None = None
    inbox: list[dict[str, Any]] = []
    reports: bool = False
    detached: bool = False
    children: dict[str, "OpenChild"] = {}
    batch: bool = False
    recorded_until: int = 0


class OpenChild(Contract):
    """A child that was open when its parent continued as new; `workflow_id` is the child's."""

    workflow_id: str
    name: str
    step_id: str
    reports: bool


class FailureView(Contract):
    """Why something failed."""

    code: str
    message: str
    step_id: str | None = None
    attempts: int = 1


class ChildOutcome(Contract):
    """How a child has ended, as somebody else reads it; `error` is there when it did not end well."""

    output: Any = None
    error: "FailureView | None" = None
    retryable: bool = True


class ChildReport(Contract):
    """What a child that `reports` gives to its parent; `compensations` is what would undo it, earliest first."""

    output: Any = Field(default=None, alias="$output")
    compensations: list[dict[str, Any]] = Field(default=[], alias="$compensations")


def reported_output(result: Any) -> Any:
    """The output of a run, from its result as Temporal has it: a child that `reports` wraps it."""
    if isinstance(result, dict) and result.keys() == {"$output", "$compensations"}:
        return result["$output"]
    return result


class ChildOrder(Contract):
    """What a parent tells a running child."""

    what: Literal["PAUSE", "RESUME", "LEAVE_DONE"]
    actor: str | None = None


class ActionCall(Contract):
    """The second argument of every action's activity: which call this is.

    `idempotency_key` is the same for every attempt of the same visit and item. `resumed` is what the action suspended
    itself with and what it was resumed with.
    """

    idempotency_key: str
    execution_id: UUID
    template: str
    step_id: str
    retry: Retry
    resumed: tuple[Any, Any] | None = None


class LocalRecord(Contract):
    """What the local activity of an action answers, so that history shows its input as well as its output."""

    input: Any = None
    output: Any = None


class ChildToRegister(Contract):
    """A child whose row is to be written: its key under the parent, what it starts with, its name if it has one."""

    key: str
    context: dict[str, Any]
    name: str | None = None


class RegisterChildren(Contract):
    """Write the rows of children, once. One of `version_ref` (id or `slug@1.0.0`) and `template_ref` is given.

    `known_versions` are versions of whose definitions the parent knows the names already.
    """

    parent_id: UUID
    root_id: UUID
    step_id: str
    attempt: int
    version_ref: str | None = None
    template_ref: str | None = None
    children: list[ChildToRegister]
    detached: bool = False
    known_versions: list[UUID] = []


class RegisteredChild(Contract):
    """A child that can be started, or why it cannot."""

    key: str
    execution_id: UUID
    name: str
    version_id: UUID | None = None
    code: str | None = None
    message: str | None = None


class RegisteredVersion(Contract):
    """The version that children run.

    `definition_sha256` is the name of its definition in payload storage, None where the parent knows it already.
    Answers recorded before there was such a storage have the whole `definition` instead.
    """

    template_id: UUID
    template: str
    template_name: str
    version_id: UUID
    version: str
    definition: dict[str, Any] | None = None
    definition_sha256: str | None = None


class RegisteredChildren(Contract):
    """The answer to `RegisterChildren`: one entry for each child asked for, and the versions they run."""

    children: list[RegisteredChild]
    versions: list[RegisteredVersion]


class CloseExecution(Contract):
    """A run has ended: what its row should say. `ended_at` is ISO 8601."""

    execution_id: UUID
    closed_as: Literal["COMPLETED", "FAILED", "CANCELLED", "TERMINATED", "TIMED_OUT"]
    reason: str | None = None
    ended_at: str
    dead_letter: "DeadLetterRecord | None" = None


class DeadLetterRecord(Contract):
    """A run that failed for good, with no parent waiting for it, and everything that is needed to retry it.

    `state` is None where the run could not say it itself, and nobody could be asked; a retry asks again.
    """

    step_id: str | None = None
    code: str
    message: str
    attempts: int = 1
    failed_execution_id: UUID | None = None
    state: dict[str, Any] | None


class TaskRecord(Contract):
    """What the row of a human task is to say; fields that are None are left as they are. Times are ISO 8601."""

    key: str
    step_id: str
    visit: int
    item: int | None = None
    status: Literal["OPEN", "COMPLETED", "CANCELLED", "EXPIRED"]
    at: str
    name: str | None = None
    type: str | None = None
    assignee: str | None = None
    candidate_groups: list[str] | None = None
    due_at: str | None = None
    form: dict[str, Any] | None = None
    outcome: Any = None


class IncidentRecord(Contract):
    """What the row of an incident is to say; `resolution` None means that it is open."""

    key: str
    step_id: str
    visit: int
    item: int | None = None
    at: str
    code: str | None = None
    message: str | None = None
    resolution: Literal["RETRIED", "COMPLETED", "FAILED", "WITHDRAWN"] | None = None
    actor: str | None = None


class WaitRecord(Contract):
    """What the row of a wait for a signal under a correlation key is to say; `signal` None means that it is over."""

    key: str
    at: str
    signal: str | None = None
    correlation_key: str | None = None


class RecordSteps(Contract):
    """Rows of human tasks, incidents and waits to write, in this order; repeating it changes nothing."""

    execution_id: UUID
    tasks: list[TaskRecord] = []
    incidents: list[IncidentRecord] = []
    waits: list[WaitRecord] = []

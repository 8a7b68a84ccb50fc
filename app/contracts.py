"""What the API, the workflows and the activities agree on: names and shapes that cross a process border.

`app` starts workflows by these names, `workflows` call activities by these names; neither imports the other.
"""

from typing import Any, Literal
from uuid import UUID, uuid5

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

from engine.definition import Retry

TASK_QUEUE = "millrace"

COMPLETE_STEP = "complete_step"
STEPS_QUERY = "steps"

REGISTER_CHILDREN = "millrace.register_children"
MARK_STARTED = "millrace.mark_started"
CLOSE_EXECUTION = "millrace.close_execution"
ENGINE_REVISION = 1

# Characters. A message goes into history, into rows and into answers; a page of HTML that some library raised is none.
LONGEST_MESSAGE = 2_000

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


def child_id(parent_id: str, key: str, attempt: int) -> UUID:
    """A child's id: the same for the same (parent, step, visit, item, attempt), so it is never spawned twice."""
    return uuid5(UUID(parent_id), f"{key}/attempt/{attempt}")


def readable(message: str) -> str:
    """A message that every store takes: no NUL, no half characters, at most 2,000 characters."""
    whole = message.encode(errors="replace").decode(errors="replace")
    return whole.replace("\0", "\ufffd")[:LONGEST_MESSAGE]


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

    `state` and `inbox` are only there when a run continues as new. `engine_revision` is the behaviour of the engine
    that the run began with. `has_search_attributes` tells whether the server knows Millrace's search attributes.
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
    state: dict[str, Any] | None = None
    inbox: list[dict[str, Any]] = []


class ActionCall(Contract):
    """The second argument of every action's activity: which call this is.

    `idempotency_key` is the same for every attempt of the same visit and item.
    """

    idempotency_key: str
    execution_id: UUID
    template: str
    step_id: str
    retry: Retry


class ChildToRegister(Contract):
    """A child whose row is to be written: its key under the parent, what it starts with, its name if it has one."""

    key: str
    context: dict[str, Any]
    name: str | None = None


class RegisterChildren(Contract):
    """Write the rows of children, once. One of `version_ref` (id or `slug@1.0.0`) and `template_ref` is given.

    `known_versions` are versions whose definition the parent holds already and need not be sent again.
    """

    parent_id: UUID
    root_id: UUID
    step_id: str
    attempt: int
    version_ref: str | None = None
    template_ref: str | None = None
    children: list[ChildToRegister]
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
    """The version that children run."""

    template_id: UUID
    template: str
    template_name: str
    version_id: UUID
    version: str
    definition: dict[str, Any] | None = None


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


class StepCompletion(Contract):
    """A person completes a human step; `visit` chooses where several are open."""

    step_id: str
    outcome: str | None = None
    comment: str | None = None
    completed_by: str | None = None
    visit: int | None = None


class FailureView(Contract):
    """Why something failed."""

    code: str
    message: str
    step_id: str | None = None
    attempts: int = 1


class StepView(Contract):
    """A step of a run as users read it; times are ISO 8601."""

    id: str
    name: str
    type: str
    status: str
    visits: int
    started_at: str | None = None
    ended_at: str | None = None
    error: FailureView | None = None


class WaitingFor(Contract):
    """What a run waits for, since when, from whom. `kind` is ACTION, PERSON, CHILD, BATCH, TIMER or SLOT."""

    step_id: str
    visit: int
    item: int | None = None
    kind: str
    since: str
    who: str | None = None
    until: str | None = None


class RunView(Contract):
    """The answer to the steps query."""

    steps: list[StepView]
    waiting_for: list[WaitingFor]

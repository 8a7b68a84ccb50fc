"""Every kind of step, as pydantic models: what an author may write, and nothing else."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, JsonValue

from engine.scalars import Condition, Duration, Id, JsonObject, Model, Name, Text


class StepType(StrEnum):
    """Every kind of step, in its upper-case form."""

    START = "START"
    END = "END"
    HUMAN_CONFIRM = "HUMAN_CONFIRM"
    HUMAN_FORM = "HUMAN_FORM"
    HUMAN_URL_REDIRECT = "HUMAN_URL_REDIRECT"
    HUMAN_DOC_UPLOAD = "HUMAN_DOC_UPLOAD"
    SYS_ACTION = "SYS_ACTION"
    SYS_SET = "SYS_SET"
    SYS_DELAY = "SYS_DELAY"
    SYS_WAIT_SIGNAL = "SYS_WAIT_SIGNAL"
    SYS_SUB_WORKFLOW = "SYS_SUB_WORKFLOW"
    SYS_TERMINATE = "SYS_TERMINATE"
    GATEWAY_PARALLEL_SPLIT = "GATEWAY_PARALLEL_SPLIT"
    GATEWAY_PARALLEL_JOIN = "GATEWAY_PARALLEL_JOIN"
    GATEWAY_EXCLUSIVE_SPLIT = "GATEWAY_EXCLUSIVE_SPLIT"
    GATEWAY_ROUTE = "GATEWAY_ROUTE"
    GATEWAY_EXCLUSIVE_JOIN = "GATEWAY_EXCLUSIVE_JOIN"
    GATEWAY_INCLUSIVE_SPLIT = "GATEWAY_INCLUSIVE_SPLIT"
    GATEWAY_INCLUSIVE_JOIN = "GATEWAY_INCLUSIVE_JOIN"
    GATEWAY_EVENT_SPLIT = "GATEWAY_EVENT_SPLIT"


class Retry(Model):
    """How often and how soon a failed attempt is made again; `max_attempts` counts the first.

    `delay` (a value, a duration) is evaluated when the step begins and takes the place of every pause.
    """

    max_attempts: Annotated[int, Field(ge=1, le=1_000)] = 3
    initial_interval: Duration = 1.0
    backoff: Literal["exponential", "linear", "fixed"] = "exponential"
    multiplier: Annotated[float, Field(ge=1, le=100)] = 2.0
    max_interval: Duration = 60.0
    jitter: Annotated[float, Field(ge=0, le=1)] = 0.0
    non_retryable: tuple[str, ...] = Field(default=(), strict=False)
    delay: JsonValue = None


class ValueMapping(Model):
    """Writes one value to a dot path."""

    id: str | None = None
    target_path: Annotated[str, Field(min_length=1, max_length=500)]
    value: JsonValue
    mode: Literal["set", "append"] = "set"


Mappings = Annotated[tuple[ValueMapping, ...], Field(strict=False)]


class ItemSource(Model):
    """What is run over: an expression's list, (a part of) another step's output, or a datasource's answer."""

    type: Literal["EXPRESSION", "STEP", "DATASOURCE"]
    expr: JsonObject | None = None
    step_id: Id | None = None
    alias: Id | None = None
    select: str | None = None


def _policy(value: object) -> object:
    """`"COLLECT"` is short for `{"type": "COLLECT"}`."""
    return {"type": value} if isinstance(value, str) else value


class FailurePolicyFields(Model):
    """What a failed item does to its step: `count` or `percent` say how many failures TOLERATE bears."""

    type: Literal["FAIL_FAST", "COLLECT", "TOLERATE"]
    count: Annotated[int, Field(ge=0)] | None = None
    percent: Annotated[float, Field(ge=0, le=100)] | None = None


FailurePolicy = Annotated[FailurePolicyFields, BeforeValidator(_policy)]
Concurrency = Annotated[int, Field(ge=1, le=500)]


class ForEach(Model):
    """The step once per item of a list, at most `concurrency` at once; its output is the list of results."""

    iterable: ItemSource
    concurrency: Concurrency = 20
    failure_policy: FailurePolicy = FailurePolicyFields(type="FAIL_FAST")
    completion_condition: Condition | None = None


class Repeat(Model):
    """The step again and again: `while_` is asked before each iteration, `until` after it.

    `feedback` is a value over `__result__` that the next iteration sees as `__previous__`.
    """

    while_: Condition | None = Field(default=None, alias="while")
    until: Condition | None = None
    max_iterations: Annotated[int, Field(ge=1, le=100_000)] = 1_000
    feedback: JsonValue = None


class Compensation(Model):
    """The action that undoes a completed step."""

    action_key: Name
    parameters: JsonValue = None
    retry: Retry | None = None
    timeout: Duration | None = None


class DataSource(Model):
    """What is read before a step, as `__datasources__.<alias>`: once, or (`per-item`) before each item."""

    alias: Id
    data_source_id: Name
    params: JsonValue = None
    select: Condition | None = None
    scope: Literal["per-step", "per-item"] = "per-step"


class ActivationPolicy(Model):
    """The status of the step while it is active; a DISABLED step is passed by."""

    default_status: Literal["NOT_STARTED", "IN_PROGRESS", "ACTION_REQUIRED", "DISABLED"]


class GroupPlace(Model):
    """Where a step stands in its group."""

    group_id: Id
    order: int = 0


class Assignment(Model):
    """Who may do a human step: a person, or any member of the groups."""

    assignee: JsonValue = None
    candidate_groups: tuple[str, ...] = Field(default=(), strict=False)


class Escalation(Model):
    """What happens to a human step that is still open when it is due: it goes to somebody else."""

    assignment: Assignment


class StepBase(Model):
    """What every step has."""

    id: Id
    name: Name
    description: Text | None = None
    group: GroupPlace | None = None
    output_schema: JsonObject | None = None
    activation_policy: ActivationPolicy | None = None
    due_in: Duration | None = None
    data_sources: Annotated[tuple[DataSource, ...], Field(strict=False, max_length=50)] = ()
    output_mapping: Mappings = ()
    legacy_service_request_task_key: str | None = None
    ui: JsonObject | None = None


class StartStep(StepBase):
    """Where the one token begins."""

    type: Literal[StepType.START]


class EndStep(StepBase):
    """Where tokens are consumed."""

    type: Literal[StepType.END]


class WorkStep(StepBase):
    """A step that does something outside the interpreter and so may fail, be tried again and be undone."""

    retry: Retry | None = None
    timeout: Duration | None = None
    on_failure: Literal["FAIL", "INCIDENT"] | None = None
    compensate: Compensation | None = None
    for_each: ForEach | None = None
    repeat: Repeat | None = None
    mutex: Name | None = None
    enabled_while: Condition | None = None
    skip_if: Condition | None = None


class HumanStep(WorkStep):
    """A step that a person does."""

    assignment: Assignment | None = None
    outcomes: Annotated[tuple[Name, ...], Field(strict=False)] = ()
    escalation: Escalation | None = None


class ConfirmStep(HumanStep):
    """A person confirms; the output is `{outcome, comment, completedBy, completedAt}`."""

    type: Literal[StepType.HUMAN_CONFIRM]


class Form(Model):
    """What a person fills in: `schema` is a JSON Schema, `ui_schema` is the editor's."""

    schema_: JsonObject = Field(alias="schema")
    ui_schema: JsonObject | None = None


class FormStep(HumanStep):
    """A person fills a form; the output has the data besides what a confirmation has."""

    type: Literal[StepType.HUMAN_FORM]
    form: Form


class RedirectStep(HumanStep):
    """A person is sent to a URL; done when they or a callback say so, perhaps with data."""

    type: Literal[StepType.HUMAN_URL_REDIRECT]
    url: JsonValue


class Document(Model):
    """A document that is asked for. `accept` are media types (`application/pdf`, `image/*`) or extensions (`.pdf`);
    `max_size` is in bytes.
    """

    key: Id
    label: Name
    required: bool = True
    accept: Annotated[tuple[Name, ...], Field(strict=False)] = ()
    max_size: Annotated[int, Field(ge=1)] | None = None


class UploadStep(HumanStep):
    """A person hands in documents; the output names them by key."""

    type: Literal[StepType.HUMAN_DOC_UPLOAD]
    documents: Annotated[tuple[Document, ...], Field(strict=False, min_length=1, max_length=100)]


class ActionStep(WorkStep):
    """Calls a registered action."""

    type: Literal[StepType.SYS_ACTION]
    action_key: Name
    parameters: JsonValue = None
    credential_id: Name | None = None
    resource: Name | None = None
    operation: Name | None = None


class SetStep(StepBase):
    """Writes into `__context__`, without a server round trip."""

    type: Literal[StepType.SYS_SET]
    assignments: Annotated[tuple[ValueMapping, ...], Field(min_length=1, strict=False)]


class DelayStep(StepBase):
    """Waits: `duration` (a value: ISO 8601 or seconds) or `until` (a value: an ISO 8601 time)."""

    type: Literal[StepType.SYS_DELAY]
    duration: JsonValue = None
    until: JsonValue = None


class SignalStep(WorkStep):
    """Waits for a named signal; its payload is the output."""

    type: Literal[StepType.SYS_WAIT_SIGNAL]
    signal: JsonValue
    correlation_key: JsonValue = None
    buffer: bool = True


class ChildStep(WorkStep):
    """Runs a child execution, or one per item of a list."""

    type: Literal[StepType.SYS_SUB_WORKFLOW]
    mode: Literal["SINGLE", "BATCH"] = "SINGLE"
    child_workflow_template_version_id: str | None = None
    child_workflow_template_id: str | None = None
    child_workflow_name: JsonValue = None
    iterable: ItemSource | None = None
    input_mapping: Mappings = ()
    context_projection: Mappings = ()
    concurrency: Concurrency = 20
    failure_policy: FailurePolicy = FailurePolicyFields(type="FAIL_FAST")
    completion_condition: Condition | None = None
    wait: bool = True


class TerminateStep(StepBase):
    """Ends the whole execution at once."""

    type: Literal[StepType.SYS_TERMINATE]
    outcome: Literal["COMPLETED", "FAILED", "CANCELLED"]
    message: JsonValue = None


class GatewayStep(StepBase):
    """Splits and joins that have no fields of their own; they cost no server round trip."""

    type: Literal[
        StepType.GATEWAY_PARALLEL_SPLIT,
        StepType.GATEWAY_EXCLUSIVE_SPLIT,
        StepType.GATEWAY_EXCLUSIVE_JOIN,
        StepType.GATEWAY_INCLUSIVE_SPLIT,
        StepType.GATEWAY_INCLUSIVE_JOIN,
        StepType.GATEWAY_EVENT_SPLIT,
    ]


class JoinPolicy(Model):
    """When a parallel join goes on, and whether what is left of its branches is withdrawn then."""

    policy: Literal["ALL", "ANY", "N_OF_M", "ALL_SETTLED"] = "ALL"
    n: Annotated[int, Field(ge=1)] | None = None
    cancel_remaining: bool = False


class JoinStep(StepBase):
    """Waits for its branches, then goes on once."""

    type: Literal[StepType.GATEWAY_PARALLEL_JOIN]
    join: JoinPolicy = JoinPolicy()


class RouteStep(StepBase):
    """One of many outgoing transitions, chosen by `branchKey`."""

    type: Literal[StepType.GATEWAY_ROUTE]
    select: JsonValue


Step = Annotated[
    StartStep
    | EndStep
    | ConfirmStep
    | FormStep
    | RedirectStep
    | UploadStep
    | ActionStep
    | SetStep
    | DelayStep
    | SignalStep
    | ChildStep
    | TerminateStep
    | GatewayStep
    | JoinStep
    | RouteStep,
    Field(discriminator="type"),
]


def normalised_step(step: object) -> object:
    """A raw step with its type in upper case: `human.confirm` and `HUMAN_CONFIRM` name the same type."""
    if isinstance(step, Mapping) and isinstance(step.get("type"), str):
        return {**step, "type": step["type"].replace(".", "_").upper()}
    return step


def is_gateway(step: Any) -> bool:
    """Whether a step only directs tokens."""
    return isinstance(step, GatewayStep | JoinStep | RouteStep)

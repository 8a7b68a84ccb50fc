"""The stored JSON document, as pydantic models: what an author may write, and nothing else.

The models check *shape*: fields, types, enumerations. Whether the document makes sense as a process is the
business of `validate`. Values (`const`, `field`, `expr`, `template`) stay raw JSON here, because any JSON whose
leaves may be values is allowed; `engine.values` reads them. Durations are held in seconds.
"""

from collections.abc import Mapping
from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, TypeAdapter
from pydantic.alias_generators import to_camel

_TIMEDELTA = TypeAdapter(timedelta)

LARGEST_DURATION = timedelta(days=3650).total_seconds()


class StepType(StrEnum):
    """Every kind of step, in its upper-case form."""

    START = "START"
    END = "END"
    HUMAN_CONFIRM = "HUMAN_CONFIRM"
    SYS_ACTION = "SYS_ACTION"
    SYS_SET = "SYS_SET"
    SYS_SUB_WORKFLOW = "SYS_SUB_WORKFLOW"
    GATEWAY_PARALLEL_SPLIT = "GATEWAY_PARALLEL_SPLIT"
    GATEWAY_PARALLEL_JOIN = "GATEWAY_PARALLEL_JOIN"
    GATEWAY_EXCLUSIVE_SPLIT = "GATEWAY_EXCLUSIVE_SPLIT"
    GATEWAY_EXCLUSIVE_JOIN = "GATEWAY_EXCLUSIVE_JOIN"
    GATEWAY_INCLUSIVE_SPLIT = "GATEWAY_INCLUSIVE_SPLIT"
    GATEWAY_INCLUSIVE_JOIN = "GATEWAY_INCLUSIVE_JOIN"


def _seconds(value: object) -> float:
    """ISO 8601 (`PT30S`) or a number of seconds → seconds; positive and at most ten years."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError("a duration is ISO 8601 text such as PT30S, or a number of seconds")
    if isinstance(value, str) and not value.startswith("P"):
        raise ValueError("a duration is ISO 8601 text such as PT30S, or a number of seconds")
    seconds = _TIMEDELTA.validate_python(value).total_seconds()
    if not 0 < seconds <= LARGEST_DURATION:
        raise ValueError("a duration is longer than nothing and at most ten years")
    return seconds


def _step_type(value: object) -> object:
    """`human.confirm` and `HUMAN_CONFIRM` name the same type."""
    return value.replace(".", "_").upper() if isinstance(value, str) else value


Duration = Annotated[float, BeforeValidator(_seconds)]
Id = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_-]{0,99}$")]
Name = Annotated[str, Field(min_length=1, max_length=200)]
Text = Annotated[str, Field(max_length=10_000)]
JsonObject = dict[str, JsonValue]


class Model(BaseModel):
    """camelCase outside, snake_case inside; unknown fields refused; never changed after reading."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=False,
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
    )


class Variable(Model):
    """A typed constant of the definition, read as `__variables__.<key>`."""

    key: Id
    data_type: Literal["string", "number", "boolean", "object", "array"] = "string"
    default: JsonValue = None
    secret: Literal[False] = False


class Limits(Model):
    """The guardrails of one execution; counts, and a deadline in seconds."""

    max_steps: Annotated[int, Field(ge=1, le=1_000_000)] = 5_000
    max_step_visits: Annotated[int, Field(ge=1, le=1_000_000)] = 50
    parallelism: Annotated[int, Field(ge=1, le=500)] = 50
    max_depth: Annotated[int, Field(ge=1, le=100)] = 32
    execution_timeout: Duration | None = None


class Retry(Model):
    """How often and how soon a failed attempt is made again; `max_attempts` counts the first."""

    max_attempts: Annotated[int, Field(ge=1, le=1_000)] = 3
    initial_interval: Duration = 1.0
    backoff: Literal["exponential", "linear", "fixed"] = "exponential"
    multiplier: Annotated[float, Field(ge=1, le=100)] = 2.0
    max_interval: Duration = 60.0
    jitter: Annotated[float, Field(ge=0, le=1)] = 0.0
    non_retryable: tuple[str, ...] = Field(default=(), strict=False)


class ValueMapping(Model):
    """Writes one value to a dot path."""

    id: str | None = None
    target_path: Annotated[str, Field(min_length=1, max_length=500)]
    value: JsonValue
    mode: Literal["set", "append"] = "set"


Mappings = Annotated[tuple[ValueMapping, ...], Field(strict=False)]


class ItemSource(Model):
    """What a batch runs over: an expression's list, or (a part of) another step's output."""

    type: Literal["EXPRESSION", "STEP"]
    expr: JsonObject | None = None
    step_id: Id | None = None
    select: str | None = None


class GroupPlace(Model):
    """Where a step stands in its group."""

    group_id: Id
    order: int = 0


class Assignment(Model):
    """Who may do a human step: a person, or any member of the groups."""

    assignee: JsonValue = None
    candidate_groups: tuple[str, ...] = Field(default=(), strict=False)


class StepBase(Model):
    """What every step has."""

    id: Id
    name: Name
    description: Text | None = None
    group: GroupPlace | None = None
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
    """A step that does something outside the interpreter and so may fail and be tried again."""

    retry: Retry | None = None
    timeout: Duration | None = None


class ConfirmStep(WorkStep):
    """A person confirms; the output is `{outcome, comment, completedBy, completedAt}`."""

    type: Literal[StepType.HUMAN_CONFIRM]
    assignment: Assignment | None = None
    outcomes: Annotated[tuple[Name, ...], Field(strict=False)] = ()


class ActionStep(WorkStep):
    """Calls a registered action."""

    type: Literal[StepType.SYS_ACTION]
    action_key: Annotated[str, Field(min_length=1, max_length=200)]
    parameters: JsonValue = None


class SetStep(StepBase):
    """Writes into `__context__`, without a server round trip."""

    type: Literal[StepType.SYS_SET]
    assignments: Annotated[tuple[ValueMapping, ...], Field(min_length=1, strict=False)]


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
    concurrency: Annotated[int, Field(ge=1, le=500)] = 20
    wait: Literal[True] = True


class GatewayStep(StepBase):
    """Splits and joins; they cost no server round trip."""

    type: Literal[
        StepType.GATEWAY_PARALLEL_SPLIT,
        StepType.GATEWAY_PARALLEL_JOIN,
        StepType.GATEWAY_EXCLUSIVE_SPLIT,
        StepType.GATEWAY_EXCLUSIVE_JOIN,
        StepType.GATEWAY_INCLUSIVE_SPLIT,
        StepType.GATEWAY_INCLUSIVE_JOIN,
    ]


Step = Annotated[
    StartStep | EndStep | ConfirmStep | ActionStep | SetStep | ChildStep | GatewayStep,
    Field(discriminator="type"),
]


class Transition(Model):
    """An edge; `condition` is JSONata to a boolean."""

    id: Id
    from_step_id: Id
    to_step_id: Id
    condition: str | JsonObject | None = None
    is_default: bool = False
    label: str | None = None
    ui: JsonObject | None = None


class StepGroup(Model):
    """Steps that belong together for people; no meaning at run time."""

    id: Id
    name: Name
    step_ids: tuple[str, ...] = Field(strict=False)
    legacy_service_request_task_group_key: str | None = None


class Definition(Model):
    """A whole process. `output` (a value) is the execution's output; without one it is `__context__`."""

    schema_version: Literal[1] = 1
    input_schema: JsonObject | None = None
    variables: tuple[Variable, ...] = Field(default=(), strict=False)
    limits: Limits = Limits()
    steps: tuple[Step, ...] = Field(strict=False)
    step_transitions: tuple[Transition, ...] = Field(strict=False)
    step_groups: tuple[StepGroup, ...] = Field(default=(), strict=False)
    output: JsonValue = None
    legacy_service_request_type: str | None = None


def read_definition(document: Mapping[str, Any]) -> Definition:
    """The typed form of a JSON document.

    Raises pydantic's `ValidationError`, with a location for each mistake in shape.
    """
    return Definition.model_validate(normalised(document))


def normalised(document: Mapping[str, Any]) -> dict[str, Any]:
    """The document with its step types in upper case; everything else as the author wrote it."""
    steps = document.get("steps")
    if not isinstance(steps, list):
        return dict(document)
    return {**document, "steps": [_normalised_step(step) for step in steps]}


def _normalised_step(step: object) -> object:
    if isinstance(step, dict) and "type" in step:
        return {**step, "type": _step_type(step["type"])}
    return step

"""The stored JSON document, as pydantic models: what an author may write, and nothing else.

The models check *shape*: fields, types, enumerations. Whether the document makes sense as a process is the
business of `validate`. Values (`const`, `field`, `expr`, `template`) stay raw JSON here, because any JSON whose
leaves may be values is allowed; `engine.values` reads them. Durations are held in seconds.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue

from engine.scalars import Code, Condition, Duration, Id, JsonObject, Model, Name
from engine.steps import Step, normalised_step


class Variable(Model):
    """A typed constant of the definition, read as `__variables__.<key>`."""

    key: Id
    data_type: Literal["string", "number", "boolean", "object", "array"] = "string"
    default: JsonValue = None
    secret: Literal[False] = False


class Limits(Model):
    """The guardrails of one execution; counts, and durations in seconds."""

    max_steps: Annotated[int, Field(ge=1, le=1_000_000)] = 5_000
    max_step_visits: Annotated[int, Field(ge=1, le=1_000_000)] = 50
    parallelism: Annotated[int, Field(ge=1, le=500)] = 50
    max_depth: Annotated[int, Field(ge=1, le=100)] = 32
    execution_timeout: Duration | None = None
    buffered_signals: Annotated[int, Field(ge=0, le=10_000)] = 100
    signal_ttl: Duration = 7 * 24 * 3600.0


class OnArrival(Model):
    """The status that the target has while it is active."""

    status: Literal["NOT_STARTED", "IN_PROGRESS", "ACTION_REQUIRED"]


class Transition(Model):
    """An edge; `condition` is JSONata to a boolean."""

    id: Id
    from_step_id: Id
    to_step_id: Id
    condition: Condition | None = None
    is_default: bool = False
    branch_key: Annotated[str, Field(max_length=200)] | None = None
    on: Literal["SUCCESS", "ERROR", "TIMEOUT"] = "SUCCESS"
    error_codes: Annotated[tuple[Code, ...], Field(strict=False, max_length=100)] = ()
    on_arrival: OnArrival | None = None
    label: str | None = None
    ui: JsonObject | None = None


class StepGroup(Model):
    """Steps that belong together for people; no meaning at run time."""

    id: Id
    name: Name
    step_ids: tuple[str, ...] = Field(strict=False)
    legacy_service_request_task_group_key: str | None = None


class Definition(Model):
    """A whole process. `output` (a value) is the execution's output; without one it is `__context__`.

    `on_failure` is the default of the work steps and covers gateways and SYS_SET too.
    """

    schema_version: Literal[1] = 1
    input_schema: JsonObject | None = None
    variables: tuple[Variable, ...] = Field(default=(), strict=False)
    limits: Limits = Limits()
    on_failure: Literal["FAIL", "INCIDENT"] = "FAIL"
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
    return {**document, "steps": [normalised_step(step) for step in steps]}

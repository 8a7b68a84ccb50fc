"""The border of the engine, inwards: what has happened, in the past tense.

Events are plain frozen values with a JSON form, so that an inbox can travel with the state into the next run. `at` is
the workflow's time in milliseconds since the epoch; `key` is that of the command an event answers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from engine.json_types import JSON
from engine.protocol import Failure


@dataclass(frozen=True, slots=True)
class ActionDone:
    """An action succeeded."""

    key: str
    at: int
    output: JSON
    type: Literal["ActionDone"] = "ActionDone"


@dataclass(frozen=True, slots=True)
class ActionFailed:
    """An action failed for good: its retries are over, or it was withdrawn (code CANCELLED)."""

    key: str
    at: int
    failure: Failure
    type: Literal["ActionFailed"] = "ActionFailed"


@dataclass(frozen=True, slots=True)
class ActionSuspended:
    """An action waits for somebody outside, and says what it wants to know again then."""

    key: str
    at: int
    data: JSON = None
    type: Literal["ActionSuspended"] = "ActionSuspended"


@dataclass(frozen=True, slots=True)
class ChildDone:
    """A child execution completed, with its output (or was started, where nobody waits for it).

    `compensations` is what would undo it, as `engine.compensation` writes it.
    """

    key: str
    at: int
    output: JSON
    compensations: JSON = None
    type: Literal["ChildDone"] = "ChildDone"


@dataclass(frozen=True, slots=True)
class ChildFailed:
    """A child execution could not be started, failed, or ended cancelled (code CANCELLED)."""

    key: str
    at: int
    failure: Failure
    type: Literal["ChildFailed"] = "ChildFailed"


@dataclass(frozen=True, slots=True)
class TimerFired:
    """A timer came due."""

    key: str
    at: int
    type: Literal["TimerFired"] = "TimerFired"


@dataclass(frozen=True, slots=True)
class HumanCompleted:
    """A person completed an open step."""

    key: str
    at: int
    outcome: str | None = None
    comment: str | None = None
    completed_by: str | None = None
    data: JSON = None
    type: Literal["HumanCompleted"] = "HumanCompleted"


@dataclass(frozen=True, slots=True)
class SignalReceived:
    """A named signal came. `id` is the sender's, by which a repetition is known; without one there is none.

    One that is `awaited` is for a step that waits for it now, and has not come where none does; with a `wait_key` it is
    for that activation or item alone.
    """

    name: str
    at: int
    payload: JSON = None
    correlation_key: str | None = None
    id: str | None = None
    awaited: bool = False
    wait_key: str | None = None
    type: Literal["SignalReceived"] = "SignalReceived"


@dataclass(frozen=True, slots=True)
class StepResumed:
    """What a suspended action waits for has come."""

    key: str
    at: int
    data: JSON = None
    type: Literal["StepResumed"] = "StepResumed"


@dataclass(frozen=True, slots=True)
class TimerSkipped:
    """Somebody does not want to wait for a timer."""

    key: str
    at: int
    type: Literal["TimerSkipped"] = "TimerSkipped"


@dataclass(frozen=True, slots=True)
class IncidentResolved:
    """An operator decides about a parked step: try again (`edited`: with other parameters), complete it, or fail it."""

    key: str
    at: int
    how: Literal["RETRY", "COMPLETE", "FAIL"]
    parameters: JSON = None
    edited: bool = False
    output: JSON = None
    actor: str | None = None
    type: Literal["IncidentResolved"] = "IncidentResolved"


@dataclass(frozen=True, slots=True)
class PauseRequested:
    """No new work may start until the execution is resumed; a second request changes nothing."""

    at: int
    actor: str | None = None
    type: Literal["PauseRequested"] = "PauseRequested"


@dataclass(frozen=True, slots=True)
class ResumeRequested:
    """The execution goes on."""

    at: int
    actor: str | None = None
    type: Literal["ResumeRequested"] = "ResumeRequested"


@dataclass(frozen=True, slots=True)
class CancelRequested:
    """Someone wants the execution to end; a second request changes nothing."""

    at: int
    reason: str | None = None
    compensate: bool = True
    type: Literal["CancelRequested"] = "CancelRequested"


@dataclass(frozen=True, slots=True)
class ChunkWithdrawn:
    """The run of a chunk of items is to end with what they have come to; `compensate` is for children that run."""

    at: int
    compensate: bool = True
    type: Literal["ChunkWithdrawn"] = "ChunkWithdrawn"


@dataclass(frozen=True, slots=True)
class StateOutgrown:
    """The run was to go on as a new one, but its state has more bytes than can be passed on."""

    at: int
    size: int
    type: Literal["StateOutgrown"] = "StateOutgrown"


@dataclass(frozen=True, slots=True)
class Yielded:
    """The server took note; the interpreter may go on."""

    at: int
    type: Literal["Yielded"] = "Yielded"


Event = (
    ActionDone
    | ActionFailed
    | ActionSuspended
    | ChildDone
    | ChildFailed
    | TimerFired
    | TimerSkipped
    | HumanCompleted
    | SignalReceived
    | StepResumed
    | IncidentResolved
    | PauseRequested
    | ResumeRequested
    | CancelRequested
    | ChunkWithdrawn
    | StateOutgrown
    | Yielded
)

_EVENTS: TypeAdapter[tuple[Event, ...]] = TypeAdapter(tuple[Annotated[Event, Field(discriminator="type")], ...])


def events_to_json(events: Sequence[Event]) -> list[Any]:
    """The JSON form of an inbox."""
    dumped: list[Any] = _EVENTS.dump_python(tuple(events), mode="json")
    return dumped


def events_from_json(document: Sequence[Any]) -> tuple[Event, ...]:
    """The inbox that `events_to_json` wrote."""
    return _EVENTS.validate_python(document)

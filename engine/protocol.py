"""The whole border of the engine: commands out, events in.

A command is what the interpreter wants done, in the imperative; an event is what has happened, in the past tense,
with the workflow's time in milliseconds since the epoch. A command and the event that answers it share a key made
from step and visit: `fetch#2`, for a batch's child `fetch#2/item/17`. Both are plain frozen values with a JSON form,
so an inbox can travel with the state into the next run.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from engine.definition import Retry
from engine.json_types import JSON


@dataclass(frozen=True, slots=True)
class Failure:
    """Why something failed, in a form that users read: a stable code, a sentence, and where."""

    code: str
    message: str
    step_id: str | None = None
    attempts: int = 1
    retryable: bool = True


@dataclass(frozen=True, slots=True)
class RunInput:
    """What an execution is started with. `parent_id` is None and `root_id` is its own id for a root."""

    execution_id: str
    name: str
    root_id: str
    parent_id: str | None
    template_id: str
    template: str
    version_id: str
    version: str
    context: dict[str, JSON]
    trigger: dict[str, JSON] | None
    at: int
    depth: int = 0


# Commands


@dataclass(frozen=True, slots=True)
class RunAction:
    """Run a registered action; its retries (`retry`) are the driver's to carry out. `timeout` in seconds."""

    key: str
    step_id: str
    step_name: str
    action_key: str
    parameters: JSON
    retry: Retry
    timeout: float | None


@dataclass(frozen=True, slots=True)
class StartTimer:
    """Fire once, at `due` (milliseconds since the epoch)."""

    key: str
    due: int
    summary: str


@dataclass(frozen=True, slots=True)
class OpenHumanTask:
    """A person is asked; nothing else happens until a `HumanCompleted` comes."""

    key: str
    step_id: str
    step_name: str
    assignee: JSON
    candidate_groups: tuple[str, ...]
    outcomes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """One child to spawn; `index` is its place in a batch."""

    key: str
    context: dict[str, JSON]
    name: str | None = None
    index: int | None = None


@dataclass(frozen=True, slots=True)
class SpawnChildren:
    """Write the children's rows, then start them; each answers with its own event."""

    key: str
    step_id: str
    step_name: str
    version_ref: str | None
    template_ref: str | None
    children: tuple[ChildSpec, ...]
    attempt: int = 1


@dataclass(frozen=True, slots=True)
class Withdraw:
    """Stop what runs under these keys: actions and children still answer, timers do not."""

    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Yield:
    """Let the server take note before more pure steps are made; answered by `Yielded`.

    `late_at` is the turn before which the caller's clock, not the count of steps, made the interpreter stop.
    """

    late_at: int | None = None


@dataclass(frozen=True, slots=True)
class Complete:
    """The execution has ended well."""

    output: JSON


@dataclass(frozen=True, slots=True)
class Fail:
    """The execution has failed for good."""

    failure: Failure


@dataclass(frozen=True, slots=True)
class Cancel:
    """The execution has ended because someone cancelled it."""

    reason: str | None


Command = RunAction | StartTimer | OpenHumanTask | SpawnChildren | Withdraw | Yield | Complete | Fail | Cancel


# Events


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
class ChildDone:
    """A child execution completed, with its output."""

    key: str
    at: int
    output: JSON
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
    type: Literal["HumanCompleted"] = "HumanCompleted"


@dataclass(frozen=True, slots=True)
class CancelRequested:
    """Someone wants the execution to end; a second request changes nothing."""

    at: int
    reason: str | None = None
    type: Literal["CancelRequested"] = "CancelRequested"


@dataclass(frozen=True, slots=True)
class Yielded:
    """The server took note; the interpreter may go on."""

    at: int
    type: Literal["Yielded"] = "Yielded"


Event = ActionDone | ActionFailed | ChildDone | ChildFailed | TimerFired | HumanCompleted | CancelRequested | Yielded

_EVENTS: TypeAdapter[tuple[Event, ...]] = TypeAdapter(tuple[Annotated[Event, Field(discriminator="type")], ...])


def events_to_json(events: Sequence[Event]) -> list[Any]:
    """The JSON form of an inbox."""
    dumped: list[Any] = _EVENTS.dump_python(tuple(events), mode="json")
    return dumped


def events_from_json(document: Sequence[Any]) -> tuple[Event, ...]:
    """The inbox that `events_to_json` wrote."""
    return _EVENTS.validate_python(document)


def visit_key(step_id: str, visit: int) -> str:
    """The key of one activation of a step."""
    return f"{step_id}#{visit}"


def item_key(key: str, index: int) -> str:
    """The key of one item of an activation."""
    return f"{key}/item/{index}"


TIMEOUT = "timeout"
RETRY = "retry"
DEADLINE = "deadline"


def role_key(key: str, role: str) -> str:
    """The key of a timer that belongs to an activation: its timeout, or the pause before its next attempt."""
    return f"{key}/{role}"


@dataclass(frozen=True, slots=True)
class Key:
    """A key taken apart: `fetch#2/item/17` → step, visit, item and no role; `fetch#2/timeout` has a role."""

    step_id: str
    visit: int
    item: int | None = field(default=None)
    role: str | None = field(default=None)

    @classmethod
    def parse(cls, key: str) -> "Key":
        """Reads a key that the engine wrote."""
        head, *tail = key.split("/")
        step_id, _, visit = head.rpartition("#")
        match tail:
            case ["item", index]:
                return cls(step_id, int(visit), int(index))
            case ["item", index, role]:
                return cls(step_id, int(visit), int(index), role)
            case [role]:
                return cls(step_id, int(visit), None, role)
            case _:
                return cls(step_id, int(visit))

    @property
    def visit_key(self) -> str:
        """The key of the activation this key belongs to."""
        return visit_key(self.step_id, self.visit)

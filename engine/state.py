"""A run's whole memory: one frozen, JSON-shaped value.

Maps are `immutables.Map`, so that a change costs the same whether the run has made ten steps or a hundred thousand,
and an earlier state stays what it was.
"""

from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any, NamedTuple

from immutables import Map

from engine.json_types import JSON
from engine.protocol import Failure, RunInput


class StepStatus(StrEnum):
    """What a step is doing, as users read it."""

    NOT_STARTED = "NOT_STARTED"
    IN_PROGRESS = "IN_PROGRESS"
    ACTION_REQUIRED = "ACTION_REQUIRED"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


class Phase(StrEnum):
    """Where a run is in its life; ENDING waits for withdrawn work to answer."""

    RUNNING = "RUNNING"
    ENDING = "ENDING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


ENDED = frozenset({Phase.COMPLETED, Phase.FAILED, Phase.CANCELLED})


class StepRecord(NamedTuple):
    """The last activation of a step; times in milliseconds since the epoch."""

    status: StepStatus
    visits: int
    started_at: int
    ended_at: int | None = None
    error: Failure | None = None


class Work(NamedTuple):
    """An activation that has not ended: an action, a human step, a child or a batch."""

    step_id: str
    visit: int
    attempt: int
    since: int
    who: JSON = None


class Batch(NamedTuple):
    """A batch under way: its items, the next one to spawn, how many run, the results by index."""

    items: tuple[JSON, ...]
    next: int
    running: Map[str, int]
    results: Map[int, JSON]


class Ending(NamedTuple):
    """How a run will end once what was withdrawn has answered."""

    phase: Phase
    failure: Failure | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class State:
    """Complete: continue-as-new, queries, tests and support dumps all use this one value.

    `outputs` holds the output of each step's last completed visit; `arrived` counts tokens waiting at joins, by
    transition id, and `filled` the transitions of a join that hold one; `ready` are transitions whose token has not
    been moved yet; `work` is open activations by key, `timers` when each armed timer is due, `waiting` the keys of
    actions that wait for a free place, `running` those under way; `answers` is what people answered, by key, and
    `expired` holds children that were withdrawn because they took too long.
    """

    run: RunInput
    phase: Phase = Phase.RUNNING
    at: int = 0
    context: Map[str, JSON] = field(default_factory=Map)
    outputs: Map[str, JSON] = field(default_factory=Map)
    steps: Map[str, StepRecord] = field(default_factory=Map)
    arrived: Map[str, int] = field(default_factory=Map)
    filled: Map[str, int] = field(default_factory=Map)
    ready: tuple[str, ...] = ()
    work: Map[str, Work] = field(default_factory=Map)
    batches: Map[str, Batch] = field(default_factory=Map)
    timers: Map[str, int] = field(default_factory=Map)
    answers: Map[str, JSON] = field(default_factory=Map)
    expired: Map[str, int] = field(default_factory=Map)
    waiting: tuple[str, ...] = ()
    running: int = 0
    taken: int = 0
    ending: Ending | None = None
    output: JSON = None


def state_to_json(state: State) -> dict[str, Any]:
    """The state as plain JSON."""
    return {item.name: _to_json(getattr(state, item.name)) for item in fields(state)}


def state_from_json(document: dict[str, Any]) -> State:
    """The state that `state_to_json` wrote."""
    plain = dict(document)
    plain["run"] = RunInput(**plain["run"])
    plain["phase"] = Phase(plain["phase"])
    plain["steps"] = Map({key: _record(value) for key, value in plain["steps"].items()})
    plain["work"] = Map({key: Work(*value) for key, value in plain["work"].items()})
    plain["batches"] = Map({key: _batch(value) for key, value in plain["batches"].items()})
    for name in ("context", "outputs", "arrived", "filled", "timers", "answers", "expired"):
        plain[name] = Map(plain[name])
    plain["ready"] = tuple(plain["ready"])
    plain["waiting"] = tuple(plain["waiting"])
    plain["ending"] = _ending(plain["ending"])
    return State(**plain)


def _to_json(value: Any) -> Any:
    match value:
        case Map():
            return {str(key): _to_json(member) for key, member in sorted(value.items())}
        case tuple():
            return [_to_json(item) for item in value]
        case RunInput() | Failure():
            return {item.name: getattr(value, item.name) for item in fields(value)}
        case StrEnum():
            return value.value
        case _:
            return value


def _failure(document: Any) -> Failure | None:
    return None if document is None else Failure(**document)


def _record(document: list[Any]) -> StepRecord:
    status, visits, started_at, ended_at, error = document
    return StepRecord(StepStatus(status), visits, started_at, ended_at, _failure(error))


def _batch(document: list[Any]) -> Batch:
    items, following, running, results = document
    return Batch(tuple(items), following, Map(running), Map({int(key): value for key, value in results.items()}))


def _ending(document: list[Any] | None) -> Ending | None:
    if document is None:
        return None
    phase, failure, reason = document
    return Ending(Phase(phase), _failure(failure), reason)

"""A run's whole memory: one frozen, JSON-shaped value.

Maps are `immutables.Map`, so that a change costs the same whether the run has made ten steps or a hundred thousand,
and an earlier state stays what it was.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from immutables import Map

from engine.json_types import JSON
from engine.protocol import Failure, RunInput
from engine.steps import Retry


class StepStatus(StrEnum):
    """What a step is doing, as users read it."""

    NOT_STARTED = "NOT_STARTED"
    IN_PROGRESS = "IN_PROGRESS"
    ACTION_REQUIRED = "ACTION_REQUIRED"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    SKIPPED = "SKIPPED"
    DISABLED = "DISABLED"
    CANCELLED = "CANCELLED"
    INCIDENT = "INCIDENT"
    COMPENSATED = "COMPENSATED"


class Phase(StrEnum):
    """Where a run is in its life; ENDING waits for withdrawn work to answer, COMPENSATING undoes what was done."""

    RUNNING = "RUNNING"
    ENDING = "ENDING"
    COMPENSATING = "COMPENSATING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


ENDED = frozenset({Phase.COMPLETED, Phase.FAILED, Phase.CANCELLED})


class Stage(StrEnum):
    """What an open activation waits for."""

    CLOSED = "CLOSED"  # its `enabledWhile` does not hold
    MUTEX = "MUTEX"  # another step holds its mutex
    READING = "READING"  # its datasources
    QUEUED = "QUEUED"  # a place among the actions that may run at once
    RUNNING = "RUNNING"  # an answer from outside
    RETRYING = "RETRYING"  # the pause before its next attempt
    EXPIRED = "EXPIRED"  # the answer of an attempt that took too long and was withdrawn
    SUSPENDED = "SUSPENDED"  # a resume
    INCIDENT = "INCIDENT"  # an operator
    READY = "READY"  # its turn, in this very call or after a yield


class StepRecord(NamedTuple):
    """The last activation of a step; times in milliseconds since the epoch."""

    status: StepStatus
    visits: int
    started_at: int
    ended_at: int | None = None
    error: Failure | None = None


class Token(NamedTuple):
    """A token on a transition: the branch of a region it is in, the error whose path it is on, and the event split
    among whose targets it competes (empty or None: none).
    """

    edge: str
    scope: str = ""
    error: Failure | None = None
    race: str = ""


class Work(NamedTuple):
    """An open activation of a step, or of one of its items.

    `edge` is the transition that it was entered by; `attempt` counts towards the retry policy, `tries` every child
    ever spawned for it; `round` counts the iterations of a `repeat`, whose `results` (of `held` bytes) are here with
    what the last one fed back (`previous`); `data` is what its datasources gave, `reads` those that have not answered;
    `edited` are parameters that an operator gave instead (in a tuple, so that null can be one); `each` is the item of
    one that was withdrawn, in a tuple too, because its step may go on and forget the list; `begun` tells that an
    attempt has been made; `suspended` is what an action suspended itself with and, after it, what it was resumed with;
    `signal` is the name (and the correlation key) of the signal it waits for; `due` is when a person should have
    answered, in milliseconds since the epoch; `deadlines` are when the timers of its next attempt are due, by role,
    where they were armed before the run was taken up again.
    """

    step_id: str
    visit: int
    since: int
    stage: Stage
    item: int | None = None
    attempt: int = 1
    tries: int = 0
    who: JSON = None
    edge: str = ""
    scope: str = ""
    error: Failure | None = None
    race: str = ""
    round: int = 0
    results: tuple[JSON, ...] = ()
    previous: JSON = None
    data: JSON = None
    reads: tuple[str, ...] = ()
    failure: Failure | None = None
    suspended: tuple[JSON, ...] = ()
    each: tuple[JSON, ...] = ()
    edited: tuple[JSON, ...] = ()
    begun: bool = False
    signal: tuple[str, ...] = ()
    due: int | None = None
    deadlines: Map[str, int] = Map()
    held: int = 0


class Fan(NamedTuple):
    """A step over items: the next one to begin, the ones to begin `again`, and what became of those that have ended.
    `left` is how far those had come that had been tried, where they repeat or had a deadline; `held` is how many bytes
    the results have.

    `work` is the step's own activation; its items have activations besides. With a `chunk` they are run by so many at
    a time in runs of their own (`engine.batches`). In such a run `items` are those of the chunk, `offset` is the
    number of the first, `window` how many of them may run at once, and `before` what the others had come to when it
    began: completed, failed, and how many there are in all.
    """

    work: Work
    items: tuple[JSON, ...]
    next: int = 0
    again: tuple[int, ...] = ()
    open: int = 0
    results: Map[int, JSON] = Map()
    errors: Map[int, Failure] = Map()
    tries: Map[int, int] = Map()
    left: Map[int, Work] = Map()
    chunk: int = 0
    offset: int = 0
    window: int = 0
    before: tuple[int, ...] = ()
    held: int = 0


class Region(NamedTuple):
    """An activation of a split whose join has a policy of its own: the branches opened, and how each arrived."""

    split: str
    scope: str
    error: Failure | None
    branches: tuple[str, ...]
    arrived: Map[str, dict[str, JSON]] = Map()


class Buffered(NamedTuple):
    """A signal that no step has taken yet; `expires` is in milliseconds since the epoch."""

    name: str
    key: str | None
    payload: JSON
    at: int
    expires: int
    id: str | None = None


class Undo(NamedTuple):
    """What undoes a completed step. `owner` is None for this run's own steps, otherwise the child's execution."""

    key: str
    step_id: str
    step_name: str
    action_key: str
    parameters: JSON
    retry: Retry
    timeout: float
    idempotency_key: str
    owner: str | None = None


class Ending(NamedTuple):
    """How a run will end once what was withdrawn has answered and, with `compensate`, what was done is undone."""

    phase: Phase
    failure: Failure | None = None
    reason: str | None = None
    compensate: bool = True
    undone: tuple[str, ...] = ()


class Lost(NamedTuple):
    """What was under way when a run failed or was cancelled, for a retry to take up again.

    What was withdrawn then may have succeeded all the same: `done` is what activations without items gave, by key, and
    `rounds` are those that go on with their next iteration. Items have their results in `fans`.
    """

    ready: tuple[Token, ...]
    arrived: Map[str, int]
    filled: Map[str, int]
    regions: Map[str, Region]
    work: Map[str, Work]
    fans: Map[str, Fan]
    signals: tuple[Buffered, ...] = ()
    done: Map[str, JSON] = Map()
    rounds: tuple[str, ...] = ()
    timers: Map[str, int] = Map()


@dataclass(frozen=True, slots=True)
class State:
    """Complete: continue-as-new, queries, tests and support dumps all use this one value.

    `batch` is the key of the step over items that is all this run is for; it is empty in the run of an execution.

    `outputs` holds the output of each step's last completed visit; `arrived` counts tokens waiting at joins, by
    transition id (and branch), and `filled` the transitions of a join that hold one; `ready` are tokens that have not
    been moved yet, `todo` what else is to be gone on with (`yielded`: the driver was asked for breath first); `work` is
    open activations by key, `fans` those that run over items, `leaving` what was withdrawn and has not answered;
    `timers` is when each armed timer is due; `waiting` are actions that wait for a free place, `running` counts those
    under way; `gated` are steps that wait for their mutex or milestone, `guarded` those that go when their milestone
    does, `locks` who holds which mutex; `paused_at` and `paused_by` are those of the pause while it is `paused`;
    `answers` is what people answered, by key; `signals` are buffered ones, `receipts` the ids of those that came;
    `undo` is what compensates the steps completed so far, in their order; `named` are the names of signals that steps
    have worked out, the last twenty of each.
    """

    run: RunInput
    batch: str = ""
    phase: Phase = Phase.RUNNING
    at: int = 0
    context: Map[str, JSON] = field(default_factory=Map)
    outputs: Map[str, JSON] = field(default_factory=Map)
    steps: Map[str, StepRecord] = field(default_factory=Map)
    arrived: Map[str, int] = field(default_factory=Map)
    filled: Map[str, int] = field(default_factory=Map)
    regions: Map[str, Region] = field(default_factory=Map)
    ready: tuple[Token, ...] = ()
    todo: tuple[str, ...] = ()
    yielded: bool = False
    work: Map[str, Work] = field(default_factory=Map)
    fans: Map[str, Fan] = field(default_factory=Map)
    leaving: Map[str, Work] = field(default_factory=Map)
    timers: Map[str, int] = field(default_factory=Map)
    answers: Map[str, JSON] = field(default_factory=Map)
    waiting: tuple[str, ...] = ()
    running: int = 0
    gated: tuple[str, ...] = ()
    guarded: tuple[str, ...] = ()
    locks: Map[str, str] = field(default_factory=Map)
    paused: bool = False
    paused_at: int = 0
    paused_by: str | None = None
    signals: tuple[Buffered, ...] = ()
    receipts: tuple[str, ...] = ()
    named: Map[str, tuple[str, ...]] = field(default_factory=Map)
    undo: Map[int, Undo] = field(default_factory=Map)
    taken: int = 0
    ending: Ending | None = None
    lost: Lost | None = None
    output: JSON = None

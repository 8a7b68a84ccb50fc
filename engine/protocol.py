"""The border of the engine, outwards: what a run is started with, and the commands it gives.

A command is what the interpreter wants done, in the imperative. The event that answers it (`engine.events`) has the
same key (`engine.keys`). Times are in milliseconds since the epoch.
"""

from dataclasses import dataclass

from engine.json_types import JSON
from engine.steps import Retry


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
    """What an execution is started with. `parent_id` is None and `root_id` is its own id for a root; `revision` is that
    of the engine, 0 where it was not noted yet.
    """

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
    revision: int = 0


# Commands


@dataclass(frozen=True, slots=True)
class RunAction:
    """Run a registered action; its retries (`retry`) are the driver's to carry out. `timeout` in seconds.

    `idempotency_key` is what the action is told; `resumed` is there when a suspended action is entered again.
    """

    key: str
    step_id: str
    step_name: str
    action_key: str
    parameters: JSON
    retry: Retry
    timeout: float | None
    idempotency_key: str
    resumed: "Resumption | None" = None


@dataclass(frozen=True, slots=True)
class Resumption:
    """What an action is entered again with: what it suspended itself with, and what came."""

    suspended: JSON
    data: JSON


@dataclass(frozen=True, slots=True)
class StartTimer:
    """Fire once, at `due` (milliseconds since the epoch)."""

    key: str
    due: int
    summary: str


@dataclass(frozen=True, slots=True)
class OpenHumanTask:
    """A person is asked; nothing else happens until a `HumanCompleted` comes. `type` is the step's; `due` is in
    milliseconds since the epoch; `form` is `{schema, uiSchema}`; `documents` are `{key, label, required, …}`.
    """

    key: str
    step_id: str
    step_name: str
    type: str
    assignee: JSON
    candidate_groups: tuple[str, ...]
    outcomes: tuple[str, ...]
    due: int | None = None
    form: JSON = None
    url: JSON = None
    documents: JSON = None


@dataclass(frozen=True, slots=True)
class CloseHumanTask:
    """A person is no longer asked: COMPLETED with the output, CANCELLED, or EXPIRED."""

    key: str
    status: str
    outcome: JSON = None


@dataclass(frozen=True, slots=True)
class ReassignHumanTask:
    """The task is overdue and goes to somebody else."""

    key: str
    assignee: JSON
    candidate_groups: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class OpenWait:
    """A step begins to wait for a signal under a correlation key, by which others may find it; it waits either way."""

    key: str
    signal: str
    correlation_key: str


@dataclass(frozen=True, slots=True)
class CloseWait:
    """A wait under a correlation key is over, however it ended."""

    key: str


@dataclass(frozen=True, slots=True)
class OpenIncident:
    """A step has failed for good and is parked until an operator decides."""

    key: str
    failure: Failure


@dataclass(frozen=True, slots=True)
class CloseIncident:
    """An incident is over: `resolution` is RETRIED, COMPLETED, FAILED or WITHDRAWN."""

    key: str
    resolution: str
    actor: str | None = None


@dataclass(frozen=True, slots=True)
class TellChildren:
    """Pass on to running children: PAUSE, RESUME, or LEAVE_DONE (do not compensate when you are cancelled)."""

    keys: tuple[str, ...]
    what: str
    actor: str | None = None


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """One child to spawn; `index` is its place in a batch."""

    key: str
    context: dict[str, JSON]
    name: str | None = None
    index: int | None = None


@dataclass(frozen=True, slots=True)
class SpawnChildren:
    """Write the children's rows, then start them; each answers with its own event: with `wait` when it has ended,
    without as soon as it has started.
    """

    key: str
    step_id: str
    step_name: str
    version_ref: str | None
    template_ref: str | None
    children: tuple[ChildSpec, ...]
    attempt: int = 1
    wait: bool = True


@dataclass(frozen=True, slots=True)
class SpawnBatch:
    """Run a part of a step's items in a run of its own, which begins with `state` and answers like a child."""

    key: str
    step_id: str
    step_name: str
    place: str
    state: dict[str, JSON]


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
    """The execution has ended well; `reason` is what a step said that ended it before its end."""

    output: JSON
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Fail:
    """The execution has failed for good; `compensated` are the steps that were undone, latest first."""

    failure: Failure
    compensated: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Cancel:
    """The execution has ended because someone cancelled it."""

    reason: str | None


Command = (
    RunAction
    | StartTimer
    | OpenHumanTask
    | CloseHumanTask
    | ReassignHumanTask
    | OpenWait
    | CloseWait
    | OpenIncident
    | CloseIncident
    | SpawnChildren
    | SpawnBatch
    | TellChildren
    | Withdraw
    | Yield
    | Complete
    | Fail
    | Cancel
)

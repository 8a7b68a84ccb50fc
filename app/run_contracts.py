"""What a run is asked and told, and what it answers: the arguments and results of its updates and queries."""

from typing import Any, Literal
from uuid import UUID

from pydantic import ConfigDict

from app.contracts import Contract, FailureView

COMPLETE_STEP = "complete_step"
DELIVER_SIGNAL = "deliver_signal"
DELIVER_AWAITED = "deliver_awaited"
DELIVERING = frozenset({DELIVER_SIGNAL, DELIVER_AWAITED})
CONTROL = "control"
MIGRATE = "migrate_to"
# How it was called while the definition stood in the request: runs that were asked so are still replayed.
MIGRATE_INLINE = "migrate"
STEPS_QUERY = "steps"
STATE_QUERY = "state"


class Reply(Contract):
    """What a run answers. Its worker may be newer than whoever asked: what is not known here is passed over."""

    model_config = ConfigDict(extra="ignore")


class StepCompletion(Contract):
    """A person completes a human step; `visit` and `item` choose where several are open.

    `data` is what a form was filled with, or the documents handed in by key.
    """

    step_id: str
    outcome: str | None = None
    comment: str | None = None
    completed_by: str | None = None
    visit: int | None = None
    item: int | None = None
    data: Any = None


class SignalDelivery(Contract):
    """A named signal. `id` makes repetitions one, also over continue-as-new."""

    name: str
    payload: Any = None
    correlation_key: str | None = None
    id: str | None = None
    actor: str | None = None


class AwaitedSignal(SignalDelivery):
    """A signal, which has an `id`, for a step that waits for it now: for the activation or item of `wait_key` alone, or
    without it for the one that has waited longest.
    """

    wait_key: str | None = None


class SignalReceipt(Reply):
    """What became of a signal: a step took it, or it waits for one. The step is named where it was known at once."""

    status: Literal["DELIVERED", "BUFFERED"]
    step_id: str | None = None
    visit: int | None = None
    item: int | None = None


class ControlRequest(Contract):
    """What an operator wants of a run. `step_id` (with `visit` and `item` where several are open) says which step.

    RESUME_STEP enters a suspended action again with `data`; RETRY_INCIDENT may bring other `parameters`
    (`edit_parameters` tells that it does); COMPLETE_INCIDENT brings the step's `output`.
    """

    what: Literal[
        "PAUSE",
        "RESUME",
        "CANCEL",
        "SKIP_TIMER",
        "RESUME_STEP",
        "RETRY_INCIDENT",
        "COMPLETE_INCIDENT",
        "FAIL_INCIDENT",
    ]
    step_id: str | None = None
    visit: int | None = None
    item: int | None = None
    compensate: bool = True
    reason: str | None = None
    actor: str | None = None
    data: Any = None
    edit_parameters: bool = False
    parameters: Any = None
    output: Any = None


class ControlReceipt(Reply):
    """What became of it: APPLIED, or UNCHANGED where it was so already (a second pause, a second cancel)."""

    status: Literal["APPLIED", "UNCHANGED"]
    step_id: str | None = None
    visit: int | None = None
    item: int | None = None


class MigrationRequest(Contract):
    """Go on with another version. `mapping` says which step of it an open step has become.

    The version's definition, as stored, is a second argument, which is kept outside history. Only requests under the
    earlier name, `MIGRATE_INLINE`, have it inside.
    """

    version_id: UUID
    version: str
    definition: dict[str, Any] | None = None
    mapping: dict[str, str] = {}
    dry_run: bool = False
    actor: str | None = None


class MigrationFinding(Reply):
    """Why a run cannot go on as it is: one open step, and what is the matter with it."""

    step_id: str
    code: Literal["NEEDS_MAPPING", "IMPOSSIBLE"]
    reason: str


class MigrationReport(Reply):
    """SAFE, NEEDS_MAPPING or IMPOSSIBLE, with the reasons; `migrated` tells that it was done."""

    verdict: Literal["SAFE", "NEEDS_MAPPING", "IMPOSSIBLE"]
    findings: list[MigrationFinding] = []
    migrated: bool = False


class ItemCounts(Reply):
    """The items of a step: how many there are, are under way, have succeeded, have failed."""

    total: int
    open: int
    done: int
    failed: int


class StepView(Reply):
    """A step of a run as users read it; times are ISO 8601. `items` are those of a step over items while it is open:
    of those that a chunk has in hand all are open until the chunk has ended. `signal_names` are names of signals that
    the step has worked out, the last twenty.
    """

    id: str
    name: str
    type: str
    status: str
    visits: int
    started_at: str | None = None
    ended_at: str | None = None
    error: FailureView | None = None
    items: ItemCounts | None = None
    signal_names: list[str] = []


class WaitingFor(Reply):
    """What a run waits for, since when, from whom.

    `kind` is ACTION, PERSON, CHILD, TIMER, SIGNAL, DATA, SLOT (a place among `limits.parallelism`), MUTEX, MILESTONE
    (`enabledWhile`), SUSPENDED, INCIDENT, RESUME (the execution is paused), COMPENSATION or WITHDRAWN (it was to stop,
    and has not answered yet). Of a step over items one entry stands for all of them that wait for the same kind;
    `count` says how many. `signal` and `correlation_key` are those of a SIGNAL. `until` may be over: a person's
    due time stays, so that what is overdue can be seen. `code` and `message` are of the failure that an incident, or
    the next attempt, is due to.
    """

    step_id: str
    visit: int
    item: int | None = None
    kind: str
    since: str
    who: str | None = None
    signal: str | None = None
    correlation_key: str | None = None
    until: str | None = None
    count: int = 1
    code: str | None = None
    message: str | None = None


class PauseView(Reply):
    """An execution is paused: since when (ISO 8601), and by whom where that is known."""

    since: str
    by: str | None = None


class RunView(Reply):
    """The answer to the steps query."""

    steps: list[StepView]
    waiting_for: list[WaitingFor]
    paused: PauseView | None = None


class StateDump(Reply):
    """The answer to the state query: a run's whole memory, and the version that it runs."""

    version_id: UUID
    version: str
    state: dict[str, Any] | None

"""The private working copy of one `advance`: a state whose fields may be set, frozen again at the end.

Its maps are persistent, so making and freezing a draft costs the same however long the run is.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from operator import attrgetter
from typing import Any

from engine.context import written
from engine.errors import EngineError
from engine.expression import Moment
from engine.json_types import JSON
from engine.keys import visit_key
from engine.plan import Edge, HumanNode, Node, Plan, Write
from engine.protocol import Command, Failure, Yield
from engine.state import Stage, State, StepRecord, StepStatus, Token, Work
from engine.values import Const

_NO_MOMENT = Moment(0, "")

# The fields of a state that a draft holds as they are; `ready`, `todo` and `waiting` are queues there.
_PLAIN = (
    "phase", "context", "outputs", "steps", "arrived", "filled", "regions", "yielded", "work", "fans", "leaving",
    "timers", "answers", "running", "gated", "guarded", "locks", "paused", "paused_at", "paused_by", "signals",
    "receipts", "named", "undo", "taken", "ending", "lost", "output",
)  # fmt: skip


_plain_fields = attrgetter(*_PLAIN)


@dataclass(frozen=True, slots=True)
class Step:
    """What one call of the interpreter gives back: the next state, and what is to be done about it."""

    state: State
    commands: tuple[Command, ...]


class Draft:
    """A state being changed. Attributes have the names and meanings of `State`.

    `scope`, `error`, `race` and `data` (what datasources gave) are those of the token or activation whose turn it is;
    what it sends inherits the first two. `reentry` is the number of an activation that is counted already and is now
    entered; `handed` counts the bytes that this call hands to actions and children.
    """

    __slots__ = (
        *_PLAIN, "_facts", "at", "base", "clock", "commands", "data", "error", "handed", "plan", "race", "ready",
        "reentry", "run", "scope", "todo", "waiting",
    )  # fmt: skip

    def __init__(self, plan: Plan, state: State, at: int, clock: Callable[[], None] | None = None) -> None:
        self.plan = plan
        self.clock = clock
        self.base = state
        self.at = max(at, state.at)
        self.run = state.run
        self.commands: list[Command] = []
        self.phase = state.phase
        self.context = state.context
        self.outputs = state.outputs
        self.steps = state.steps
        self.arrived = state.arrived
        self.filled = state.filled
        self.regions = state.regions
        self.ready: deque[Token] = deque(state.ready)
        self.todo: deque[str] = deque(state.todo)
        self.yielded = state.yielded
        self.work = state.work
        self.fans = state.fans
        self.leaving = state.leaving
        self.timers = state.timers
        self.answers = state.answers
        self.waiting: deque[str] = deque(state.waiting)
        self.running = state.running
        self.gated = state.gated
        self.guarded = state.guarded
        self.locks = state.locks
        self.paused = state.paused
        self.paused_at = state.paused_at
        self.paused_by = state.paused_by
        self.signals = state.signals
        self.receipts = state.receipts
        self.named = state.named
        self.undo = state.undo
        self.taken = state.taken
        self.ending = state.ending
        self.lost = state.lost
        self.output = state.output
        self.scope = ""
        self.error: Failure | None = None
        self.race = ""
        self.data: JSON = None
        self.reentry = 0
        self.handed = 0
        self._facts: dict[str, JSON] | None = None

    def freeze(self) -> Step:
        """The state as it stands now, with the commands collected on the way."""
        state = State(
            run=self.run,
            batch=self.base.batch,
            at=self.at,
            ready=tuple(self.ready),
            todo=tuple(self.todo),
            waiting=tuple(self.waiting),
            **dict(zip(_PLAIN, _plain_fields(self), strict=True)),
        )
        return Step(state, tuple(self.commands))

    def mark(self) -> tuple[Any, ...]:
        """What `go_back` needs to undo everything since."""
        queues = (tuple(self.ready), tuple(self.todo), tuple(self.waiting))
        return (tuple(self.commands), queues, _plain_fields(self))

    def go_back(self, mark: tuple[Any, ...]) -> None:
        """Undoes everything since the mark: a turn has failed, and leaves nothing half done."""
        commands, queues, plain = mark
        self.commands = list(commands)
        ready, todo, waiting = queues
        _refill(self.ready, ready)
        _refill(self.todo, todo)
        _refill(self.waiting, waiting)
        for name, value in zip(_PLAIN, plain, strict=True):
            setattr(self, name, value)

    def take(self, token: Token) -> None:
        """From here on it is this token's turn."""
        self.scope = token.scope
        self.error = token.error
        self.race = token.race
        self.data = None

    def stand_in(self, work: Work) -> None:
        """From here on it is this activation's turn."""
        self.scope = work.scope
        self.error = work.error
        self.race = work.race
        self.data = work.data

    def enter(self, node: Node) -> int:
        """Counts one more activation of a step and gives its number.

        Raises `EngineError` when a guardrail is passed.
        """
        if self.reentry:
            visit, self.reentry = self.reentry, 0
            return visit
        limits = self.plan.limits
        self.taken += 1
        if self.taken > limits.max_steps:
            raise EngineError("MAX_STEPS_EXCEEDED", f"the execution made more than {limits.max_steps} steps")
        record = self.steps.get(node.id)
        visit = 1 if record is None else record.visits + 1
        if visit > limits.max_step_visits:
            raise EngineError(
                "MAX_NODE_VISITS_EXCEEDED",
                f"step {node.id} was entered more than {limits.max_step_visits} times",
            )
        return visit

    def passed(self, node: Node, visit: int, status: StepStatus = StepStatus.COMPLETED) -> None:
        """Records a step that began and ended in this moment, and what it writes. Raises `EngineError`."""
        if node.output_mapping and status is StepStatus.COMPLETED:
            self.write(node.output_mapping, visit_key(node.id, visit))
        self.steps = self.steps.set(node.id, StepRecord(status, visit, self.at, self.at))

    def open(self, node: Node, visit: int, edge: Edge | None, status: StepStatus, stage: Stage) -> str:
        """Records an activation that goes on, and gives its key."""
        key = visit_key(node.id, visit)
        self.steps = self.steps.set(node.id, StepRecord(active_status(node, edge, status), visit, self.at))
        entered = "" if edge is None else edge.id
        work = Work(node.id, visit, self.at, stage, edge=entered, scope=self.scope, error=self.error, race=self.race)
        self.work = self.work.set(key, work)
        return key

    def change(self, key: str, **fields: Any) -> Work:
        """Sets fields of an open activation, and gives it as it is then."""
        work = self.work[key]._replace(**fields)
        self.work = self.work.set(key, work)
        return work

    def show(self, work: Work, status: StepStatus, *, ended: bool = True, error: Failure | None = None) -> None:
        """What users read of a step, unless a later visit owns its record."""
        record = self.steps[work.step_id]
        if record.visits == work.visit:
            over = self.at if ended else None
            self.steps = self.steps.set(work.step_id, StepRecord(status, work.visit, work.since, over, error))

    def show_active(self, node: Node, work: Work) -> None:
        """A step that was parked or had ended is under way again."""
        self.show(work, active_status(node, self.plan.edges.get(work.edge), begun_status(node)), ended=False)

    def send(self, *edges: Edge) -> None:
        """Puts a token on each transition, in the branch and on the error path of whose turn it is."""
        for edge in edges:
            self.ready.append(Token(edge.id, self.scope, self.error))

    def later(self, what: str, key: str) -> None:
        """Goes on with an activation when it is its turn: no sooner than the present turn's end, nor while paused."""
        self.todo.append(f"{what} {key}")

    def ask_for_breath(self, late_at: int | None = None) -> None:
        """Lets the server take note before more is done."""
        self.yielded = True
        self.commands.append(Yield(late_at))

    def write(self, writes: tuple[Write, ...], key: str, **more: object) -> None:
        """Writes into the context, as the activation `key`: all of it, or nothing when a value has an error."""
        if not writes:
            return
        if all(type(write.value) is Const for write in writes):
            self.context = written(self.context, writes, {}, _NO_MOMENT)
        else:
            self.context = written(self.context, writes, self.seen(**more), self.moment(key))

    def seen(self, **more: object) -> dict[str, object]:
        """What an expression can see here."""
        scope: dict[str, object] = {
            "__context__": self.context,
            "__steps__": self.outputs,
            "__trigger__": self.run.trigger or {},
            "__variables__": self.plan.variables,
            "__execution__": self._execution(),
            **more,
        }
        if self.data is not None:
            scope["__datasources__"] = self.data
        if self.error is not None:
            scope["__error__"] = described(self.error)
        return scope

    def moment(self, key: str) -> Moment:
        """The time and the seed of chance for an activation."""
        return Moment(self.at, f"{self.run.execution_id}/{key}", self.clock)

    def _execution(self) -> dict[str, JSON]:
        if self._facts is None:
            run = self.run
            self._facts = {
                "id": run.execution_id,
                "name": run.name,
                "rootId": run.root_id,
                "parentId": run.parent_id,
                "templateId": run.template_id,
                "version": run.version,
                "startedAt": iso(run.at),
            }
        return self._facts


def _refill(queue: deque[Any], kept: tuple[Any, ...]) -> None:
    """In place: whoever moves tokens holds on to the queue."""
    queue.clear()
    queue.extend(kept)


def begun_status(node: Node) -> StepStatus:
    """The status of a step that has begun, when neither it nor its transition says anything else."""
    return StepStatus.ACTION_REQUIRED if isinstance(node, HumanNode) else StepStatus.IN_PROGRESS


def active_status(node: Node, edge: Edge | None, otherwise: StepStatus) -> StepStatus:
    """The status of a step while it is active: what the transition says that it was entered by, or the step."""
    shown = edge.arrival_status if edge is not None and edge.arrival_status is not None else node.active_status
    return StepStatus(shown) if shown else otherwise


def described(failure: Failure) -> dict[str, JSON]:
    """A failure as `__error__` shows it."""
    return {
        "code": failure.code,
        "message": failure.message,
        "stepId": failure.step_id,
        "attempt": failure.attempts,
    }


def iso(at: int) -> str:
    """Milliseconds since the epoch as ISO 8601 in UTC."""
    return datetime.fromtimestamp(at / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

"""The private working copy of one `advance`: a state whose fields may be set, frozen again at the end.

Its maps are persistent, so making and freezing a draft costs the same however long the run is.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from engine.context import written
from engine.errors import EngineError
from engine.expression import Moment
from engine.json_types import JSON
from engine.plan import Edge, Plan, PlanNode, Write
from engine.protocol import Command, visit_key
from engine.state import State, StepRecord, StepStatus, Work
from engine.values import Const

_NO_MOMENT = Moment(0, "")


@dataclass(frozen=True, slots=True)
class Step:
    """What one call of the interpreter gives back: the next state, and what is to be done about it."""

    state: State
    commands: tuple[Command, ...]


class Draft:
    """A state being changed. Attributes have the names and meanings of `State`."""

    __slots__ = (
        "_facts",
        "answers",
        "arrived",
        "at",
        "base",
        "batches",
        "clock",
        "commands",
        "context",
        "ending",
        "expired",
        "filled",
        "output",
        "outputs",
        "phase",
        "plan",
        "ready",
        "run",
        "running",
        "steps",
        "taken",
        "timers",
        "waiting",
        "work",
    )

    def __init__(self, plan: Plan, state: State, at: int, clock: Callable[[], None] | None = None) -> None:
        self.plan = plan
        self.clock = clock
        self.base = state
        self.at = max(at, state.at)
        self.commands: list[Command] = []
        self.run = state.run
        self.phase = state.phase
        self.context = state.context
        self.outputs = state.outputs
        self.steps = state.steps
        self.arrived = state.arrived
        self.filled = state.filled
        self.ready: deque[Edge] = deque(plan.edges[edge] for edge in state.ready)
        self.work = state.work
        self.batches = state.batches
        self.timers = state.timers
        self.answers = state.answers
        self.expired = state.expired
        self.waiting: deque[str] = deque(state.waiting)
        self.running = state.running
        self.taken = state.taken
        self.ending = state.ending
        self.output = state.output
        self._facts: dict[str, JSON] | None = None

    def freeze(self) -> Step:
        """The state as it stands now, with the commands collected on the way."""
        state = replace(
            self.base,
            phase=self.phase,
            at=self.at,
            context=self.context,
            outputs=self.outputs,
            steps=self.steps,
            arrived=self.arrived,
            filled=self.filled,
            ready=tuple(edge.id for edge in self.ready),
            work=self.work,
            batches=self.batches,
            timers=self.timers,
            answers=self.answers,
            expired=self.expired,
            waiting=tuple(self.waiting),
            running=self.running,
            taken=self.taken,
            ending=self.ending,
            output=self.output,
        )
        return Step(state, tuple(self.commands))

    def enter(self, node: PlanNode) -> int:
        """Counts one more activation of a step and gives its number.

        Raises `EngineError` when a guardrail is passed.
        """
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

    def passed(self, node: PlanNode, visit: int) -> None:
        """Records a step that began and ended in this moment."""
        self.steps = self.steps.set(node.id, StepRecord(StepStatus.COMPLETED, visit, self.at, self.at))

    def open(self, node: PlanNode, visit: int, status: StepStatus, who: JSON = None) -> str:
        """Records an activation that goes on, and gives its key."""
        key = visit_key(node.id, visit)
        self.steps = self.steps.set(node.id, StepRecord(status, visit, self.at))
        self.work = self.work.set(key, Work(node.id, visit, 1, self.at, who))
        return key

    def close(self, key: str) -> None:
        """Ends an activation well; the step's record follows it unless a later visit owns the record."""
        work = self.work[key]
        self.work = self.work.delete(key)
        if self.steps[work.step_id].visits == work.visit:
            ended = StepRecord(StepStatus.COMPLETED, work.visit, work.since, self.at)
            self.steps = self.steps.set(work.step_id, ended)

    def send(self, *edges: Edge) -> None:
        """Puts a token on each transition."""
        self.ready.extend(edges)

    def write(self, writes: tuple[Write, ...], key: str, **more: object) -> None:
        """Writes into the context, as the activation `key`: all of it, or nothing when a value has an error."""
        if not writes:
            return
        if all(type(write.value) is Const for write in writes):
            self.context = written(self.context, writes, {}, _NO_MOMENT)
        else:
            self.context = written(self.context, writes, self.scope(**more), self.moment(key))

    def scope(self, **more: object) -> dict[str, object]:
        """What an expression can see here."""
        return {
            "__context__": self.context,
            "__steps__": self.outputs,
            "__trigger__": self.run.trigger or {},
            "__variables__": self.plan.variables,
            "__execution__": self._execution(),
            **more,
        }

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


def iso(at: int) -> str:
    """Milliseconds since the epoch as ISO 8601 in UTC."""
    return datetime.fromtimestamp(at / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

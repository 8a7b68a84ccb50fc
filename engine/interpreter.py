"""The interpreter: a plan, a state and one event give the next state and commands. Nothing else.

Law: for the same plan and the same events, `start` and `advance` give the same states and commands, on any machine,
at any time, whether or not the state has been through JSON in between.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, assert_never

from immutables import Map

from engine import gateways, work
from engine.draft import Draft, Step
from engine.ending import cancel, complete_if_done, fail_at, settle_ending
from engine.errors import ClockExceeded, EngineError
from engine.plan import (
    ActionNode,
    ChildNode,
    Edge,
    EndNode,
    ExclusiveJoinNode,
    ExclusiveSplitNode,
    HumanNode,
    InclusiveJoinNode,
    InclusiveSplitNode,
    ParallelJoinNode,
    ParallelSplitNode,
    Plan,
    PlanNode,
    SetNode,
)
from engine.protocol import (
    DEADLINE,
    RETRY,
    TIMEOUT,
    ActionDone,
    ActionFailed,
    CancelRequested,
    ChildDone,
    ChildFailed,
    Event,
    Failure,
    HumanCompleted,
    Key,
    RunInput,
    StartTimer,
    TimerFired,
    Yield,
    Yielded,
)
from engine.state import Phase, State

PURE_STEPS_PER_CALL = 2_000

Handler = Callable[[Draft, Any, Edge | None], None]


class Overdue(Exception):
    """An expression ran out of clock time in turn number `turn` of this call.

    The driver records the fact in history and makes the same call again with a `Pace` that has it in `overdue`,
    which fails that turn's step with EXPRESSION_TIMEOUT instead of evaluating it.
    """

    def __init__(self, turn: int) -> None:
        super().__init__(turn)
        self.turn = turn


@dataclass(frozen=True, slots=True)
class Pace:
    """What clocks have to say about one call, which has none itself. A turn is one token moved or one event applied.

    `overdue` are turns whose expressions took too long; before turn `stop_at` the call stops and yields. `late` is
    asked before each turn and stops the call there when it is true: the driver then records the turn, which it finds
    in the `Yield`, and gives it as `stop_at` on replay. `clock` is asked before each expression, and may raise
    `ClockExceeded` to make the turn overdue.
    """

    overdue: frozenset[int] = frozenset()
    stop_at: int | None = None
    late: Callable[[], bool] | None = None
    clock: Callable[[], None] | None = None


UNHURRIED = Pace()


def start(plan: Plan, run: RunInput, pace: Pace = UNHURRIED) -> Step:
    """The first step of a run. Raises `Overdue`."""
    draft = Draft(plan, State(run=run, at=run.at, context=Map(run.context)), run.at, pace.clock)
    if plan.limits.execution_timeout is not None:
        work.arm(draft, DEADLINE, plan.limits.execution_timeout, "deadline of the execution")
    turns = _Turns(draft, pace)
    turns.take(plan.start, lambda: _begin(draft, plan.start))
    turns.go_on()
    return draft.freeze()


def advance(plan: Plan, state: State, event: Event, pace: Pace = UNHURRIED) -> Step:
    """What follows from one event. An event that answers nothing open changes nothing. Raises `Overdue`."""
    draft = Draft(plan, state, event.at, pace.clock)
    turns = _Turns(draft, pace)
    turns.take(_node_of(plan, event), lambda: _apply(draft, event))
    if not state.ready or isinstance(event, Yielded):
        turns.go_on()
    settle_ending(draft)
    return draft.freeze()


def resume(plan: Plan, state: State, at: int) -> Step:
    """The commands that a new Temporal run of the same execution needs: timers armed again, nothing else."""
    draft = Draft(plan, state, at)
    if draft.phase is Phase.RUNNING:
        for key, due in sorted(draft.timers.items()):
            draft.commands.append(StartTimer(key, due, f"timer {key}"))
        if draft.ready:
            draft.commands.append(Yield())
    return draft.freeze()


class _Turns:
    """Moves tokens one turn at a time, so that each turn's error belongs to its own step."""

    def __init__(self, draft: Draft, pace: Pace) -> None:
        self._draft = draft
        self._pace = pace
        self._turn = 0

    def take(self, node: PlanNode | None, act: Callable[[], None]) -> None:
        """One turn: an error of the definition in it fails the run at `node`."""
        turn, self._turn = self._turn, self._turn + 1
        try:
            if turn in self._pace.overdue:
                raise EngineError("EXPRESSION_TIMEOUT", "an expression took too long")
            act()
        except EngineError as error:
            self._fail(node, error)
        except ClockExceeded as exceeded:
            raise Overdue(turn) from exceeded

    def go_on(self) -> None:
        """Moves every token as far as it goes without waiting, at most PURE_STEPS_PER_CALL of them."""
        draft, ready, nodes, handlers = self._draft, self._draft.ready, self._draft.plan.nodes, _HANDLERS
        first, last = self._turn, self._turn + PURE_STEPS_PER_CALL
        while draft.phase is Phase.RUNNING:
            if ready:
                if self._turn >= last:
                    draft.commands.append(Yield())
                    return
                # One token at least, or a call that is late from the start would never get anywhere.
                if self._turn > first and self._is_late():
                    draft.commands.append(Yield(self._turn))
                    return
                edge = ready.popleft()
                node = nodes[edge.target]
                self._enter(handlers[type(node)], node, edge)
            elif draft.waiting and draft.running < draft.plan.limits.parallelism:
                self._launch()
            elif not self._release():
                self.take(None, lambda: complete_if_done(draft))
                return

    def _enter(self, handler: Handler, node: PlanNode, edge: Edge) -> None:
        """`take` without a closure: this is the path that every token takes."""
        turn = self._turn
        self._turn = turn + 1
        try:
            if turn in self._pace.overdue:
                raise EngineError("EXPRESSION_TIMEOUT", "an expression took too long")
            handler(self._draft, node, edge)
        except EngineError as error:
            self._fail(node, error)
        except ClockExceeded as exceeded:
            raise Overdue(turn) from exceeded

    def _is_late(self) -> bool:
        pace = self._pace
        return self._turn == pace.stop_at or (pace.late is not None and pace.late())

    def _fail(self, node: PlanNode | None, error: EngineError) -> None:
        step_id = None if node is None else node.id
        fail_at(self._draft, node, Failure(error.code, str(error), step_id, retryable=False))

    def _launch(self) -> None:
        draft = self._draft
        key = draft.waiting[0]
        node = draft.plan.node(Key.parse(key).step_id)
        if not isinstance(node, ActionNode):
            raise AssertionError(f"{key} is not an action's key")
        self.take(node, lambda: work.launch_waiting(draft, node, key))

    def _release(self) -> bool:
        released = False

        def act() -> None:
            nonlocal released
            released = gateways.release_inclusive_join(self._draft)

        self.take(None, act)
        return released


def _apply(draft: Draft, event: Event) -> None:
    if draft.phase is not Phase.RUNNING:
        if isinstance(event, ActionDone | ActionFailed | ChildDone | ChildFailed):
            work.drop_withdrawn(draft, event)
        return
    match event:
        case ActionDone() | ActionFailed():
            work.end_action(draft, event)
        case ChildDone() | ChildFailed():
            work.end_child(draft, event)
        case HumanCompleted():
            work.end_human(draft, event)
        case TimerFired():
            _fire(draft, event.key)
        case CancelRequested():
            cancel(draft, event.reason)
        case Yielded():
            pass
        case _:
            assert_never(event)


def _fire(draft: Draft, key: str) -> None:
    if key not in draft.timers:
        return
    draft.timers = draft.timers.delete(key)
    if key == DEADLINE:
        seconds = draft.plan.limits.execution_timeout
        fail_at(draft, None, Failure("EXECUTION_TIMED_OUT", f"the execution took longer than {seconds:g} s"))
        return
    visit_or_item, _, role = key.rpartition("/")
    if role == TIMEOUT:
        work.time_out(draft, visit_or_item)
    elif role == RETRY:
        work.retry_child(draft, visit_or_item)
    else:
        raise AssertionError(f"unknown timer {key}")


def _node_of(plan: Plan, event: Event) -> PlanNode | None:
    """The step an event speaks of; None for those that speak of the whole run."""
    key = getattr(event, "key", None)
    if key is None or key == DEADLINE:
        return None
    return plan.node(Key.parse(key).step_id)


def _begin(draft: Draft, node: PlanNode) -> None:
    draft.passed(node, draft.enter(node))
    draft.send(*node.outgoing)


def _consume(draft: Draft, node: EndNode, edge: Edge | None) -> None:
    draft.passed(node, draft.enter(node))


_HANDLERS: dict[type[PlanNode], Handler] = {
    EndNode: _consume,
    SetNode: work.begin_set,
    ActionNode: work.begin_action,
    HumanNode: work.begin_human,
    ChildNode: work.begin_child,
    ParallelSplitNode: gateways.split_parallel,
    ParallelJoinNode: gateways.join_parallel,
    ExclusiveSplitNode: gateways.split_exclusive,
    ExclusiveJoinNode: gateways.join_exclusive,
    InclusiveSplitNode: gateways.split_inclusive,
    InclusiveJoinNode: gateways.join_inclusive,
}

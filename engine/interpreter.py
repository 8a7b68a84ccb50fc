"""The interpreter: a plan, a state and one event give the next state and commands. Nothing else.

Law: for the same plan and the same events, `start` and `advance` give the same states and commands, on any machine,
at any time, whether or not the state has been through JSON in between.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from immutables import Map

from engine import gateways, opening
from engine.answers import Consequence
from engine.closing import fail_token, fail_visit
from engine.draft import Draft, Step
from engine.ending import complete_if_done, fail_run, settle_ending
from engine.errors import ClockExceeded, EngineError
from engine.events import (
    Event,
)
from engine.fans import look, spread
from engine.holding import LARGEST_AT_ONCE
from engine.keys import DEADLINE, Key
from engine.launch import arm
from engine.plan import (
    ActionNode,
    ChildNode,
    DelayNode,
    DisabledNode,
    Edge,
    EndNode,
    EventSplitNode,
    ExclusiveJoinNode,
    ExclusiveSplitNode,
    HumanNode,
    InclusiveJoinNode,
    InclusiveSplitNode,
    ParallelJoinNode,
    ParallelSplitNode,
    Plan,
    PlanNode,
    RouteNode,
    SetNode,
    SignalNode,
    TerminateNode,
    WorkNode,
)
from engine.protocol import Failure, RunInput, StartTimer
from engine.reception import receive
from engine.state import Phase, State, Token
from engine.units import attempt, begin_round, fail_unit, rest

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
        arm(draft, DEADLINE, plan.limits.execution_timeout, "deadline of the execution")
    turns = _Turns(draft, pace)
    turns.take(lambda: _begin(draft, plan.start), lambda failure: fail_run(draft, plan.start, failure))
    turns.go_on()
    return draft.freeze()


def advance(plan: Plan, state: State, event: Event, pace: Pace = UNHURRIED) -> Step:
    """What follows from one event. An event that answers nothing open changes nothing. Raises `Overdue`."""
    draft = Draft(plan, state, event.at, pace.clock)
    turns = _Turns(draft, pace)
    consequence = receive(draft, event)
    if consequence is not None:
        turns.follow(consequence)
    else:
        turns.take(_nothing, lambda failure: None)
    turns.go_on()
    settle_ending(draft)
    return draft.freeze()


def resume(plan: Plan, state: State, at: int) -> Step:
    """The commands that a new Temporal run of the same execution needs: timers armed again, nothing else."""
    draft = Draft(plan, state, at)
    for key, due in sorted(draft.timers.items()):
        draft.commands.append(StartTimer(key, due, f"timer {key}"))
    if draft.phase is Phase.RUNNING and (draft.ready or draft.todo or draft.yielded):
        draft.ask_for_breath()
    settle_ending(draft)
    return draft.freeze()


def _nothing() -> None:
    """An event that only had to be noted."""


class _Turns:
    """Moves tokens one turn at a time, so that each turn's error belongs to its own step."""

    def __init__(self, draft: Draft, pace: Pace) -> None:
        self._draft = draft
        self._pace = pace
        self._turn = 0

    def take(self, act: Callable[[], None], fail: Callable[[Failure], None], step_id: str | None = None) -> None:
        """One turn, undone and answered by `fail` when it has an error of the definition."""
        turn, self._turn = self._turn, self._turn + 1
        mark = self._draft.mark()
        try:
            if turn in self._pace.overdue:
                raise EngineError("EXPRESSION_TIMEOUT", "an expression took too long")
            act()
        except EngineError as error:
            self._draft.go_back(mark)
            fail(Failure(error.code, str(error), step_id, retryable=False))
        except ClockExceeded as exceeded:
            raise Overdue(turn) from exceeded

    def follow(self, consequence: Consequence) -> None:
        """One turn: what follows from an event for an activation, which fails when that has an error."""
        draft, node, key = self._draft, consequence.node, consequence.key

        def fail(failure: Failure) -> None:
            if consequence.gone:
                return
            if key in draft.work:
                fail_unit(draft, node, key, failure)
            else:
                fail_visit(draft, node, key, failure)

        self.take(consequence.act, fail, node.id)

    def go_on(self) -> None:
        """Moves every token as far as it goes without waiting, at most PURE_STEPS_PER_CALL of them, and not on when
        others have been handed as much as one workflow task may carry.
        """
        draft, ready, nodes, edges = self._draft, self._draft.ready, self._draft.plan.nodes, self._draft.plan.edges
        first, last = self._turn, self._turn + PURE_STEPS_PER_CALL
        while draft.phase is Phase.RUNNING and not draft.paused and not draft.yielded:
            if ready or draft.todo:
                if self._turn >= last or draft.handed > LARGEST_AT_ONCE:
                    draft.ask_for_breath()
                    return
                # One token at least, or a call that is late from the start would never get anywhere.
                if self._turn > first and self._is_late():
                    draft.ask_for_breath(self._turn)
                    return
                if ready:
                    token = ready.popleft()
                    edge = edges[token.edge]
                    self._enter(nodes[edge.target], edge, token)
                else:
                    self._do(*draft.todo.popleft().split(" ", 1))
            elif not self._idle():
                self.take(lambda: complete_if_done(draft), lambda failure: fail_run(draft, None, failure))
                return

    def _enter(self, node: PlanNode, edge: Edge, token: Token) -> None:
        """`take` without its closures for what neither works, reads nor writes: this is the path that most tokens take.

        Those handlers raise before they have changed anything.
        """
        draft = self._draft
        draft.take(token)
        if isinstance(node, WorkNode) or node.data or node.output_mapping:
            reads = node.data and not isinstance(node, WorkNode)
            act = opening.begin_reading if reads else _HANDLERS[type(node)]
            self.take(lambda: act(draft, node, edge), lambda failure: fail_token(draft, node, token, failure), node.id)
            return
        turn = self._turn
        self._turn = turn + 1
        try:
            if turn in self._pace.overdue:
                raise EngineError("EXPRESSION_TIMEOUT", "an expression took too long")
            _HANDLERS[type(node)](draft, node, edge)
        except EngineError as error:
            fail_token(draft, node, token, Failure(error.code, str(error), node.id, retryable=False))
        except ClockExceeded as exceeded:
            raise Overdue(turn) from exceeded

    def _do(self, what: str, key: str) -> None:
        """One turn for an activation that was to be gone on with."""
        draft = self._draft
        if key not in draft.work and key not in draft.fans:
            return
        node = draft.plan.node(Key.parse(key).step_id)
        if what == "enter":
            self._enter_after_reading(node, key)
            return
        act = _GOING_ON[what]
        self.follow(Consequence(node, key, lambda: act(draft, node, key)))

    def _enter_after_reading(self, node: PlanNode, key: str) -> None:
        """A gateway, a delay or a SET whose datasources have answered is entered, as if it were now."""
        draft = self._draft
        work = draft.work[key]
        draft.work = draft.work.delete(key)
        before = draft.steps[node.id]
        token = Token(work.edge, work.scope, work.error, work.race)
        draft.stand_in(work)
        edge = draft.plan.edges[work.edge]

        def act() -> None:
            draft.reentry = work.visit
            _HANDLERS[type(node)](draft, node, edge)

        def fail(failure: Failure) -> None:
            draft.reentry = work.visit
            fail_token(draft, node, token, failure)

        self.take(act, fail, node.id)
        draft.reentry = 0
        if before.visits > work.visit:
            draft.steps = draft.steps.set(node.id, before)

    def _is_late(self) -> bool:
        pace = self._pace
        return self._turn == pace.stop_at or (pace.late is not None and pace.late())

    def _idle(self) -> bool:
        """No token can move by itself: lets in what was held up; tells whether anything was, or is to be."""
        draft = self._draft
        if draft.waiting and draft.running < draft.plan.limits.parallelism:
            if draft.handed > LARGEST_AT_ONCE:
                draft.ask_for_breath()
                return True
            key = draft.waiting.popleft()
            self._do("attempt", key)
            return True
        return self._lapsed() or self._opened() or self._released()

    def _lapsed(self) -> bool:
        """Withdraws the first activation whose milestone has passed."""
        draft = self._draft
        for key in draft.guarded:
            node = draft.plan.node(Key.parse(key).step_id)
            if isinstance(node, WorkNode) and self._ask(node, key, lambda: opening.lapse(draft, node, key)):  # noqa: B023
                return True
        return False

    def _opened(self) -> bool:
        """Lets the first activation go on whose mutex is free and whose milestone holds."""
        draft = self._draft
        for key in draft.gated:
            node = draft.plan.node(Key.parse(key).step_id)
            if self._ask(node, key, lambda: opening.can_open(draft, key)):  # noqa: B023
                draft.later("admit", key)
                draft.gated = tuple(name for name in draft.gated if name != key)
                return True
        return False

    def _released(self) -> bool:
        if not self._draft.filled:
            # It counts as a turn all the same: recorded histories name turns by number.
            self._turn += 1
            return False
        return self._ask(None, None, lambda: gateways.release_inclusive_join(self._draft))

    def _ask(self, node: PlanNode | None, key: str | None, question: Callable[[], bool]) -> bool:
        """One turn that may change something; tells whether it did. One that fails has changed something."""
        draft = self._draft
        answer = True

        def act() -> None:
            nonlocal answer
            answer = question()

        def fail(failure: Failure) -> None:
            if node is None or key is None:
                fail_run(draft, None, failure)
            else:
                draft.gated = tuple(name for name in draft.gated if name != key)
                draft.guarded = tuple(name for name in draft.guarded if name != key)
                fail_visit(draft, node, key, failure)

        self.take(act, fail, None if node is None else node.id)
        return answer


def _begin(draft: Draft, node: PlanNode) -> None:
    draft.passed(node, draft.enter(node))
    draft.send(*node.outgoing)


def _consume(draft: Draft, node: EndNode, edge: Edge | None) -> None:
    draft.passed(node, draft.enter(node))


_HANDLERS: dict[type[PlanNode], Handler] = {
    EndNode: _consume,
    DisabledNode: opening.pass_by,
    SetNode: opening.begin_set,
    DelayNode: opening.begin_delay,
    TerminateNode: opening.begin_terminate,
    ActionNode: opening.begin_work,
    HumanNode: opening.begin_work,
    SignalNode: opening.begin_work,
    ChildNode: opening.begin_work,
    ParallelSplitNode: gateways.split_parallel,
    ParallelJoinNode: gateways.join_parallel,
    ExclusiveSplitNode: gateways.split_exclusive,
    ExclusiveJoinNode: gateways.join_exclusive,
    InclusiveSplitNode: gateways.split_inclusive,
    InclusiveJoinNode: gateways.join_inclusive,
    RouteNode: gateways.route,
    EventSplitNode: gateways.split_event,
}

_GOING_ON: dict[str, Callable[[Draft, Any, str], None]] = {
    "begin": opening.begin_again,
    "admit": opening.admit,
    "spread": spread,
    "fan": look,
    "round": begin_round,
    "attempt": attempt,
    "rest": rest,
}

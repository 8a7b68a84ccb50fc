"""Taking a closed run up again: the state that a new run of the same execution begins with.

Nothing that is complete is done again, except what is asked for; visits go on being counted, so that every activation
keeps a key of its own.
"""

from dataclasses import dataclass, replace
from typing import Any

from immutables import Map

from engine.closing import finish_visit
from engine.draft import Draft, begun_status
from engine.errors import EngineError
from engine.fans import relisted
from engine.json_types import JSON
from engine.keys import COMPENSATE, DEADLINE, DELAY, DUE, TIMEOUT, Key, role_key, visit_key
from engine.plan import ChildNode, Node, ParallelJoinNode, Plan, WorkNode
from engine.regions import enclosing_scope
from engine.state import Fan, Lost, Phase, Region, Stage, State, StepRecord, StepStatus, Token, Work
from engine.tasks import node_of
from engine.withdrawal import command_key, with_progress

# What undid a step has had its effect: nothing that builds on the step can go on.
_INSTEAD = "replay the execution, or resume it from the earliest of them"


@dataclass(frozen=True, slots=True)
class Point:
    """Where a run is to be taken up: a step, the visit and item of it, and what is to be there instead of what was.

    With `gives_output` the step is not done again: `output` is taken for what it gave.
    """

    step_id: str
    visit: int | None = None
    item: int | None = None
    context: dict[str, JSON] | None = None
    gives_output: bool = False
    output: JSON = None


def retry_failed(plan: Plan, state: State, at: int) -> State:
    """Everything that was under way when the run failed, was cancelled or was terminated is taken up again.

    Raises NOTHING_FAILED, or COMPENSATED where something has been undone since.
    """
    if state.phase is Phase.COMPLETED:
        raise EngineError("NOTHING_FAILED", "the execution has completed")
    if _undone_steps(state):
        undone = ", ".join(sorted(_undone_steps(state)))
        raise EngineError("COMPENSATED", f"these steps have been undone: {undone}; {_INSTEAD}")
    lost = _lost(plan, state)
    draft = _reopened(plan, state, at, lost)
    _take_up_all(draft, lost)
    return draft.freeze().state


def resume_from(plan: Plan, state: State, point: Point, at: int) -> State:
    """The run goes on from a step that it has been through: that step, and all that come after it, are done again.

    What waits or runs elsewhere goes on beside it. Raises STEP_NOT_FOUND, STEP_NOT_RUN, CONTEXT_NEEDED (an earlier
    visit is meant, and the context has moved on since), ITEM_NOT_FOUND, OUTPUT_NOT_TAKEN, and COMPENSATED where a
    step that would not be done again has been undone.
    """
    node = node_of(plan, point.step_id)
    record = state.steps.get(node.id)
    if record is None:
        raise EngineError("STEP_NOT_RUN", f"the execution has never come to {node.id}")
    if point.visit is not None and not 1 <= point.visit <= record.visits:
        raise EngineError("STEP_NOT_RUN", f"{node.id} was entered {record.visits} times")
    if point.visit not in (None, record.visits) and point.context is None:
        raise EngineError("CONTEXT_NEEDED", f"say with which context to go on from visit {point.visit} of {node.id}")
    after = plan.beyond([node.index])
    again = {each.id for each in plan.nodes if after >> each.index & 1}
    kept_undone = sorted(_undone_steps(state) - again)
    if kept_undone:
        before = ", ".join(kept_undone)
        raise EngineError("COMPENSATED", f"these steps have been undone and come before: {before}; {_INSTEAD}")
    lost = _elsewhere(plan, _lost(plan, state), after)
    draft = _reopened(plan, state, at, lost)
    if point.context is not None:
        draft.context = Map(point.context)
    _forget_after(draft, after)
    _rebuild_regions(draft, node)
    _refill_joins(draft, after)
    _take_up_all(draft, lost)
    _enter(draft, node, point)
    return draft.freeze().state


def _lost(plan: Plan, state: State) -> Lost:
    """What was under way at the end: a terminated run has it where it was. Activations bring deadlines along."""
    lost = state.lost
    if lost is None:
        lost = Lost(
            state.ready,
            state.arrived,
            state.filled,
            state.regions,
            state.work,
            state.fans,
            state.signals,
            timers=state.timers,
        )
    kept = {key: work._replace(deadlines=_deadlines(plan, key, work, lost.timers)) for key, work in lost.work.items()}
    return lost._replace(work=Map(kept))


def _deadlines(plan: Plan, key: str, work: Work, timers: Map[str, int]) -> Map[str, int]:
    """When what an activation waits for is due; not a child's timeout, for another child is spawned.

    Whoever did not answer in time, and so failed, is asked anew and has all the time again.
    """
    if isinstance(plan.node(work.step_id), ChildNode):
        return Map()
    armed = {role: timers[name] for role in (DELAY, TIMEOUT, DUE) if (name := role_key(key, role)) in timers}
    if work.due is None or work.stage is not Stage.RUNNING:
        return Map(armed)
    # What is due and goes to nobody else has no timer.
    return Map({DUE: work.due, **armed})


def _undone_steps(state: State) -> set[str]:
    """Steps that have been compensated, in whichever visit."""
    found = {step_id for step_id, record in state.steps.items() if record.status is StepStatus.COMPENSATED}
    own = f"{state.run.execution_id}/"
    undone = () if state.ending is None else state.ending.undone
    return found | {Key.parse(key.removeprefix(own)).step_id for key in undone if key.startswith(own)}


def _reopened(plan: Plan, state: State, at: int, lost: Lost) -> Draft:
    """The run as it was, open again, with nothing under way but tokens."""
    timers: Map[str, int] = Map()
    if plan.limits.execution_timeout is not None:
        timers = timers.set(DEADLINE, at + round(plan.limits.execution_timeout * 1000))
    empty: Map[str, Any] = Map()
    base = replace(
        state,
        phase=Phase.RUNNING,
        ready=lost.ready,
        arrived=lost.arrived,
        filled=lost.filled,
        regions=lost.regions,
        signals=lost.signals,
        todo=(),
        yielded=False,
        work=empty,
        fans=empty,
        leaving=empty,
        timers=timers,
        waiting=(),
        running=0,
        gated=(),
        guarded=(),
        locks=empty,
        paused=False,
        paused_at=0,
        paused_by=None,
        ending=None,
        lost=None,
        output=None,
    )
    return Draft(plan, base, at)


def _take_up(draft: Draft, key: str, work: Work, *, goes_on: bool = False) -> None:
    """Goes on with an activation where it was; with `goes_on` that is before its next iteration."""
    node = draft.plan.nodes[draft.plan.by_id[work.step_id]]
    if DELAY in work.deadlines:
        draft.timers = draft.timers.set(role_key(key, DELAY), work.deadlines[DELAY])
        draft.work = draft.work.set(key, work._replace(deadlines=Map()))
        draft.show_active(node, work)
        return
    if not isinstance(node, WorkNode):
        draft.ready.append(Token(work.edge, work.scope, work.error, work.race))
        return
    if work.stage is Stage.SUSPENDED:
        draft.work = draft.work.set(key, work)
        _hold(draft, node, key, True)
        draft.show_active(node, work)
        return
    begun = work.begun and work.stage not in (Stage.CLOSED, Stage.MUTEX, Stage.READING)
    fresh = work._replace(stage=Stage.READY, attempt=1, failure=None, reads=(), signal=(), begun=begun)
    draft.work = draft.work.set(key, fresh)
    _hold(draft, node, key, begun)
    draft.answers = draft.answers.delete(key) if key in draft.answers else draft.answers
    draft.show_active(node, fresh)
    draft.later("round" if goes_on else "attempt" if begun else "admit", key)


def _take_up_all(draft: Draft, lost: Lost) -> None:
    """Everything that was under way; a step over items by its items, also where it was parked as a whole."""
    for key, work in sorted(lost.work.items()):
        if work.item is None and key not in lost.fans:
            _take_up(draft, key, work, goes_on=key in lost.rounds)
    for key, before in sorted(lost.fans.items()):
        fan = before
        for name, work in sorted(lost.work.items()):
            if work.step_id == fan.work.step_id and work.visit == fan.work.visit:
                fan = with_progress(fan, name, work)
        _take_up_items(draft, key, fan)
    for key, output in sorted(lost.done.items()):
        _take_as_done(draft, key, output)


def _take_as_done(draft: Draft, key: str, output: JSON) -> None:
    """An attempt that was withdrawn has succeeded: its step is complete, unless what follows from that has an error.

    Then it is done again, like any step that fails so, and what would undo it is written down anew.
    """
    if key not in draft.work:
        # A rival of the same event split has been taken for done.
        return
    node = draft.plan.nodes[draft.plan.by_id[draft.work[key].step_id]]
    name = role_key(command_key(node, key, draft.work[key]), COMPENSATE)
    mark = draft.mark()
    draft.todo.remove(f"attempt {key}")
    try:
        finish_visit(draft, node, key, output)
    except EngineError:
        draft.go_back(mark)
        draft.undo = Map({index: undo for index, undo in draft.undo.items() if undo.key != name})


def _take_up_items(draft: Draft, key: str, fan: Fan) -> None:
    """Items that have a result keep it; all others that had begun are begun again."""
    node = draft.plan.nodes[draft.plan.by_id[fan.work.step_id]]
    left = tuple(index for index in range(fan.next) if index not in fan.results)
    work = fan.work._replace(stage=Stage.RUNNING, failure=None)
    draft.fans = draft.fans.set(key, fan._replace(work=work, again=left, errors=Map(), open=0))
    if isinstance(node, WorkNode):
        _hold(draft, node, key, True)
    draft.show_active(node, work)
    draft.later("fan", key)


def _hold(draft: Draft, node: WorkNode, key: str, admitted: bool) -> None:
    """An activation that had been admitted has its mutex and its milestone again."""
    if admitted and node.mutex is not None and node.mutex not in draft.locks:
        draft.locks = draft.locks.set(node.mutex, key)
    if admitted and node.enabled_while is not None:
        draft.guarded = (*draft.guarded, key)


def _elsewhere(plan: Plan, lost: Lost, after: int) -> Lost:
    """What was under way where nothing is done again."""

    def stays(step_id: str) -> bool:
        return not after >> plan.by_id[step_id] & 1

    return Lost(
        ready=tuple(token for token in lost.ready if not after >> plan.edges[token.edge].target & 1),
        arrived=_kept(lost.arrived, lambda name: not after >> plan.edges[name].target & 1),
        filled=_kept(lost.filled, stays),
        regions=_kept(lost.regions, lambda name: stays(Key.parse(name).step_id)),
        work=Map({key: work for key, work in lost.work.items() if stays(work.step_id)}),
        fans=Map({key: fan for key, fan in lost.fans.items() if stays(fan.work.step_id)}),
        signals=lost.signals,
        done=_kept(lost.done, lambda name: stays(Key.parse(name).step_id)),
        rounds=lost.rounds,
        timers=lost.timers,
    )


def _kept(members: Map[str, Any], stays: Any) -> Map[str, Any]:
    return Map({key: member for key, member in members.items() if stays(key.partition("@")[0])})


def _forget_after(draft: Draft, after: int) -> None:
    """What comes after has not been done; how often it was entered stays known."""
    for step_id, record in sorted(draft.steps.items()):
        index = draft.plan.by_id.get(step_id)
        if index is not None and after >> index & 1:
            fresh = StepRecord(StepStatus.NOT_STARTED, record.visits, record.started_at)
            draft.steps = draft.steps.set(step_id, fresh)


def _rebuild_regions(draft: Draft, node: Node) -> None:
    """The regions around a step are open again; their other branches have arrived, as they had."""
    plan = draft.plan
    for split in plan.nodes:
        closed_by = getattr(split, "closed_by", None)
        if closed_by is None or split.id not in draft.steps:
            continue
        own = next((edge for edge in split.outgoing if plan.beyond([edge.target], closed_by) >> node.index & 1), None)
        if own is None:
            continue
        key = visit_key(split.id, draft.steps[split.id].visits)
        branches = tuple(edge.id for edge in split.outgoing)
        join = plan.nodes[closed_by]
        results: dict[str, dict[str, JSON]] = {}
        for edge in split.outgoing:
            if edge is not own:
                last = _last_before(plan, plan.beyond([edge.target], closed_by), join)
                results[edge.id] = {"output": draft.outputs.get(last)}
        region = Region(split.id, enclosing_scope(draft, split.index), None, branches, Map(results))
        draft.regions = draft.regions.set(key, region)


def _last_before(plan: Plan, branch: int, join: Node) -> str:
    return next((plan.nodes[edge.source].id for edge in join.incoming if branch >> edge.source & 1), "")


def _refill_joins(draft: Draft, after: int) -> None:
    """Joins that come after wait for the branches that are done again, and have what the others had brought."""
    for node in draft.plan.nodes:
        synchronises = isinstance(node, ParallelJoinNode) and node.policy is None
        if not after >> node.index & 1 or not (synchronises or hasattr(node, "reach")):
            continue
        scope = enclosing_scope(draft, node.index)
        place = f"@{scope}" if scope else ""
        filled = 0
        for edge in node.incoming:
            source = draft.steps.get(draft.plan.nodes[edge.source].id)
            done = source is not None and source.status in (StepStatus.COMPLETED, StepStatus.SKIPPED)
            if done and not after >> edge.source & 1:
                draft.arrived = draft.arrived.set(f"{edge.id}{place}", 1)
                filled += 1
        if filled:
            draft.filled = draft.filled.set(f"{node.id}{place}", filled)


def _enter(draft: Draft, node: Node, point: Point) -> None:
    """The token that goes on: before the step, after it, or at one of its items."""
    draft.scope, draft.error, draft.race = enclosing_scope(draft, node.index), None, ""
    if point.item is not None:
        _enter_item(draft, node, point.item)
    elif point.gives_output:
        if not isinstance(node, WorkNode):
            raise EngineError("OUTPUT_NOT_TAKEN", f"{node.id} is a {node.type}, which has no output")
        visit = draft.enter(node)
        key = draft.open(node, visit, None, StepStatus.IN_PROGRESS, Stage.READY)
        finish_visit(draft, node, key, point.output)
    elif not node.incoming or isinstance(node, ParallelJoinNode) or hasattr(node, "reach"):
        draft.passed(node, draft.enter(node))
        draft.send(*node.outgoing)
    else:
        draft.ready.append(Token(node.incoming[0].id, draft.scope))


def _enter_item(draft: Draft, node: Node, item: int) -> None:
    """One item is done again; the others keep what they gave."""
    before = draft.outputs.get(node.id)
    if not isinstance(node, WorkNode) or node.each is None or not isinstance(before, list):
        raise EngineError("ITEM_NOT_FOUND", f"{node.id} has not run over items")
    if not 0 <= item < len(before):
        raise EngineError("ITEM_NOT_FOUND", f"{node.id} has run over {len(before)} items")
    visit = draft.enter(node)
    key = draft.open(node, visit, None, begun_status(node), Stage.READY)
    relisted(draft, node, key, {index: output for index, output in enumerate(before) if index != item}, item)

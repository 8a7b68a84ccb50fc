"""How a run looks to people: the steps query, what it waits for, and the page that Temporal's UI shows."""

from collections.abc import Iterator
from heapq import nlargest
from operator import itemgetter

from app.contracts import FailureView
from app.run_contracts import ItemCounts, PauseView, RunView, StepView, WaitingFor
from engine.draft import iso
from engine.keys import DELAY, DUE, RETRY, TIMEOUT, role_key, visit_key
from engine.plan import ActionNode, ChildNode, HumanNode, Node, Plan, SignalNode
from engine.state import ENDED, Fan, Phase, Stage, State, StepRecord, StepStatus, Work

_ROWS = 40
_WAITS = 20
_LONGEST_KEYWORD = 255

_TIMERS = (TIMEOUT, DUE, RETRY, DELAY)
# What each item waits for by itself, because somebody answers to one of them.
_ONE_BY_ONE = frozenset({"PERSON", "SIGNAL", "INCIDENT", "SUSPENDED"})
_KINDS = {
    Stage.CLOSED: "MILESTONE",
    Stage.MUTEX: "MUTEX",
    Stage.READING: "DATA",
    Stage.QUEUED: "SLOT",
    Stage.RETRYING: "TIMER",
    Stage.SUSPENDED: "SUSPENDED",
    Stage.INCIDENT: "INCIDENT",
}


def run_view(plan: Plan, state: State) -> RunView:
    """Every step in plan order, and what the run waits for."""
    still_open = {work.step_id for work in state.work.values()}
    steps = [_step_view(plan, state, step_id, step_id in still_open) for step_id in plan.by_id]
    return RunView(steps=steps, waiting_for=list(waiting_for(plan, state)), paused=_pause(state))


def _pause(state: State) -> PauseView | None:
    """The pause that the run is in; one that began before its time was noted is as old as the state."""
    return PauseView(since=iso(state.paused_at or state.at), by=state.paused_by) if state.paused else None


def waiting_for(plan: Plan, state: State) -> Iterator[WaitingFor]:
    """What is open, in order of key: since when, from whom, until when. Items that wait alike are one entry."""
    if state.phase in ENDED:
        return
    pause = _pause(state)
    if pause is not None:
        yield WaitingFor(step_id="", visit=0, kind="RESUME", since=pause.since)
    alike: dict[tuple[str, int, str], WaitingFor] = {}
    for key, work in sorted(state.work.items()):
        wait = _wait(plan, state, key, work)
        group = (work.step_id, work.visit, wait.kind)
        if work.item is None or wait.kind in _ONE_BY_ONE:
            yield wait
        elif group in alike:
            alike[group] = alike[group].model_copy(update={"count": alike[group].count + 1, "item": None})
        else:
            alike[group] = wait
    yield from alike.values()
    yield from _withdrawn(plan, state)


def _withdrawn(plan: Plan, state: State) -> Iterator[WaitingFor]:
    """What was taken back and has not answered yet, one entry for a visit: the run does not end before it has."""
    found: dict[tuple[str, int], WaitingFor] = {}
    for _, work in sorted(state.leaving.items()):
        if work.step_id not in plan.by_id:
            continue
        place = (work.step_id, work.visit)
        before = found.get(place)
        if before is not None:
            found[place] = before.model_copy(update={"count": before.count + 1, "item": None})
            continue
        found[place] = WaitingFor(
            step_id=work.step_id, visit=work.visit, item=work.item, kind="WITHDRAWN", since=iso(work.since)
        )
    yield from found.values()


def _wait(plan: Plan, state: State, key: str, work: Work) -> WaitingFor:
    times = [state.timers[name] for role in _TIMERS if (name := role_key(key, role)) in state.timers]
    # What is due and goes to nobody else has no timer.
    due = min(times if work.due is None or work.stage is not Stage.RUNNING else [*times, work.due], default=None)
    waits = work.stage is Stage.RUNNING
    return WaitingFor(
        step_id=work.step_id,
        visit=work.visit,
        item=work.item,
        kind=_kind(plan, state, work),
        since=iso(work.since),
        who=None if work.who is None else str(work.who),
        signal=next(iter(work.signal), None) if waits else None,
        correlation_key=work.signal[1] if waits and len(work.signal) > 1 else None,
        until=None if due is None else iso(due),
        code=None if work.failure is None else work.failure.code,
        message=None if work.failure is None else work.failure.message,
    )


def waits_for_people(plan: Plan, state: State) -> str | None:
    """The ids of steps that wait for people or signals, for the search attribute (at most 255 characters)."""
    waited = {
        work.step_id
        for work in state.work.values()
        if work.stage is Stage.RUNNING and isinstance(_node(plan, work.step_id), HumanNode | SignalNode)
    }
    return ", ".join(sorted(waited))[:_LONGEST_KEYWORD] or None


def details(plan: Plan, state: State) -> str:
    """Markdown for Temporal's UI: what is waited for, then the steps that have begun."""
    lines = [f"**{state.phase.value}{_paused(state)}**", ""]
    waits = list(waiting_for(plan, state))
    if waits:
        lines += ["| waiting for | kind | since | from | until |", "|---|---|---|---|---|"]
        lines += [_wait_row(plan, wait) for wait in waits[:_WAITS]]
        lines += [f"… and {len(waits) - _WAITS} more", ""] if len(waits) > _WAITS else [""]
    begun = [(plan.by_id[step_id], record) for step_id, record in state.steps.items() if step_id in plan.by_id]
    shown = sorted(nlargest(_ROWS, begun, key=itemgetter(0)), key=itemgetter(0))
    lines += ["| step | status | visits | since |", "|---|---|---|---|"]
    lines += [_step_row(plan, index, record) for index, record in shown]
    if len(begun) > _ROWS:
        lines.append(f"… and {len(begun) - _ROWS} earlier steps")
    return "\n".join(lines)


def _paused(state: State) -> str:
    pause = _pause(state)
    if pause is None:
        return ""
    return f" (paused since {pause.since}{'' if pause.by is None else f' by {_cell(pause.by)}'})"


def _step_view(plan: Plan, state: State, step_id: str, still_open: bool) -> StepView:
    node = plan.node(step_id)
    record = state.steps.get(step_id)
    if record is None:
        return StepView(id=step_id, name=node.name, type=node.type, status=StepStatus.NOT_STARTED.value, visits=0)
    error = record.error
    status = record.status
    if still_open and status is StepStatus.COMPLETED:
        # The last visit is over; an earlier one is not.
        status = StepStatus.ACTION_REQUIRED if isinstance(node, HumanNode) else StepStatus.IN_PROGRESS
    fan = state.fans.get(visit_key(step_id, record.visits))
    return StepView(
        id=step_id,
        name=node.name,
        type=node.type,
        status=status.value,
        visits=record.visits,
        started_at=iso(record.started_at),
        ended_at=None if record.ended_at is None or still_open else iso(record.ended_at),
        error=None
        if error is None
        else FailureView(code=error.code, message=error.message, step_id=error.step_id, attempts=error.attempts),
        items=None if fan is None else _counts(fan),
        signal_names=list(state.named.get(step_id, ())),
    )


def _counts(fan: Fan) -> ItemCounts:
    """Of a step whose items run in chunks, those are open that a chunk has and has not given back."""
    done, failed = len(fan.results), len(fan.errors)
    under_way = max(fan.next - len(fan.again) - done - failed, 0) if fan.chunk else fan.open
    return ItemCounts(total=len(fan.items), open=under_way, done=done, failed=failed)


def _kind(plan: Plan, state: State, work: Work) -> str:
    if state.phase is Phase.COMPENSATING:
        return "INCIDENT" if work.stage is Stage.INCIDENT else "COMPENSATION"
    return _KINDS.get(work.stage) or _kind_of_running(_node(plan, work.step_id))


def _node(plan: Plan, step_id: str) -> Node | None:
    """A step of the plan; None for one of an earlier version, which is only undone."""
    index = plan.by_id.get(step_id)
    return None if index is None else plan.nodes[index]


def _kind_of_running(node: Node | None) -> str:
    match node:
        case HumanNode():
            return "PERSON"
        case ActionNode():
            return "ACTION"
        case ChildNode():
            return "CHILD"
        case SignalNode():
            return "SIGNAL"
        case _:
            return "TIMER"


def _wait_row(plan: Plan, wait: WaitingFor) -> str:
    node = _node(plan, wait.step_id)
    name = "the execution is paused"
    if wait.step_id:
        name = f"{_cell(wait.step_id if node is None else node.name)} (`{wait.step_id}`)"
    return f"| {name} | {wait.kind} | {wait.since} | {_cell(wait.who or '')} | {wait.until or ''} |"


def _step_row(plan: Plan, index: int, record: StepRecord) -> str:
    node = plan.nodes[index]
    return f"| {_cell(node.name)} (`{node.id}`) | {record.status.value} | {record.visits} | {iso(record.started_at)} |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")

"""The beginning of an activation: passed by, skipped, held up by a mutex or a milestone, or begun."""

from datetime import datetime

from engine.closing import finish_visit, skip_visit
from engine.draft import Draft, begun_status
from engine.ending import terminate
from engine.errors import EngineError
from engine.fans import spread
from engine.json_types import JSON
from engine.keys import DELAY, Key, role_key, visit_key
from engine.launch import arm_until, duration
from engine.plan import DelayNode, DisabledNode, Edge, Node, SetNode, TerminateNode, WorkNode
from engine.signals import text_of
from engine.state import Stage, StepStatus
from engine.units import read
from engine.values import holds, required
from engine.withdrawal import halt, release, withdraw_rivals


def begin_set(draft: Draft, node: SetNode, edge: Edge | None) -> None:
    """Writes into the context and goes on in the same moment. Raises `EngineError`, and writes nothing then."""
    visit = draft.enter(node)
    before = draft.context
    try:
        draft.write(node.writes, visit_key(node.id, visit))
        draft.passed(node, visit)
    except EngineError:
        draft.context = before
        raise
    draft.send(*node.outgoing)


def pass_by(draft: Draft, node: DisabledNode, edge: Edge | None) -> None:
    """A token at a DISABLED step goes on."""
    draft.passed(node, draft.enter(node), StepStatus.DISABLED)
    withdraw_rivals(draft, draft.race)
    draft.send(*node.outgoing)


def begin_terminate(draft: Draft, node: TerminateNode, edge: Edge | None) -> None:
    """Ends the execution. Raises `EngineError`."""
    visit = draft.enter(node)
    message = required(node.message, draft.seen(), draft.moment(visit_key(node.id, visit)))
    terminate(draft, node.outcome, f"{node.name} ended the execution" if message is None else text_of(message))
    draft.passed(node, visit)


def begin_delay(draft: Draft, node: DelayNode, edge: Edge | None) -> None:
    """Waits until a time; one that is past is over at once. Raises `EngineError`."""
    visit = draft.enter(node)
    due = _due(draft, node, visit_key(node.id, visit))
    key = draft.open(node, visit, edge, StepStatus.IN_PROGRESS, Stage.RUNNING)
    if due <= draft.at:
        finish_visit(draft, node, key, None, has_output=False)
    else:
        arm_until(draft, role_key(key, DELAY), due, node.name)


def _due(draft: Draft, node: DelayNode, key: str) -> int:
    """When a delay is over, in milliseconds since the epoch."""
    scope, moment = draft.seen(), draft.moment(key)
    if node.duration is not None:
        length = required(node.duration, scope, moment)
        return draft.at if length == 0 else draft.at + round(duration(length, f"the delay of {node.id}") * 1000)
    if node.until is None:
        raise AssertionError("a delay has a duration or an end")
    return _instant(required(node.until, scope, moment), node.id)


def _instant(value: JSON, step_id: str) -> int:
    try:
        if not isinstance(value, str):
            raise ValueError
        moment = datetime.fromisoformat(value)
        if moment.tzinfo is None:
            raise ValueError
        return round(moment.timestamp() * 1000)
    except (ValueError, OverflowError) as error:
        message = f"the end of {step_id} is an ISO 8601 time with its offset, such as 2030-01-31T09:00:00Z"
        raise EngineError("TIME_INVALID", message) from error


def begin_work(draft: Draft, node: WorkNode, edge: Edge | None) -> None:
    """Opens an activation, unless the step is skipped. Raises `EngineError`."""
    visit = draft.enter(node)
    key = visit_key(node.id, visit)
    if node.skip_if is not None and holds(node.skip_if, draft.seen(), draft.moment(key)):
        draft.passed(node, visit, StepStatus.SKIPPED)
        withdraw_rivals(draft, draft.race)
        draft.send(*node.outgoing)
        return
    draft.open(node, visit, edge, begun_status(node), Stage.READY)
    admit(draft, node, key)


def begin_again(draft: Draft, node: WorkNode, key: str) -> None:
    """Goes on with an activation that failed before it had begun. Raises `EngineError`."""
    draft.stand_in(draft.work[key])
    if node.skip_if is not None and holds(node.skip_if, draft.seen(), draft.moment(key)):
        skip_visit(draft, node, key)
    else:
        admit(draft, node, key)


def admit(draft: Draft, node: WorkNode, key: str) -> None:
    """Goes on with an activation when its milestone holds and its mutex is free. Raises `EngineError`."""
    blocked = _blocked(draft, node, key)
    if blocked is not None:
        draft.change(key, stage=blocked)
        release(draft, key)
        if key not in draft.gated:
            draft.gated = (*draft.gated, key)
        return
    draft.gated = tuple(name for name in draft.gated if name != key)
    if node.mutex is not None:
        draft.locks = draft.locks.set(node.mutex, key)
    if node.enabled_while is not None and key not in draft.guarded:
        draft.guarded = (*draft.guarded, key)
    draft.change(key, stage=Stage.READY)
    if not read(draft, node, key, per_item=False):
        spread(draft, node, key)


def _blocked(draft: Draft, node: WorkNode, key: str) -> Stage | None:
    if node.enabled_while is not None:
        draft.stand_in(draft.work[key])
        if not holds(node.enabled_while, draft.seen(), draft.moment(key)):
            return Stage.CLOSED
    if node.mutex is not None:
        holder = draft.locks.get(node.mutex)
        if holder != key and (holder is not None or _is_behind(draft, node.mutex, key)):
            return Stage.MUTEX
    return None


def _is_behind(draft: Draft, mutex: str, key: str) -> bool:
    """Whether another activation has waited longer for a mutex."""
    for name in draft.gated:
        if name == key:
            return False
        work = draft.work[name]
        node = draft.plan.node(work.step_id)
        if work.stage is Stage.MUTEX and isinstance(node, WorkNode) and node.mutex == mutex:
            return True
    return False


def can_open(draft: Draft, key: str) -> bool:
    """Whether an activation that is held up can go on now; if so it has its mutex. Raises `EngineError`."""
    node = draft.plan.node(Key.parse(key).step_id)
    if not isinstance(node, WorkNode):
        raise AssertionError(f"{key} is not held up by anything")
    blocked = _blocked(draft, node, key)
    if blocked is not None and draft.work[key].stage is not blocked:
        draft.change(key, stage=blocked)
    if blocked is None and node.mutex is not None:
        draft.locks = draft.locks.set(node.mutex, key)
    return blocked is None


def lapse(draft: Draft, node: WorkNode, key: str) -> bool:
    """Withdraws an activation whose milestone has passed; tells whether it has. Raises `EngineError`."""
    fan = draft.fans.get(key)
    work = draft.work[key] if fan is None else fan.work
    draft.stand_in(work)
    if node.enabled_while is None or holds(node.enabled_while, draft.seen(), draft.moment(key)):
        return False
    halt(draft, key)
    skip_visit(draft, node, key)
    return True


def begin_reading(draft: Draft, node: Node, edge: Edge | None) -> None:
    """A gateway, a delay or a SET has datasources: it is entered once they have answered. Raises `EngineError`."""
    visit = draft.enter(node)
    key = draft.open(node, visit, edge, StepStatus.IN_PROGRESS, Stage.READING)
    read(draft, node, key, per_item=False)

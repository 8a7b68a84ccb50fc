"""One attempt of a step, or of one of its items and iterations: the command that begins it."""

from dataclasses import dataclass, replace
from typing import Any

from immutables import Map

from engine.context import plain, written
from engine.draft import Draft
from engine.errors import EngineError
from engine.holding import handed_over
from engine.json_types import JSON, Undefined
from engine.keys import DUE, TIMEOUT, Key, role_key
from engine.plan import ActionNode, ChildNode, HumanNode, Node, SignalNode, WorkNode
from engine.protocol import (
    ChildSpec,
    CloseWait,
    OpenHumanTask,
    OpenWait,
    ReassignHumanTask,
    Resumption,
    RunAction,
    SpawnChildren,
    StartTimer,
)
from engine.scalars import seconds
from engine.signals import text_of, waiting_signal
from engine.state import Stage, Work
from engine.steps import Retry
from engine.values import Const, required, resolve
from engine.withdrawal import command_key, item_of

# What an action suspended itself with, and what it was resumed with.
_BOTH = 2

# Of the names that a step has worked out for its signal, which only tell readers what was meant for it.
_NAMES_KEPT = 20


@dataclass(frozen=True, slots=True)
class AtOnce:
    """The attempt has its answer already: a signal that had come before."""

    output: JSON


def seen_by(draft: Draft, node: Node, work: Work) -> dict[str, object]:
    """What an attempt's expressions can see: the step's scope, its item, its iteration, what its datasources gave."""
    draft.stand_in(work)
    more: dict[str, object] = {}
    if work.item is not None:
        more |= {"__each__": item_of(draft, work), "__index__": work.item}
    if isinstance(node, WorkNode) and node.repeat is not None:
        more |= {"__iteration__": work.round, "__previous__": work.previous}
    return draft.seen(**more)


def launch(draft: Draft, node: WorkNode, key: str) -> AtOnce | None:
    """Begins an attempt of an activation or item. Raises `EngineError` before anything is changed."""
    work = draft.work[key]
    match node:
        case ActionNode():
            _run(draft, node, key, work)
        case HumanNode():
            _ask(draft, node, key, work)
        case SignalNode():
            return _await_signal(draft, node, key, work)
        case ChildNode():
            _spawn(draft, node, key, work)
        case _:
            raise AssertionError(f"{node.id} is not a step that works")
    return None


def arm(draft: Draft, key: str, length: float, summary: str) -> None:
    """Starts a timer of so many seconds and remembers when it is due."""
    arm_until(draft, key, draft.at + round(length * 1000), summary)


def arm_until(draft: Draft, key: str, due: int, summary: str) -> None:
    """Starts a timer for a time in milliseconds since the epoch, and remembers it."""
    draft.timers = draft.timers.set(key, due)
    draft.commands.append(StartTimer(key, due, summary))


def policy(draft: Draft, node: WorkNode, key: str, scope: dict[str, object]) -> Retry:
    """The retry policy of an attempt, with its `delay` worked out. Raises `EngineError`."""
    if node.retry_delay is None:
        return node.retry
    pause = duration(required(node.retry_delay, scope, draft.moment(key)), "a retry's delay")
    return node.retry.model_copy(
        update={"initial_interval": pause, "max_interval": pause, "backoff": "fixed", "delay": None}
    )


def duration(value: JSON, what: str) -> float:
    """A duration that an expression gave, in seconds. Raises `EngineError` DURATION_INVALID."""
    try:
        return seconds(value)
    except ValueError as error:
        raise EngineError("DURATION_INVALID", f"{what}: {error}") from error


def _run(draft: Draft, node: ActionNode, key: str, work: Work) -> None:
    name = command_key(node, key, work)
    scope = seen_by(draft, node, work)
    parameters = work.edited[0] if work.edited else required(node.parameters, scope, draft.moment(name))
    retry = policy(draft, node, name, scope)
    resumed = Resumption(*work.suspended) if len(work.suspended) == _BOTH else None
    identity = f"{draft.run.execution_id}/{name}"
    draft.running += 1
    draft.handed += handed_over(draft.run, parameters)
    draft.change(key, stage=Stage.RUNNING)
    draft.commands.append(
        RunAction(name, node.id, node.name, node.action_key, parameters, retry, node.timeout, identity, resumed)
    )


def _ask(draft: Draft, node: HumanNode, key: str, work: Work) -> None:
    scope = seen_by(draft, node, work)
    moment = draft.moment(command_key(node, key, work))
    assignee = _defined(resolve(node.assignee, scope, moment))
    url = None if node.url is None else required(node.url, scope, moment)
    due = None if node.due_in is None else work.deadlines.get(DUE, draft.at + round(node.due_in * 1000))
    who = assignee or ", ".join(node.candidate_groups) or None
    draft.change(key, stage=Stage.RUNNING, who=who, due=due, deadlines=Map())
    form: JSON = None
    if node.form is not None:
        form = {"schema": dict(node.form), "uiSchema": None if node.ui_schema is None else dict(node.ui_schema)}
    documents: JSON = [document.model_dump(mode="json", by_alias=True) for document in node.documents] or None
    draft.commands.append(
        OpenHumanTask(
            key,
            node.id,
            node.name,
            node.type,
            assignee,
            node.candidate_groups,
            node.outcomes,
            due,
            form,
            url,
            documents,
        )
    )
    _arm_timeout(draft, node, key, work)
    if due is not None and (node.escalation_assignee is not None or node.escalation_groups):
        arm_until(draft, role_key(key, DUE), due, f"{node.name} is due")


def escalate(draft: Draft, node: HumanNode, key: str) -> None:
    """The task is overdue: it goes to somebody else. Raises `EngineError`."""
    work = draft.work[key]
    scope = seen_by(draft, node, work)
    assignee: JSON = None
    if node.escalation_assignee is not None:
        assignee = _defined(resolve(node.escalation_assignee, scope, draft.moment(role_key(key, DUE))))
    draft.change(key, who=assignee or ", ".join(node.escalation_groups) or None)
    draft.commands.append(ReassignHumanTask(key, assignee, node.escalation_groups))


def _await_signal(draft: Draft, node: SignalNode, key: str, work: Work) -> AtOnce | None:
    scope = seen_by(draft, node, work)
    moment = draft.moment(command_key(node, key, work))
    wanted: tuple[str, ...] = (text_of(required(node.signal, scope, moment)),)
    if node.correlation_key is not None:
        wanted = (*wanted, text_of(required(node.correlation_key, scope, moment)))
    if not isinstance(node.signal, Const):
        others = [name for name in draft.named.get(node.id, ()) if name != wanted[0]]
        draft.named = draft.named.set(node.id, (*others, wanted[0])[-_NAMES_KEPT:])
    if node.buffer:
        early = waiting_signal(draft, wanted)
        if early is not None:
            draft.change(key, deadlines=Map())
            return AtOnce(early.payload)
    draft.change(key, stage=Stage.RUNNING, signal=wanted, who=" ".join(wanted), deadlines=Map())
    if node.correlation_key is not None:
        draft.commands.append(OpenWait(key, *wanted))
    _arm_timeout(draft, node, key, work)
    return None


def _spawn(draft: Draft, node: ChildNode, key: str, work: Work) -> None:
    """Spawns a child; children that are begun one after the other are one command, so that their rows are one write."""
    if draft.run.depth >= draft.plan.limits.max_depth:
        raise EngineError("MAX_DEPTH_EXCEEDED", f"children of children go deeper than {draft.plan.limits.max_depth}")
    name = command_key(node, key, work)
    scope = seen_by(draft, node, work)
    moment = draft.moment(name)
    context = plain(written(Map(), node.inputs, scope, moment))
    draft.handed += handed_over(draft.run, context)
    child = ChildSpec(name, context, _child_name(draft, node, work, scope, moment), work.item)
    tries = draft.change(key, stage=Stage.RUNNING, tries=work.tries + 1).tries
    at = _last_but_waits(draft)
    last = draft.commands[at] if at >= 0 else None
    if isinstance(last, SpawnChildren) and last.step_id == node.id and last.attempt == tries:
        draft.commands[at] = replace(last, children=(*last.children, child))
    else:
        draft.commands.append(
            SpawnChildren(name, node.id, node.name, node.version_ref, node.template_ref, (child,), tries, node.wait)
        )
    _arm_timeout(draft, node, key, work)


def _last_but_waits(draft: Draft) -> int:
    """The place of the last command, or -1. What is said of waits does not count: in histories of runs that say nothing
    of them, children that were begun on either side of it are one command.
    """
    at = len(draft.commands) - 1
    while at >= 0 and isinstance(draft.commands[at], OpenWait | CloseWait):
        at -= 1
    return at


def _child_name(draft: Draft, node: ChildNode, work: Work, scope: dict[str, object], moment: Any) -> str | None:
    if node.child_name is not None:
        given = resolve(node.child_name, scope, moment)
        if isinstance(given, str) and given:
            return given
    if work.item is None:
        return None
    fan = draft.fans[Key(work.step_id, work.visit).visit_key]
    return f"{node.name} {work.item + 1}/{fan.before[2] if fan.before else len(fan.items)}"


def _arm_timeout(draft: Draft, node: WorkNode, key: str, work: Work) -> None:
    """Starts the clock of one attempt of a human step, a signal or a child; an action's is the driver's. One that ran
    when the run was taken up again runs on.
    """
    if node.timeout is not None:
        due = work.deadlines.get(TIMEOUT, draft.at + round(node.timeout * 1000))
        arm_until(draft, role_key(key, TIMEOUT), due, f"timeout of {node.name}")


def _defined(value: JSON | Undefined) -> JSON:
    return None if isinstance(value, Undefined) else value

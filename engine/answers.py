"""What has happened outside: actions and children have answered, timers fired, signals, people and operators spoke.

Each function first notes the plain fact, which cannot fail, and gives the key of the activation concerned; what
follows from the fact may fail and be undone, which is the business of `engine.interpreter`.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace

from engine import batches, compensation
from engine.closing import activation, fail_for_good, fail_visit, finish_visit
from engine.draft import Draft
from engine.ending import tell_children
from engine.errors import EngineError
from engine.events import (
    ActionDone,
    ActionFailed,
    ActionSuspended,
    ChildDone,
    ChildFailed,
    HumanCompleted,
    IncidentResolved,
    SignalReceived,
    StepResumed,
)
from engine.fans import add_items, again
from engine.json_types import JSON
from engine.keys import BATCH, COMPENSATE, DATA, DELAY, DUE, RETRY, TIMEOUT, Key
from engine.late import keep_chunk, succeed_late
from engine.launch import escalate
from engine.plan import ActionNode, ChildNode, HumanNode, Node, ParallelJoinNode, WorkNode
from engine.protocol import CloseIncident, Failure
from engine.regions import close_region
from engine.signals import added, buffer, forget, growing, receives, repeated
from engine.state import ENDED, Stage, StepStatus, Token, Work
from engine.units import (
    Answer,
    end_read,
    fail_attempt,
    fail_unit,
    note_answer,
    succeed,
    time_out,
)
from engine.withdrawal import command_key, disarm, end_wait, with_progress


@dataclass(frozen=True, slots=True)
class Consequence:
    """What follows from a fact, for the activation or item `key`. `act` may raise `EngineError`, by which that fails
    unless it is `gone`: then there is nobody to tell.
    """

    node: Node
    key: str
    act: Callable[[], None]
    gone: bool = False


# Whose attempts an event can answer.
_ANSWERING: dict[type[Answer], type[ActionNode] | type[ChildNode]] = {
    ActionDone: ActionNode,
    ActionFailed: ActionNode,
    ActionSuspended: ActionNode,
    ChildDone: ChildNode,
    ChildFailed: ChildNode,
}

# Of the run of a chunk that somebody else than this run has cancelled.
_CHUNK_CANCELLED = Failure("CANCELLED", "it was cancelled", retryable=False)


def _step_of(draft: Draft, key: Key) -> Node | None:
    """The step that a key belongs to; None for one that the plan does not have (any more)."""
    index = draft.plan.by_id.get(key.step_id)
    return None if index is None else draft.plan.nodes[index]


def answered(draft: Draft, event: Answer) -> Consequence | None:
    """An action or a child has answered; an answer that nobody waits for changes nothing."""
    key = Key.parse(event.key)
    if key.role is not None and key.role.startswith(COMPENSATE):
        failure = event.failure if isinstance(event, ActionFailed) else None
        if isinstance(event, ActionSuspended):
            failure = Failure("COMPENSATION_SUSPENDED", "what undoes a step cannot wait for anybody", key.step_id)
        compensation.end(draft, event.key, failure)
        return None
    node = _step_of(draft, key)
    if node is None:
        draft.leaving = draft.leaving.delete(event.key) if event.key in draft.leaving else draft.leaving
        return None
    if key.role is not None and key.role.startswith(BATCH):
        return _batch_answered(draft, node, event, key)
    if event.key in draft.leaving:
        return _left(draft, node, event, key)
    work = draft.work.get(key.unit_key)
    if work is None:
        return None
    if key.role is not None:
        return _read(draft, node, key, work, event)
    return _attempted(draft, node, key, work, event)


def _attempted(draft: Draft, node: Node, key: Key, work: Work, event: Answer) -> Consequence | None:
    """An attempt has ended."""
    if not isinstance(node, _ANSWERING[type(event)]) or work.stage not in (Stage.RUNNING, Stage.EXPIRED):
        return None
    if command_key(node, key.unit_key, work) != event.key:
        return None
    if isinstance(node, ActionNode):
        draft.running -= 1
    draft.change(key.unit_key, stage=Stage.READY)
    disarm(draft, key.unit_key, TIMEOUT)
    return Consequence(node, key.unit_key, lambda: _go_on(draft, node, key.unit_key, work, event))


def _batch_answered(draft: Draft, node: Node, event: Answer, key: Key) -> Consequence | None:
    """The run of a chunk of items has ended: what they have come to counts as if they had run here."""
    left = event.key in draft.leaving
    draft.leaving = draft.leaving.delete(event.key) if left else draft.leaving
    if isinstance(node, WorkNode) and isinstance(event, ChildDone):
        compensation.remember_child(draft, node, event.key, event.compensations)
    visit = key.visit_key
    if left and isinstance(event, ChildDone):
        keep_chunk(draft, visit, event.output)
    if left and visit in draft.fans:
        draft.later("fan", visit)
    if left or event.key not in draft.work:
        return None
    chunk = draft.work[event.key]
    draft.work = draft.work.delete(event.key)
    if isinstance(event, ChildDone) and not batches.is_partial(event.output):
        batches.merge(draft, visit, event.output)
        return None
    if isinstance(event, ChildDone):
        keep_chunk(draft, visit, event.output)
    fan = with_progress(draft.fans[visit], event.key, chunk)
    draft.fans = draft.fans.set(visit, fan._replace(open=fan.open - 1))
    failure = event.failure if isinstance(event, ChildFailed) else _CHUNK_CANCELLED
    return Consequence(node, visit, lambda: fail_visit(draft, node, visit, failure))


def _go_on(draft: Draft, node: WorkNode, key: str, work: Work, event: Answer) -> None:
    match event:
        case ActionDone(output=output):
            succeed(draft, node, key, output)
        case ChildDone(output=output, compensations=compensations):
            succeed(draft, node, key, output, compensations)
        case ActionSuspended(data=data):
            draft.change(key, stage=Stage.SUSPENDED, suspended=(data,))
        case ActionFailed(failure=failure):
            fail_attempt(draft, node, key, failure)
        case ChildFailed(failure=failure):
            expired = work.stage is Stage.EXPIRED and work.failure is not None
            fail_attempt(draft, node, key, work.failure if expired and work.failure else failure)


def _left(draft: Draft, node: Node, event: Answer, key: Key) -> Consequence | None:
    """What was withdrawn has answered. If it succeeded all the same, it is undone with the rest."""
    work = draft.leaving[event.key]
    draft.leaving = draft.leaving.delete(event.key)
    if isinstance(node, ActionNode) and key.role is None:
        draft.running -= 1
    if key.visit_key in draft.fans:
        draft.later("fan", key.visit_key)
    elif isinstance(node, WorkNode) and not _is_leaving(draft, key.unit_key):
        parked = draft.work.get(key.unit_key)
        if parked is not None and parked.stage is Stage.READY:
            _take_up(draft, node, key.unit_key)
    if not isinstance(node, WorkNode) or not isinstance(event, ActionDone | ChildDone) or key.role is not None:
        return None
    return Consequence(node, key.unit_key, lambda: _succeed_late(draft, node, key.unit_key, work, event), gone=True)


def _succeed_late(draft: Draft, node: WorkNode, key: str, work: Work, event: ActionDone | ChildDone) -> None:
    compensations = event.compensations if isinstance(event, ChildDone) else None
    # What would undo it, or follows from it, may not be worked out; what was written down before that stays.
    with suppress(EngineError):
        succeed_late(draft, node, key, work, event.output, compensations)


def _read(draft: Draft, node: Node, key: Key, work: Work, event: Answer) -> Consequence | None:
    """A datasource has answered."""
    name = key.unit_key
    alias = (key.role or "").removeprefix(f"{DATA}/")
    if work.stage is not Stage.READING or alias not in work.reads:
        return None
    draft.change(name, reads=tuple(other for other in work.reads if other != alias))
    if isinstance(event, ActionDone):
        return Consequence(node, name, lambda: _have_read(draft, node, name, alias, event))
    failure = event.failure if isinstance(event, ActionFailed) else Failure("DATASOURCE_FAILED", "it gave no answer")
    failure = failure if failure.step_id else replace(failure, step_id=node.id)
    return Consequence(node, name, lambda: fail_unit(draft, node, name, failure))


def _have_read(draft: Draft, node: Node, key: str, alias: str, event: ActionDone) -> None:
    work = draft.work[key]
    if not end_read(draft, node, key, alias, event):
        return
    if not isinstance(node, WorkNode):
        draft.later("enter", key)
        return
    per_item = next(source for source in node.data if source.alias == alias).per_item
    draft.later("round" if per_item or work.item is not None else "spread", key)


def fired(draft: Draft, key: str) -> Consequence | None:
    """A timer has come due; one that is not armed any more changes nothing."""
    if key not in draft.timers:
        return None
    draft.timers = draft.timers.delete(key)
    parsed = Key.parse(key)
    name = parsed.unit_key
    node = _step_of(draft, parsed)
    if node is None or name not in draft.work:
        return None
    if parsed.role == DELAY:
        return Consequence(node, name, lambda: finish_visit(draft, node, name, None, has_output=False))
    if parsed.role == DUE and isinstance(node, HumanNode):
        return Consequence(node, name, lambda: escalate(draft, node, name))
    if not isinstance(node, WorkNode):
        return None
    if parsed.role == RETRY:
        draft.change(name, stage=Stage.READY)
        draft.later("attempt", name)
        return None
    return Consequence(node, name, lambda: time_out(draft, node, name))


def human_completed(draft: Draft, event: HumanCompleted) -> Consequence | None:
    """A person has answered; an answer to something no longer open changes nothing."""
    key = Key.parse(event.key)
    node = _step_of(draft, key)
    work = draft.work.get(key.unit_key)
    if not isinstance(node, HumanNode) or work is None or work.stage is not Stage.RUNNING:
        return None
    if command_key(node, key.unit_key, work) != event.key:
        return None
    output = note_answer(draft, node, key.unit_key, event)
    return Consequence(node, key.unit_key, lambda: succeed(draft, node, key.unit_key, output))


def signalled(draft: Draft, event: SignalReceived) -> Consequence | None:
    """A signal has come: it is delivered, adds items, or is buffered, unless it was only for who waits for it now."""
    if repeated(draft, event):
        return None
    fan = None if event.awaited else growing(draft, event.name)
    if fan is not None:
        add_items(draft, fan, added(event.payload))
        return None
    key = receives(draft, event)
    if key is None:
        if event.awaited:
            forget(draft, event)
        else:
            buffer(draft, event)
        return None
    node = draft.plan.node(Key.parse(key).step_id)
    if not isinstance(node, WorkNode):
        raise AssertionError(f"{key} waits for no signal")
    disarm(draft, key)
    end_wait(draft, key, draft.work[key])
    draft.change(key, stage=Stage.READY, signal=())
    return Consequence(node, key, lambda: succeed(draft, node, key, event.payload))


def resumed(draft: Draft, event: StepResumed) -> Consequence | None:
    """What a suspended action waits for has come: it is entered again when it is its turn."""
    work = draft.work.get(event.key)
    if work is not None and work.stage is Stage.SUSPENDED:
        draft.change(event.key, stage=Stage.READY, suspended=(work.suspended[0], event.data))
        draft.later("attempt", event.key)
    return None


def resolved(draft: Draft, event: IncidentResolved) -> Consequence | None:
    """An operator has decided about a parked step."""
    work = draft.work.get(event.key)
    if work is None or work.stage is not Stage.INCIDENT:
        return None
    parameters = (event.parameters,) if event.edited else ()
    key = Key.parse(event.key)
    if key.role is not None:
        compensation.resolve(draft, event.key, event.how, parameters, event.actor)
        return None
    node = draft.plan.node(work.step_id)
    match event.how:
        case "RETRY":
            draft.commands.append(CloseIncident(event.key, "RETRIED", event.actor))
            _retry(draft, node, event.key, work, parameters)
            return None
        case "COMPLETE":
            draft.commands.append(CloseIncident(event.key, "COMPLETED", event.actor))
            draft.change(event.key, stage=Stage.READY, failure=None)
            return Consequence(node, event.key, lambda: _complete(draft, node, event.key, event.output))
        case "FAIL":
            draft.commands.append(CloseIncident(event.key, "FAILED", event.actor))
            failure = work.failure or Failure("FAILED", "an operator gave it up", work.step_id)
            fail_for_good(draft, node, event.key, failure)
            return None


def _retry(draft: Draft, node: Node, key: str, work: Work, parameters: tuple[JSON, ...]) -> None:
    draft.show_active(node, work)
    if key in draft.fans:
        draft.work = draft.work.delete(key)
        again(draft, key)
    elif isinstance(node, WorkNode):
        edited = parameters or work.edited
        draft.change(key, stage=Stage.READY, failure=None, attempt=1, edited=edited, reads=())
        if not _is_leaving(draft, key):
            _take_up(draft, node, key)
    else:
        _reenter(draft, key, work)


def _is_leaving(draft: Draft, key: str) -> bool:
    """Whether something that was withdrawn of an activation has not answered yet: it would have the same key again."""
    return any(Key.parse(name).unit_key == key for name in draft.leaving)


def _take_up(draft: Draft, node: WorkNode, key: str) -> None:
    """Goes on with an activation that was parked, at the place where it failed."""
    work = draft.work[key]
    if work.begun and (node.enabled_while is None or key in draft.guarded):
        draft.later("attempt", key)
    else:
        draft.later("admit" if work.begun or work.edited else "begin", key)


def _reenter(draft: Draft, key: str, work: Work) -> None:
    """A token goes back to the transition by which it came."""
    draft.work = draft.work.delete(key)
    draft.ready.append(Token(work.edge, work.scope, work.error, work.race))


def _complete(draft: Draft, node: Node, key: str, output: JSON) -> None:
    if isinstance(node, WorkNode) and key not in draft.fans:
        succeed(draft, node, key, output)
        return
    has_output = isinstance(node, WorkNode)
    if isinstance(node, ParallelJoinNode) and node.policy is not None:
        close_region(draft, node, draft.work[key].race)
        has_output = node.policy.settles
    if len(node.outgoing) <= 1:
        finish_visit(draft, node, key, output, has_output=has_output)
        return
    work = activation(draft, key)
    chosen = [edge for edge in node.outgoing if isinstance(output, dict) and edge.id in _named(output)]
    if work is None or not chosen:
        raise EngineError("OUTPUT_INVALID", f"name the transitions that {node.id} takes: {{transitions: [id]}}")
    draft.work = draft.work.delete(key)
    draft.stand_in(work)
    draft.show(work, StepStatus.COMPLETED)
    draft.send(*chosen)


def _named(output: dict[str, JSON]) -> tuple[JSON, ...]:
    named = output.get("transitions")
    return tuple(named) if isinstance(named, list) else ()


def pause(draft: Draft, paused: bool, actor: str | None) -> None:
    """No new work starts until the run is resumed; children are told."""
    if draft.paused == paused or draft.phase in ENDED:
        return
    draft.paused = paused
    draft.paused_at, draft.paused_by = (draft.at, actor) if paused else (0, None)
    tell_children(draft, "PAUSE" if paused else "RESUME", actor)

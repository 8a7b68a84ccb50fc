"""Work steps: what begins them, what ends them, and what happens when they fail."""

from typing import TypeVar

from immutables import Map

from engine.context import plain, written
from engine.draft import Draft, iso
from engine.ending import fail_at
from engine.errors import EngineError
from engine.json_types import JSON, Undefined
from engine.plan import ActionNode, ChildNode, Edge, HumanNode, SetNode, WorkNode
from engine.protocol import (
    RETRY,
    TIMEOUT,
    ActionDone,
    ActionFailed,
    ChildDone,
    ChildFailed,
    ChildSpec,
    Failure,
    HumanCompleted,
    Key,
    OpenHumanTask,
    RunAction,
    SpawnChildren,
    StartTimer,
    Withdraw,
    item_key,
    role_key,
    visit_key,
)
from engine.retry import pause_after
from engine.state import Batch, StepStatus
from engine.values import listed, required, resolve

CONFIRMED = "confirmed"

# Children are direct children of the run, and the server ends a run whose history is too long.
MAX_ITEMS = 2_000

N = TypeVar("N", bound=WorkNode)


def begin_set(draft: Draft, node: SetNode, edge: Edge | None) -> None:
    """Writes into the context and goes on in the same moment."""
    visit = draft.enter(node)
    draft.write(node.writes, visit_key(node.id, visit))
    draft.write(node.output_mapping, visit_key(node.id, visit))
    draft.passed(node, visit)
    draft.send(*node.outgoing)


def begin_action(draft: Draft, node: ActionNode, edge: Edge | None) -> None:
    """Runs the action when fewer than `limits.parallelism` are under way; otherwise it waits its turn."""
    visit = draft.enter(node)
    if draft.running < draft.plan.limits.parallelism:
        key = visit_key(node.id, visit)
        parameters = required(node.parameters, draft.scope(), draft.moment(key))
        draft.open(node, visit, StepStatus.IN_PROGRESS)
        _run(draft, node, key, parameters)
    else:
        draft.waiting.append(draft.open(node, visit, StepStatus.IN_PROGRESS))


def launch_waiting(draft: Draft, node: ActionNode, key: str) -> None:
    """Runs the action that has waited longest; it sees what the context has become meanwhile."""
    parameters = required(node.parameters, draft.scope(), draft.moment(key))
    draft.waiting.popleft()
    _run(draft, node, key, parameters)


def _run(draft: Draft, node: ActionNode, key: str, parameters: JSON) -> None:
    draft.running += 1
    draft.commands.append(RunAction(key, node.id, node.name, node.action_key, parameters, node.retry, node.timeout))


def end_action(draft: Draft, event: ActionDone | ActionFailed) -> None:
    """An action has answered: its step completes, or the run fails."""
    if event.key not in draft.work:
        return
    draft.running -= 1
    node = _node(draft, event.key, ActionNode)
    if isinstance(event, ActionDone):
        complete(draft, node, event.key, event.output)
    else:
        draft.work = draft.work.delete(event.key)
        fail_at(draft, node, event.failure)


def begin_human(draft: Draft, node: HumanNode, edge: Edge | None) -> None:
    """Asks a person."""
    visit = draft.enter(node)
    assignee = resolve(node.assignee, draft.scope(), draft.moment(visit_key(node.id, visit)))
    who = None if isinstance(assignee, Undefined) else assignee
    key = draft.open(node, visit, StepStatus.ACTION_REQUIRED, who or ", ".join(node.candidate_groups) or None)
    draft.commands.append(OpenHumanTask(key, node.id, node.name, who, node.candidate_groups, node.outcomes))
    _arm_timeout(draft, node, key)


def end_human(draft: Draft, event: HumanCompleted) -> None:
    """A person has answered; an answer to something no longer open changes nothing."""
    if event.key not in draft.work:
        return
    node = _node(draft, event.key, HumanNode)
    output: dict[str, JSON] = {
        "outcome": event.outcome or CONFIRMED,
        "comment": event.comment,
        "completedBy": event.completed_by,
        "completedAt": iso(event.at),
    }
    draft.answers = draft.answers.set(event.key, output)
    complete(draft, node, event.key, output)


def begin_child(draft: Draft, node: ChildNode, edge: Edge | None) -> None:
    """Spawns the child, or the first window of a batch; a batch of nothing is complete at once."""
    visit = draft.enter(node)
    if draft.run.depth >= draft.plan.limits.max_depth:
        raise EngineError("MAX_DEPTH_EXCEEDED", f"children of children go deeper than {draft.plan.limits.max_depth}")
    key = visit_key(node.id, visit)
    if node.items is None:
        child = _child(draft, node, key, {})
        draft.open(node, visit, StepStatus.IN_PROGRESS)
        _spawn(draft, node, [child], 1)
    else:
        items = listed(node.items, draft.scope(), draft.moment(key))
        draft.open(node, visit, StepStatus.IN_PROGRESS)
        draft.batches = draft.batches.set(key, Batch(tuple(items), 0, Map(), Map()))
        if len(items) > MAX_ITEMS:
            raise EngineError("BATCH_TOO_LARGE", f"a batch runs over {MAX_ITEMS} items at most, not {len(items)}")
        if not items:
            complete(draft, node, key, [])
            return
        _refill(draft, node, key)


def end_child(draft: Draft, event: ChildDone | ChildFailed) -> None:
    """A child has answered; a single one ends its step, one of a batch makes room for the next."""
    key = Key.parse(event.key).visit_key
    if key not in draft.work:
        return
    node = _node(draft, key, ChildNode)
    _disarm(draft, event.key)
    if event.key in draft.expired:
        draft.expired = draft.expired.delete(event.key)
        if isinstance(event, ChildFailed):
            event = ChildFailed(event.key, event.at, _timed_out(node))
    if isinstance(event, ChildFailed):
        if not _try_again(draft, node, key, event):
            _drop_child(draft, key, event.key)
            fail_at(draft, node, event.failure)
        return
    batch = draft.batches.get(key)
    if batch is None:
        complete(draft, node, key, event.output)
        return
    index = Key.parse(event.key).item
    if index is None or event.key not in batch.running:
        return
    batch = batch._replace(running=batch.running.delete(event.key), results=batch.results.set(index, event.output))
    draft.batches = draft.batches.set(key, batch)
    if len(batch.results) == len(batch.items):
        complete(draft, node, key, [batch.results[at] for at in range(len(batch.items))])
    else:
        _refill(draft, node, key)


def retry_child(draft: Draft, key: str) -> None:
    """The pause is over: the child is spawned again, as another execution."""
    parsed = Key.parse(key)
    work = draft.work.get(parsed.visit_key)
    if work is None:
        return
    node = _node(draft, key, ChildNode)
    batch = draft.batches.get(parsed.visit_key)
    place = ""
    if batch is None or parsed.item is None:
        more: dict[str, object] = {}
        attempt = work.attempt
        child_key = parsed.visit_key
    else:
        place = f"{parsed.item + 1}/{len(batch.items)}"
        more = {"__each__": batch.items[parsed.item], "__index__": parsed.item}
        child_key = item_key(parsed.visit_key, parsed.item)
        attempt = batch.running[child_key]
    _spawn(draft, node, [_child(draft, node, child_key, more, place)], attempt)


def time_out(draft: Draft, key: str) -> None:
    """A human step fails; an attempt of a child is withdrawn, and counts as failed once it has answered."""
    if Key.parse(key).visit_key not in draft.work:
        return
    node = draft.plan.node(Key.parse(key).step_id)
    if isinstance(node, ChildNode):
        draft.expired = draft.expired.set(key, draft.at)
        draft.commands.append(Withdraw((key,)))
    elif isinstance(node, HumanNode):
        fail_at(draft, node, _timed_out(node))


def complete(draft: Draft, node: WorkNode, key: str, output: JSON) -> None:
    """Ends an activation well: output, projection, mapping, then on to the next step."""
    _disarm(draft, key)
    draft.close(key)
    if key in draft.batches:
        draft.batches = draft.batches.delete(key)
    draft.outputs = draft.outputs.set(node.id, output)
    if isinstance(node, ChildNode):
        draft.write(node.projection, key, __child__=output)
    draft.write(node.output_mapping, key)
    draft.send(*node.outgoing)


def drop_withdrawn(draft: Draft, event: ActionDone | ActionFailed | ChildDone | ChildFailed) -> None:
    """While the run ends: what was withdrawn has answered and is no longer waited for."""
    key = Key.parse(event.key).visit_key
    if key in draft.work:
        _drop_child(draft, key, event.key)
        if key in draft.batches and not draft.batches[key].running:
            draft.work = draft.work.delete(key)


def _node(draft: Draft, key: str, kind: type[N]) -> N:
    """The node that a key belongs to, which is of this kind: the key is one that the engine gave for it."""
    node = draft.plan.node(Key.parse(key).step_id)
    if not isinstance(node, kind):
        raise AssertionError(f"{key} is not the key of a {kind.__name__}")
    return node


def _arm_timeout(draft: Draft, node: WorkNode, key: str) -> None:
    """Starts the clock of one attempt: of a human step's visit, or of one child."""
    if node.timeout is not None:
        arm(draft, role_key(key, TIMEOUT), node.timeout, f"timeout of {node.name}")


def _disarm(draft: Draft, key: str) -> None:
    timer = role_key(key, TIMEOUT)
    if timer in draft.timers:
        draft.timers = draft.timers.delete(timer)
        draft.commands.append(Withdraw((timer,)))


def _timed_out(node: WorkNode) -> Failure:
    return Failure("STEP_TIMED_OUT", f"step {node.id} took longer than its timeout", node.id)


def arm(draft: Draft, key: str, seconds: float, summary: str) -> None:
    """Starts a timer and remembers when it is due."""
    due = draft.at + round(seconds * 1000)
    draft.timers = draft.timers.set(key, due)
    draft.commands.append(StartTimer(key, due, summary))


def _refill(draft: Draft, node: ChildNode, key: str) -> None:
    """Spawns items until the window is full."""
    batch = draft.batches[key]
    room = min(node.concurrency - len(batch.running), len(batch.items) - batch.next)
    if room <= 0:
        return
    children = []
    running = batch.running
    for index in range(batch.next, batch.next + room):
        more: dict[str, object] = {"__each__": batch.items[index], "__index__": index}
        child = _child(draft, node, item_key(key, index), more, f"{index + 1}/{len(batch.items)}")
        children.append(child)
        running = running.set(child.key, 1)
    draft.batches = draft.batches.set(key, batch._replace(next=batch.next + room, running=running))
    _spawn(draft, node, children, 1)


def _child(draft: Draft, node: ChildNode, child_key: str, more: dict[str, object], place: str = "") -> ChildSpec:
    """What one child starts with: its context is written from nothing, by the input mapping alone."""
    scope = draft.scope(**more)
    moment = draft.moment(child_key)
    context = plain(written(Map(), node.inputs, scope, moment))
    index = Key.parse(child_key).item
    name = f"{node.name} {place}" if place else None
    if node.child_name is not None:
        given = resolve(node.child_name, scope, moment)
        name = given if isinstance(given, str) and given else name
    return ChildSpec(child_key, context, name, index)


def _spawn(draft: Draft, node: ChildNode, children: list[ChildSpec], attempt: int) -> None:
    draft.commands.append(
        SpawnChildren(
            children[0].key, node.id, node.name, node.version_ref, node.template_ref, tuple(children), attempt
        )
    )
    for child in children:
        _arm_timeout(draft, node, child.key)


def _try_again(draft: Draft, node: ChildNode, key: str, event: ChildFailed) -> bool:
    """Arms the pause before the next attempt of a child, when its policy has one left."""
    work = draft.work[key]
    batch = draft.batches.get(key)
    attempt = work.attempt if batch is None else batch.running[event.key]
    retry = node.retry
    if attempt >= retry.max_attempts or not event.failure.retryable or event.failure.code in retry.non_retryable:
        return False
    if batch is None:
        draft.work = draft.work.set(key, work._replace(attempt=attempt + 1))
    else:
        running = batch.running.set(event.key, attempt + 1)
        draft.batches = draft.batches.set(key, batch._replace(running=running))
    pause = pause_after(retry, attempt, f"{draft.run.execution_id}/{event.key}")
    arm(draft, role_key(event.key, RETRY), pause, f"retry of {node.name}")
    return True


def _drop_child(draft: Draft, key: str, child_key: str) -> None:
    """Forgets a child that has answered; a single child's activation goes with it."""
    batch = draft.batches.get(key)
    if batch is None:
        draft.work = draft.work.delete(key)
    elif child_key in batch.running:
        draft.batches = draft.batches.set(key, batch._replace(running=batch.running.delete(child_key)))

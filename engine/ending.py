"""How a run ends: complete, failed or cancelled. What is under way is withdrawn first, and awaited."""

from immutables import Map

from engine.context import plain
from engine.draft import Draft
from engine.plan import ActionNode, ChildNode, PlanNode
from engine.protocol import (
    RETRY,
    Cancel,
    Command,
    Complete,
    Fail,
    Failure,
    OpenHumanTask,
    RunAction,
    SpawnChildren,
    StartTimer,
    Withdraw,
    Yield,
    role_key,
)
from engine.state import Ending, Phase, StepRecord, StepStatus
from engine.values import required


def fail_at(draft: Draft, node: PlanNode | None, failure: Failure) -> None:
    """The run fails, at a step when there is one."""
    if node is not None:
        record = draft.steps.get(node.id)
        visit, since = (1, draft.at) if record is None else (record.visits, record.started_at)
        draft.steps = draft.steps.set(node.id, StepRecord(StepStatus.FAILED, visit, since, draft.at, failure))
    end(draft, Ending(Phase.FAILED, failure))


def cancel(draft: Draft, reason: str | None) -> None:
    """The run is cancelled; nothing changes when it is ending already."""
    if draft.phase is Phase.RUNNING:
        end(draft, Ending(Phase.CANCELLED, reason=reason))


def end(draft: Draft, ending: Ending) -> None:
    """Stops everything: tokens and people at once, actions and children as soon as they have answered."""
    draft.phase = Phase.ENDING
    draft.ending = ending
    unstarted = _take_back(draft)
    awaited: list[str] = []
    for key in sorted(draft.work):
        outstanding = _outstanding(draft, key, unstarted)
        awaited.extend(outstanding)
        _mark_cancelled(draft, key)
        if not outstanding:
            draft.work = draft.work.delete(key)
    if awaited:
        armed = sorted(key for key in draft.timers if key not in unstarted)
        draft.commands.append(Withdraw((*awaited, *armed)))
    draft.timers = draft.arrived = draft.filled = Map()
    draft.ready.clear()
    draft.waiting.clear()
    settle_ending(draft)


def settle_ending(draft: Draft) -> None:
    """Ends the run for good once nothing that was withdrawn is still to answer."""
    ending = draft.ending
    if ending is None or draft.phase is not Phase.ENDING or draft.work:
        return
    draft.phase = ending.phase
    match ending.phase, ending.failure:
        case Phase.FAILED, Failure() as failure:
            draft.commands.append(Fail(failure))
        case Phase.CANCELLED, _:
            draft.commands.append(Cancel(ending.reason))
        case _:
            draft.commands.append(Complete(draft.output))


def complete_if_done(draft: Draft) -> None:
    """Completes the run when no token is left; tokens that can never move are a DEADLOCK.

    Raises `ExpressionError` from the definition's output.
    """
    if draft.work or draft.ready or draft.phase is not Phase.RUNNING:
        return
    if draft.filled:
        joins = ", ".join(sorted(draft.filled))
        fail_at(draft, None, Failure("DEADLOCK", f"nothing can move any more; tokens wait at: {joins}"))
        return
    output = draft.plan.output
    if output is None:
        draft.output = plain(draft.context)
    else:
        draft.output = required(output, draft.scope(), draft.moment("output"))
    end(draft, Ending(Phase.COMPLETED))


def _mark_cancelled(draft: Draft, key: str) -> None:
    work = draft.work[key]
    record = draft.steps[work.step_id]
    if record.ended_at is None:
        cancelled = StepRecord(StepStatus.CANCELLED, record.visits, record.started_at, draft.at)
        draft.steps = draft.steps.set(work.step_id, cancelled)


def _take_back(draft: Draft) -> frozenset[str]:
    """Drops the commands of this very call that would only be withdrawn, and gives their keys."""
    unstarted: set[str] = set()
    kept: list[Command] = []
    for command in draft.commands:
        match command:
            case SpawnChildren(children=children):
                unstarted.update(child.key for child in children)
            case RunAction(key=key) | StartTimer(key=key):
                unstarted.add(key)
            case OpenHumanTask() | Yield():
                pass
            case _:
                kept.append(command)
    draft.commands = kept
    return frozenset(unstarted)


def _outstanding(draft: Draft, key: str, unstarted: frozenset[str]) -> list[str]:
    """The keys under an activation that something outside will still answer to."""
    match draft.plan.node(draft.work[key].step_id):
        case ActionNode():
            return [] if key in unstarted or key in draft.waiting else [key]
        case ChildNode():
            batch = draft.batches.get(key)
            running = [key] if batch is None else sorted(batch.running)
            left = [item for item in running if item not in unstarted and role_key(item, RETRY) not in draft.timers]
            if batch is not None:
                only = Map({item: batch.running[item] for item in left})
                draft.batches = draft.batches.set(key, batch._replace(running=only))
            return left
        case _:
            return []

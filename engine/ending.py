"""How a run ends: complete, failed or cancelled. What is under way is withdrawn first, and awaited; then what was done
is undone, latest first, where the ending asks for it.
"""

from immutables import Map

from engine import compensation
from engine.context import plain
from engine.draft import Draft
from engine.errors import EngineError
from engine.holding import check_passed_on
from engine.keys import COMPENSATE, DEADLINE
from engine.plan import ChildNode, Node
from engine.protocol import Cancel, Complete, Fail, Failure, TellChildren, Withdraw
from engine.regions import is_late
from engine.state import Ending, Lost, Phase, Stage, StepRecord, StepStatus, Work
from engine.values import required
from engine.withdrawal import command_key, withdraw_all


def fail_run(draft: Draft, node: Node | None, failure: Failure) -> None:
    """The run fails, at a step when there is one."""
    record = None if node is None else draft.steps.get(node.id)
    end(draft, Ending(Phase.FAILED, failure))
    if node is not None:
        visit, since = (1, draft.at) if record is None else (record.visits, record.started_at)
        draft.steps = draft.steps.set(node.id, StepRecord(StepStatus.FAILED, visit, since, draft.at, failure))


def cancel(draft: Draft, reason: str | None, compensate: bool) -> None:
    """The run is cancelled; when it is ending already, nothing changes but that a pause holds it up no longer."""
    if draft.paused:
        draft.paused, draft.paused_at, draft.paused_by = False, 0, None
        if draft.phase is not Phase.RUNNING:
            tell_children(draft, "RESUME")
    if draft.phase is Phase.RUNNING:
        if not compensate:
            tell_children(draft, "LEAVE_DONE")
        end(draft, Ending(Phase.CANCELLED, reason=reason, compensate=compensate))


def end(draft: Draft, ending: Ending) -> None:
    """Stops everything: tokens and people at once, actions and children as soon as they have answered."""
    draft.phase = Phase.ENDING
    draft.ending = ending
    if ending.phase is not Phase.COMPLETED:
        draft.lost = Lost(
            tuple(draft.ready),
            draft.arrived,
            draft.filled,
            draft.regions,
            draft.work,
            draft.fans,
            draft.signals,
            timers=draft.timers,
        )
    armed = draft.timers
    withdraw_all(draft)
    if DEADLINE in draft.timers:
        draft.timers = draft.timers.delete(DEADLINE)
        draft.commands.append(Withdraw((DEADLINE,)))
    _gather(draft, armed)
    draft.arrived = draft.filled = Map()
    draft.regions = Map()
    draft.locks = Map()
    draft.gated = draft.guarded = ()
    draft.signals = ()
    draft.waiting.clear()
    settle_ending(draft)


def _gather(draft: Draft, armed: Map[str, int]) -> None:
    """Everything that is withdrawn in one command: what still answers first, then timers."""
    keys = [key for command in draft.commands if isinstance(command, Withdraw) for key in command.keys]
    draft.commands = [command for command in draft.commands if not isinstance(command, Withdraw)]
    if keys:
        outside = sorted(key for key in keys if key not in armed)
        draft.commands.append(Withdraw((*outside, *sorted(key for key in keys if key in armed))))


def settle_ending(draft: Draft) -> None:
    """Ends the run for good once nothing that was withdrawn is still to answer, and everything is undone."""
    ending = draft.ending
    if ending is None or draft.leaving:
        return
    if draft.phase is Phase.ENDING:
        draft.phase = Phase.COMPENSATING
    if draft.phase is not Phase.COMPENSATING:
        return
    if ending.phase is not Phase.COMPLETED and ending.compensate and not compensation.go_on(draft):
        return
    draft.phase = ending.phase
    match ending.phase, ending.failure:
        case Phase.FAILED, Failure() as failure:
            draft.commands.append(Fail(failure, ending.undone))
        case Phase.CANCELLED, _:
            draft.commands.append(Cancel(ending.reason))
        case _:
            draft.commands.append(Complete(draft.output, ending.reason))


def complete_if_done(draft: Draft) -> None:
    """Completes the run when no token is left but late ones; tokens that can never move are a DEADLOCK.

    Raises `ExpressionError` from the definition's output.
    """
    if draft.ready or draft.todo or draft.phase is not Phase.RUNNING:
        return
    if any(not work.scope or not is_late(draft, work.scope) for work in draft.work.values()):
        return
    if any(not fan.work.scope or not is_late(draft, fan.work.scope) for fan in draft.fans.values()):
        return
    stuck = sorted(key for key in draft.filled if not is_late(draft, key.partition("@")[2]))
    if stuck:
        joins = ", ".join(key.partition("@")[0] for key in stuck)
        fail_run(draft, None, Failure("DEADLOCK", f"nothing can move any more; tokens wait at: {joins}"))
        return
    left = {region.split for region in draft.regions.values() if not is_late(draft, region.scope)}
    if left:
        splits = ", ".join(sorted(left))
        fail_run(draft, None, Failure("DEADLOCK", f"nothing can move any more; branches never arrived, of: {splits}"))
        return
    complete(draft)


def complete(draft: Draft, reason: str | None = None) -> None:
    """The run is complete, with the definition's output, which is its context when it has none.

    Raises `ExpressionError` from that, and RESULT_TOO_LARGE.
    """
    output = draft.plan.output
    draft.scope, draft.error, draft.data = "", None, None
    if output is None:
        output_of_run = plain(draft.context)
        check_passed_on(draft.run, output_of_run, "the output, which is the context,", "RESULT_TOO_LARGE")
        draft.output = output_of_run
    else:
        draft.output = required(output, draft.seen(), draft.moment("output"))
    end(draft, Ending(Phase.COMPLETED, reason=reason))


def terminate(draft: Draft, outcome: str, message: str) -> None:
    """A step ends the run at once. Raises `EngineError`."""
    match outcome:
        case "COMPLETED":
            complete(draft, message)
        case "FAILED":
            end(draft, Ending(Phase.FAILED, Failure("TERMINATED", message, retryable=False)))
        case "CANCELLED":
            end(draft, Ending(Phase.CANCELLED, reason=message, compensate=False))
        case _:
            raise EngineError("DEFINITION_INVALID", f"no outcome: {outcome}")


def tell_children(draft: Draft, what: str, actor: str | None = None) -> None:
    """Tells every child that runs, also those that were withdrawn and have not answered."""
    withdrawn = [key for key, work in sorted(draft.leaving.items()) if isinstance(_node(draft, work), ChildNode)]
    keys = (*running_children(draft), *withdrawn)
    if keys:
        draft.commands.append(TellChildren(keys, what, actor))


def _node(draft: Draft, work: Work) -> Node | None:
    """The step of an activation; None for one that this version does not have (a compensator's may be gone)."""
    index = draft.plan.by_id.get(work.step_id)
    return None if index is None else draft.plan.nodes[index]


def running_children(draft: Draft) -> tuple[str, ...]:
    """The command keys of children that run."""
    found = []
    for key, work in sorted(draft.work.items()):
        node = _node(draft, work)
        undoing = f"/{COMPENSATE}" in key
        if isinstance(node, ChildNode) and not undoing and work.stage in (Stage.RUNNING, Stage.EXPIRED):
            found.append(command_key(node, key, work))
    return tuple(found)

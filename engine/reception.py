"""An event is taken note of, and what follows from it is given back: the one list of everything that can happen."""

from typing import assert_never

from engine import answers, batches
from engine.answers import Consequence
from engine.draft import Draft
from engine.ending import cancel, fail_run
from engine.events import (
    ActionDone,
    ActionFailed,
    ActionSuspended,
    CancelRequested,
    ChildDone,
    ChildFailed,
    ChunkWithdrawn,
    Event,
    HumanCompleted,
    IncidentResolved,
    PauseRequested,
    ResumeRequested,
    SignalReceived,
    StateOutgrown,
    StepResumed,
    TimerFired,
    TimerSkipped,
    Yielded,
)
from engine.holding import LARGEST_STATE
from engine.keys import DEADLINE
from engine.protocol import Failure, Withdraw
from engine.state import Phase

Answered = ActionDone | ActionFailed | ActionSuspended | ChildDone | ChildFailed
Steering = CancelRequested | ChunkWithdrawn | PauseRequested | ResumeRequested | Yielded


def receive(draft: Draft, event: Event) -> Consequence | None:
    """Notes what has happened, and gives what follows from it for one activation."""
    if isinstance(event, Answered):
        return answers.answered(draft, event)
    if isinstance(event, Steering):
        _steer(draft, event)
        return None
    if isinstance(event, IncidentResolved):
        return answers.resolved(draft, event)
    # While a run ends nothing else matters any more.
    return _heard(draft, event) if draft.phase is Phase.RUNNING else None


def _heard(
    draft: Draft, event: HumanCompleted | SignalReceived | TimerFired | TimerSkipped | StepResumed | StateOutgrown
) -> Consequence | None:
    match event:
        case HumanCompleted():
            return answers.human_completed(draft, event)
        case SignalReceived():
            return answers.signalled(draft, event)
        case TimerFired(key=key):
            return _fire(draft, key)
        case TimerSkipped(key=key):
            if key in draft.timers:
                draft.commands.append(Withdraw((key,)))
            return _fire(draft, key)
        case StepResumed():
            return answers.resumed(draft, event)
        case StateOutgrown(size=size):
            fail_run(draft, None, Failure("STATE_TOO_LARGE", _outgrown(size), retryable=False))
            return None
        case _:
            assert_never(event)


def _steer(draft: Draft, event: Steering) -> None:
    match event:
        case PauseRequested(actor=actor):
            answers.pause(draft, True, actor)
        case ResumeRequested(actor=actor):
            answers.pause(draft, False, actor)
        case CancelRequested(reason=reason, compensate=compensate):
            cancel(draft, reason, compensate)
        case ChunkWithdrawn(compensate=compensate):
            batches.withdraw(draft, compensate)
        case Yielded():
            draft.yielded = False
        case _:
            assert_never(event)


def _outgrown(size: int) -> str:
    return f"context, outputs and results have {size} bytes; a run may pass on {LARGEST_STATE} to its next run"


def _fire(draft: Draft, key: str) -> Consequence | None:
    if key != DEADLINE:
        return answers.fired(draft, key)
    if key in draft.timers:
        draft.timers = draft.timers.delete(key)
        seconds = draft.plan.limits.execution_timeout or 0
        fail_run(draft, None, Failure("EXECUTION_TIMED_OUT", f"the execution took longer than {seconds:g} s"))
    return None

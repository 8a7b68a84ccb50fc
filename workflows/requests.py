"""What people and operators ask of a run: whether it applies, and the event that it becomes.

Each request is judged by the state and by what is waiting in the inbox, and is refused with the engine's code as the
type of the error before anything is recorded.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, assert_never

from temporalio.exceptions import ApplicationError

from app.run_contracts import AwaitedSignal, ControlRequest, SignalDelivery, StepCompletion
from engine.errors import EngineError
from engine.events import (
    CancelRequested,
    Event,
    HumanCompleted,
    IncidentResolved,
    PauseRequested,
    ResumeRequested,
    SignalReceived,
    StepResumed,
    TimerFired,
    TimerSkipped,
)
from engine.keys import Key
from engine.plan import ActionNode, Plan
from engine.protocol import Failure
from engine.signals import fate, growing, taker
from engine.state import Phase, Stage, State
from engine.tasks import Answer, OpenTask, find_open, find_task, find_timer, node_of
from engine.units import CONFIRMED
from workflows.revisions import FORESEES


@dataclass(frozen=True, slots=True)
class Control:
    """A request that applies: the event, or None where nothing is to be changed, and the step it is about."""

    event: Event | None
    step_id: str | None = None
    visit: int | None = None
    item: int | None = None


def task_of(plan: Plan, state: State, inbox: Collection[Event], completion: StepCompletion, revision: int) -> OpenTask:
    """The human step that a completion means; not open when it has been answered, if only in the inbox.

    Raises `EngineError`: what `find_task` does, and STEP_ALREADY_COMPLETED when another answer was taken.
    """
    answer = Answer(completion.outcome, completion.data)
    task = find_task(plan, state, completion.step_id, completion.visit, completion.item, answer)
    first: Any = state.answers.get(task.key) if not task.open else None
    for event in inbox:
        if first is None and isinstance(event, HumanCompleted) and event.key == task.key:
            first = {
                "outcome": event.outcome or CONFIRMED,
                "comment": event.comment,
                "data": event.data,
                "completedBy": event.completed_by,
            }
    if first is not None and revision >= FORESEES:
        _refuse_another(task, first, completion)
    return OpenTask(task.key, task.step_id, task.visit, task.open and first is None, task.item)


def _refuse_another(task: OpenTask, first: dict[str, Any], completion: StepCompletion) -> None:
    """Raises STEP_ALREADY_COMPLETED unless a completion says what the first one said, whoever says it."""
    taken = (first["outcome"], first["comment"], first.get("documents", first.get("data")))
    if taken != (completion.outcome or CONFIRMED, completion.comment, completion.data):
        whose = "" if first["completedBy"] is None else f" by {first['completedBy']}"
        message = f"step {task.step_id} has been completed already{whose}, with outcome {first['outcome']}"
        raise EngineError("STEP_ALREADY_COMPLETED", message)


def completed(task: OpenTask, completion: StepCompletion, at: int) -> HumanCompleted:
    """The event of a completion."""
    return HumanCompleted(
        task.key, at, completion.outcome, completion.comment, completion.completed_by, completion.data
    )


def check_signal(
    plan: Plan, state: State, inbox: Collection[Event], signal: SignalDelivery, at: int, revision: int
) -> None:
    """Raises `EngineError` when a signal can be neither delivered nor buffered."""
    waiting = sum(isinstance(event, SignalReceived) for event in inbox)
    if waiting and waiting + sum(one.expires > at for one in state.signals) >= plan.limits.buffered_signals:
        raise EngineError("SIGNAL_BUFFER_FULL", f"{waiting} signals wait to be looked at")
    by_name = revision >= FORESEES
    fate(plan, state, signal.name, signal.correlation_key, signal.id, at, by_name=by_name)


def destination(state: State, inbox: Collection[Event], signal: SignalDelivery) -> Key | None:
    """The step that takes a signal; None where nobody knows yet: it waits, has come before, or comes after others."""
    if inbox or signal.id in state.receipts:
        return None
    key = growing(state, signal.name) or taker(state, signal.name, signal.correlation_key)
    return None if key is None else Key.parse(key)


def check_awaited(state: State, signal: AwaitedSignal) -> None:
    """Raises `EngineError` when no step waits for a signal that is for who does: EXECUTION_ENDED, or NOT_AWAITED."""
    if state.phase is not Phase.RUNNING:
        raise EngineError("EXECUTION_ENDED", "the execution has ended or is ending")
    if signal.id not in state.receipts and _taker_of(state, signal) is None:
        raise not_awaited(signal)


def place_awaited(state: State, inbox: Collection[Event], signal: AwaitedSignal) -> Key | None:
    """The step that takes a signal which is for who waits; None where it has come before, or comes after others."""
    key = None if inbox or signal.id in state.receipts else _taker_of(state, signal)
    return None if key is None else Key.parse(key)


def _taker_of(state: State, signal: AwaitedSignal) -> str | None:
    return taker(state, signal.name, signal.correlation_key, signal.wait_key)


def not_awaited(signal: SignalDelivery) -> EngineError:
    """No step waits for a signal, or it has ceased to."""
    return EngineError("NOT_AWAITED", f"no step waits for the signal {signal.name} under {signal.correlation_key} now")


def received(signal: SignalDelivery, signal_id: str | None, at: int) -> SignalReceived:
    """The event of a signal."""
    wait_key = signal.wait_key if isinstance(signal, AwaitedSignal) else None
    awaited = isinstance(signal, AwaitedSignal)
    return SignalReceived(signal.name, at, signal.payload, signal.correlation_key, signal_id, awaited, wait_key)


def control_of(
    plan: Plan, state: State, inbox: Collection[Event], request: ControlRequest, at: int, revision: int
) -> Control:
    """What an operator's request comes to once all that waits in the inbox has been applied.

    Raises `EngineError` when it does not apply.
    """
    before = inbox if revision >= FORESEES else ()
    match request.what:
        case "PAUSE" | "RESUME" | "CANCEL":
            return _whole_run(state, before, request, at)
        case "SKIP_TIMER":
            _require_running(state, before)
            key = find_timer(plan, state, _step(request), request.visit, request.item, _taken(before))
            place = Key.parse(key)
            return Control(TimerSkipped(key, at), place.step_id, place.visit, place.item)
        case "RESUME_STEP":
            return _resume_step(plan, state, before, request, at)
        case "RETRY_INCIDENT" | "COMPLETE_INCIDENT" | "FAIL_INCIDENT":
            return _incident(plan, state, before, request, at)
        case _:
            assert_never(request.what)


def _taken(inbox: Collection[Event]) -> frozenset[str]:
    """The keys of what has its answer in the inbox: it will not be there any more."""
    answering = (IncidentResolved, StepResumed, TimerFired, TimerSkipped)
    return frozenset(event.key for event in inbox if isinstance(event, answering))


def _whole_run(state: State, inbox: Collection[Event], request: ControlRequest, at: int) -> Control:
    if state.phase not in (Phase.RUNNING, Phase.ENDING, Phase.COMPENSATING):
        raise EngineError("EXECUTION_ENDED", "the execution has ended")
    paused, running = state.paused, state.phase is Phase.RUNNING
    for event in inbox:
        match event:
            case PauseRequested() | ResumeRequested():
                paused = isinstance(event, PauseRequested)
            case CancelRequested():
                paused = running = False
            case _:
                pass
    match request.what:
        case "PAUSE":
            return Control(None if paused else PauseRequested(at, request.actor))
        case "RESUME":
            return Control(ResumeRequested(at, request.actor) if paused else None)
        case _:
            return Control(CancelRequested(at, request.reason, request.compensate) if running else None)


def _resume_step(plan: Plan, state: State, inbox: Collection[Event], request: ControlRequest, at: int) -> Control:
    _require_running(state, inbox)
    node = node_of(plan, _step(request))
    key, work = find_open(
        state,
        node.id,
        request.visit,
        request.item,
        lambda one: one.stage is Stage.SUSPENDED,
        "suspended",
        _taken(inbox),
    )
    return Control(StepResumed(key, at, request.data), node.id, work.visit, work.item)


def _incident(plan: Plan, state: State, inbox: Collection[Event], request: ControlRequest, at: int) -> Control:
    step_id = _step(request)
    # What undoes a step outlives it, should the run have gone on with a version that does not have it.
    if not any(work.step_id == step_id for work in state.work.values()):
        node_of(plan, step_id)
    if state.phase is Phase.RUNNING:
        _require_running(state, inbox)
    try:
        key, work = find_open(
            state,
            step_id,
            request.visit,
            request.item,
            lambda one: one.stage is Stage.INCIDENT,
            "an incident",
            _taken(inbox),
        )
    except EngineError as error:
        code = "NO_INCIDENT" if error.code == "STEP_NOT_OPEN" else error.code
        raise EngineError(code, error.message) from error
    event = IncidentResolved(
        key,
        at,
        request.what.removesuffix("_INCIDENT"),  # type: ignore[arg-type] # RETRY, COMPLETE and FAIL are what is left
        request.parameters,
        request.edit_parameters,
        request.output,
        request.actor,
    )
    return Control(event, step_id, work.visit, work.item)


def check_parameters(plan: Plan, state: State, asked: Control) -> None:
    """Raises PARAMETERS_NOT_TAKEN where a parked step is given parameters, and is not one action that would take them.

    Only what has not been recorded yet may be judged by it: runs have taken such requests, and passed that over.
    """
    event = asked.event
    if not isinstance(event, IncidentResolved) or not event.edited or Key.parse(event.key).role is not None:
        return
    node = node_of(plan, Key.parse(event.key).step_id)
    if not isinstance(node, ActionNode) or event.key in state.fans:
        what = "all its items" if event.key in state.fans else f"a {node.type}"
        raise EngineError("PARAMETERS_NOT_TAKEN", f"{node.id} is parked as {what}; only one action takes parameters")


def _require_running(state: State, inbox: Collection[Event]) -> None:
    if state.phase is not Phase.RUNNING or any(isinstance(event, CancelRequested) for event in inbox):
        raise EngineError("EXECUTION_ENDED", "the execution has ended or is ending")


def _step(request: ControlRequest) -> str:
    if request.step_id is None:
        raise EngineError("STEP_NOT_FOUND", "name the step")
    return request.step_id


def application_error(failure: Failure, problems: tuple[tuple[str, str], ...] = ()) -> ApplicationError:
    """A failure as Temporal carries it: its code is the type, the rest is the first detail."""
    detail: dict[str, Any] = {
        "code": failure.code,
        "message": failure.message,
        "stepId": failure.step_id,
        "attempts": failure.attempts,
    }
    if problems:
        detail["problems"] = [{"path": path, "message": message} for path, message in problems]
    return ApplicationError(failure.message, detail, type=failure.code, non_retryable=True)


def refusal(error: EngineError, step_id: str | None = None) -> ApplicationError:
    """The engine's refusal as Temporal carries it."""
    return application_error(Failure(error.code, str(error), step_id), error.faults)

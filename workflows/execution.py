"""The one dynamic workflow: perform commands, take an event, advance.

Its type is the template's slug. Everything that decides anything is in `engine`; everything that talks to Temporal
is in `effects`. Handlers only append to the inbox, and the loop applies it in order, so there are no locks.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from temporalio import workflow
from temporalio.common import RawValue
from temporalio.exceptions import ActivityError, ApplicationError

from app.contracts import (
    CLOSE_EXECUTION,
    COMPLETE_STEP,
    CONTROL,
    DELIVER_SIGNAL,
    MARK_STARTED,
    STATE_QUERY,
    STEPS_QUERY,
    TELL_CHILD,
    ChildOrder,
    ChildReport,
    CloseExecution,
    ControlReceipt,
    ControlRequest,
    DeadLetterRecord,
    ExecutionStart,
    RunView,
    SignalDelivery,
    SignalReceipt,
    StateDump,
    StepCompletion,
    readable,
)
from engine.compensation import to_undo
from engine.draft import Step, iso
from engine.errors import EngineError
from engine.events import (
    CancelRequested,
    Event,
    PauseRequested,
    ResumeRequested,
    SignalReceived,
    events_from_json,
    events_to_json,
)
from engine.interpreter import Overdue, Pace, advance, resume, start
from engine.plan import Plan
from engine.protocol import Cancel, Command, Complete, Fail, Failure, RunInput
from engine.state import State
from engine.state_json import state_from_json, state_to_json
from workflows.clocks import ClockRecord
from workflows.effects import Effects, now
from workflows.plans import plan_of
from workflows.policies import ROW
from workflows.requests import application_error, check_signal, completed, control_of, received, refusal, task_of
from workflows.search import WAITING_FOR
from workflows.view import details, run_view, waits_for_people

Ending = Complete | Fail | Cancel

_LONG_HISTORY = 8_000


@workflow.defn(dynamic=True, sandboxed=False)
class Execution:
    """One run of a version. Arguments: `ExecutionStart`, then the definition as stored.

    It runs outside the SDK's sandbox, which would import this module again for every run: what the sandbox guards
    against is kept out by lint, and found by replaying every history of every test (decision 0006).
    """

    def __init__(self) -> None:
        self._plan: Plan | None = None
        self._state: State | None = None
        self._inbox: deque[Event] = deque()
        self._applied = 0
        self._calls = 0
        self._urgent = False
        self._ended = False
        self._askers = 0
        self._leaves_done = False
        self._given: ExecutionStart | None = None
        self._waiting_for: str | None = None

    @workflow.run
    async def run(self, args: Sequence[RawValue]) -> Any:
        """Runs to the end; gives the definition's output."""
        given = self._given = workflow.payload_converter().from_payload(args[0].payload, ExecutionStart)
        try:
            self._plan = plan_of(args[1].payload)
        except EngineError as error:
            await _undisturbed(asyncio.create_task(self._close(given, Fail(Failure(error.code, str(error))))))
            raise application_error(Failure(error.code, str(error), retryable=False)) from error
        marking = asyncio.create_task(_mark_started(given))
        effects = Effects(given, self._receive)
        ending = await self._drive(self._plan, given, effects, args[1])
        self._ended = True
        await _undisturbed(marking)
        await effects.records.written()
        await _undisturbed(asyncio.create_task(self._close(given, ending)))
        match ending:
            case Complete(output):
                return self._report(output) if given.reports else output
            case Fail(failure):
                raise application_error(failure)
            case Cancel():
                raise asyncio.CancelledError

    def _report(self, output: Any) -> ChildReport:
        """What the parent of this run keeps of it."""
        return ChildReport(output=output, compensations=[] if self._state is None else to_undo(self._state))

    async def _drive(self, plan: Plan, given: ExecutionStart, effects: Effects, definition: RawValue) -> Ending:
        step = self._begin(plan, given)
        while True:
            self._state = step.state
            ending = _perform(step.commands, effects)
            if ending is not None:
                return ending
            event = await self._next(plan, given, effects, definition)
            step = self._call(partial(advance, plan, step.state, event))
            self._applied += 1

    async def _next(self, plan: Plan, given: ExecutionStart, effects: Effects, definition: RawValue) -> Event:
        """The next event to apply; where history has grown long, a new run may begin instead."""
        while True:
            if not self._inbox:
                self._show(plan, given)
                await self._wait(lambda: bool(self._inbox) or effects.broken or _may_leave(effects))
            effects.check()
            if _history_is_long() and not effects.has_children:
                await self._continue_as_new(given, effects, definition)
            if self._inbox:
                return self._inbox.popleft()

    def _begin(self, plan: Plan, given: ExecutionStart) -> Step:
        if given.state is not None:
            self._inbox.extendleft(reversed(events_from_json(given.inbox)))
            return resume(plan, state_from_json(given.state), now())
        run = RunInput(
            execution_id=str(given.execution_id),
            name=given.name,
            root_id=str(given.root_id),
            parent_id=None if given.parent_id is None else str(given.parent_id),
            template_id=str(given.template_id),
            template=given.template,
            version_id=str(given.version_id),
            version=given.version,
            context=given.context,
            trigger=given.trigger,
            at=now(),
            depth=given.depth,
        )
        return self._call(partial(start, plan, run))

    def _call(self, engine: Callable[[Pace], Step]) -> Step:
        """Calls the engine; what clocks decide is recorded in history before it counts."""
        self._calls += 1
        record = ClockRecord(self._calls)
        pace = record.recorded()
        while True:
            try:
                step = engine(pace)
            except Overdue as overdue:
                pace = record.overdue(pace, overdue.turn)
            else:
                record.yielded(step.commands)
                return step

    async def _wait(self, condition: Callable[[], bool]) -> None:
        """Waits for the condition, or for a cancel."""
        try:
            await workflow.wait_condition(condition)
        except asyncio.CancelledError:
            self._urgent = True
            reason = workflow.cancellation_reason() or None
            self._receive(CancelRequested(now(), reason, compensate=not self._leaves_done))

    def _receive(self, event: Event) -> None:
        self._inbox.append(event)

    async def _continue_as_new(self, given: ExecutionStart, effects: Effects, definition: RawValue) -> None:
        """Drains what is under way without applying it, then goes on as a new run with state and inbox.

        Comes back without having done so when something must be applied at once: a person waits for the answer, or
        the run is cancelled, which the next run would not know how to end as.
        """
        cancelled = any(isinstance(event, CancelRequested) for event in self._inbox)
        self._urgent = cancelled or (self._askers > 0 and bool(self._inbox))
        await self._wait(lambda: self._urgent or effects.broken or _is_drained(effects))
        effects.check()
        if self._urgent or self._state is None:
            return
        inbox = events_to_json(self._inbox)
        carried = given.model_copy(update={"state": state_to_json(self._state), "inbox": inbox, "context": {}})
        workflow.continue_as_new(args=[carried, definition])

    def _show(self, plan: Plan, given: ExecutionStart) -> None:
        """Temporal's own UI shows the steps and what is waited for."""
        state = self._state
        if state is None:
            return
        workflow.set_current_details(details(plan, state))
        waiting_for = waits_for_people(plan, state)
        if given.has_search_attributes and waiting_for != self._waiting_for:
            self._waiting_for = waiting_for
            update = WAITING_FOR.value_unset() if waiting_for is None else WAITING_FOR.value_set(waiting_for)
            workflow.upsert_search_attributes([update])

    async def _close(self, given: ExecutionStart, ending: Ending) -> None:
        """Writes into the row how the run ended; the reconciler does it when Postgres stays away."""
        reason = dead_letter = None
        closed_as = "COMPLETED"
        match ending:
            case Fail(failure):
                closed_as, reason = "FAILED", f"{failure.code}: {failure.message}"
                dead_letter = self._dead_letter(given, failure)
            case Cancel(given_reason):
                closed_as, reason = "CANCELLED", given_reason
        if reason is not None:
            reason = readable(reason)
        request = CloseExecution.model_validate(
            {
                "executionId": given.execution_id,
                "closedAs": closed_as,
                "reason": reason,
                "endedAt": iso(now()),
                "deadLetter": dead_letter,
            }
        )
        try:
            await workflow.execute_local_activity(CLOSE_EXECUTION, request, **ROW)
        except ActivityError as error:
            workflow.logger.warning("execution_row_left_open", extra={"cause": str(error.cause)})

    def _dead_letter(self, given: ExecutionStart, failure: Failure) -> DeadLetterRecord | None:
        """What is kept of a run that failed for good, unless its parent is there to be told."""
        if self._state is None or (given.parent_id is not None and not given.detached):
            return None
        return DeadLetterRecord(
            step_id=failure.step_id,
            code=failure.code,
            message=readable(failure.message),
            attempts=failure.attempts,
            state=state_to_json(self._state),
        )

    @workflow.query(name=STEPS_QUERY)
    def steps(self) -> RunView:
        """Every step, and what the run waits for."""
        if self._plan is None or self._state is None:
            return RunView(steps=[], waiting_for=[])
        return run_view(self._plan, self._state)

    @workflow.query(name=STATE_QUERY)
    def dump(self) -> StateDump:
        """The run's whole memory."""
        given = self._given
        if given is None:
            raise ApplicationError("the execution has not begun", type="NOT_YET_STARTED")
        state = None if self._state is None else state_to_json(self._state)
        return StateDump(version_id=given.version_id, version=given.version, state=state)

    @workflow.update(name=COMPLETE_STEP)
    async def complete_step(self, completion: StepCompletion) -> dict[str, Any]:
        """A person completes a step; answers when it has been applied. A repetition gives the first result."""
        plan, state = self._begun()
        task = task_of(plan, state, self._inbox, completion)
        await self._apply(completed(task, completion, now()) if task.open else None)
        if task.key not in self._begun()[1].answers:
            raise application_error(Failure("EXECUTION_ENDED", "the execution ended first"))
        output = self._begun()[1].answers[task.key]
        return {"stepId": task.step_id, "visit": task.visit, "item": task.item, "status": "COMPLETED", "output": output}

    @complete_step.validator
    def refuse_completion(self, completion: StepCompletion) -> None:
        """Refuses, with the reason's code as the error's type, before anything is recorded."""
        plan, state = self._begun()
        with _refused(completion.step_id):
            task_of(plan, state, self._inbox, completion)

    @workflow.update(name=DELIVER_SIGNAL)
    async def deliver_signal(self, signal: SignalDelivery) -> SignalReceipt:
        """A signal with a receipt: a step took it, or it waits for one."""
        update = workflow.current_update_info()
        signal_id = signal.id or (None if update is None else update.id)
        await self._apply(received(signal, signal_id, now()))
        waits = any(one.id == signal_id for one in self._begun()[1].signals)
        return SignalReceipt(status="BUFFERED" if waits else "DELIVERED")

    @deliver_signal.validator
    def refuse_signal(self, signal: SignalDelivery) -> None:
        """Refuses what could be neither delivered nor buffered."""
        plan, state = self._begun()
        with _refused(None):
            check_signal(plan, state, self._inbox, signal, now())

    @workflow.update(name=CONTROL)
    async def control(self, request: ControlRequest) -> ControlReceipt:
        """An operator steers the run; answers when it has been applied."""
        plan, state = self._begun()
        with _refused(request.step_id):
            asked = control_of(plan, state, request, now())
        await self._apply(asked.event)
        status = "UNCHANGED" if asked.event is None else "APPLIED"
        return ControlReceipt.model_validate(
            {"status": status, "stepId": asked.step_id, "visit": asked.visit, "item": asked.item}
        )

    @control.validator
    def refuse_control(self, request: ControlRequest) -> None:
        """Refuses what does not apply."""
        plan, state = self._begun()
        with _refused(request.step_id):
            control_of(plan, state, request, now())

    @workflow.signal(name=TELL_CHILD)
    def be_told(self, order: ChildOrder) -> None:
        """The parent says that it is paused, goes on, or does not want its children undone."""
        match order.what:
            case "PAUSE":
                self._receive(PauseRequested(now(), order.actor))
            case "RESUME":
                self._receive(ResumeRequested(now(), order.actor))
            case "LEAVE_DONE":
                self._leaves_done = True

    @workflow.signal(dynamic=True)
    def signal(self, name: str, args: Sequence[RawValue]) -> None:
        """A plain Temporal signal: the first argument is the payload, the second the correlation key. No receipt."""
        payload, key = (*(workflow.payload_converter().from_payload(arg.payload) for arg in args[:2]), None, None)[:2]
        self._receive(SignalReceived(name, now(), payload, None if key is None else str(key)))

    def _begun(self) -> tuple[Plan, State]:
        if self._plan is None or self._state is None:
            raise application_error(Failure("NOT_YET_STARTED", "the execution has not begun"))
        return self._plan, self._state

    async def _apply(self, event: Event | None) -> None:
        """Waits until an event (and all before it) has been applied, or the run has ended."""
        if event is not None:
            self._receive(event)
        self._urgent = True
        self._askers += 1
        # Counted from what is left, not from what came: a new run begins with what the last one left in its inbox.
        mine = self._applied + len(self._inbox)
        await workflow.wait_condition(lambda: self._applied >= mine or self._ended)
        self._askers -= 1


@contextmanager
def _refused(step_id: str | None) -> Iterator[None]:
    """The engine's refusals, as Temporal carries them."""
    try:
        yield
    except EngineError as error:
        raise refusal(error, step_id) from error


def _perform(commands: Sequence[Command], effects: Effects) -> Ending | None:
    for command in commands:
        if isinstance(command, Complete | Fail | Cancel):
            return command
        effects.perform(command)
    return None


def _is_drained(effects: Effects) -> bool:
    return not effects.busy and workflow.all_handlers_finished()


def _may_leave(effects: Effects) -> bool:
    return _history_is_long() and not effects.has_children and _is_drained(effects)


def _history_is_long() -> bool:
    info = workflow.info()
    return info.is_continue_as_new_suggested() or info.get_current_history_length() >= _LONG_HISTORY


async def _mark_started(given: ExecutionStart) -> None:
    """A child sets its own row STARTED; a root's is set by whoever started it."""
    if given.parent_id is not None and given.state is None:
        try:
            await workflow.execute_local_activity(MARK_STARTED, given.execution_id, **ROW)
        except ActivityError as error:
            workflow.logger.warning("execution_row_left_created", extra={"cause": str(error.cause)})


async def _undisturbed(task: asyncio.Task[None]) -> None:
    """Waits to the end, also when the run is cancelled meanwhile: how it ends has been decided."""
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            continue
    task.result()

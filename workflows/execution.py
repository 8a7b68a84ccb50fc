"""The one dynamic workflow: perform commands, take an event, advance.

Its type is the template's slug. Everything that decides anything is in `engine`; everything that talks to Temporal
is in `effects`. Handlers only append to the inbox, and the loop applies it in order, so there are no locks.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from temporalio import workflow
from temporalio.common import RawValue
from temporalio.exceptions import ActivityError, ApplicationError

from app.contracts import (
    CLOSE_EXECUTION,
    COMPLETE_STEP,
    MARK_STARTED,
    STEPS_QUERY,
    CloseExecution,
    ExecutionStart,
    RunView,
    StepCompletion,
    readable,
)
from engine.draft import Step, iso
from engine.errors import EngineError
from engine.interpreter import Overdue, Pace, advance, resume, start
from engine.plan import Plan
from engine.protocol import (
    Cancel,
    CancelRequested,
    Command,
    Complete,
    Event,
    Fail,
    Failure,
    HumanCompleted,
    RunInput,
    events_from_json,
    events_to_json,
)
from engine.state import State, state_from_json, state_to_json
from engine.tasks import OpenTask, find_task
from workflows.clocks import ClockRecord
from workflows.effects import Effects, now
from workflows.plans import plan_of
from workflows.policies import ROW
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
        self._waiting_for: str | None = None

    @workflow.run
    async def run(self, args: Sequence[RawValue]) -> Any:
        """Runs to the end; gives the definition's output."""
        given = workflow.payload_converter().from_payload(args[0].payload, ExecutionStart)
        try:
            self._plan = plan_of(args[1].payload)
        except EngineError as error:
            await _undisturbed(asyncio.create_task(self._close(given, Fail(Failure(error.code, str(error))))))
            raise _application_error(Failure(error.code, str(error), retryable=False)) from error
        marking = asyncio.create_task(_mark_started(given))
        ending = await self._drive(self._plan, given, Effects(given, self._receive), args[1])
        self._ended = True
        await _undisturbed(marking)
        await _undisturbed(asyncio.create_task(self._close(given, ending)))
        match ending:
            case Complete(output):
                return output
            case Fail(failure):
                raise _application_error(failure)
            case Cancel():
                raise asyncio.CancelledError

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
            self._receive(CancelRequested(now(), workflow.cancellation_reason() or None))

    def _receive(self, event: Event) -> None:
        self._inbox.append(event)

    async def _continue_as_new(self, given: ExecutionStart, effects: Effects, definition: RawValue) -> None:
        """Drains what is under way without applying it, then goes on as a new run with state and inbox.

        Comes back without having done so when something must be applied at once: a person waits for the answer, or
        the run is cancelled, which the next run would not know how to end as.
        """
        self._urgent = any(isinstance(event, HumanCompleted | CancelRequested) for event in self._inbox)
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
        reason = None
        closed_as = "COMPLETED"
        match ending:
            case Fail(failure):
                closed_as, reason = "FAILED", f"{failure.code}: {failure.message}"
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
            }
        )
        try:
            await workflow.execute_local_activity(CLOSE_EXECUTION, request, **ROW)
        except ActivityError as error:
            workflow.logger.warning("execution_row_left_open", extra={"cause": str(error.cause)})

    @workflow.query(name=STEPS_QUERY)
    def steps(self) -> RunView:
        """Every step, and what the run waits for."""
        if self._plan is None or self._state is None:
            return RunView(steps=[], waiting_for=[])
        return run_view(self._plan, self._state)

    @workflow.update(name=COMPLETE_STEP)
    async def complete_step(self, completion: StepCompletion) -> dict[str, Any]:
        """A person completes a step; answers when it has been applied. A repetition gives the first result."""
        task = self._task(completion)
        if task.open:
            self._urgent = True
            self._receive(
                HumanCompleted(task.key, now(), completion.outcome, completion.comment, completion.completed_by)
            )
        # Counted from what is left, not from what came: a new run begins with what the last one left in its inbox.
        mine = self._applied + len(self._inbox)
        await workflow.wait_condition(lambda: self._applied >= mine or self._ended)
        if self._state is None or task.key not in self._state.answers:
            raise _application_error(Failure("EXECUTION_ENDED", "the execution ended first"))
        output = self._state.answers[task.key]
        return {"stepId": task.step_id, "visit": task.visit, "status": "COMPLETED", "output": output}

    @complete_step.validator
    def refuse_completion(self, completion: StepCompletion) -> None:
        """Refuses, with the reason's code as the error's type, before anything is recorded."""
        self._task(completion)

    def _task(self, completion: StepCompletion) -> OpenTask:
        if self._plan is None or self._state is None:
            raise _application_error(Failure("STEP_NOT_OPEN", "the execution has not begun"))
        try:
            task = find_task(self._plan, self._state, completion.step_id, completion.visit, completion.outcome)
        except EngineError as error:
            raise _application_error(Failure(error.code, str(error), completion.step_id)) from error
        answered = any(isinstance(event, HumanCompleted) and event.key == task.key for event in self._inbox)
        return replace(task, open=task.open and not answered)


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


def _application_error(failure: Failure) -> ApplicationError:
    detail = {
        "code": failure.code,
        "message": failure.message,
        "stepId": failure.step_id,
        "attempts": failure.attempts,
    }
    return ApplicationError(failure.message, detail, type=failure.code, non_retryable=True)

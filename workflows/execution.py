"""The one dynamic workflow: perform commands, take an event, advance.

Its type is the template's slug. Everything that decides anything is in `engine`; everything that talks to Temporal
is in `effects`. Handlers only append to the inbox, and the loop applies it in order, so there are no locks.
"""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from temporalio import workflow
from temporalio.common import RawValue
from temporalio.exceptions import FailureError

from app.contracts import (
    CLOSE_EXECUTION,
    MARK_STARTED,
    REQUEST_CANCEL,
    ChildReport,
    CloseExecution,
    DeadLetterRecord,
    ExecutionStart,
    readable,
)
from engine.compensation import to_undo
from engine.draft import Step, iso
from engine.errors import EngineError
from engine.events import (
    CancelRequested,
    ChunkWithdrawn,
    Event,
    PauseRequested,
    ResumeRequested,
    StateOutgrown,
    TimerFired,
    events_from_json,
    events_to_json,
)
from engine.holding import LARGEST_STATE, size_of
from engine.interpreter import Overdue, Pace, advance, resume, start
from engine.keys import DEADLINE
from engine.migration import migrate, with_version
from engine.plan import Plan
from engine.protocol import Cancel, Command, Complete, Fail, Failure, RunInput
from engine.state import State
from engine.state_json import state_from_json, state_to_json
from workflows.clocks import ClockRecord
from workflows.departure import Departure
from workflows.desk import Desk
from workflows.effects import Effects
from workflows.moment import now
from workflows.plans import plan_of
from workflows.policies import LOCAL, ROW
from workflows.requests import application_error
from workflows.revisions import AWAITS, BOUNDED, SURVIVES
from workflows.search import VERSION, WAITING_FOR
from workflows.view import details, waits_for_people

Ending = Complete | Fail | Cancel


@workflow.defn(dynamic=True, sandboxed=False)
class Execution(Desk):
    """One run of a version. Arguments: `ExecutionStart`, then the definition as stored.

    It runs outside the SDK's sandbox, which would import this module again for every run: what the sandbox guards
    against is kept out by lint, and found by replaying every history of every test (decision 0006).
    """

    def __init__(self) -> None:
        super().__init__()
        self._calls = 0
        self._departure = Departure()
        self._waiting_for: str | None = None

    @workflow.run
    async def run(self, args: Sequence[RawValue]) -> Any:
        """Runs to the end; gives the definition's output."""
        given = self._given = workflow.payload_converter().from_payload(args[0].payload, ExecutionStart)
        try:
            self._plan = plan_of(args[1].payload)
        except EngineError as error:
            self._ended = True
            await _undisturbed(asyncio.create_task(self._close(given, Fail(Failure(error.code, str(error))))))
            raise application_error(Failure(error.code, str(error), retryable=False)) from error
        self._definition = args[1]
        marking = asyncio.create_task(_mark_started(given))
        effects = Effects(given, args[1], self._receive)
        effects.adopt(given.children)
        ending = await self._drive(effects, given)
        self._ended = True
        await _undisturbed(marking)
        await effects.records.written()
        if not given.batch:
            await _undisturbed(asyncio.create_task(self._close(given, ending)))
        match ending:
            case Complete(output=output):
                return self._report(output) if given.reports else output
            case Fail(failure):
                raise application_error(failure)
            case Cancel(reason):
                await _be_cancelled(reason)
                raise asyncio.CancelledError

    def _report(self, output: Any) -> ChildReport:
        """What the parent of this run keeps of it."""
        return ChildReport(output=output, compensations=[] if self._state is None else to_undo(self._state))

    async def _drive(self, effects: Effects, given: ExecutionStart) -> Ending:
        if self._plan is None:
            raise AssertionError("there is no plan")
        step = self._begin(self._plan, given)
        while True:
            self._state = step.state
            ending = _perform(step.commands, effects)
            if ending is not None:
                return ending
            event = await self._next(effects)
            if event is None:
                step = self._migrated(step.state, effects)
            else:
                step = self._call(partial(advance, self._begun()[0], step.state, event))
                self._applied += 1

    async def _next(self, effects: Effects) -> Event | None:
        """The next event to apply, or None when the run is to go on with another version first.

        Where history has grown long, a new run may begin instead.
        """
        while True:
            if not self._inbox and self._migration is None:
                self._show()
                await self._wait(lambda: self._is_called(effects) or self._may_leave(effects))
            effects.check()
            if self._migration is not None:
                return None
            if self._must_leave(effects):
                await self._continue_as_new(effects)
                if self._migration is not None:
                    return None
            if self._inbox:
                return self._inbox.popleft()

    def _is_called(self, effects: Effects) -> bool:
        return bool(self._inbox) or self._migration is not None or effects.broken

    def _migrated(self, state: State, effects: Effects) -> Step:
        """Goes on with another version: what was judged still holds, for nothing has been applied since."""
        migration, plan = self._migration, self._begun()[0]
        if migration is None or self._given is None:
            raise AssertionError("no migration is under way")
        request = migration.request
        state = with_version(state, str(request.version_id), request.version)
        step = migrate(plan, migration.plan, state, request.mapping, now())
        self._plan = migration.plan
        self._definition = migration.definition
        update = {"version_id": request.version_id, "version": request.version}
        self._given = self._given.model_copy(update=update)
        effects.use(self._given, self._definition)
        if self._given.has_search_attributes:
            workflow.upsert_search_attributes([VERSION.value_set(request.version)])
        self._migration = None
        return step

    def _may_leave(self, effects: Effects) -> bool:
        return self._must_leave(effects) and _is_drained(effects)

    def _must_leave(self, effects: Effects) -> bool:
        """Whether a new run is to begin now, as far as nothing is under way that it would lose."""
        # What the parent has said of the cancel that is on its way would not be known to the next run.
        if self._leaves_done:
            return False
        return self._departure.is_due(effects.has_children, self._given_revision() >= SURVIVES, effects.under_way)

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
            revision=given.engine_revision,
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
            if self._given is not None and self._given.batch and self._given_revision() >= AWAITS:
                self._receive(ChunkWithdrawn(now(), compensate=not self._leaves_done))
                return
            reason = workflow.cancellation_reason() or None
            self._receive(CancelRequested(now(), reason, compensate=not self._leaves_done))

    async def _continue_as_new(self, effects: Effects) -> None:
        """Drains what is under way without applying it, then goes on as a new run with state and inbox.

        Comes back without having done so when something must be applied at once, when that takes long, or when there is
        more than can be passed on.
        """
        self._urgent = self._has_urgent()
        patience = None
        if self._given_revision() >= AWAITS and not self._urgent and not _is_drained(effects):
            patience = self._departure.patience()
        await self._wait(
            lambda: self._urgent or effects.broken or _is_drained(effects) or (patience is not None and patience.done())
        )
        if patience is not None:
            patience.cancel()
        effects.check()
        if self._urgent or self._state is None or self._given is None:
            return
        if not _is_drained(effects):
            self._departure.put_off(effects.under_way())
            return
        inbox = events_to_json(self._inbox)
        state, children = state_to_json(self._state), effects.open_children
        if self._given_revision() >= BOUNDED and (size := size_of(state) + size_of(inbox)) > LARGEST_STATE:
            self._departure.stay()
            self._receive(StateOutgrown(now(), size))
            return
        carried = self._given.model_copy(
            update={
                "state": state,
                "inbox": inbox,
                "context": {},
                "children": children,
                "recorded_until": effects.records.latest,
            }
        )
        workflow.continue_as_new(args=[carried, self._definition])

    def _has_urgent(self) -> bool:
        """Whether something must be applied at once, although a new run is to begin: a person waits for the answer, the
        run is cancelled, which the next run would not know how to end as, its time is over, or its parent steers it.
        """
        awaited = self._given_revision() >= AWAITS
        return (self._askers > 0 and bool(self._inbox)) or any(_is_urgent(event, awaited) for event in self._inbox)

    def _receive(self, event: Event) -> None:
        super()._receive(event)
        if self._given_revision() >= AWAITS and _is_urgent(event, awaited=True):
            self._urgent = True

    def _show(self) -> None:
        """Temporal's own UI shows the steps and what is waited for."""
        plan, state = self._begun()
        workflow.set_current_details(details(plan, state))
        waiting_for = waits_for_people(plan, state)
        if self._given is not None and self._given.has_search_attributes and waiting_for != self._waiting_for:
            self._waiting_for = waiting_for
            update = WAITING_FOR.value_unset() if waiting_for is None else WAITING_FOR.value_set(waiting_for)
            workflow.upsert_search_attributes([update])

    async def _close(self, given: ExecutionStart, ending: Ending) -> None:
        """Writes into the row how the run ended; the reconciler does it when Postgres stays away."""
        reason = dead_letter = None
        closed_as = "COMPLETED"
        match ending:
            case Complete(reason=said):
                reason = said
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
        except FailureError as error:
            workflow.logger.warning("execution_row_left_open", extra={"cause": str(error.cause or error)})

    def _dead_letter(self, given: ExecutionStart, failure: Failure) -> DeadLetterRecord | None:
        """What is kept of a run that failed for good, unless its parent is there to be told."""
        if self._state is None or (given.parent_id is not None and not given.detached):
            return None
        state = state_to_json(self._state)
        return DeadLetterRecord(
            step_id=failure.step_id,
            code=failure.code,
            message=readable(failure.message),
            attempts=failure.attempts,
            # One that is larger is asked of the run itself where somebody wants to retry it.
            state=state if size_of(state) <= LARGEST_STATE else None,
        )


def _perform(commands: Sequence[Command], effects: Effects) -> Ending | None:
    for command in commands:
        if isinstance(command, Complete | Fail | Cancel):
            return command
        effects.perform(command)
    return None


def _is_drained(effects: Effects) -> bool:
    return not effects.busy and workflow.all_handlers_finished()


def _is_urgent(event: Event, awaited: bool) -> bool:
    """Whether an event cannot wait for what is under way; before `awaited`, only a cancel could not."""
    match event:
        case CancelRequested() | ChunkWithdrawn():
            return True
        case PauseRequested() | ResumeRequested():
            return awaited
        case TimerFired(key=key):
            return awaited and key == DEADLINE
        case _:
            return False


async def _be_cancelled(reason: str | None) -> None:
    """Has Temporal cancel this run, where it has not itself asked for it: a run can end as cancelled only then."""
    if workflow.cancellation_reason() is None:
        await workflow.execute_local_activity(REQUEST_CANCEL, args=[workflow.info().workflow_id, reason], **LOCAL)
        await workflow.wait_condition(lambda: workflow.cancellation_reason() is not None)


async def _mark_started(given: ExecutionStart) -> None:
    """A child sets its own row STARTED; a root's is set by whoever started it."""
    if given.parent_id is not None and given.state is None:
        try:
            await workflow.execute_local_activity(MARK_STARTED, given.execution_id, **ROW)
        except FailureError as error:
            workflow.logger.warning("execution_row_left_created", extra={"cause": str(error.cause or error)})


async def _undisturbed(task: asyncio.Task[None]) -> None:
    """Waits to the end, also when the run is cancelled meanwhile: how it ends has been decided."""
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            continue
    task.result()

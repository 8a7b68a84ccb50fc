"""The desk of a run: queries, updates and signals. Handlers judge a request and append its event to the inbox.

An update's handler answers when the loop of the run has applied its event. Nothing here decides anything.
"""

import json
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from temporalio import workflow
from temporalio.common import RawValue
from temporalio.exceptions import ApplicationError

from app.contracts import TELL_CHILD, ChildOrder, ExecutionStart
from app.run_contracts import (
    COMPLETE_STEP,
    CONTROL,
    DELIVER_AWAITED,
    DELIVER_SIGNAL,
    MIGRATE,
    MIGRATE_INLINE,
    STATE_QUERY,
    STEPS_QUERY,
    AwaitedSignal,
    ControlReceipt,
    ControlRequest,
    MigrationFinding,
    MigrationReport,
    MigrationRequest,
    RunView,
    SignalDelivery,
    SignalReceipt,
    StateDump,
    StepCompletion,
)
from engine.errors import EngineError
from engine.events import Event, PauseRequested, ResumeRequested, SignalReceived
from engine.migration import findings, verdict
from engine.plan import Plan
from engine.protocol import Failure
from engine.state import Phase, State
from engine.state_json import state_to_json
from workflows.moment import now
from workflows.plans import plan_of
from workflows.requests import (
    application_error,
    check_awaited,
    check_parameters,
    check_signal,
    completed,
    control_of,
    destination,
    not_awaited,
    place_awaited,
    received,
    refusal,
    task_of,
)
from workflows.view import run_view


@dataclass(frozen=True, slots=True)
class Migration:
    """A move to another version that has been asked for and found possible."""

    request: MigrationRequest
    plan: Plan
    definition: RawValue


class Desk:
    """What a run knows, and how others ask it and tell it."""

    def __init__(self) -> None:
        self._given: ExecutionStart | None = None
        self._plan: Plan | None = None
        self._state: State | None = None
        self._inbox: deque[Event] = deque()
        self._applied = 0
        self._askers = 0
        self._urgent = False
        self._ended = False
        self._leaves_done = False
        self._migration: Migration | None = None

    def _receive(self, event: Event) -> None:
        self._inbox.append(event)

    def _given_revision(self) -> int:
        return 0 if self._given is None else self._given.engine_revision

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
        plan, state = await self._having_begun()
        with _refused(completion.step_id):
            task = task_of(plan, state, self._inbox, completion, self._given_revision())
        await self._apply(completed(task, completion, now()) if task.open else None)
        if task.key not in self._begun()[1].answers:
            raise application_error(Failure("EXECUTION_ENDED", "the execution ended first"))
        output = self._begun()[1].answers[task.key]
        return {"stepId": task.step_id, "visit": task.visit, "item": task.item, "status": "COMPLETED", "output": output}

    @complete_step.validator
    def refuse_completion(self, completion: StepCompletion) -> None:
        """Refuses, with the reason's code as the error's type, before anything is recorded."""
        if self._state is not None:
            with _refused(completion.step_id):
                task_of(*self._begun(), self._inbox, completion, self._given_revision())

    @workflow.update(name=DELIVER_SIGNAL)
    async def deliver_signal(self, signal: SignalDelivery) -> SignalReceipt:
        """A signal with a receipt: a step took it, or it waits for one."""
        update = workflow.current_update_info()
        signal_id = signal.id or (None if update is None else update.id)
        plan, state = await self._having_begun()
        with _refused(None):
            check_signal(plan, state, self._inbox, signal, now(), self._given_revision())
        place = destination(state, self._inbox, signal)
        await self._apply(received(signal, signal_id, now()))
        if any(one.id == signal_id for one in self._begun()[1].signals):
            return SignalReceipt(status="BUFFERED")
        if place is None:
            return SignalReceipt(status="DELIVERED")
        return SignalReceipt(status="DELIVERED", step_id=place.step_id, visit=place.visit, item=place.item)

    @deliver_signal.validator
    def refuse_signal(self, signal: SignalDelivery) -> None:
        """Refuses what could be neither delivered nor buffered."""
        if self._state is not None:
            with _refused(None):
                check_signal(*self._begun(), self._inbox, signal, now(), self._given_revision())

    @workflow.update(name=DELIVER_AWAITED)
    async def deliver_awaited(self, signal: AwaitedSignal) -> SignalReceipt:
        """A signal, which has an id, for a step that waits for it: NOT_AWAITED where none does any more by its turn."""
        _, state = await self._having_begun()
        with _refused(None):
            check_awaited(state, signal)
        place = place_awaited(state, self._inbox, signal)
        await self._apply(received(signal, signal.id, now()))
        if signal.id not in self._begun()[1].receipts:
            raise refusal(not_awaited(signal))
        if place is None:
            return SignalReceipt(status="DELIVERED")
        return SignalReceipt(status="DELIVERED", step_id=place.step_id, visit=place.visit, item=place.item)

    @deliver_awaited.validator
    def refuse_awaited(self, signal: AwaitedSignal) -> None:
        """Refuses what nobody waits for."""
        if self._state is not None:
            with _refused(None):
                check_awaited(self._begun()[1], signal)

    @workflow.update(name=CONTROL)
    async def control(self, request: ControlRequest) -> ControlReceipt:
        """An operator steers the run; answers when it has been applied."""
        plan, state = await self._having_begun()
        with _refused(request.step_id):
            asked = control_of(plan, state, self._inbox, request, now(), self._given_revision())
        await self._apply(asked.event)
        status = "UNCHANGED" if asked.event is None else "APPLIED"
        return ControlReceipt.model_validate(
            {"status": status, "stepId": asked.step_id, "visit": asked.visit, "item": asked.item}
        )

    @control.validator
    def refuse_control(self, request: ControlRequest) -> None:
        """Refuses what does not apply."""
        if self._state is not None:
            with _refused(request.step_id):
                asked = control_of(*self._begun(), self._inbox, request, now(), self._given_revision())
                check_parameters(*self._begun(), asked)

    @workflow.update(name=MIGRATE)
    async def migrate(self, request: MigrationRequest, definition: RawValue) -> MigrationReport:
        """Goes on with another version's definition, or only says whether it could."""
        return await self._move(request, definition)

    @migrate.validator
    def refuse_migration(self, request: MigrationRequest, definition: RawValue) -> None:
        """Refuses a definition that cannot be run, a run that is ending, and a second migration before the first."""
        self._refuse_move(request, definition)

    @workflow.update(name=MIGRATE_INLINE)
    async def migrate_inline(self, request: MigrationRequest) -> MigrationReport:
        """The same, for a request that has the definition inside."""
        return await self._move(request, _inside(request))

    @migrate_inline.validator
    def refuse_inline_migration(self, request: MigrationRequest) -> None:
        """Refuses the same."""
        self._refuse_move(request, _inside(request))

    async def _move(self, request: MigrationRequest, definition: RawValue) -> MigrationReport:
        await self._having_begun()
        report, plan = self._judged(request, definition)
        if request.dry_run or report.verdict != "SAFE":
            return report
        change = Migration(request, plan, definition)
        self._migration = change
        self._urgent = True
        self._askers += 1
        await workflow.wait_condition(lambda: self._migration is not change or self._ended)
        self._askers -= 1
        if self._migration is change:
            raise application_error(Failure("EXECUTION_ENDED", "the execution ended first"))
        return report.model_copy(update={"migrated": True})

    def _refuse_move(self, request: MigrationRequest, definition: RawValue) -> None:
        if self._state is None:
            return
        report, _ = self._judged(request, definition)
        if not request.dry_run and report.verdict != "SAFE":
            reasons = "; ".join(f"{one.step_id}: {one.reason}" for one in report.findings)
            raise application_error(Failure(f"MIGRATION_{report.verdict}", reasons))

    def _judged(self, request: MigrationRequest, definition: RawValue) -> tuple[MigrationReport, Plan]:
        plan, state = self._begun()
        if state.phase is not Phase.RUNNING or self._migration is not None:
            code = "EXECUTION_ENDED" if self._migration is None else "MIGRATION_UNDER_WAY"
            raise application_error(Failure(code, "the execution is ending, or is being migrated"))
        with _refused(None):
            new = plan_of(definition.payload)
        found = findings(plan, new, state, request.mapping)
        listed = [MigrationFinding(step_id=one.step_id, code=one.code, reason=one.reason) for one in found]
        return MigrationReport(verdict=verdict(found), findings=listed), new

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
        try:
            given = [workflow.payload_converter().from_payload(arg.payload) for arg in args[:2]]
            json.dumps(given, allow_nan=False)
        except (ValueError, TypeError, KeyError, RuntimeError) as error:
            # Nobody can be told; a task that failed for it would fail for ever.
            workflow.logger.warning("signal_unreadable", extra={"signal": name, "cause": str(error)})
            return
        payload, key = (*given, None, None)[:2]
        self._receive(SignalReceived(name, now(), payload, None if key is None else str(key)))

    def _begun(self) -> tuple[Plan, State]:
        if self._plan is None or self._state is None:
            raise application_error(Failure("NOT_YET_STARTED", "the execution has not begun"))
        return self._plan, self._state

    async def _having_begun(self) -> tuple[Plan, State]:
        """Waits for the state: an update that comes with the first task of a run is handled before it is there. It
        cannot be judged beforehand then, so that a refusal leaves events. All others keep their place in the inbox.
        """
        if self._state is None:
            await workflow.wait_condition(lambda: self._state is not None or self._ended)
        return self._begun()

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
        if self._applied < mine:
            raise application_error(Failure("EXECUTION_ENDED", "the execution ended first"))


def _inside(request: MigrationRequest) -> RawValue:
    return RawValue(workflow.payload_converter().to_payload(request.definition))


@contextmanager
def _refused(step_id: str | None) -> Iterator[None]:
    """The engine's refusals, as Temporal carries them."""
    try:
        yield
    except EngineError as error:
        raise refusal(error, step_id) from error

"""A hand-written stand-in for the interpreter: it speaks the contracts, so that the API can be tested alone.

What it does is in its context's `do`: `finish` (the default), `wait` for its human step, `fail`, `fail unreadably`, or
`stall`. A run that is given a state ends with it as its output, or waits where the state's `wait` says so.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC
from typing import Any
from uuid import UUID

from temporalio import workflow
from temporalio.client import Client
from temporalio.common import RawValue
from temporalio.converter import DataConverter
from temporalio.exceptions import ApplicationError
from temporalio.worker import Worker

with workflow.unsafe.imports_passed_through():
    from app.contracts import ExecutionStart
    from app.run_contracts import (
        COMPLETE_STEP,
        CONTROL,
        DELIVER_SIGNAL,
        MIGRATE,
        STATE_QUERY,
        STEPS_QUERY,
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
        StepView,
        WaitingFor,
    )


@workflow.defn(dynamic=True)
class TinyWorkflow:
    """One human step, `confirm`, that is open while the run waits; completing one called `cancel` changes nothing."""

    def __init__(self) -> None:
        self._completion: StepCompletion | None = None
        self._began = workflow.now().astimezone(UTC).isoformat()
        self._start: ExecutionStart | None = None
        self._version: tuple[UUID, str] | None = None
        self._paused = False
        self._cancelled = False
        self._asked: list[dict[str, Any]] = []

    @workflow.run
    async def run(self, arguments: Sequence[RawValue]) -> Any:
        start: ExecutionStart = workflow.payload_converter().from_payload(arguments[0].payload, ExecutionStart)
        self._start = start
        self._version = (start.version_id, start.version)
        if start.state is not None and not start.state.get("wait"):
            return {"state": start.state}
        match "wait" if start.state is not None else start.context.get("do", "finish"):
            case "wait":
                await workflow.wait_condition(lambda: self._completion is not None or self._cancelled)
                if self._cancelled:
                    raise asyncio.CancelledError
                return {"confirmed": True}
            case "fail":
                detail = {"code": "NO_STOCK", "message": "nothing left", "stepId": "note", "attempts": 3}
                raise ApplicationError("nothing left", detail, type="NO_STOCK", non_retryable=True)
            case "fail unreadably":
                raise ApplicationError("nothing\0left" + "!" * 3_000, type="NO_STOCK", non_retryable=True)
            case "fail at length":
                raise ApplicationError("nothing left", "x" * 100_000, type="NO_STOCK", non_retryable=True)
            case "stall":
                raise RuntimeError("a bug, which fails the workflow task again and again")
            case _:
                return {"context": start.context, "trigger": start.trigger, "name": start.name}

    @workflow.query(name=STEPS_QUERY)
    def steps(self) -> RunView:
        step = StepView(id="confirm", name="Confirm", type="HUMAN_CONFIRM", status="ACTION_REQUIRED", visits=1)
        waiting = WaitingFor(step_id="confirm", visit=1, kind="PERSON", since=self._began, who="ann")
        return RunView(steps=[step], waiting_for=[waiting])

    @workflow.update(name=COMPLETE_STEP)
    async def complete_step(self, completion: StepCompletion) -> dict[str, Any]:
        if completion.step_id == "confirm":
            self._completion = completion
        output = {"outcome": completion.outcome, "completedBy": completion.completed_by}
        return {"stepId": completion.step_id, "visit": 1, "status": "COMPLETED", "output": output}

    @complete_step.validator
    def refuse(self, completion: StepCompletion) -> None:
        if completion.step_id not in ("confirm", "cancel"):
            raise ApplicationError("no such step", type="STEP_NOT_FOUND", non_retryable=True)
        if completion.outcome not in (None, "approved"):
            raise ApplicationError("no such outcome", type="OUTCOME_UNKNOWN", non_retryable=True)
        if completion.visit not in (None, 1):
            raise ApplicationError("no such visit", type="STEP_NOT_OPEN", non_retryable=True)

    @workflow.query(name=STATE_QUERY)
    def state(self) -> StateDump:
        assert self._version is not None
        return StateDump(version_id=self._version[0], version=self._version[1], state={"asked": self._asked})

    @workflow.update(name=DELIVER_SIGNAL)
    async def deliver_signal(self, signal: SignalDelivery) -> SignalReceipt:
        self._asked.append(signal.model_dump(mode="json"))
        return SignalReceipt(status="DELIVERED" if signal.name == "go" else "BUFFERED")

    @deliver_signal.validator
    def refuse_signal(self, signal: SignalDelivery) -> None:
        if signal.name == "unheard":
            raise ApplicationError("nobody listens", type="SIGNAL_UNKNOWN", non_retryable=True)

    @workflow.update(name=CONTROL)
    async def control(self, request: ControlRequest) -> ControlReceipt:
        self._asked.append(request.model_dump(mode="json"))
        changed = True
        match request.what:
            case "PAUSE" | "RESUME":
                changed = self._paused != (request.what == "PAUSE")
                self._paused = request.what == "PAUSE"
            case "CANCEL":
                self._cancelled = True
        return ControlReceipt(status="APPLIED" if changed else "UNCHANGED", step_id=request.step_id)

    @control.validator
    def refuse_control(self, request: ControlRequest) -> None:
        if request.step_id not in (None, "confirm"):
            raise ApplicationError("no such step", type="STEP_NOT_FOUND", non_retryable=True)
        if request.what == "SKIP_TIMER" and request.visit == 2:
            raise ApplicationError("no timer", type="NO_TIMER", non_retryable=True)

    @workflow.update(name=MIGRATE)
    async def migrate(self, request: MigrationRequest, definition: RawValue) -> MigrationReport:
        if request.version == "2.0.0" or request.mapping:
            if not request.dry_run:
                self._version = (request.version_id, request.version)
            return MigrationReport(verdict="SAFE", migrated=not request.dry_run)
        finding = MigrationFinding(step_id="confirm", code="NEEDS_MAPPING", reason="it is not there")
        return MigrationReport(verdict="NEEDS_MAPPING", findings=[finding])


@asynccontextmanager
async def running_worker(address: str, task_queue: str, converter: DataConverter) -> AsyncIterator[Worker]:
    """A worker for the stand-in on a task queue."""
    client = await Client.connect(address, data_converter=converter)
    worker = Worker(client, task_queue=task_queue, workflows=[TinyWorkflow])
    running = asyncio.create_task(worker.run())
    yield worker
    await worker.shutdown()
    await running

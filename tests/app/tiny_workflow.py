"""A hand-written stand-in for the interpreter: it speaks the contracts, so that the API can be tested alone.

What it does is in its context's `do`: `finish` (the default), `wait` for its human step, `fail`, or `stall`.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC
from typing import Any

from temporalio import workflow
from temporalio.client import Client
from temporalio.common import RawValue
from temporalio.converter import DataConverter
from temporalio.exceptions import ApplicationError
from temporalio.worker import Worker

with workflow.unsafe.imports_passed_through():
    from app.contracts import ExecutionStart
from app.run_contracts import COMPLETE_STEP, STEPS_QUERY, RunView, StepCompletion, StepView, WaitingFor


@workflow.defn(dynamic=True)
class TinyWorkflow:
    """One human step, `confirm`, that is open while the run waits."""

    def __init__(self) -> None:
        self._completion: StepCompletion | None = None
        self._began = workflow.now().astimezone(UTC).isoformat()

    @workflow.run
    async def run(self, arguments: Sequence[RawValue]) -> Any:
        start: ExecutionStart = workflow.payload_converter().from_payload(arguments[0].payload, ExecutionStart)
        match start.context.get("do", "finish"):
            case "wait":
                await workflow.wait_condition(lambda: self._completion is not None)
                return {"confirmed": True}
            case "fail":
                detail = {"code": "NO_STOCK", "message": "nothing left", "stepId": "note", "attempts": 3}
                raise ApplicationError("nothing left", detail, type="NO_STOCK", non_retryable=True)
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
        self._completion = completion
        output = {"outcome": completion.outcome, "completedBy": completion.completed_by}
        return {"stepId": completion.step_id, "visit": 1, "status": "COMPLETED", "output": output}

    @complete_step.validator
    def refuse(self, completion: StepCompletion) -> None:
        if completion.step_id != "confirm":
            raise ApplicationError("no such step", type="STEP_NOT_FOUND", non_retryable=True)
        if completion.outcome not in (None, "approved"):
            raise ApplicationError("no such outcome", type="OUTCOME_UNKNOWN", non_retryable=True)
        if completion.visit not in (None, 1):
            raise ApplicationError("no such visit", type="STEP_NOT_OPEN", non_retryable=True)


@asynccontextmanager
async def running_worker(address: str, task_queue: str, converter: DataConverter) -> AsyncIterator[Worker]:
    """A worker for the stand-in on a task queue."""
    client = await Client.connect(address, data_converter=converter)
    worker = Worker(client, task_queue=task_queue, workflows=[TinyWorkflow])
    running = asyncio.create_task(worker.run())
    yield worker
    await worker.shutdown()
    await running

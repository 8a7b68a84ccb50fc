"""The rows of a run's tasks and incidents, on their way."""

import asyncio
from uuid import uuid4

from temporalio import workflow
from temporalio.client import Client
from temporalio.worker import Worker

from app.contracts import ExecutionStart
from engine.protocol import CloseHumanTask
from workflows.records import StepRecords


@workflow.defn(sandboxed=False)
class Noting:
    """Notes a row, and waits until all are written."""

    @workflow.run
    async def run(self, start: ExecutionStart) -> None:
        records = StepRecords(start, lambda task: None)
        records.note(CloseHumanTask("ask#1", "COMPLETED", {"outcome": "confirmed"}), 1_700_000_000_000)
        await records.written()


async def test_a_worker_that_has_no_means_to_write_rows_fails_the_workflow_task_and_does_not_wait_without_a_word(
    temporal_client: Client,
) -> None:
    queue, one = f"records-{uuid4()}", uuid4()
    start = ExecutionStart(
        context={},
        execution_id=one,
        name="n",
        root_id=one,
        template_id=one,
        template="t",
        version_id=one,
        version="1.0.0",
    )
    async with Worker(temporal_client, task_queue=queue, workflows=[Noting]):
        handle = await temporal_client.start_workflow(Noting.run, start, id=queue, task_queue=queue)
        try:
            for _ in range(100):
                found = await handle.describe()
                if found.raw_description.pending_workflow_task.attempt > 1:
                    return
                await asyncio.sleep(0.1)
            raise AssertionError("the run waits without a word")
        finally:
            await handle.terminate()

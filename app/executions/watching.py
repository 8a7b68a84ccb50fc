"""Learning that a run may have changed, without asking again and again: by Temporal's long poll of its history."""

import asyncio
from datetime import timedelta
from uuid import UUID

from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.enums.v1 import EventType
from temporalio.api.workflowservice.v1 import (
    DescribeWorkflowExecutionRequest,
    GetWorkflowExecutionHistoryRequest,
    GetWorkflowExecutionHistoryResponse,
)
from temporalio.service import RPCError, RPCStatusCode

from app.contracts import workflow_id
from app.temporal import Temporal, translated

# Seconds until an execution that Temporal does not know is looked for again: it may not have begun yet.
_UNKNOWN = 2.0
# Longer than the server lets a poll wait before it answers that nothing has happened (20 s).
_LONG_POLL = timedelta(seconds=70)
_PAGE = 1_000

# A run's state changes only when a worker completes a workflow task; everything else only leads to one.
_TELLING = frozenset(
    {
        EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED,
        EventType.EVENT_TYPE_WORKFLOW_TASK_FAILED,
        EventType.EVENT_TYPE_WORKFLOW_EXECUTION_TERMINATED,
        EventType.EVENT_TYPE_WORKFLOW_EXECUTION_TIMED_OUT,
    }
)


class Watch:
    """Follows the history of an execution from its present end, along its chain of runs."""

    def __init__(self, temporal: Temporal, execution_id: UUID) -> None:
        self._temporal = temporal
        self._workflow_id = workflow_id(execution_id)
        self._run_id = ""
        self._token = b""

    async def begin(self) -> bool:
        """Goes to the end of what has happened; false when Temporal has no such run. Raises `Unavailable`.

        What is read after this and before `changed` may be newer than the place, and is then said to have changed:
        nothing is missed.
        """
        self._token = b""
        client = await self._temporal.client()
        execution = WorkflowExecution(workflow_id=self._workflow_id)
        request = DescribeWorkflowExecutionRequest(namespace=client.namespace, execution=execution)
        try:
            with translated():
                described = await client.workflow_service.describe_workflow_execution(
                    request, timeout=self._temporal.timeout
                )
            info = described.workflow_execution_info
            self._run_id = info.execution.run_id
            seen = 0
            while seen < info.history_length:
                answer = await self._poll()
                seen = max((event.event_id for event in answer.history.events), default=info.history_length)
                if not self._token:
                    break
        except RPCError as error:
            if error.status != RPCStatusCode.NOT_FOUND:
                raise
            return False
        return True

    async def changed(self) -> None:
        """Returns when the run may look different. Raises `Unavailable`."""
        while True:
            if not self._token:
                # The run has ended, perhaps to go on in another one; or there was none.
                if not await self.begin():
                    await asyncio.sleep(_UNKNOWN)
                return
            try:
                answer = await self._poll()
            except RPCError as error:
                if error.status != RPCStatusCode.NOT_FOUND:
                    raise
                self._token = b""
                return
            if any(event.event_type in _TELLING for event in answer.history.events) or not self._token:
                return

    async def _poll(self) -> GetWorkflowExecutionHistoryResponse:
        client = await self._temporal.client()
        request = GetWorkflowExecutionHistoryRequest(
            namespace=client.namespace,
            execution=WorkflowExecution(workflow_id=self._workflow_id, run_id=self._run_id),
            maximum_page_size=_PAGE,
            next_page_token=self._token,
            wait_new_event=True,
        )
        with translated():
            answer = await client.workflow_service.get_workflow_execution_history(request, timeout=_LONG_POLL)
        self._token = answer.next_page_token
        return answer

"""What a run must ask Temporal itself for: how a child that it no longer hears from has ended, and its own cancel."""

from collections.abc import Callable
from typing import Any

from temporalio import activity
from temporalio.client import WorkflowExecutionStatus, WorkflowFailureError, WorkflowHandle
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError, RPCStatusCode

from app.contracts import CHILD_OUTCOME, REQUEST_CANCEL, ChildOutcome, FailureView
from app.executions.runs import RuntimeStatus, outcome_of_failure

Activity = Callable[..., Any]


def run_activities() -> list[Activity]:
    """The activities of this module."""
    return [child_outcome, request_cancel]


@activity.defn(name=CHILD_OUTCOME)
async def child_outcome(workflow_id: str) -> ChildOutcome:
    """How a run has ended. While it has not, the attempt fails with STILL_RUNNING, to be made again later."""
    handle = activity.client().get_workflow_handle(workflow_id)
    try:
        found = await handle.describe()
        if found.status is WorkflowExecutionStatus.RUNNING:
            raise ApplicationError("the child has not ended yet", type="STILL_RUNNING")
        return ChildOutcome(output=await handle.result())
    except WorkflowFailureError as error:
        return _ended_badly(error.cause)
    except RPCError as error:
        if error.status != RPCStatusCode.NOT_FOUND:
            raise
        message = "Temporal has no run of the child"
        return ChildOutcome(error=FailureView(code="CHILD_LOST", message=message))


@activity.defn(name=REQUEST_CANCEL)
async def request_cancel(workflow_id: str, reason: str | None) -> None:
    """Asks Temporal to cancel a run, which it can then end as cancelled."""
    handle: WorkflowHandle[Any, Any] = activity.client().get_workflow_handle(workflow_id)
    await handle.cancel(reason=reason or "")


def _ended_badly(cause: BaseException) -> ChildOutcome:
    """A child that was cancelled is not tried again; what a terminated one says of itself its parent cannot know."""
    outcome = outcome_of_failure(cause)
    if outcome.status is RuntimeStatus.TERMINATED:
        return ChildOutcome(error=FailureView(code="CHILD_TERMINATED", message="the child was terminated"))
    return ChildOutcome(error=outcome.error, retryable=outcome.status is not RuntimeStatus.CANCELLED)

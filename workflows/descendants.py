"""Children in other runs: what they are told, how they are cancelled, and how one learns of their end after a
continue-as-new, when Temporal no longer tells.
"""

import asyncio
from datetime import timedelta
from typing import Any

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError, FailureError

from app.contracts import CHILD_OUTCOME, TELL_CHILD, ChildOrder, ChildOutcome, ChildReport, OpenChild, summary
from engine.events import ChildDone, ChildFailed, Event
from engine.protocol import Failure
from workflows.failures import failure_of
from workflows.moment import now

# Asking costs an attempt of an activity and no event. A child that has been open for long may be so for longer.
_ASKING = RetryPolicy(
    initial_interval=timedelta(seconds=1), backoff_coefficient=1.5, maximum_interval=timedelta(seconds=30)
)


async def outcome_of(key: str, child: OpenChild) -> Event:
    """How a child has ended, asked again and again until it has."""
    try:
        outcome: ChildOutcome = await workflow.execute_activity(
            CHILD_OUTCOME,
            child.workflow_id,
            result_type=ChildOutcome,
            activity_id=f"{key}/outcome",
            summary=summary(child.name),
            start_to_close_timeout=timedelta(seconds=30),
            retry_policy=_ASKING,
        )
    except (ActivityError, asyncio.CancelledError) as error:
        return ChildFailed(key, now(), failure_of(error, child.step_id))
    at = now()
    if outcome.error is not None:
        message = f"child {child.name}: {outcome.error.message}"
        failure = Failure(outcome.error.code, message, child.step_id, retryable=outcome.retryable)
        return ChildFailed(key, at, failure)
    output = ChildReport.model_validate(outcome.output) if child.reports else outcome.output
    return child_done(key, output, at)


def child_done(key: str, output: Any, at: int) -> ChildDone:
    """The event of a child that has ended well."""
    if isinstance(output, ChildReport):
        return ChildDone(key, at, output.output, [*output.compensations])
    return ChildDone(key, at, output)


async def tell_child(child: OpenChild, order: ChildOrder) -> None:
    """Tells a child something; one that has ended meanwhile need not know it."""
    try:
        await workflow.get_external_workflow_handle(child.workflow_id).signal(TELL_CHILD, order)
    except FailureError as error:
        workflow.logger.info("child_not_told", extra={"cause": str(error)})


async def cancel_child(child: OpenChild) -> None:
    """Asks a child of an earlier run to end; its end is heard of like any other."""
    try:
        await workflow.get_external_workflow_handle(child.workflow_id).cancel()
    except FailureError as error:
        workflow.logger.info("child_not_cancelled", extra={"cause": str(error)})

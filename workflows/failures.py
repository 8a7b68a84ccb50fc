"""Temporal's failures, translated once into the engine's."""

import asyncio
from typing import Any

import temporalio.exceptions
from temporalio.exceptions import (
    ActivityError,
    ApplicationError,
    CancelledError,
    ChildWorkflowError,
    TerminatedError,
    WorkflowAlreadyStartedError,
)

from app.contracts import readable
from engine.protocol import Failure


def failure_of(error: BaseException, step_id: str) -> Failure:
    """What went wrong, as the engine and its users see it.

    Raises the error itself when it is none of the ways in which an activity or a child may end: that is a bug.
    """
    cause = error.cause if isinstance(error, ActivityError | ChildWorkflowError) and error.cause else error
    match cause:
        case ApplicationError():
            return Failure(
                cause.type or "ACTION_FAILED",
                readable(cause.message),
                step_id,
                attempts=_attempts(cause.details),
                retryable=not cause.non_retryable or isinstance(error, ChildWorkflowError),
            )
        case temporalio.exceptions.TimeoutError():
            return Failure("STEP_TIMED_OUT", "the attempt took longer than its timeout", step_id)
        case CancelledError() | asyncio.CancelledError():
            return Failure("CANCELLED", "it was cancelled", step_id, retryable=False)
        case TerminatedError():
            return Failure("CHILD_TERMINATED", "the child was terminated", step_id)
        case WorkflowAlreadyStartedError():
            return Failure("CHILD_ALREADY_STARTED", "the child had been started before", step_id, retryable=False)
        case _:
            raise error


def _attempts(details: Any) -> int:
    match details:
        case [{"attempts": int(attempts)}, *_]:
            return attempts
        case _:
            return 1

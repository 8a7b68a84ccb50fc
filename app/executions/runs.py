"""Executions as Temporal sees them: every call about a run, and what its errors mean, in one place."""

import asyncio
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, TypeVar
from uuid import UUID

from temporalio.client import (
    WorkflowExecutionStatus,
    WorkflowFailureError,
    WorkflowHandle,
    WorkflowQueryFailedError,
)
from temporalio.exceptions import ApplicationError, CancelledError, TerminatedError
from temporalio.exceptions import TimeoutError as RunTimeoutError
from temporalio.service import RPCError, RPCStatusCode

from app.contracts import ATTRIBUTE_ROOT, BATCH_WORKFLOW, FailureView, batch_workflow_id, reported_output, workflow_id
from app.errors import Conflict, Unavailable
from app.payloads.errors import PayloadUnavailable
from app.run_contracts import STATE_QUERY, STEPS_QUERY, RunView, StateDump
from app.temporal import Temporal, translated

# Seconds: how long a closed run may take to give its result, and a worker to answer a query.
RESULT_WITHIN = 3.0
QUERY_WITHIN = 3.0

_PREFIX = workflow_id("")

Answer = TypeVar("Answer")


class RuntimeStatus(StrEnum):
    """What a run is doing right now."""

    NOT_STARTED = "NOT_STARTED"
    IN_PROGRESS = "IN_PROGRESS"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    TERMINATED = "TERMINATED"
    TIMED_OUT = "TIMED_OUT"


_STATUSES = {
    WorkflowExecutionStatus.COMPLETED: RuntimeStatus.COMPLETED,
    WorkflowExecutionStatus.FAILED: RuntimeStatus.FAILED,
    WorkflowExecutionStatus.CANCELED: RuntimeStatus.CANCELLED,
    WorkflowExecutionStatus.TERMINATED: RuntimeStatus.TERMINATED,
    WorkflowExecutionStatus.TIMED_OUT: RuntimeStatus.TIMED_OUT,
}


@dataclass(frozen=True, slots=True)
class Run:
    """A run's status; `failing_attempt` is set while its workflow task fails again and again."""

    status: RuntimeStatus
    started_at: datetime
    run_id: str
    closed_at: datetime | None = None
    failing_attempt: int | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended: an output, or why there is none."""

    status: RuntimeStatus
    output: Any = None
    error: FailureView | None = None


async def find_run(temporal: Temporal, execution_id: UUID) -> Run | None:
    """The run as it is now; None when Temporal has none (not yet, or no longer)."""
    handle = await handle_of(temporal, execution_id)
    try:
        with translated():
            found = await handle.describe(rpc_timeout=temporal.timeout)
    except RPCError as error:
        _raise_unless_not_found(error)
        return None
    attempt = found.raw_description.pending_workflow_task.attempt
    return Run(
        status=_status(found.status),
        started_at=found.start_time,
        run_id=found.run_id,
        closed_at=found.close_time,
        failing_attempt=attempt if attempt > 1 else None,
    )


async def find_runs(temporal: Temporal, execution_ids: Collection[UUID]) -> dict[UUID, Run]:
    """The runs of many executions, by one visibility query; a very young run may be missing."""
    if not execution_ids:
        return {}
    listed = ", ".join(f"'{workflow_id(execution_id)}'" for execution_id in execution_ids)
    return await _list_runs(temporal, f"WorkflowId IN ({listed})")


async def find_runs_under(temporal: Temporal, root_id: UUID) -> dict[UUID, Run]:
    """The runs of a whole hierarchy, by one visibility query; empty where the server cannot be asked so."""
    if ATTRIBUTE_ROOT not in temporal.attributes:
        return {}
    return await _list_runs(temporal, f"{ATTRIBUTE_ROOT} = '{root_id}'")


async def _list_runs(temporal: Temporal, query: str) -> dict[UUID, Run]:
    client = await temporal.client()
    found: dict[UUID, Run] = {}
    with translated():
        async for item in client.list_workflows(query, rpc_timeout=temporal.timeout):
            execution_id = UUID(item.id.removeprefix(_PREFIX))
            run = Run(_status(item.status), item.start_time, item.run_id, item.close_time)
            earlier = found.get(execution_id)
            # A chain of runs (continue-as-new, reset) shares one workflow id: the last one counts.
            if earlier is None or run.started_at > earlier.started_at:
                found[execution_id] = run
    return found


async def find_outcome(temporal: Temporal, execution_id: UUID, within: float = RESULT_WITHIN) -> Outcome | None:
    """How a run ended; None when it has not within so many seconds, or when Temporal has forgotten it."""
    handle = await handle_of(temporal, execution_id)
    try:
        # A wait that is over is an answer, not a fault of Temporal's.
        async with asyncio.timeout(within):
            with translated():
                return Outcome(RuntimeStatus.COMPLETED, output=reported_output(await handle.result()))
    except TimeoutError:
        return None
    except WorkflowFailureError as error:
        return outcome_of_failure(error.cause)
    except RPCError as error:
        _raise_unless_not_found(error)
        return None


def outcome_of_failure(cause: BaseException) -> Outcome:
    """How a run ended whose result cannot be had, from the cause that Temporal gives."""
    match cause:
        case CancelledError():
            return Outcome(RuntimeStatus.CANCELLED, error=FailureView(code="CANCELLED", message=cause.message))
        case TerminatedError():
            return Outcome(RuntimeStatus.TERMINATED, error=FailureView(code="TERMINATED", message=cause.message))
        case RunTimeoutError():
            return Outcome(RuntimeStatus.TIMED_OUT, error=FailureView(code="TIMED_OUT", message=cause.message))
        case ApplicationError():
            return Outcome(RuntimeStatus.FAILED, error=_failure(cause))
        case _:
            return Outcome(RuntimeStatus.FAILED, error=FailureView(code="FAILED", message=str(cause)))


def _failure(error: ApplicationError) -> FailureView:
    """A run's failure carries `{code, message, stepId, attempts}` as its first detail."""
    detail = error.details[0] if error.details else None
    known = detail if isinstance(detail, dict) else {}
    step_id, attempts = known.get("stepId"), known.get("attempts")
    return FailureView(
        code=error.type or "FAILED",
        message=error.message,
        step_id=step_id if isinstance(step_id, str) else None,
        attempts=attempts if isinstance(attempts, int) else 1,
    )


async def view_run(temporal: Temporal, execution_id: UUID) -> RunView | None:
    """What a run's steps are doing, from a worker; None when Temporal has no such run.

    Raises `Unavailable`: WORKER_UNAVAILABLE when no worker answers.
    """
    return await _ask(temporal, workflow_id(execution_id), STEPS_QUERY, RunView)


async def view_chunk(temporal: Temporal, execution_id: UUID, key: str) -> RunView | None:
    """What the run of a chunk of a step's items is doing, as `view_run` says it of an execution."""
    return await _ask(temporal, batch_workflow_id(execution_id, key), STEPS_QUERY, RunView)


async def find_state(temporal: Temporal, execution_id: UUID) -> StateDump | None:
    """A run's whole memory, open or closed, from a worker; None when Temporal has no such run.

    Raises `Unavailable`: WORKER_UNAVAILABLE when no worker answers.
    """
    return await _ask(temporal, workflow_id(execution_id), STATE_QUERY, StateDump)


async def _ask(temporal: Temporal, of: str, query: str, kind: type[Answer]) -> Answer | None:
    handle: WorkflowHandle[Any, Any] = (await temporal.client()).get_workflow_handle(of)
    within = timedelta(seconds=QUERY_WITHIN)
    try:
        answer: Answer = await handle.query(query, result_type=kind, rpc_timeout=within)
    except PayloadUnavailable as error:
        raise Unavailable(error.code, str(error)) from error
    except WorkflowQueryFailedError as error:
        raise Unavailable("QUERY_FAILED", f"The worker could not say: {error.message}") from error
    except RPCError as error:
        match error.status:
            case RPCStatusCode.NOT_FOUND:
                return None
            # Nobody polls: the server says so at once, or the call runs out of time, or too many wait already.
            case (
                RPCStatusCode.FAILED_PRECONDITION
                | RPCStatusCode.CANCELLED
                | RPCStatusCode.DEADLINE_EXCEEDED
                | RPCStatusCode.RESOURCE_EXHAUSTED
            ):
                raise worker_unavailable() from error
            case _:
                with translated():
                    raise
    temporal.note_answer()
    return answer


async def terminate_batches(temporal: Temporal, execution_id: UUID, reason: str) -> int:
    """Ends the runs of chunks of an execution's items, which are no executions of their own; how many."""
    client = await temporal.client()
    prefix = batch_workflow_id(execution_id, "")
    query = f"WorkflowType = '{BATCH_WORKFLOW}' AND ExecutionStatus = 'Running' AND WorkflowId STARTS_WITH '{prefix}'"
    count = 0
    with translated():
        async for item in client.list_workflows(query, rpc_timeout=temporal.timeout):
            try:
                await client.get_workflow_handle(item.id).terminate(reason=reason, rpc_timeout=temporal.timeout)
            except RPCError as error:
                _raise_unless_not_found(error)
            else:
                count += 1
    return count


async def cancel_run(temporal: Temporal, execution_id: UUID, reason: str) -> bool:
    """Asks the run to end. False when Temporal has no open run of this execution."""
    run = await find_run(temporal, execution_id)
    if run is None or run.status != RuntimeStatus.IN_PROGRESS:
        return False
    handle = await handle_of(temporal, execution_id)
    try:
        with translated():
            await handle.cancel(reason=reason, rpc_timeout=temporal.timeout)
    except RPCError as error:
        _raise_unless_not_found(error)
        return False
    return True


async def terminate_run(temporal: Temporal, execution_id: UUID, reason: str) -> bool:
    """Ends the run at once; nothing in it is told. False when Temporal has no open run of this execution."""
    handle = await handle_of(temporal, execution_id)
    try:
        with translated():
            await handle.terminate(reason=reason, rpc_timeout=temporal.timeout)
    except RPCError as error:
        _raise_unless_not_found(error)
        return False
    return True


def ended() -> Conflict:
    """What is said when something is asked of a run that is over."""
    return Conflict("EXECUTION_ENDED", "The execution has ended.")


def worker_unavailable() -> Unavailable:
    """What is said when no worker answers."""
    return Unavailable("WORKER_UNAVAILABLE", "No worker answers.")


async def handle_of(temporal: Temporal, execution_id: UUID) -> WorkflowHandle[Any, Any]:
    """The handle of an execution's latest run."""
    return (await temporal.client()).get_workflow_handle(workflow_id(execution_id))


def _status(status: WorkflowExecutionStatus | None) -> RuntimeStatus:
    if status is None:
        return RuntimeStatus.IN_PROGRESS
    return _STATUSES.get(status, RuntimeStatus.IN_PROGRESS)


def _raise_unless_not_found(error: RPCError) -> None:
    if error.status != RPCStatusCode.NOT_FOUND:
        raise error

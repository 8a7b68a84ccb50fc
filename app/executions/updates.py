"""What is asked of a run while it runs: updates, what it answers, and what its refusals mean."""

import asyncio
import re
from datetime import timedelta
from typing import Any, TypeVar
from uuid import UUID

from temporalio.client import RPCTimeoutOrCancelledError, WorkflowHandle, WorkflowUpdateFailedError
from temporalio.common import RawValue
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError, RPCStatusCode

from app.contracts import Contract
from app.errors import AppError, Unavailable
from app.executions.runs import ended, find_state, handle_of, worker_unavailable
from app.payloads.content import definition_payload
from app.payloads.errors import PayloadUnavailable
from app.run_contracts import (
    COMPLETE_STEP,
    CONTROL,
    DELIVER_AWAITED,
    DELIVER_SIGNAL,
    MIGRATE,
    AwaitedSignal,
    ControlReceipt,
    ControlRequest,
    MigrationReport,
    MigrationRequest,
    SignalDelivery,
    SignalReceipt,
    StepCompletion,
)
from app.temporal import Temporal, translated

# Seconds until no worker is taken to be there.
UPDATE_WITHIN = 10.0

Answer = TypeVar("Answer")

# What a run refuses is a matter of its state, unless it is one of these.
_STATUSES = {
    "STEP_NOT_FOUND": 404,
    "OUTCOME_UNKNOWN": 422,
    "FORM_INVALID": 422,
    "DOCUMENTS_INVALID": 422,
    "OUTPUT_INVALID": 422,
    "PARAMETERS_NOT_TAKEN": 422,
    "SIGNAL_UNKNOWN": 422,
}
# Python's own exceptions have names like KeyError: those are our mistakes, not refusals.
_CODE = re.compile(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)*")
# How the SDK names an update whose run ended before the update did.
_RUN_ENDED_FIRST = "AcceptedUpdateCompletedWorkflow"


async def complete_step(
    temporal: Temporal, execution_id: UUID, completion: StepCompletion, update_id: str | None
) -> dict[str, Any]:
    """Completes a human step; what the run answers once it has taken note. Repeats with one id are one.

    Raises the run's own refusals (STEP_NOT_OPEN, STEP_NOT_FOUND, OUTCOME_UNKNOWN, AMBIGUOUS, EXECUTION_ENDED …)
    and WORKER_UNAVAILABLE, like everything here.
    """
    return await _update(temporal, execution_id, COMPLETE_STEP, completion, update_id, dict[str, Any])


async def deliver_signal(
    temporal: Temporal, execution_id: UUID, signal: SignalDelivery, update_id: str | None
) -> SignalReceipt:
    """Hands a signal to the run; whether a step took it."""
    return await _update(temporal, execution_id, DELIVER_SIGNAL, signal, update_id, SignalReceipt)


async def deliver_awaited(
    temporal: Temporal, execution_id: UUID, signal: AwaitedSignal, update_id: str
) -> SignalReceipt:
    """Hands a signal to the step of the run that waits for it. Raises NOT_AWAITED where none does."""
    return await _update(temporal, execution_id, DELIVER_AWAITED, signal, update_id, SignalReceipt)


async def was_signalled(temporal: Temporal, execution_id: UUID, signal_id: str, update_id: str) -> bool:
    """Whether an execution that has ended took a signal before it did.

    Its last run knows the update; of what the runs before it took it knows the signal. Raises `Unavailable`.
    """
    handle = await handle_of(temporal, execution_id)
    try:
        async with asyncio.timeout(UPDATE_WITHIN):
            await handle.get_update_handle(update_id, result_type=SignalReceipt).result(rpc_timeout=temporal.timeout)
    except WorkflowUpdateFailedError:
        return False
    except (TimeoutError, RPCTimeoutOrCancelledError) as error:
        raise worker_unavailable() from error
    except RPCError as error:
        if error.status == RPCStatusCode.NOT_FOUND:
            return await _was_received(temporal, handle, execution_id, signal_id)
        with translated():
            raise
    return True


async def _was_received(
    temporal: Temporal, handle: WorkflowHandle[Any, Any], execution_id: UUID, signal_id: str
) -> bool:
    """Whether a run that has continued others has the signal among those that came."""
    try:
        with translated():
            described = await handle.describe(rpc_timeout=temporal.timeout)
    except RPCError as error:
        if error.status == RPCStatusCode.NOT_FOUND:
            return False
        raise
    if described.raw_description.workflow_execution_info.first_run_id in ("", described.run_id):
        return False
    dump = await find_state(temporal, execution_id)
    return dump is not None and signal_id in (dump.state or {}).get("receipts", ())


async def control(
    temporal: Temporal, execution_id: UUID, request: ControlRequest, update_id: str | None = None
) -> ControlReceipt:
    """Pauses, resumes, skips a timer, resolves an incident …; whether that changed anything."""
    return await _update(temporal, execution_id, CONTROL, request, update_id, ControlReceipt)


async def migrate(
    temporal: Temporal, execution_id: UUID, request: MigrationRequest, definition: str, update_id: str | None = None
) -> MigrationReport:
    """Moves the run to another version, whose definition is given as the database has it; or says why it cannot."""
    stored = RawValue(definition_payload(definition))
    return await _update(temporal, execution_id, MIGRATE, request, update_id, MigrationReport, stored)


async def _update(
    temporal: Temporal,
    execution_id: UUID,
    name: str,
    argument: Contract,
    update_id: str | None,
    kind: type[Answer],
    *more: RawValue,
) -> Answer:
    handle = await handle_of(temporal, execution_id)
    within = timedelta(seconds=UPDATE_WITHIN)
    try:
        async with asyncio.timeout(UPDATE_WITHIN):
            answer: Answer = await handle.execute_update(
                name, args=[argument, *more], id=update_id, result_type=kind, rpc_timeout=within
            )
    except WorkflowUpdateFailedError as error:
        raise _refusal(error) from error
    except PayloadUnavailable as error:
        raise Unavailable(error.code, str(error)) from error
    except (TimeoutError, RPCTimeoutOrCancelledError) as error:
        raise worker_unavailable() from error
    except RPCError as error:
        if error.status == RPCStatusCode.NOT_FOUND:
            raise ended() from error
        with translated():
            raise
    temporal.note_answer()
    return answer


def _refusal(error: WorkflowUpdateFailedError) -> Exception:
    cause = error.cause
    if not isinstance(cause, ApplicationError) or cause.type is None:
        return error
    if cause.type == _RUN_ENDED_FIRST:
        return ended()
    if _CODE.fullmatch(cause.type) is None:
        return error
    # An older worker says nothing of single faults.
    detail = cause.details[0] if cause.details and isinstance(cause.details[0], dict) else {}
    return AppError(cause.type, _STATUSES.get(cause.type, 409), cause.message, detail.get("problems", ()))

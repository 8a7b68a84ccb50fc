"""What people do to a run while it runs: each is audited, and refused by the run itself where it does not apply."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

import structlog

from app.audit.service import Deed, audited_once, of_execution
from app.db.session import Database
from app.db.tables import RecordStatus
from app.errors import Conflict
from app.executions import runs, updates
from app.executions.control_schemas import StepCompletionRequest
from app.executions.queries import ExecutionRow
from app.executions.reading import get_row
from app.run_contracts import ControlReceipt, ControlRequest, SignalDelivery, SignalReceipt, StepCompletion
from app.temporal import Temporal

log = structlog.get_logger(__name__)

OPEN = (RecordStatus.CREATED, RecordStatus.STARTED)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, and the key that makes repetitions one."""

    actor: str | None
    key: str | None = None

    def update_id(self, what: str) -> str | None:
        """The id of an update; the same key may be used for one thing of each kind."""
        return None if self.key is None else f"{what}:{self.key}"


async def complete_step(
    database: Database,
    temporal: Temporal,
    execution_id: UUID,
    step_id: str,
    request: StepCompletionRequest,
    caller: Caller,
) -> dict[str, Any]:
    """Completes an open human step. Raises what the run refuses with, and WORKER_UNAVAILABLE.

    With an idempotency key a repetition gets the first answer, also when the run has ended meanwhile.
    """
    row = await get_row(database, execution_id)
    asked = request.model_dump(mode="json", exclude_unset=True) | {"stepId": step_id}
    key = caller.update_id(f"COMPLETE_STEP {step_id}")
    deed = of_execution("COMPLETE_STEP", execution_id, caller.actor, asked, key=key)
    # The first answer to this very request has the step's output: it is the run's to give again.
    async with audited_once(database, deed):
        await _check_running(temporal, row, caller, Conflict("STEP_NOT_OPEN", "The execution has not begun."))
        completion = StepCompletion(
            step_id=step_id,
            outcome=request.outcome,
            comment=request.comment,
            completed_by=caller.actor,
            visit=request.visit,
            item=request.item,
            data=request.data,
        )
        answer = await updates.complete_step(temporal, execution_id, completion, key)
        deed.after = {"visit": answer["visit"], "status": answer["status"]}
    log.info("step_completed", execution_id=str(execution_id), step_id=step_id, actor=caller.actor)
    return answer


async def send_signal(
    database: Database, temporal: Temporal, execution_id: UUID, signal: SignalDelivery, caller: Caller
) -> SignalReceipt:
    """Hands a signal to the run, which keeps one that comes early.

    Raises SIGNAL_UNKNOWN, SIGNAL_BUFFER_FULL, IDEMPOTENCY_CONFLICT (the key was used for another signal) …
    """
    row = await get_row(database, execution_id)
    asked = {"name": signal.name, "correlationKey": signal.correlation_key, "payload": signal.payload}
    key = caller.update_id("signal")
    deed = of_execution("SIGNAL", execution_id, caller.actor, asked, key=key)
    async with audited_once(database, deed) as done:
        if done is not None:
            return SignalReceipt.model_validate({"status": done.result})
        await _check_running(temporal, row, caller, not_yet_started())
        given = signal.model_copy(update={"id": caller.key, "actor": caller.actor})
        receipt = await updates.deliver_signal(temporal, execution_id, given, key)
        deed.result = receipt.status
    log.info("signal_sent", execution_id=str(execution_id), signal=signal.name, status=receipt.status)
    return receipt


async def steer(
    database: Database, temporal: Temporal, execution_id: UUID, request: ControlRequest, caller: Caller
) -> ControlReceipt:
    """Pause, resume, resume a step, skip a timer, resolve an incident: what the run says to it.

    Raises EXECUTION_ENDED, NOT_YET_STARTED, the run's own refusals, IDEMPOTENCY_CONFLICT, and WORKER_UNAVAILABLE.
    """
    row = await get_row(database, execution_id)
    deed = _deed(execution_id, request, caller)
    async with audited_once(database, deed) as done:
        if done is not None:
            return ControlReceipt.model_validate({"status": done.result, **(done.after or {})})
        await _check_running(temporal, row, caller, not_yet_started())
        given = request.model_copy(update={"actor": caller.actor})
        receipt = await updates.control(temporal, execution_id, given, caller.update_id(request.what))
        deed.result = receipt.status
        deed.after = receipt.model_dump(mode="json", by_alias=True, exclude={"status"}, exclude_none=True) or None
    log.info("execution_steered", execution_id=str(execution_id), what=request.what, status=receipt.status)
    return receipt


def _deed(execution_id: UUID, request: ControlRequest, caller: Caller) -> Deed:
    said = request.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude={"what", "reason"})
    return of_execution(request.what, execution_id, caller.actor, said, request.reason, caller.update_id(request.what))


async def _check_running(temporal: Temporal, row: ExecutionRow, caller: Caller, unless_begun: Conflict) -> None:
    """Raises unless there is, or (for a repetition) was, a run to ask."""
    if row.status == RecordStatus.CREATED and await runs.find_run(temporal, row.id) is None:
        raise unless_begun
    over = row.status not in OPEN
    if row.status == RecordStatus.FAILED_TO_START or (over and caller.key is None):
        raise runs.ended()


def not_yet_started() -> Conflict:
    """What is said of an execution that has been accepted and has no run yet."""
    return Conflict("NOT_YET_STARTED", "The execution has not been started yet.")

"""One call of a step as users see it: history's payloads decoded, and requests matched with their answers."""

from contextlib import suppress
from dataclasses import replace
from typing import Any

from temporalio.api.common.v1 import Payload
from temporalio.api.failure.v1 import Failure
from temporalio.api.history.v1 import HistoryEvent
from temporalio.api.workflow.v1 import PendingActivityInfo
from temporalio.client import Client

from app.contracts import readable, reported_output
from app.errors import AppError
from app.executions.history import Call, CallKind, CallStatus, asked_about_steps, at
from app.executions.schemas import ChunkItems, ErrorView, StepCall
from app.run_contracts import DELIVERING
from engine.keys import BATCH, Key

_ATTEMPTED = (CallKind.ACTION, CallKind.DATA, CallKind.COMPENSATION)
# What an operator's request brings with it, by what it asks for.
_BROUGHT = {"RESUME_STEP": "data", "RETRY_INCIDENT": "parameters", "COMPLETE_INCIDENT": "output"}


async def request_of(client: Client, event: HistoryEvent, *, signals: bool) -> Any:
    """The decoded argument of an update about steps; None for other events, and for what nobody can read.

    Without `signals` those are not looked at: their payloads may be large, and the step takes none.
    """
    given = asked_about_steps(event)
    if given is None or not given.payloads:
        return None
    accepted = event.workflow_execution_update_accepted_event_attributes.accepted_request
    if accepted.input.name in DELIVERING and not signals:
        return None
    try:
        return await _decoded(client, given.payloads[0])
    except AppError:
        return None


async def placed(client: Client, call: Call, step_id: str, names: frozenset[str]) -> bool:
    """Finds out which visit (of which step) a request was about, from the run's answer; whether it is this step.

    A signal that no answer ties to a step belongs to the step when its name is one of `names`.
    """
    if call.kind not in (CallKind.PERSON, CallKind.CONTROL, CallKind.SIGNAL):
        return True
    answer = await _decoded(client, call.output) if call.output is not None and not call.plain else None
    if isinstance(answer, dict) and isinstance(answer.get("visit"), int):
        named = answer.get("stepId") or call.key.step_id
        call.key = replace(call.key, step_id=named, visit=answer["visit"], item=answer.get("item", call.key.item))
    elif call.kind is CallKind.SIGNAL and call.name in names:
        call.key = Key(step_id, 0)
    return call.key.step_id == step_id


def chunk_of(key: Key) -> int | None:
    """The number of the first item of a chunk, when the key is that of one."""
    number = (key.role or "").removeprefix(f"{BATCH}/")
    return int(number) if number != key.role and number.isdecimal() else None


async def shown(client: Client, call: Call, pending: dict[str, PendingActivityInfo]) -> StepCall:
    """A call on the wire. `pending` are the activities of the run under way, by key."""
    known: dict[str, Any] = {
        "key": str(call.key),
        "kind": call.kind,
        "name": call.name,
        "status": call.status,
        "item": call.key.item,
        "round": call.key.round,
        "role": call.key.role,
        "run_id": call.run_id,
        "who": call.who,
        "attempts": call.attempts,
        "execution_id": call.execution_id,
        "last_failure": _error(call.last_failure),
        "scheduled_at": call.scheduled_at,
        "started_at": call.started_at,
        "closed_at": call.closed_at,
        "due_at": call.due_at,
        "error": _error(call.failure),
    }
    under_way = pending.get(str(call.key)) if call.status is CallStatus.OPEN else None
    if under_way is not None and call.kind in _ATTEMPTED:
        known |= _under_way(under_way)
    view = {name: value for name, value in known.items() if value is not None}
    if call.local:
        view["local"] = True
    return StepCall(**view, **await _values(client, call))


def _under_way(activity: PendingActivityInfo) -> dict[str, Any]:
    known: dict[str, Any] = {"attempts": activity.attempt}
    if activity.HasField("last_started_time"):
        known["started_at"] = at(activity.last_started_time)
    if activity.HasField("last_failure"):
        known["last_failure"] = _error(activity.last_failure)
    return known


async def _values(client: Client, call: Call) -> dict[str, Any]:
    """Input and output as users know them, out of what history holds, and what else a request says."""
    given = await _decoded(client, call.input) if call.input is not None else None
    answer = reported_output(await _decoded(client, call.output)) if call.output is not None else None
    match call.kind:
        case CallKind.CHUNK:
            return {"items": _items(call, given, answer)}
        case CallKind.SIGNAL if call.plain:
            return {"input": given}
        case CallKind.SIGNAL | CallKind.CONTROL:
            return _asked(call, given if isinstance(given, dict) else {}, answer)
        case CallKind.PERSON:
            values = {"input": _without(given, "stepId", "visit", "item")}
            if isinstance(answer, dict):
                values["output"] = answer.get("output")
            return values
        case _ if call.local and isinstance(answer, dict):
            return {name: answer[name] for name in ("input", "output") if name in answer}
    values = {} if call.input is None else {"input": given}
    if call.kind is CallKind.CHILD and isinstance(given, dict):
        values["input"] = given.get("context")
    if call.output is not None or (call.status is CallStatus.COMPLETED and call.kind is not CallKind.TIMER):
        values["output"] = answer
    return values


def _asked(call: Call, request: dict[str, Any], answer: Any) -> dict[str, Any]:
    values = {
        "reason": request.get("reason"),
        "correlation_key": request.get("correlationKey"),
        "answer": answer.get("status") if isinstance(answer, dict) else None,
    }
    found = {name: value for name, value in values.items() if value is not None}
    if call.kind is CallKind.SIGNAL:
        return {"input": request.get("payload"), **found}
    brought = _BROUGHT.get(call.name)
    if brought is None or (brought == "parameters" and not request.get("editParameters")):
        return found
    return {"input": {brought: request.get(brought)}, **found}


def _items(call: Call, given: Any, answer: Any) -> ChunkItems:
    """The items of a chunk by the state that its run began with, and by what it has given."""
    first = chunk_of(call.key) or 0
    items = ChunkItems(first=first)
    # One that was written otherwise is shown without its end.
    with suppress(KeyError, TypeError):
        items.last = first + len(given["state"]["fans"][call.key.visit_key]["items"]) - 1
    if isinstance(answer, dict) and "results" in answer and "errors" in answer:
        items.open, items.done, items.failed = 0, len(answer["results"]), len(answer["errors"])
    return items


def _without(value: Any, *names: str) -> Any:
    if not isinstance(value, dict):
        return value
    return {name: member for name, member in value.items() if name not in names and member is not None}


async def _decoded(client: Client, payload: Payload) -> Any:
    """The value of a payload. Raises PAYLOAD_UNREADABLE for one that this process has no means to read."""
    try:
        [value] = await client.data_converter.decode([payload])
    except (RuntimeError, ValueError, KeyError) as error:
        raise AppError("PAYLOAD_UNREADABLE", 502, f"A value in history cannot be read: {error}") from error
    return value


def _error(failure: Failure | None) -> ErrorView | None:
    if failure is None:
        return None
    # A child's or an activity's failure may come wrapped: the cause is what happened.
    while failure.WhichOneof("failure_info") in _WRAPPERS and failure.HasField("cause"):
        failure = failure.cause
    kind = failure.WhichOneof("failure_info")
    code = failure.application_failure_info.type if kind == "application_failure_info" else _CODES.get(kind or "", "")
    return ErrorView(code=code or "FAILED", message=readable(failure.message))


_WRAPPERS = ("activity_failure_info", "child_workflow_execution_failure_info")
_CODES = {
    "timeout_failure_info": "STEP_TIMED_OUT",
    "canceled_failure_info": "CANCELLED",
    "terminated_failure_info": "TERMINATED",
}

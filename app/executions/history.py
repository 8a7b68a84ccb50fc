"""What a run's history says of one step: events, the newest first, become calls.

Pure: events go in one by one, and each call comes out with the event that began it, when everything that happened to
it afterwards has been seen already. Nothing is kept but the answers to calls whose beginning is still to come.
"""

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp
from temporalio.api.common.v1 import Payload, Payloads
from temporalio.api.failure.v1 import Failure
from temporalio.api.history.v1 import HistoryEvent

from app.contracts import BATCH_WORKFLOW, TELL_CHILD, key_of_summary
from app.run_contracts import COMPLETE_STEP, CONTROL, DELIVERING
from engine.keys import COMPENSATE, DATA, Key

LOCAL_ACTIVITY = "core_local_activity"
OWN = "millrace."

_CHILD = "execution/"
_ASKED = DELIVERING | {COMPLETE_STEP, CONTROL}


class CallKind(StrEnum):
    """What a step had done: an action, a child, a chunk of its items, a timer, a datasource, a compensator; or what
    was done to it: a person's answer, a signal, an operator's request.
    """

    ACTION = "ACTION"
    CHILD = "CHILD"
    CHUNK = "CHUNK"
    PERSON = "PERSON"
    SIGNAL = "SIGNAL"
    CONTROL = "CONTROL"
    TIMER = "TIMER"
    DATA = "DATA"
    COMPENSATION = "COMPENSATION"


class CallStatus(StrEnum):
    """How far a call has come. RETRIED is an attempt of a local activity that failed and was followed by another;
    SKIPPED is a timer that an operator did not want to wait for.
    """

    OPEN = "OPEN"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    RETRIED = "RETRIED"
    SKIPPED = "SKIPPED"
    CANCELLED = "CANCELLED"
    TIMED_OUT = "TIMED_OUT"
    TERMINATED = "TERMINATED"


@dataclass(slots=True)
class Call:
    """One thing that a step had done. Payloads are as history holds them; `event_id` is of the event that began it.

    `local` tells that it ran beside the workflow: `output` is then `{"input": …, "output": …}`. The input of a child is
    the whole `ExecutionStart`, that of what was asked of the run the whole request, and the output the whole answer; a
    plain Temporal signal has neither request nor answer, and its payload is the input (`plain`). Until it is known
    which step took a signal, its key names no step. `who` is the person, the sender or the operator.
    """

    key: Key
    kind: CallKind
    event_id: int
    name: str
    status: CallStatus = CallStatus.OPEN
    input: Payload | None = None
    output: Payload | None = None
    failure: Failure | None = None
    attempts: int | None = None
    last_failure: Failure | None = None
    scheduled_at: datetime | None = None
    started_at: datetime | None = None
    closed_at: datetime | None = None
    due_at: datetime | None = None
    execution_id: str | None = None
    local: bool = False
    plain: bool = False
    who: str | None = None
    run_id: str = ""

    @property
    def size(self) -> int:
        """Bytes of its payloads, those that are stored elsewhere included."""
        return sum(_size(payload) for payload in (self.input, self.output) if payload is not None)


class StepHistory:
    """Reads the events of one run, the newest first, for the calls of one step."""

    def __init__(self, step_id: str) -> None:
        self._step_id = step_id
        self._answers: dict[int, list[HistoryEvent]] = {}

    def take(self, event: HistoryEvent, request: Any = None) -> Call | None:
        """The call that the event began, if it began one of the step; or a signal, which may be another step's.

        `request` is the decoded argument of an update that is about steps.
        """
        name = event.WhichOneof("attributes") or ""
        answered = _ANSWERS.get(name)
        if answered is not None:
            opened_by = getattr(getattr(event, name), answered)
            self._answers.setdefault(opened_by, []).append(event)
            return None
        answers = self._answers.pop(event.event_id, [])
        call = _begun(event, name, request)
        if call is None or (call.kind is not CallKind.SIGNAL and call.key.step_id != self._step_id):
            return None
        for answer in reversed(answers):
            _apply(call, answer)
        return call


def asked_about_steps(event: HistoryEvent) -> Payloads | None:
    """The arguments of the update that the event accepted, when it is one that is about steps."""
    if not event.HasField("workflow_execution_update_accepted_event_attributes"):
        return None
    given = event.workflow_execution_update_accepted_event_attributes.accepted_request.input
    return given.args if given.name in _ASKED else None


def at(time: Timestamp) -> datetime:
    """A protobuf time as a datetime in UTC."""
    return time.ToDatetime(tzinfo=UTC)


_ANSWERS = {
    **{
        f"activity_task_{what}_event_attributes": "scheduled_event_id"
        for what in ("started", "completed", "failed", "timed_out", "canceled")
    },
    **{
        f"child_workflow_execution_{what}_event_attributes": "initiated_event_id"
        for what in ("started", "completed", "failed", "timed_out", "canceled", "terminated")
    },
    "start_child_workflow_execution_failed_event_attributes": "initiated_event_id",
    "timer_fired_event_attributes": "started_event_id",
    "timer_canceled_event_attributes": "started_event_id",
    "workflow_execution_update_completed_event_attributes": "accepted_event_id",
}

_ENDS = {
    "completed": CallStatus.COMPLETED,
    "fired": CallStatus.COMPLETED,
    "failed": CallStatus.FAILED,
    "timed_out": CallStatus.TIMED_OUT,
    "canceled": CallStatus.CANCELLED,
    "terminated": CallStatus.TERMINATED,
}


def _begun(event: HistoryEvent, name: str, request: Any) -> Call | None:
    match name:
        case "activity_task_scheduled_event_attributes":
            return _activity(event)
        case "start_child_workflow_execution_initiated_event_attributes":
            return _child(event)
        case "timer_started_event_attributes":
            return _timer(event)
        case "workflow_execution_update_accepted_event_attributes":
            return _asked(event, request)
        case "workflow_execution_signaled_event_attributes":
            return _plain_signal(event)
        case "marker_recorded_event_attributes":
            return _local_activity(event)
        case _:
            return None


def _activity(event: HistoryEvent) -> Call | None:
    scheduled = event.activity_task_scheduled_event_attributes
    key = Key.read(scheduled.activity_id)
    if key is None:
        return None
    return Call(
        key,
        _kind(key),
        event.event_id,
        scheduled.activity_type.name,
        input=_first(scheduled.input),
        scheduled_at=at(event.event_time),
    )


def _child(event: HistoryEvent) -> Call | None:
    initiated = event.start_child_workflow_execution_initiated_event_attributes
    is_chunk = initiated.workflow_type.name == BATCH_WORKFLOW
    # The run of a chunk has its key in its own id: `batch/<execution>/<key>`.
    key = Key.read(initiated.workflow_id.split("/", 2)[-1]) if is_chunk else _summary_key(event)
    if key is None:
        return None
    is_execution = initiated.workflow_id.startswith(_CHILD)
    return Call(
        key,
        CallKind.CHUNK if is_chunk else CallKind.CHILD,
        event.event_id,
        initiated.workflow_type.name,
        input=_first(initiated.input),
        scheduled_at=at(event.event_time),
        execution_id=initiated.workflow_id.removeprefix(_CHILD) if is_execution else None,
    )


def _timer(event: HistoryEvent) -> Call | None:
    started = event.timer_started_event_attributes
    key = _summary_key(event)
    if key is None:
        return None
    armed_at = at(event.event_time)
    due_at = armed_at + timedelta(microseconds=started.start_to_fire_timeout.ToMicroseconds())
    name = key.role or "delay"
    return Call(key, CallKind.TIMER, event.event_id, name, scheduled_at=armed_at, due_at=due_at)


def _asked(event: HistoryEvent, request: Any) -> Call | None:
    given = asked_about_steps(event)
    if given is None or not isinstance(request, dict):
        return None
    accepted = event.workflow_execution_update_accepted_event_attributes.accepted_request
    step_id = request.get("stepId")
    # Without a visit it is the one that was open, which the answer names.
    key = Key("" if step_id is None else str(step_id), request.get("visit") or 0, request.get("item"))
    match accepted.input.name:
        case what if what in DELIVERING:
            kind, name = CallKind.SIGNAL, str(request.get("name"))
        case what if what == CONTROL:
            kind, name = CallKind.CONTROL, str(request.get("what"))
        case what:
            kind, name = CallKind.PERSON, what
    who = request.get("completedBy" if kind is CallKind.PERSON else "actor")
    return Call(key, kind, event.event_id, name, input=_first(given), started_at=at(event.event_time), who=who)


def _plain_signal(event: HistoryEvent) -> Call | None:
    signaled = event.workflow_execution_signaled_event_attributes
    if signaled.signal_name == TELL_CHILD:
        return None
    sent_at = at(event.event_time)
    return Call(
        Key("", 0),
        CallKind.SIGNAL,
        event.event_id,
        signaled.signal_name,
        status=CallStatus.COMPLETED,
        input=_first(signaled.input),
        started_at=sent_at,
        closed_at=sent_at,
        plain=True,
    )


def _local_activity(event: HistoryEvent) -> Call | None:
    marker = event.marker_recorded_event_attributes
    if marker.marker_name != LOCAL_ACTIVITY:
        return None
    about = _json(_first(marker.details["data"])) if "data" in marker.details else None
    key = Key.read(str(about.get("activity_id"))) if isinstance(about, dict) else None
    if not isinstance(about, dict) or key is None or str(about.get("activity_type")).startswith(OWN):
        return None
    failure = marker.failure if marker.HasField("failure") else None
    if failure is not None and failure.application_failure_info.type.startswith(OWN):
        # It could not run beside the workflow, which says nothing of the action; an ordinary activity follows.
        return None
    status = CallStatus.COMPLETED if failure is None else CallStatus.FAILED
    began_at = _moment(about.get("original_schedule_time"))
    closed_at = _moment(about.get("complete_time")) or at(event.event_time)
    if about.get("backoff") is not None:
        status = CallStatus.RETRIED
    elif failure is not None and failure.HasField("canceled_failure_info"):
        status = CallStatus.CANCELLED
    return Call(
        key,
        _kind(key),
        event.event_id,
        str(about["activity_type"]),
        status=status,
        output=_first(marker.details["result"]) if "result" in marker.details else None,
        failure=failure,
        attempts=about.get("attempt"),
        scheduled_at=began_at,
        # Both are times of a worker, and its clock may have been put back between them.
        closed_at=closed_at if began_at is None else max(began_at, closed_at),
        local=True,
    )


def _apply(call: Call, event: HistoryEvent) -> None:
    """Adds to a call what an event, later than all before it, says of it."""
    name = event.WhichOneof("attributes") or ""
    attributes = getattr(event, name)
    if name in ("activity_task_started_event_attributes", "child_workflow_execution_started_event_attributes"):
        call.started_at = at(event.event_time)
        if event.HasField("activity_task_started_event_attributes"):
            call.attempts = attributes.attempt
            call.last_failure = attributes.last_failure if attributes.HasField("last_failure") else None
        return
    call.closed_at = at(event.event_time)
    if event.HasField("workflow_execution_update_completed_event_attributes"):
        _apply_outcome(call, attributes.outcome)
        return
    call.status = next(status for end, status in _ENDS.items() if name.endswith(f"_{end}_event_attributes"))
    fields = attributes.DESCRIPTOR.fields_by_name
    if "result" in fields:
        call.output = _first(attributes.result)
    if "failure" in fields and attributes.HasField("failure"):
        call.failure = attributes.failure


def _apply_outcome(call: Call, outcome: Any) -> None:
    if outcome.HasField("failure"):
        call.status, call.failure = CallStatus.FAILED, outcome.failure
    else:
        call.status, call.output = CallStatus.COMPLETED, _first(outcome.success)


def _kind(key: Key) -> CallKind:
    role = key.role or ""
    if role.startswith(f"{DATA}/"):
        return CallKind.DATA
    return CallKind.COMPENSATION if role.startswith(COMPENSATE) else CallKind.ACTION


def _summary_key(event: HistoryEvent) -> Key | None:
    summary = _json(event.user_metadata.summary) if event.user_metadata.HasField("summary") else None
    return Key.read(key_of_summary(summary)) if isinstance(summary, str) else None


def _first(payloads: Payloads | None) -> Payload | None:
    return payloads.payloads[0] if payloads is not None and payloads.payloads else None


def _json(payload: Payload | None) -> Any:
    try:
        return None if payload is None else json.loads(payload.data)
    except ValueError:
        return None


def _moment(value: Any) -> datetime | None:
    """A time as the SDK's core writes it into markers: `{"seconds": …, "nanos": …}`."""
    if not isinstance(value, dict) or not isinstance(value.get("seconds"), int):
        return None
    moment = datetime.fromtimestamp(value["seconds"], UTC)
    return moment + timedelta(microseconds=int(value.get("nanos") or 0) // 1000)


def _size(payload: Payload) -> int:
    stored_elsewhere: int = sum(one.size_bytes for one in payload.external_payloads)
    return len(payload.data) + stored_elsewhere

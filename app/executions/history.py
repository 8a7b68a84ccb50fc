"""What a run's history says of one step: events, the newest first, become calls.

Pure: events go in one by one, and each call comes out with the event that began it, when everything that happened to
it afterwards has been seen already. Nothing is kept but the answers to calls whose beginning is still to come.
"""

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp
from temporalio.api.common.v1 import Payload, Payloads
from temporalio.api.failure.v1 import Failure
from temporalio.api.history.v1 import HistoryEvent

from app.contracts import key_of_summary
from app.run_contracts import COMPLETE_STEP

LOCAL_ACTIVITY = "core_local_activity"
OWN = "millrace."

_DATA = "data/"
_COMPENSATE = "compensate"
_CHILD = "execution/"
_KEY = re.compile(
    r"(?P<step_id>.+)#(?P<visit>\d+)(?:/item/(?P<item>\d+))?(?:/round/(?P<round>\d+))?(?:/(?P<role>.+))?", re.DOTALL
)


class CallKind(StrEnum):
    """What a step had done: an action, a child, a person's answer, a timer, a datasource, a compensator."""

    ACTION = "ACTION"
    CHILD = "CHILD"
    PERSON = "PERSON"
    TIMER = "TIMER"
    DATA = "DATA"
    COMPENSATION = "COMPENSATION"


class CallStatus(StrEnum):
    """How far a call has come. RETRIED is an attempt of a local activity that failed and was followed by another."""

    OPEN = "OPEN"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    RETRIED = "RETRIED"
    CANCELLED = "CANCELLED"
    TIMED_OUT = "TIMED_OUT"
    TERMINATED = "TERMINATED"


@dataclass(frozen=True, slots=True)
class CallKey:
    """The key of a call taken apart; `role` says what it did for the step when it was not the step's own work."""

    step_id: str
    visit: int
    item: int | None = None
    round: int | None = None
    role: str | None = None

    @classmethod
    def read(cls, text: str) -> "CallKey | None":
        """Reads a key; None for what is none, such as the id of an activity that belongs to no step."""
        found = _KEY.fullmatch(text)
        if found is None:
            return None
        item, number = found["item"], found["round"]
        return cls(
            found["step_id"],
            int(found["visit"]),
            None if item is None else int(item),
            None if number is None else int(number),
            found["role"],
        )

    def __str__(self) -> str:
        item = "" if self.item is None else f"/item/{self.item}"
        number = "" if self.round is None else f"/round/{self.round}"
        role = "" if self.role is None else f"/{self.role}"
        return f"{self.step_id}#{self.visit}{item}{number}{role}"


@dataclass(slots=True)
class Call:
    """One thing that a step had done. Payloads are as history holds them; `event_id` is of the event that began it.

    `local` tells that it ran beside the workflow: `output` is then `{"input": …, "output": …}`. The input of a child is
    the whole `ExecutionStart`, that of a person the whole `StepCompletion`, and the output the whole answer.
    """

    key: CallKey
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

    @property
    def size(self) -> int:
        """Bytes of its payloads, those that are stored elsewhere included."""
        return sum(_size(payload) for payload in (self.input, self.output) if payload is not None)


class StepHistory:
    """Reads the events of one run, the newest first, for the calls of one step."""

    def __init__(self, step_id: str) -> None:
        self._step_id = step_id
        self._answers: dict[int, list[HistoryEvent]] = {}

    def take(self, event: HistoryEvent, completion: Any = None) -> Call | None:
        """The call that the event began, if it began one of the step.

        `completion` is the decoded argument of an update that completes a human step.
        """
        name = event.WhichOneof("attributes") or ""
        answered = _ANSWERS.get(name)
        if answered is not None:
            opened_by = getattr(getattr(event, name), answered)
            self._answers.setdefault(opened_by, []).append(event)
            return None
        answers = self._answers.pop(event.event_id, [])
        call = _begun(event, name, completion)
        if call is None or call.key.step_id != self._step_id:
            return None
        for answer in reversed(answers):
            _apply(call, answer)
        return call


def completes_a_step(event: HistoryEvent) -> Payloads | None:
    """The arguments of the update that the event accepted, when it is one that completes a human step."""
    if not event.HasField("workflow_execution_update_accepted_event_attributes"):
        return None
    given = event.workflow_execution_update_accepted_event_attributes.accepted_request.input
    return given.args if given.name == COMPLETE_STEP else None


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


def _begun(event: HistoryEvent, name: str, completion: Any) -> Call | None:
    match name:
        case "activity_task_scheduled_event_attributes":
            return _activity(event)
        case "start_child_workflow_execution_initiated_event_attributes":
            return _child(event)
        case "timer_started_event_attributes":
            return _timer(event)
        case "workflow_execution_update_accepted_event_attributes":
            return _completion(event, completion)
        case "marker_recorded_event_attributes":
            return _local_activity(event)
        case _:
            return None


def _activity(event: HistoryEvent) -> Call | None:
    scheduled = event.activity_task_scheduled_event_attributes
    key = CallKey.read(scheduled.activity_id)
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
    key = _summary_key(event)
    if key is None:
        return None
    is_execution = initiated.workflow_id.startswith(_CHILD)
    return Call(
        key,
        CallKind.CHILD,
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


def _completion(event: HistoryEvent, completion: Any) -> Call | None:
    if not isinstance(completion, dict) or not isinstance(completion.get("stepId"), str):
        return None
    # Without a visit it is the one that was open, which the answer names.
    key = CallKey(completion["stepId"], completion.get("visit") or 0, completion.get("item"))
    given = completes_a_step(event)
    accepted_at = at(event.event_time)
    return Call(key, CallKind.PERSON, event.event_id, COMPLETE_STEP, input=_first(given), started_at=accepted_at)


def _local_activity(event: HistoryEvent) -> Call | None:
    marker = event.marker_recorded_event_attributes
    if marker.marker_name != LOCAL_ACTIVITY:
        return None
    about = _json(_first(marker.details["data"])) if "data" in marker.details else None
    key = CallKey.read(str(about.get("activity_id"))) if isinstance(about, dict) else None
    if not isinstance(about, dict) or key is None or str(about.get("activity_type")).startswith(OWN):
        return None
    failure = marker.failure if marker.HasField("failure") else None
    if failure is not None and failure.application_failure_info.type.startswith(OWN):
        # It could not run beside the workflow, which says nothing of the action; an ordinary activity follows.
        return None
    status = CallStatus.COMPLETED if failure is None else CallStatus.FAILED
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
        scheduled_at=_moment(about.get("original_schedule_time")),
        closed_at=_moment(about.get("complete_time")) or at(event.event_time),
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


def _kind(key: CallKey) -> CallKind:
    role = key.role or ""
    if role.startswith(_DATA):
        return CallKind.DATA
    return CallKind.COMPENSATION if role.startswith(_COMPENSATE) else CallKind.ACTION


def _summary_key(event: HistoryEvent) -> CallKey | None:
    summary = _json(event.user_metadata.summary) if event.user_metadata.HasField("summary") else None
    return CallKey.read(key_of_summary(summary)) if isinstance(summary, str) else None


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

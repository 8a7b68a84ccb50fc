"""What recorded histories say of their steps, read backwards without a server."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from temporalio.api.common.v1 import Payload
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import WorkflowHistory

from app.contracts import LONGEST_SUMMARY, key_of_summary, keyed_summary
from app.executions.history import Call, CallKind, CallStatus, StepHistory, asked_about_steps
from engine.keys import Key

HISTORIES = Path(__file__).parents[1] / "workflows" / "histories"


def recorded(name: str) -> list[HistoryEvent]:
    """The events of a recording, the oldest first."""
    text = (HISTORIES / f"{name}.json").read_text()
    return list(WorkflowHistory.from_json(f"execution/{name}", text).events)


def calls_of(events: list[HistoryEvent], step_id: str) -> list[Call]:
    """The calls of a step, the newest first."""
    reader = StepHistory(step_id)
    found = []
    for event in reversed(events):
        given = asked_about_steps(event)
        call = reader.take(event, None if given is None else json.loads(given.payloads[0].data))
        if call is not None:
            found.append(call)
    return found


def value(payload: Payload | None) -> Any:
    assert payload is not None
    return json.loads(payload.data)


def test_a_loop_s_action_has_a_call_for_each_visit_the_newest_first() -> None:
    calls = calls_of(recorded("everything"), "poll")
    assert [str(call.key) for call in calls] == ["poll#3", "poll#2", "poll#1"]
    for call in calls:
        assert (call.kind, call.status, call.attempts) == (CallKind.ACTION, CallStatus.COMPLETED, 1)
        assert value(call.input) == {"n": 2}
        assert value(call.output)["key"].endswith(str(call.key))
        assert call.scheduled_at is not None
        assert call.closed_at is not None
        assert call.scheduled_at < call.closed_at


def test_a_person_s_answer_is_the_step_s_call() -> None:
    [call] = calls_of(recorded("everything"), "person")
    assert (call.kind, call.status, call.key.visit) == (CallKind.PERSON, CallStatus.COMPLETED, 0)
    assert value(call.output)["output"]["outcome"] == "yes"
    assert value(call.output)["visit"] == 1


def test_a_failed_action_has_its_failure_and_the_one_before() -> None:
    [call] = calls_of(recorded("failure"), "bad")
    assert (call.status, call.attempts) == (CallStatus.FAILED, 2)
    assert call.failure is not None
    assert call.last_failure is not None
    assert call.failure.application_failure_info.type == "BROKEN"
    [withdrawn] = calls_of(recorded("failure"), "slow")
    assert (withdrawn.status, withdrawn.closed_at) == (CallStatus.OPEN, None)


def test_children_and_timers_are_found_by_the_key_in_their_summary() -> None:
    events = recorded("keyed")
    [one] = calls_of(events, "one")
    assert (one.kind, one.status, one.name) == (CallKind.CHILD, CallStatus.COMPLETED, "recorded-leaf")
    assert value(one.input)["executionId"] == one.execution_id
    assert sorted(str(call.key) for call in calls_of(events, "many")) == ["many#1/item/0", "many#1/item/1"]
    timers = [call for call in calls_of(events, "person") if call.kind is CallKind.TIMER]
    assert [(str(call.key), call.status) for call in timers] == [("person#1/timeout", CallStatus.CANCELLED)]
    assert timers[0].due_at is not None
    assert timers[0].scheduled_at is not None
    assert (timers[0].due_at - timers[0].scheduled_at).total_seconds() == pytest.approx(600, abs=1)


# Beside some of them lie the values that they keep elsewhere: `<name>.payloads.json`.
RECORDED = sorted(file for file in HISTORIES.glob("*.json") if file.suffixes == [".json"])


@pytest.mark.parametrize("file", RECORDED, ids=lambda file: file.stem)
def test_every_action_of_every_recording_belongs_to_exactly_one_step(file: Path) -> None:
    events = recorded(file.stem)
    scheduled = [
        event.activity_task_scheduled_event_attributes.activity_id
        for event in events
        if event.HasField("activity_task_scheduled_event_attributes")
    ]
    steps = {key.step_id for text in scheduled if (key := Key.read(text)) is not None}
    found = [
        str(call.key)
        for step_id in sorted(steps)
        for call in calls_of(events, step_id)
        if call.kind in (CallKind.ACTION, CallKind.DATA, CallKind.COMPENSATION) and not call.local
    ]
    assert sorted(found) == sorted(scheduled)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("fetch#2", Key("fetch", 2)),
        ("fetch#2/item/17", Key("fetch", 2, 17)),
        ("fetch#2/round/3", Key("fetch", 2, None, 3)),
        ("fetch#2/item/17/round/3", Key("fetch", 2, 17, 3)),
        ("fetch#2/item/0/data/customer", Key("fetch", 2, 0, None, "data/customer")),
        ("fetch#2/compensate", Key("fetch", 2, None, None, "compensate")),
        ("a#b#1/timeout", Key("a#b", 1, None, None, "timeout")),
        ("10", None),
        ("fetch#", None),
        ("#1", None),
        ("yield", None),
    ],
)
def test_a_key_is_read_and_written_as_the_engine_writes_it(text: str, key: Key | None) -> None:
    assert Key.read(text) == key
    if key is not None:
        assert str(key) == text


def test_a_summary_keeps_its_key_however_long_its_text() -> None:
    for text in ("", "timeout of a · b", "長" * 500):
        summary = keyed_summary(text, "step · one#2/timeout")
        assert len(summary.encode()) <= LONGEST_SUMMARY
        assert key_of_summary(summary) == "one#2/timeout"
    assert key_of_summary("many steps") == "many steps"


def _marker(about: dict[str, Any], result: Any = None, failure: str | None = None) -> HistoryEvent:
    event = HistoryEvent(event_id=9)
    marker = event.marker_recorded_event_attributes
    marker.marker_name = "core_local_activity"
    marker.details["data"].payloads.add(data=json.dumps(about).encode())
    if failure is None:
        marker.details["result"].payloads.add(data=json.dumps(result).encode())
    else:
        marker.failure.application_failure_info.type = failure
    return event


ABOUT = {
    "activity_id": "fetch#1",
    "activity_type": "shop.fetch",
    "attempt": 2,
    "complete_time": {"seconds": 1795231734, "nanos": 325999562},
    "original_schedule_time": {"seconds": 1795231734, "nanos": 304837759},
    "backoff": None,
}


def test_a_local_activity_is_read_from_its_marker() -> None:
    [call] = calls_of([_marker(ABOUT, {"input": {"n": 1}, "output": [2]})], "fetch")
    assert (call.name, call.status, call.attempts, call.local) == ("shop.fetch", CallStatus.COMPLETED, 2, True)
    assert value(call.output) == {"input": {"n": 1}, "output": [2]}
    assert call.scheduled_at is not None
    assert call.closed_at is not None
    assert (call.closed_at - call.scheduled_at).total_seconds() == pytest.approx(0.021, abs=0.001)


def test_a_worker_s_clock_that_was_put_back_ends_nothing_before_it_began() -> None:
    [call] = calls_of([_marker(ABOUT | {"complete_time": {"seconds": 1795231700, "nanos": 0}}, {})], "fetch")
    assert call.scheduled_at is not None
    assert call.closed_at == call.scheduled_at


@pytest.mark.parametrize(
    ("changes", "failure", "status"),
    [
        ({}, "BROKEN", CallStatus.FAILED),
        ({"backoff": {"seconds": 1}}, "BROKEN", CallStatus.RETRIED),
        ({}, "millrace.not_local", None),
        ({"activity_type": "millrace.close_execution"}, None, None),
        ({"activity_id": "3"}, None, None),
        ({"activity_id": "other#1"}, None, None),
    ],
)
def test_a_marker_says_how_a_local_activity_ended_if_it_was_a_step_s(
    changes: dict[str, Any], failure: str | None, status: CallStatus | None
) -> None:
    calls = calls_of([_marker(ABOUT | changes, failure=failure)], "fetch")
    assert [call.status for call in calls] == ([] if status is None else [status])


def test_a_marker_that_nobody_can_read_belongs_to_no_step() -> None:
    event = _marker(ABOUT)
    event.marker_recorded_event_attributes.details["data"].payloads[0].data = base64.b64decode("/w==")
    assert calls_of([event], "fetch") == []

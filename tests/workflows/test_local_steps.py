"""Short idempotent steps run as local activities: what history shows, and what happens when they do not go well."""

import asyncio
from collections import Counter
from typing import Any

import pytest
from temporalio.client import WorkflowFailureError
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.exceptions import CancelledError

from app.contracts import LARGEST_LOCAL_INPUT, LARGEST_LOCAL_RECORD
from app.run_contracts import COMPLETE_STEP, StepCompletion
from millrace.actions import Action, ActionFailure, Call, action
from tests.documents import action as act
from tests.documents import arrow, child, confirm, document, expr, join, line, put, split
from tests.workflows.harness import Executions, Handle, event_types, failure_of, replayer
from workflows.local_steps import MOST_IN_STRETCH

Marker = dict[str, Any]


class Attempts:
    """What the actions of one test were called with; keys are executions."""

    def __init__(self) -> None:
        self.keys: Counter[str] = Counter()
        self.begun = asyncio.Event()
        self.go_on = asyncio.Event()


def actions(seen: Attempts) -> list[Action]:
    """Short idempotent actions, and one that is neither."""
    short: dict[str, Any] = {"idempotent": True, "expected_duration": 0.1}

    @action("local.add", **short)
    async def add(call: Call, n: int, by: int = 1) -> dict[str, Any]:
        """Adds."""
        seen.keys[call.idempotency_key] += 1
        return {"n": n + by, "key": call.idempotency_key}

    @action("local.flaky", **short)
    async def flaky(call: Call, failures: int, retryable: bool = True) -> int:
        """Fails so many times."""
        seen.keys[call.idempotency_key] += 1
        if call.attempt <= failures:
            raise ActionFailure("FLAKY", f"attempt {call.attempt}", retryable=retryable)
        return call.attempt

    @action("local.sleep", **short)
    async def sleep(call: Call, seconds: float) -> float:
        """Takes its time, whatever it declares."""
        seen.keys[call.idempotency_key] += 1
        seen.begun.set()
        call.heartbeat("ignored")
        await asyncio.sleep(seconds)
        return seconds

    @action("local.large", **short)
    async def large(call: Call, size: int, text: str = "") -> str:
        """Gives so many characters."""
        seen.keys[call.idempotency_key] += 1
        return "x" * size

    return [add, flaky, sleep, large]


LOCAL = ["local.add", "local.flaky", "local.large", "local.sleep"]


@pytest.fixture
def seen() -> Attempts:
    return Attempts()


@pytest.fixture(params=[100, 0], ids=["cached", "uncached"])
def cached(request: pytest.FixtureRequest) -> int:
    number: int = request.param
    return number


async def markers(handle: Handle) -> list[Marker]:
    """The markers of a run's own local activities: id, type, and record or failure."""
    found: list[Marker] = []
    for event in (await handle.fetch_history()).events:
        marker = event.marker_recorded_event_attributes
        if marker.marker_name != "core_local_activity":
            continue
        [data] = await pydantic_data_converter.decode(list(marker.details["data"].payloads))
        if data["activity_type"].startswith("millrace."):
            continue
        result = None
        if "result" in marker.details:
            [result] = await pydantic_data_converter.decode(list(marker.details["result"].payloads))
        [name] = await pydantic_data_converter.decode([event.user_metadata.summary])
        failure = marker.failure if event.marker_recorded_event_attributes.HasField("failure") else None
        found.append(
            {
                "id": data["activity_id"],
                "type": data["activity_type"],
                "name": name,
                "record": result,
                "failure": failure,
            }
        )
    return found


async def test_a_chain_of_short_steps_is_one_workflow_task_and_its_history_shows_what_went_in_and_out(
    executions: Executions, seen: Attempts, cached: int
) -> None:
    steps = [
        act("one", actionKey="local.add", parameters={"n": 1}),
        act("two", actionKey="local.add", parameters={"n": expr("__steps__.one.n"), "by": 5}),
    ]
    async with executions.worker(cached=cached, actions=actions(seen)):
        handle = await executions.start(line(*steps, output=expr("__steps__.two.n")), local_actions=LOCAL)
        assert await handle.result() == 7
    run = handle.id.removeprefix("execution/")
    first, second = await markers(handle)
    assert (first["id"], first["type"], first["name"]) == ("one#1", "local.add", "one")
    assert first["record"] == {"input": {"n": 1}, "output": {"n": 2, "key": f"{run}/one#1"}}
    assert second["record"]["input"] == {"n": 2, "by": 5}
    types = await event_types(handle)
    assert types.count("workflow_task_started") == 1
    assert "activity_task_scheduled" not in types
    assert set(seen.keys.values()) == {1}
    await executions.replay_all()


async def test_without_it_in_the_run_s_input_the_same_action_is_an_ordinary_activity(
    executions: Executions, seen: Attempts
) -> None:
    async with executions.worker(actions=actions(seen)):
        handle = await executions.start(line(act("one", actionKey="local.add", parameters={"n": 1})))
        await handle.result()
    assert (await event_types(handle)).count("activity_task_scheduled") == 1
    assert await markers(handle) == []


async def test_a_short_pause_between_attempts_stays_inside_the_task_and_a_long_one_is_a_timer(
    executions: Executions, seen: Attempts, cached: int
) -> None:
    async def played(interval: float) -> list[str]:
        step = act("try", actionKey="local.flaky", parameters={"failures": 2}, retry={"initialInterval": interval})
        handle = await executions.start(line(step, output=expr("__steps__.try")), local_actions=LOCAL)
        assert await handle.result() == 3
        return await event_types(handle)

    async with executions.worker(cached=cached, actions=actions(seen)):
        # One after the other: without a cache the SDK does not do two runs with local activities at once.
        short, long = await played(0.05), await played(0.5)
    assert (short.count("timer_started"), short.count("workflow_task_started")) == (0, 1)
    assert (long.count("timer_started"), long.count("workflow_task_started")) == (2, 3)
    assert set(seen.keys.values()) == {3}
    await executions.replay_all()


async def test_linear_pauses_are_kept_too(executions: Executions, seen: Attempts) -> None:
    retry = {"initialInterval": 0.3, "backoff": "linear"}
    step = act("try", actionKey="local.flaky", parameters={"failures": 2}, retry=retry)
    async with executions.worker(actions=actions(seen)):
        handle = await executions.start(line(step), local_actions=LOCAL)
        await handle.result()
    history = await handle.fetch_history()
    timers = [
        event.timer_started_event_attributes
        for event in history.events
        if event.HasField("timer_started_event_attributes")
    ]
    assert [timer.start_to_fire_timeout.ToMilliseconds() for timer in timers] == [300, 600]
    await executions.replay_all()


@pytest.mark.parametrize(
    ("parameters", "retry", "attempts"),
    [
        ({"failures": 9}, {"maxAttempts": 2, "initialInterval": 0.05}, 2),
        ({"failures": 9, "retryable": False}, {}, 1),
        ({"failures": 9}, {"nonRetryable": ["FLAKY"]}, 1),
    ],
    ids=["attempts used up", "final by the action", "final by the step"],
)
async def test_what_fails_for_good_fails_the_run_with_its_code_and_history_shows_its_input(
    executions: Executions, seen: Attempts, parameters: dict[str, Any], retry: dict[str, Any], attempts: int
) -> None:
    async with executions.worker(actions=actions(seen)):
        step = act("try", actionKey="local.flaky", parameters=parameters, retry=retry)
        handle = await executions.start(line(step), local_actions=LOCAL)
        failure = await failure_of(handle)
    assert (failure["code"], failure["stepId"], failure["attempts"]) == ("FLAKY", "try", attempts)
    marker = (await markers(handle))[-1]
    details = marker["failure"].application_failure_info.details.payloads
    assert await pydantic_data_converter.decode(list(details)) == [{"attempts": attempts, "input": parameters}]
    await executions.replay_all()


async def test_the_step_s_timeout_counts(executions: Executions, seen: Attempts, cached: int) -> None:
    step = act(
        "slow",
        actionKey="local.sleep",
        parameters={"seconds": 30},
        timeout=0.3,
        retry={"maxAttempts": 2, "initialInterval": 0.05},
    )
    async with executions.worker(cached=cached, actions=actions(seen)):
        handle = await executions.start(line(step), local_actions=LOCAL)
        assert (await failure_of(handle))["code"] == "STEP_TIMED_OUT"
    assert set(seen.keys.values()) == {2}
    await executions.replay_all()


async def test_one_that_outlives_its_expectation_and_the_workflow_task_ends_well(
    executions: Executions, seen: Attempts, cached: int
) -> None:
    step = act("slow", actionKey="local.sleep", parameters={"seconds": 11}, timeout=60)
    async with executions.worker(cached=cached, actions=actions(seen)):
        handle = await executions.start(line(step, output=expr("__steps__.slow")), local_actions=LOCAL)
        assert await handle.result() == 11
    assert "workflow_task_timed_out" not in await event_types(handle)
    assert len(seen.keys) == 1
    await executions.replay_all()


async def test_a_cancel_while_one_runs_ends_the_run(executions: Executions, seen: Attempts, cached: int) -> None:
    step = act("slow", actionKey="local.sleep", parameters={"seconds": 60}, timeout=120)
    async with executions.worker(cached=cached, actions=actions(seen)):
        handle = await executions.start(line(step), local_actions=LOCAL)
        await seen.begun.wait()
        await handle.cancel()
        with pytest.raises(WorkflowFailureError) as ended:
            await asyncio.wait_for(handle.result(), 30)
    assert isinstance(ended.value.cause, CancelledError)
    assert (await executions.row(handle)).closed_as == "CANCELLED"
    await executions.replay_all()


async def test_a_cancel_during_a_pause_ends_the_run(executions: Executions, seen: Attempts) -> None:
    step = act("try", actionKey="local.flaky", parameters={"failures": 9}, retry={"initialInterval": 60})
    async with executions.worker(actions=actions(seen)):
        handle = await executions.start(line(step), local_actions=LOCAL)
        while "timer_started" not in await event_types(handle):
            await asyncio.sleep(0.05)
        await handle.cancel()
        with pytest.raises(WorkflowFailureError):
            await asyncio.wait_for(handle.result(), 10)
    assert (await executions.row(handle)).closed_as == "CANCELLED"
    await executions.replay_all()


async def test_a_sibling_s_failure_withdraws_it(executions: Executions, seen: Attempts) -> None:
    definition = document(
        split("s"),
        act("slow", actionKey="local.sleep", parameters={"seconds": 60}, timeout=120),
        act("bad", actionKey="local.flaky", parameters={"failures": 9, "retryable": False}),
        join("j"),
        *(arrow(f"s -> {name}") for name in ("slow", "bad")),
        *(arrow(f"{name} -> j") for name in ("slow", "bad")),
        arrow("start -> s"),
        arrow("j -> end"),
    )
    async with executions.worker(actions=actions(seen)):
        handle = await executions.start(definition, local_actions=LOCAL)
        assert (await asyncio.wait_for(failure_of(handle), 10))["code"] == "FLAKY"
    await executions.replay_all()


async def test_a_worker_that_lacks_the_action_leaves_it_to_one_that_has_it(
    executions: Executions, seen: Attempts
) -> None:
    step = act("one", actionKey="local.add", parameters={"n": 1})
    async with executions.worker(actions=[]):
        handle = await executions.start(line(step, output=expr("__steps__.one.n")), local_actions=LOCAL)
        while "activity_task_scheduled" not in await event_types(handle):
            await asyncio.sleep(0.05)
    async with executions.worker(actions=actions(seen)):
        assert await asyncio.wait_for(handle.result(), 60) == 2
    assert [marker["failure"].application_failure_info.type for marker in await markers(handle)] == [
        "millrace.not_local"
    ]
    await executions.replay_all()


async def test_one_that_nobody_asked_to_cancel_is_done_over_as_an_ordinary_activity(
    executions: Executions, seen: Attempts
) -> None:
    """As when the SDK puts a run out of its cache. That cannot be had for the asking, so the marker is changed."""
    async with executions.worker(actions=actions(seen)):
        step = act("one", actionKey="local.large", parameters={"size": LARGEST_LOCAL_RECORD})
        handle = await executions.start(line(step), local_actions=LOCAL)
        await handle.result()
    history = await handle.fetch_history()
    first = next(event for event in history.events if event.HasField("marker_recorded_event_attributes"))
    failure = first.marker_recorded_event_attributes.failure
    assert failure.application_failure_info.type == "millrace.not_local"
    failure.Clear()
    failure.activity_failure_info.activity_id = "one#1"
    failure.cause.canceled_failure_info.SetInParent()
    await replayer(executions.converter).replay_workflow(history)


async def test_a_large_input_or_record_is_not_kept_in_a_marker(executions: Executions, seen: Attempts) -> None:
    steps = [
        act("input", actionKey="local.large", parameters={"size": 1, "text": "y" * LARGEST_LOCAL_INPUT}),
        act("record", actionKey="local.large", parameters={"size": LARGEST_LOCAL_RECORD}),
    ]
    async with executions.worker(actions=actions(seen)):
        handle = await executions.start(line(*steps, output=expr("$length(__steps__.record)")), local_actions=LOCAL)
        assert await handle.result() == LARGEST_LOCAL_RECORD
    types = await event_types(handle)
    assert types.count("activity_task_scheduled") == 2
    assert [marker["id"] for marker in await markers(handle)] == ["record#1"]
    await executions.replay_all()


async def test_a_long_loop_of_short_steps_is_cut_into_workflow_tasks(
    executions: Executions, seen: Attempts, cached: int
) -> None:
    rounds = 2 * MOST_IN_STRETCH + 20
    definition = document(
        join("again", "EXCLUSIVE"),
        act("add", actionKey="local.add", parameters={"n": expr("__context__.n ?? 0")}),
        put("count", n=expr("__steps__.add.n")),
        split("x", "EXCLUSIVE"),
        arrow("start -> again"),
        arrow("again -> add"),
        arrow("add -> count"),
        arrow("count -> x"),
        arrow("x -> again", condition=f"__context__.n < {rounds}"),
        arrow("x -> end", isDefault=True),
        limits={"maxStepVisits": 1_000},
        output=expr("__context__.n"),
    )
    async with executions.worker(cached=cached, actions=actions(seen)):
        handle = await executions.start(definition, local_actions=LOCAL)
        assert await handle.result() == rounds
    types = await event_types(handle)
    ordinary = types.count("activity_task_scheduled")
    assert ordinary >= 2
    assert len(await markers(handle)) + ordinary == rounds
    assert set(seen.keys.values()) == {1}
    await executions.replay_all()


async def test_many_at_once_are_bounded_as_well(executions: Executions, seen: Attempts) -> None:
    names = [f"a{at}" for at in range(MOST_IN_STRETCH + 10)]
    definition = document(
        split("s"),
        join("j"),
        *(act(name, actionKey="local.add", parameters={"n": 1}) for name in names),
        *(arrow(f"s -> {name}") for name in names),
        *(arrow(f"{name} -> j") for name in names),
        arrow("start -> s"),
        arrow("j -> end"),
        limits={"parallelism": 500},
    )
    async with executions.worker(actions=actions(seen)):
        handle = await executions.start(definition, local_actions=LOCAL)
        await handle.result()
    assert (await event_types(handle)).count("activity_task_scheduled") == 10
    assert len(await markers(handle)) == MOST_IN_STRETCH
    await executions.replay_all()


async def test_children_run_their_short_steps_locally_too(executions: Executions, seen: Attempts) -> None:
    slug = f"leaf-{executions.task_queue[-8:]}"
    await executions.template(slug, line(act("one", actionKey="local.add", parameters={"n": 1})))
    async with executions.worker(actions=actions(seen)):
        parent = line(child("sub", childWorkflowTemplateVersionId=f"{slug}@1.0.0"))
        handle = await executions.start(parent, local_actions=LOCAL)
        await handle.result()
        below = next(row for row in await executions.rows(handle) if row.parent_id is not None)
        leaf = executions.client.get_workflow_handle(f"execution/{below.id}")
        assert [marker["id"] for marker in await markers(leaf)] == ["one#1"]
    await executions.replay_all()


async def test_a_person_s_answer_that_comes_while_one_runs_is_applied_after_it(
    executions: Executions, seen: Attempts
) -> None:
    definition = document(
        split("s"),
        confirm("person"),
        act("slow", actionKey="local.sleep", parameters={"seconds": 1}),
        join("j"),
        *(arrow(f"s -> {name}") for name in ("slow", "person")),
        *(arrow(f"{name} -> j") for name in ("slow", "person")),
        arrow("start -> s"),
        arrow("j -> end"),
    )
    async with executions.worker(actions=actions(seen)):
        handle = await executions.start(definition, local_actions=LOCAL)
        await seen.begun.wait()
        answer = await handle.execute_update(COMPLETE_STEP, StepCompletion(step_id="person"))
        assert answer["status"] == "COMPLETED"
        await handle.result()
    await executions.replay_all()

"""What a run says of itself, without a server: from a state to what people read."""

from engine.draft import iso
from engine.events import CancelRequested, PauseRequested
from engine.interpreter import resume
from engine.repair import retry_failed
from engine.state_json import state_from_json, state_to_json
from tests.documents import action, arrow, batch, confirm, document, join, line, split
from tests.engine.world import World
from workflows.view import details, run_view


def test_a_pause_tells_since_when_and_by_whom() -> None:
    world = World(line(action("a"), action("b")))
    assert run_view(world.plan, world.state).paused is None
    at = world.tick()
    world.give(PauseRequested(at, "ann"))
    world.done("a#1")
    paused = run_view(world.plan, world.state).paused
    assert paused is not None
    assert (paused.since, paused.by) == (iso(at), "ann")
    [wait, *_] = run_view(world.plan, world.state).waiting_for
    assert (wait.kind, wait.since) == ("RESUME", iso(at)), "not since whatever happened last"
    assert f"paused since {iso(at)} by ann" in details(world.plan, world.state)
    again = state_from_json(state_to_json(world.state))
    assert run_view(world.plan, again).paused == paused
    assert run_view(world.resumed().plan, world.state).paused is None


def test_temporal_s_ui_says_what_started_the_run_in_one_line() -> None:
    world = World(line(action("a")), trigger={"source": "webhook", "summary": "POST /hooks/orders | order\npaid"})
    assert details(world.plan, world.state).splitlines()[:3] == [
        "**RUNNING**",
        "",
        "Started by POST /hooks/orders \\| order paid",
    ]
    assert "Started by" not in details(World(line(action("a"))).plan, World(line(action("a"))).state)


def test_a_person_who_is_about_to_be_asked_is_not_waited_for_yet() -> None:
    world = World(line(confirm("ask"))).cancelled(compensate=False)
    taken_up = retry_failed(world.plan, world.state, world.tick())
    about_to_ask = resume(world.plan, taken_up, world.tick()).state
    assert run_view(world.plan, about_to_ask).waiting_for == [], "a completion would be refused"
    world.taken_up(taken_up)
    assert [wait.kind for wait in run_view(world.plan, world.state).waiting_for] == ["PERSON"]


def test_a_cancel_ends_a_pause() -> None:
    world = World(line(action("a")))
    world.give(PauseRequested(world.tick(), None))
    world.give(CancelRequested(world.tick(), None, compensate=True))
    assert run_view(world.plan, world.state).paused is None


def test_a_step_that_is_due_says_until_when_with_and_without_an_escalation() -> None:
    escalation = {"assignment": {"candidateGroups": ["boss"]}}
    world = World(
        document(
            split("s"),
            join("j"),
            confirm("plain", dueIn="PT1H"),
            confirm("escalates", dueIn="PT1H", escalation=escalation),
            confirm("sooner", dueIn="PT1H", timeout=60),
            confirm("never"),
            *(arrow(text) for text in ("start -> s", "j -> end")),
            *(arrow(f"s -> {name}") for name in ("plain", "escalates", "sooner", "never")),
            *(arrow(f"{name} -> j") for name in ("plain", "escalates", "sooner", "never")),
        )
    )
    began = world.state.at
    until = {wait.step_id: wait.until for wait in run_view(world.plan, world.state).waiting_for}
    hour = iso(began + 3_600_000)
    assert until == {"plain": hour, "escalates": hour, "sooner": iso(began + 60_000), "never": None}


def test_a_step_that_is_overdue_says_since_when_also_when_it_has_gone_to_somebody_else() -> None:
    escalation = {"assignment": {"candidateGroups": ["boss"]}}
    world = World(line(confirm("ok", dueIn="PT1H", escalation=escalation)))
    due = iso(world.state.at + 3_600_000)
    world.fire("ok#1/due")
    [wait] = run_view(world.plan, world.state).waiting_for
    assert (wait.who, wait.until) == ("boss", due)


def test_an_incident_says_what_failed() -> None:
    world = World(line(action("a", onFailure="INCIDENT"))).failed("a#1")
    [wait] = run_view(world.plan, world.state).waiting_for
    assert (wait.kind, wait.code, wait.message) == ("INCIDENT", "BROKEN", "a#1 failed")


def test_what_was_undone_took_as_long_as_it_took_and_not_until_it_was_undone() -> None:
    undo = {"actionKey": "test.undo", "parameters": {}}
    world = World(line(action("a", compensate=undo), action("b"))).done("a#1")
    took = world.state.steps["a"]
    world.failed("b#1", retryable=False).done("a#1/compensate")
    record = world.state.steps["a"]
    assert (record.status.value, record.started_at, record.ended_at) == ("COMPENSATED", took.started_at, took.ended_at)


def test_items_are_counted_while_a_step_is_open() -> None:
    world = World(line(batch("all", "[1..5]", concurrency=2, failurePolicy={"type": "COLLECT"})))
    world.done("all#1/item/0").failed("all#1/item/1", retryable=False)
    [_, step, _] = run_view(world.plan, world.state).steps
    assert step.items is not None
    assert step.items.model_dump() == {"total": 5, "open": 2, "done": 1, "failed": 1}

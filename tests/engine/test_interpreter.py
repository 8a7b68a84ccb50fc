"""What each kind of step does, one example after another; how runs fail and are cancelled."""

from dataclasses import replace

from engine.protocol import Cancel, Fail, OpenHumanTask, RunAction, StartTimer, Withdraw
from tests.documents import (
    action,
    arrow,
    confirm,
    document,
    expr,
    join,
    line,
    parallel,
    put,
    split,
    step,
)
from tests.engine.world import World


def test_an_empty_process_completes_with_its_context() -> None:
    world = World(line(), {"a": 1})
    assert world.output == {"a": 1}
    assert world.statuses() == {"end": "COMPLETED", "start": "COMPLETED"}


def test_the_output_of_the_definition_is_the_output_of_the_execution() -> None:
    definition = line(action("fetch"), output=expr("__steps__.fetch.n + 1"))
    assert World(definition).done("fetch#1", {"n": 41}).output == 42


def test_an_action_gets_its_parameters_with_the_values_filled_in() -> None:
    definition = line(action("call", parameters={"to": expr("__context__.name"), "list": [1, expr("1 + 1")]}))
    command = World(definition, {"name": "water"}).open["call#1"]
    assert isinstance(command, RunAction)
    assert command.parameters == {"to": "water", "list": [1, 2]}
    assert (command.action_key, command.retry.max_attempts, command.timeout) == ("test.echo", 3, None)


def test_an_output_mapping_writes_into_the_context_after_success() -> None:
    mapping = [{"targetPath": "result.value", "value": expr("__steps__.call.n")}]
    world = World(line(action("call", outputMapping=mapping)))
    assert world.done("call#1", {"n": 7}).output == {"result": {"value": 7}}


def test_a_set_step_sets_and_appends() -> None:
    writes = [
        {"targetPath": "a.b", "value": 1},
        {"targetPath": "list", "value": "x", "mode": "append"},
        {"targetPath": "list", "value": "y", "mode": "append"},
    ]
    assert World(line(step("put", "SYS_SET", assignments=writes))).output == {"a": {"b": 1}, "list": ["x", "y"]}


def test_a_set_step_takes_all_values_from_before_its_writes() -> None:
    writes = [{"targetPath": "a", "value": 2}, {"targetPath": "b", "value": expr("__context__.a")}]
    assert World(line(step("put", "SYS_SET", assignments=writes)), {"a": 1}).output == {"a": 2, "b": 1}


def test_a_write_below_a_text_fails_the_run_and_changes_nothing() -> None:
    writes = [{"targetPath": "b", "value": 1}, {"targetPath": "a.b", "value": 1}]
    world = World(line(step("put", "SYS_SET", assignments=writes)), {"a": "text"})
    assert (world.failure.code, world.failure.step_id) == ("CONTEXT_WRITE_INVALID", "put")
    assert dict(world.state.context) == {"a": "text"}


def test_a_person_completes_a_step() -> None:
    definition = line(
        confirm("ok", assignment={"assignee": expr("__context__.owner")}, outcomes=["yes", "no"]),
        output=expr("__steps__.ok.outcome"),
    )
    world = World(definition, {"owner": "desk-7"})
    command = world.open["ok#1"]
    assert isinstance(command, OpenHumanTask)
    assert (command.assignee, command.outcomes) == ("desk-7", ("yes", "no"))
    assert world.statuses()["ok"] == "ACTION_REQUIRED"
    assert world.done("ok#1", "yes").output == "yes"


def test_a_human_step_with_a_timeout_fails_when_nobody_comes() -> None:
    world = World(line(confirm("ok", timeout="PT1H")))
    timer = world.open["ok#1/timeout"]
    assert isinstance(timer, StartTimer)
    assert timer.due == world.at + 3_600_000
    assert world.done("ok#1/timeout").failure.code == "STEP_TIMED_OUT"


def test_a_human_step_completed_in_time_disarms_its_timeout() -> None:
    world = World(line(confirm("ok", timeout=60), action("next")))
    world.done("ok#1")
    assert "ok#1/timeout" not in world.open
    assert world.outside() == ["next#1"]


def test_a_failed_action_fails_the_run_and_withdraws_the_others() -> None:
    world = World(parallel("a", "b", "c")).failed("b#1", "NO_STOCK")
    assert world.withdrawn == {"a#1", "c#1"}
    world.done("a#1").failed("c#1", "CANCELLED")
    assert (world.failure.code, world.failure.message) == ("NO_STOCK", "b#1 failed")
    assert world.statuses() | {"start": "", "s": ""} == {
        "a": "CANCELLED",
        "b": "FAILED",
        "c": "CANCELLED",
        "s": "",
        "start": "",
    }


def test_what_was_only_asked_for_in_the_same_moment_is_not_started_at_all() -> None:
    definition = document(
        split("s"),
        action("fine"),
        action("broken", parameters=expr("__context__.missing")),
        join("j"),
        arrow("start -> s"),
        arrow("s -> fine"),
        arrow("s -> broken"),
        arrow("fine -> j"),
        arrow("broken -> j"),
        arrow("j -> end"),
    )
    world = World(definition)
    assert isinstance(world.ended, Fail)
    assert world.failure.code == "EXPRESSION_UNDEFINED"
    assert world.commands == [world.ended]


def test_an_error_after_an_action_s_success_fails_the_run_at_that_step() -> None:
    mapping = [{"targetPath": "x", "value": expr("__steps__.call.missing")}]
    world = World(line(action("call", outputMapping=mapping))).done("call#1", {})
    assert (world.failure.code, world.failure.step_id) == ("EXPRESSION_UNDEFINED", "call")
    assert world.statuses()["call"] == "FAILED"


def test_actions_beyond_the_parallelism_wait_their_turn() -> None:
    definition = parallel("a", "b", "c") | {"limits": {"parallelism": 2}}
    world = World(definition)
    assert world.outside() == ["a#1", "b#1"]
    world.done("b#1")
    assert world.outside() == ["a#1", "c#1"]
    assert world.done("a#1").done("c#1").output == {}


def test_a_waiting_action_whose_parameters_are_broken_fails_the_run() -> None:
    definition = document(
        split("s"),
        action("a"),
        action("b", parameters=expr("__context__.missing")),
        join("j"),
        arrow("start -> s"),
        arrow("s -> a"),
        arrow("s -> b"),
        arrow("a -> j"),
        arrow("b -> j"),
        arrow("j -> end"),
        limits={"parallelism": 1},
    )
    world = World(definition).done("a#1")
    assert (world.failure.code, world.failure.step_id) == ("EXPRESSION_UNDEFINED", "b")


def test_a_cancel_withdraws_everything_and_a_second_one_changes_nothing() -> None:
    world = World(parallel("a", "b"))
    world.cancelled("no longer needed").cancelled()
    assert sum(isinstance(command, Withdraw) for command in world.commands) == 1
    world.failed("a#1", "CANCELLED").failed("b#1", "CANCELLED")
    assert world.ended == Cancel("no longer needed")


def test_a_cancel_of_a_run_that_waits_for_a_person_ends_it_at_once() -> None:
    world = World(line(confirm("ok"))).cancelled()
    assert isinstance(world.ended, Cancel)
    assert world.statuses()["ok"] == "CANCELLED"


def test_the_deadline_of_the_execution_fails_it() -> None:
    world = World(line(confirm("ok"), limits={"executionTimeout": "PT10S"}))
    assert world.done("deadline").failure.code == "EXECUTION_TIMED_OUT"


def test_a_completion_of_a_step_that_is_no_longer_open_changes_nothing() -> None:
    world = World(line(confirm("ok", timeout=60), action("next")))
    answer = world.open["ok#1"]
    world.done("ok#1")
    before = world.state
    world.open["ok#1"] = answer
    world.done("ok#1")
    assert replace(world.state, at=before.at) == before


def test_a_step_in_a_loop_has_several_visits() -> None:
    definition = document(
        join("again", "EXCLUSIVE"),
        action("try", outputMapping=[{"targetPath": "ok", "value": expr("__steps__.try.ok")}]),
        split("x", "EXCLUSIVE"),
        arrow("start -> again"),
        arrow("again -> try"),
        arrow("try -> x"),
        arrow("x -> end", condition="__context__.ok"),
        arrow("x -> again", isDefault=True),
    )
    world = World(definition).done("try#1", {"ok": False})
    assert world.outside() == ["try#2"]
    assert world.done("try#2", {"ok": True}).output == {"ok": True}


def test_a_simple_merge_activates_its_step_once_for_each_token() -> None:
    definition = document(
        split("s"),
        put("a", x=1),
        put("b", y=1),
        action("both"),
        join("j", "INCLUSIVE"),
        arrow("start -> s"),
        arrow("s -> a"),
        arrow("s -> b"),
        arrow("a -> both"),
        arrow("b -> both"),
        arrow("both -> end"),
    )
    definition["steps"] = [part for part in definition["steps"] if part["id"] != "j"]
    world = World(definition)
    assert world.outside() == ["both#1", "both#2"]
    world.done("both#2", 2)
    assert world.ended is None
    assert world.done("both#1", 1).output == {"x": 1, "y": 1}

"""Steps that have failed for good and are parked for an operator; other ways to fail; attempts."""

from typing import Any

import pytest

from engine.events import ChildDone, IncidentResolved
from engine.protocol import CloseIncident, OpenIncident
from tests.documents import (
    Document,
    action,
    arrow,
    child,
    confirm,
    delay,
    document,
    expr,
    join,
    line,
    put,
    route,
    split,
    step,
    wait_signal,
)
from tests.engine.world import World

PARK: dict[str, Any] = {"onFailure": "INCIDENT"}


def test_a_failed_step_is_parked_and_the_run_goes_on_elsewhere() -> None:
    definition = document(
        split("s"),
        action("a", **PARK),
        action("b"),
        join("j"),
        arrow("start -> s"),
        arrow("s -> a"),
        arrow("s -> b"),
        arrow("a -> j"),
        arrow("b -> j"),
        arrow("j -> end"),
    )
    world = World(definition).failed("a#1").done("b#1")
    assert world.statuses()["a"] == "INCIDENT"
    assert world.said(OpenIncident)[0].failure.code == "BROKEN"
    assert world.ended is None
    assert world.resolve("a#1", "RETRY", actor="ann").done("a#1").output == {}
    assert world.said(CloseIncident) == [CloseIncident("a#1", "RETRIED", "ann")]


def test_a_retry_may_have_other_parameters() -> None:
    world = World(line(action("a", parameters={"to": 1}, **PARK))).failed("a#1")
    world.resolve("a#1", "RETRY", parameters={"to": 2}, edited=True)
    assert world.command("a#1").parameters == {"to": 2}
    assert world.failed("a#1").resolve("a#1", "RETRY").command("a#1").parameters == {"to": 2}


def test_a_retry_may_have_null_for_parameters() -> None:
    world = World(line(action("a", parameters=1, **PARK))).failed("a#1")
    assert world.resolve("a#1", "RETRY", parameters=None, edited=True).command("a#1").parameters is None


def test_a_retry_evaluates_what_was_not_edited_again() -> None:
    definition = document(
        split("s"),
        action("a", parameters=expr("__context__.to"), **PARK),
        wait_signal("tell", outputMapping=[{"targetPath": "to", "value": expr("__steps__.tell")}]),
        join("j"),
        arrow("start -> s"),
        arrow("s -> a"),
        arrow("s -> tell"),
        arrow("a -> j"),
        arrow("tell -> j"),
        arrow("j -> end"),
    )
    world = World(definition)
    assert world.said(OpenIncident)[0].failure.code == "EXPRESSION_UNDEFINED"
    assert world.signal("tell", 7).resolve("a#1", "RETRY").command("a#1").parameters == 7


def test_an_operator_completes_a_step_with_an_output() -> None:
    mapping = [{"targetPath": "x", "value": expr("__steps__.a.x")}]
    world = World(line(action("a", outputMapping=mapping, **PARK))).failed("a#1")
    assert world.resolve("a#1", "COMPLETE", output={"x": 1}).output == {"x": 1}


def test_an_output_by_hand_is_checked_too_and_parks_the_step_again() -> None:
    schema = {"type": "object"}
    world = World(line(action("a", outputSchema=schema, **PARK))).failed("a#1").resolve("a#1", "COMPLETE", output=1)
    assert world.keys() == ["a#1"]
    assert world.said(OpenIncident)[-1].failure.code == "OUTPUT_INVALID"
    assert world.resolve("a#1", "COMPLETE", output={}).output == {}


def test_an_operator_gives_a_step_up() -> None:
    world = World(line(action("a", **PARK))).failed("a#1").resolve("a#1", "FAIL")
    assert (world.failure.code, world.failure.step_id) == ("BROKEN", "a")


def test_a_decision_about_nothing_parked_changes_nothing() -> None:
    world = World(line(action("a", **PARK), action("b")))
    world.changes_nothing(IncidentResolved("a#1", world.tick(), "RETRY"))
    world.failed("a#1").resolve("a#1", "RETRY")
    world.changes_nothing(IncidentResolved("a#1", world.tick(), "COMPLETE"))
    world.changes_nothing(IncidentResolved("nobody#1", world.tick(), "FAIL"))


def test_the_default_of_the_definition_covers_gateways_and_sets() -> None:
    told = [{"targetPath": "n", "value": expr("__steps__.tell")}]
    definition = document(
        split("s"),
        wait_signal("tell", outputMapping=told),
        put("set", m=expr("__context__.n + 1")),
        split("x", "EXCLUSIVE"),
        delay("d", expr("__context__.n")),
        route("r", expr("__context__.n")),
        join("m", "EXCLUSIVE"),
        join("j"),
        arrow("start -> s"),
        arrow("s -> tell"),
        arrow("tell -> j"),
        arrow("s -> set"),
        arrow("set -> x"),
        arrow("x -> d", condition="__context__.n = 1"),
        arrow("x -> m", isDefault=True),
        arrow("d -> r"),
        arrow("r -> m", branchKey="1"),
        arrow("m -> j"),
        arrow("j -> end"),
        onFailure="INCIDENT",
    )
    world = World(definition)
    assert world.keys() == ["set#1"]
    world.resolve("set#1", "RETRY")
    assert world.keys() == ["set#2"]
    world.signal("tell", 1).resolve("set#2", "RETRY").fire("d#1/delay")
    assert world.output == {"n": 1, "m": 2}


def test_a_parked_gateway_is_completed_by_naming_its_transitions() -> None:
    definition = document(
        split("x", "EXCLUSIVE"),
        put("a", took="a"),
        put("b", took="b"),
        join("m", "EXCLUSIVE"),
        arrow("start -> x"),
        arrow("x -> a", condition="__context__.missing"),
        arrow("x -> b", isDefault=True),
        arrow("a -> m"),
        arrow("b -> m"),
        arrow("m -> end"),
        onFailure="INCIDENT",
    )
    world = World(definition).resolve("x#1", "COMPLETE", output={"transitions": ["nowhere"]})
    assert world.said(OpenIncident)[-1].failure.code == "OUTPUT_INVALID"
    assert world.resolve("x#1", "COMPLETE", output={"transitions": ["x-a"]}).output == {"took": "a"}


def test_a_parked_set_is_completed_by_hand_without_an_output() -> None:
    definition = line(put("set", m=expr("__context__.missing")), onFailure="INCIDENT")
    assert World(definition).resolve("set#1", "COMPLETE").output == {}


def test_a_step_of_its_own_mind_fails_where_the_others_are_parked() -> None:
    world = World(line(action("a", onFailure="FAIL"), onFailure="INCIDENT")).failed("a#1")
    assert world.failure.code == "BROKEN"


def test_guardrails_are_not_parked() -> None:
    definition = document(
        join("again", "EXCLUSIVE"),
        put("x", x=1),
        split("more", "EXCLUSIVE"),
        arrow("start -> again"),
        arrow("again -> x"),
        arrow("x -> more"),
        arrow("more -> again", condition="true"),
        arrow("more -> end", isDefault=True),
        onFailure="INCIDENT",
    )
    assert World({**definition, "limits": {"maxStepVisits": 3}}).failure.code == "MAX_NODE_VISITS_EXCEEDED"
    assert World({**definition, "limits": {"maxSteps": 7}}).failure.code == "MAX_STEPS_EXCEEDED"


def test_children_of_children_go_only_so_deep() -> None:
    assert World(line(child("kid"), limits={"maxDepth": 2}), depth=2).failure.code == "MAX_DEPTH_EXCEEDED"


def test_a_run_has_a_deadline_and_is_undone_after_it() -> None:
    undo = {"actionKey": "test.undo", "parameters": 1}
    steps = (action("one", compensate=undo), confirm("ok"))
    world = World(line(*steps, limits={"executionTimeout": 3600})).done("one#1").fire("deadline")
    world.done("one#1/compensate")
    assert world.failure.code == "EXECUTION_TIMED_OUT"


def test_the_deadline_is_stopped_with_the_end() -> None:
    assert World(line(limits={"executionTimeout": 3600})).output == {}


def caught(*edges: Document, **fields: Any) -> Document:
    """The action `a`; each transition leads to a SET that says which one it was and what it saw."""
    parts: list[Document] = [action("a", **fields), join("m", "EXCLUSIVE"), arrow("start -> a"), arrow("m -> end")]
    parts += [put("fine", by="fine"), arrow("a -> fine"), arrow("fine -> m")]
    for edge in edges:
        name = edge["toStepId"]
        seen = {"by": name, "code": expr("__error__.code"), "step": expr("__error__.stepId")}
        parts += [put(name, **seen), edge, arrow(f"{name} -> m")]
    return document(*parts)


def test_an_error_transition_is_taken_with_the_error_in_scope() -> None:
    world = World(caught(arrow("a -> mend", on="ERROR"))).failed("a#1")
    assert world.output == {"by": "mend", "code": "BROKEN", "step": "a"}
    assert world.statuses()["a"] == "FAILED"


def test_success_takes_the_other_way() -> None:
    assert World(caught(arrow("a -> mend", on="ERROR"))).done("a#1").output == {"by": "fine"}


@pytest.mark.parametrize(("code", "by"), [("BROKEN", "exact"), ("OTHER", "any")])
def test_a_transition_that_names_the_code_goes_before_one_for_any(code: str, by: str) -> None:
    edges = (arrow("a -> any", on="ERROR"), arrow("a -> exact", on="ERROR", errorCodes=["BROKEN", "BENT"]))
    assert World(caught(*edges)).failed("a#1", code).output["by"] == by


def test_a_code_that_no_transition_names_fails_the_run() -> None:
    definition = caught(arrow("a -> exact", on="ERROR", errorCodes=["BENT"]))
    assert World(definition).failed("a#1").failure.code == "BROKEN"


def test_a_timeout_transition_goes_before_an_error_transition() -> None:
    edges = (arrow("a -> any", on="ERROR"), arrow("a -> late", on="TIMEOUT"))
    assert World(caught(*edges)).failed("a#1", "STEP_TIMED_OUT").output["by"] == "late"
    assert World(caught(*edges)).failed("a#1").output["by"] == "any"
    assert World(caught(edges[0])).failed("a#1", "STEP_TIMED_OUT").output["by"] == "any"


def test_a_transition_goes_before_an_incident() -> None:
    world = World(caught(arrow("a -> mend", on="ERROR"), **PARK)).failed("a#1")
    assert world.output["by"] == "mend"


def test_parameters_that_cannot_be_worked_out_may_be_caught() -> None:
    definition = caught(arrow("a -> mend", on="ERROR"), parameters=expr("__context__.missing"))
    assert World(definition).output["code"] == "EXPRESSION_UNDEFINED"


def test_a_child_is_tried_again_after_growing_pauses() -> None:
    retry = {"maxAttempts": 3, "initialInterval": 10, "multiplier": 3}
    world = World(line(child("kid", retry=retry))).failed("kid#1")
    assert world.command("kid#1/retry").due == world.at + 10_000
    world.fire("kid#1/retry").failed("kid#1")
    assert world.command("kid#1/retry").due == world.at + 30_000
    world.fire("kid#1/retry").failed("kid#1")
    assert (world.failure.code, world.failure.attempts) == ("BROKEN", 3)


@pytest.mark.parametrize("kind", ["code", "flag"])
def test_some_failures_are_not_worth_another_attempt(kind: str) -> None:
    world = World(line(child("kid", retry={"maxAttempts": 3, "nonRetryable": ["FATAL"]})))
    world.failed("kid#1", "FATAL") if kind == "code" else world.failed("kid#1", retryable=False)
    assert world.failure.attempts == 1


def test_an_expression_error_is_not_tried_again() -> None:
    failure = World(line(wait_signal("x", expr("__context__.missing"), retry={"maxAttempts": 3}))).failure
    assert failure.attempts == 1


def test_a_delay_takes_the_place_of_every_pause() -> None:
    retry = {"maxAttempts": 2, "delay": expr("__context__.pause")}
    world = World(line(child("kid", retry=retry)), {"pause": "PT7S"}).failed("kid#1")
    assert world.command("kid#1/retry").due == world.at + 7_000


@pytest.mark.parametrize("value", ["'soon'", "__context__.missing"])
@pytest.mark.parametrize("kind", ["failed", "timeout"])
def test_a_delay_that_is_no_duration_fails_the_step(value: str, kind: str) -> None:
    ask = confirm("x", timeout=60, retry={"maxAttempts": 2, "delay": expr(value)})
    if kind == "timeout":
        world = World(line(ask)).fire("x#1/timeout")
    else:
        world = World(line(child("x", retry={"maxAttempts": 2, "delay": expr(value)}))).failed("x#1")
    assert world.failure.code in ("DURATION_INVALID", "EXPRESSION_UNDEFINED")


def test_a_signal_is_waited_for_again() -> None:
    world = World(line(wait_signal("x", timeout=60, retry={"maxAttempts": 2}), output=expr("__steps__.x")))
    world.fire("x#1/timeout")
    assert world.waits() == {}
    world.signal("x", 1)
    assert world.fire("x#1/retry").output == 1


def test_a_child_that_takes_too_long_is_withdrawn_and_has_failed_when_it_has_answered() -> None:
    world = World(line(child("kid", timeout=60))).fire("kid#1/timeout")
    assert world.withdrawn == {"kid#1"}
    assert world.ended is None
    assert world.settle().failure.code == "STEP_TIMED_OUT"


def test_a_child_that_succeeds_late_has_succeeded() -> None:
    world = World(line(child("kid", timeout=60), output=expr("__steps__.kid"))).fire("kid#1/timeout")
    assert world.done("kid#1", 7).output == 7
    world.changes_nothing(ChildDone("kid#1", world.tick(), 8))


def test_a_child_that_takes_too_long_is_tried_again() -> None:
    world = World(line(child("kid", timeout=60, retry={"maxAttempts": 2}))).fire("kid#1/timeout").settle()
    world.fire("kid#1/retry")
    assert world.keys() == ["kid#1", "kid#1/timeout"]
    assert world.command("kid#1").attempt == 2


def test_an_output_that_does_not_fit_fails_the_step_without_another_attempt() -> None:
    schema = {"type": "object", "required": ["a"]}
    world = World(line(child("kid", outputSchema=schema, retry={"maxAttempts": 3}))).done("kid#1", {})
    assert world.failure.code == "OUTPUT_INVALID"
    assert World(line(action("a", outputSchema=schema))).done("a#1", {"a": 1}).output == {}


def test_each_result_is_checked_for_itself() -> None:
    over = {"iterable": {"type": "EXPRESSION", "expr": {"src": "[1, 2]"}}, "failurePolicy": "COLLECT"}
    world = World(line(action("a", outputSchema={"type": "number"}, forEach=over), output=expr("__steps__.a")))
    output = world.done("a#1/item/0", "x").done("a#1/item/1", 2).output
    assert (output[0]["error"]["code"], output[1]) == ("OUTPUT_INVALID", 2)


def test_an_error_is_seen_along_its_path_and_not_after_a_join() -> None:
    definition = document(
        split("s"),
        action("a"),
        action("b"),
        join("j"),
        put("on_the_way", way=expr("$exists(__error__)")),
        step("after", "SYS_SET", assignments=[{"targetPath": "after", "value": expr("$exists(__error__)")}]),
        arrow("start -> s"),
        arrow("s -> a"),
        arrow("s -> b"),
        arrow("a -> end"),
        arrow("a -> on_the_way", on="ERROR"),
        arrow("on_the_way -> j"),
        arrow("b -> j"),
        arrow("j -> after"),
        arrow("after -> end"),
    )
    assert World(definition).failed("a#1").done("b#1").output == {"way": True, "after": False}


def test_an_action_may_suspend_itself_and_is_entered_again() -> None:
    world = World(line(action("a"), output=expr("__steps__.a"))).suspended("a#1", {"ticket": 1})
    assert world.keys() == []
    world.entered_again("a#1", "answer")
    assert (world.command("a#1").resumed.suspended, world.command("a#1").resumed.data) == ({"ticket": 1}, "answer")
    world.suspended("a#1", {"ticket": 2}).entered_again("a#1", "more")
    assert world.command("a#1").resumed.suspended == {"ticket": 2}
    assert world.done("a#1", 5).output == 5


def test_a_suspended_action_gives_its_place_to_another() -> None:
    definition = document(
        split("s"),
        action("a"),
        action("b"),
        join("j"),
        arrow("start -> s"),
        arrow("s -> a"),
        arrow("s -> b"),
        arrow("a -> j"),
        arrow("b -> j"),
        arrow("j -> end"),
        limits={"parallelism": 1},
    )
    world = World(definition).suspended("a#1")
    assert world.keys() == ["b#1"]
    assert world.entered_again("a#1").keys() == ["b#1"]
    assert world.done("b#1").done("a#1").output == {}


def test_a_suspended_action_goes_with_the_run() -> None:
    world = World(line(action("a"))).suspended("a#1").cancelled()
    assert world.ended is not None

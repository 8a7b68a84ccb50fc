"""Steps over items."""

from typing import Any

import pytest

from tests.documents import Document, action, arrow, batch, child, confirm, document, expr, line, put
from tests.engine.world import World

UNDO = {"actionKey": "test.undo", "parameters": expr("__each__")}
SOURCE = {"alias": "rate", "dataSourceId": "test.rate", "params": expr("__each__"), "scope": "per-item"}


def over(source: str, **fields: Any) -> Document:
    """A forEach over an expression."""
    return {"iterable": {"type": "EXPRESSION", "expr": {"src": source}}, **fields}


def each(source: str = "[1..4]", *, step: Document | None = None, **fields: Any) -> Document:
    """The action `call` over a list; `step` are fields of the step itself."""
    call = action("call", parameters=expr("__each__"), forEach=over(source, **fields), **(step or {}))
    return line(call, output=expr("__steps__.call"))


def items(*indices: int) -> list[str]:
    """The keys of items of the first activation of `call`."""
    return [f"call#1/item/{index}" for index in indices]


def test_the_output_is_a_list_in_the_order_of_the_items() -> None:
    world = World(each())
    for index in (2, 0, 3, 1):
        world.done(f"call#1/item/{index}", index * 10)
    assert world.output == [0, 10, 20, 30]


def test_each_item_sees_itself_and_its_place() -> None:
    call = action("call", parameters=[expr("__each__"), expr("__index__")], forEach=over("['a', 'b']"))
    assert World(line(call)).command("call#1/item/1").parameters == ["b", 1]


@pytest.mark.parametrize("source", ["[]", "__context__.missing ?? []"])
def test_an_empty_list_is_done_at_once(source: str) -> None:
    assert World(each(source)).output == []


def test_a_single_value_is_a_list_of_one() -> None:
    assert World(each("7")).done("call#1/item/0", 1).output == [1]


def test_only_so_many_run_at_once() -> None:
    world = World(each(concurrency=2))
    assert world.keys() == items(0, 1)
    assert world.done("call#1/item/1").keys() == items(0, 2)
    assert world.done("call#1/item/0").keys() == items(2, 3)


def test_the_limit_of_the_execution_holds_for_items_too() -> None:
    definition = {**each(), "limits": {"parallelism": 1}}
    world = World(definition)
    for index in range(4):
        assert world.keys() == items(index)
        world.done(f"call#1/item/{index}", index)
    assert world.output == [0, 1, 2, 3]


def test_the_first_failure_withdraws_the_others() -> None:
    world = World(each(concurrency=3)).failed("call#1/item/1")
    assert world.withdrawn == {"call#1/item/0", "call#1/item/2"}
    assert world.ended is None
    failure = world.settle().failure
    assert (failure.code, failure.message) == ("BROKEN", "item 1: call#1/item/1 failed")


def test_failures_become_items_of_the_output_where_they_are_collected() -> None:
    world = World(each("[1, 2]", failurePolicy="COLLECT")).failed("call#1/item/0").done("call#1/item/1", 2)
    assert world.output == [{"error": {"code": "BROKEN", "message": "call#1/item/0 failed"}}, 2]


@pytest.mark.parametrize(
    ("policy", "borne"), [({"count": 1}, 1), ({"count": 0}, 0), ({"percent": 50}, 2), ({"percent": 49}, 1)]
)
def test_so_many_failures_are_tolerated(policy: Document, borne: int) -> None:
    world = World(each(failurePolicy={"type": "TOLERATE", **policy}))
    for index in range(borne):
        world.failed(f"call#1/item/{index}")
    assert world.ended is None
    world.failed(f"call#1/item/{borne}").settle()
    assert world.failure.code == "BROKEN"


def test_a_condition_ends_a_step_early_and_withdraws_the_rest() -> None:
    condition = "__counts__.completed >= 2"
    world = (
        World(each(completionCondition=condition, concurrency=3)).done("call#1/item/0", "a").done("call#1/item/2", "c")
    )
    assert world.withdrawn == {"call#1/item/1", "call#1/item/3"}
    assert world.settle().output == ["a", None, "c", None]


def test_the_condition_sees_counts_and_results() -> None:
    condition = "__counts__ = {'total': 4, 'completed': 1, 'failed': 1, 'running': 1} and __results__[0] = 5"
    world = World(each(completionCondition=condition, failurePolicy="COLLECT", concurrency=2))
    world.failed("call#1/item/0").done("call#1/item/1", 5)
    assert world.ended is None
    world = World(each(completionCondition="$sum(__results__) > 5"))
    assert world.done("call#1/item/0", 3).done("call#1/item/1", 3).settle().output == [3, 3, None, None]


@pytest.mark.parametrize("on_failure", ["FAIL", "INCIDENT"])
def test_a_condition_that_cannot_be_worked_out_withdraws_the_items(on_failure: str) -> None:
    world = World(each(completionCondition="__results__[0].missing > 1", step={"onFailure": on_failure}))
    world.done("call#1/item/0", {})
    assert world.withdrawn == set(items(1, 2, 3))
    world.settle()
    if on_failure == "FAIL":
        assert world.failure.step_id == "call"
        return
    assert world.keys() == ["call#1"]
    world.resolve("call#1", "COMPLETE", output=[])
    assert world.output == []


def test_a_condition_that_fails_may_be_caught() -> None:
    definition = each(completionCondition="__results__[0].missing > 1")
    definition["steps"].append(put("mend", mended=True))
    definition["stepTransitions"] += [arrow("call -> mend", on="ERROR"), arrow("mend -> end")]
    definition["output"] = expr("__context__")
    world = World(definition).done("call#1/item/0", {})
    assert world.settle().output == {"mended": True}


def test_an_item_whose_parameters_cannot_be_worked_out_fails_alone() -> None:
    call = action("call", parameters=expr("__each__.x"), forEach=over("[{'x': 1}, {}]", failurePolicy="COLLECT"))
    world = World(line(call, output=expr("__steps__.call")))
    output = world.done("call#1/item/0", 1).output
    assert output[0] == 1
    assert output[1]["error"]["code"] == "EXPRESSION_UNDEFINED"


def test_a_list_that_cannot_be_worked_out_fails_the_step_and_can_be_tried_again() -> None:
    world = World(each("__context__.missing.list", step={"onFailure": "INCIDENT"}))
    assert world.keys() == ["call#1"]
    world.resolve("call#1", "RETRY")
    assert world.keys() == ["call#1"]


def test_a_datasource_per_item_is_read_before_each() -> None:
    call = action("call", parameters=expr("__datasources__.rate"), dataSources=[SOURCE], forEach=over("['a', 'b']"))
    world = World(line(call, output=expr("__steps__.call")))
    assert world.keys() == ["call#1/item/0/data/rate", "call#1/item/1/data/rate"]
    assert world.command("call#1/item/1/data/rate").parameters == "b"
    world.done("call#1/item/1/data/rate", 20)
    assert world.command("call#1/item/1").parameters == 20
    world.done("call#1/item/0/data/rate", 10).done("call#1/item/0", 1)
    assert world.done("call#1/item/1", 2).output == [1, 2]


def test_of_an_item_with_a_datasource_that_cannot_be_asked_nothing_is_begun() -> None:
    good = {**SOURCE, "alias": "good"}
    bad = {**SOURCE, "alias": "bad", "params": expr("__each__.x")}
    call = action("call", dataSources=[good, bad], forEach=over("[{}]", failurePolicy="COLLECT"))
    world = World(line(call, output=expr("__steps__.call.error.code")))
    assert world.output == "EXPRESSION_UNDEFINED"


def test_a_retry_of_the_step_runs_only_what_has_not_succeeded() -> None:
    world = (
        World(each(concurrency=3, step={"onFailure": "INCIDENT"})).done("call#1/item/0", "a").failed("call#1/item/1")
    )
    assert world.keys() == ["call#1", *items(2, 3)]
    world.settle().resolve("call#1", "RETRY")
    assert world.keys() == items(1, 2, 3)
    for index, output in ((1, "b"), (2, "c"), (3, "d")):
        world.done(f"call#1/item/{index}", output)
    assert world.output == ["a", "b", "c", "d"]


def test_an_item_that_is_still_leaving_is_not_run_again_before_it_has_left() -> None:
    world = World(each("[1, 2]", step={"onFailure": "INCIDENT"})).failed("call#1/item/1").resolve("call#1", "RETRY")
    assert world.keys() == items(0, 1)
    assert world.withdrawn == {"call#1/item/0"}
    world.settle()
    assert world.withdrawn == set()
    assert world.keys() == items(0, 1)
    assert world.done("call#1/item/0", 1).done("call#1/item/1", 2).output == [1, 2]


def test_an_item_that_succeeds_while_it_leaves_is_not_run_again() -> None:
    world = World(each("[1, 2]", step={"onFailure": "INCIDENT", "compensate": UNDO})).failed("call#1/item/1")
    world.resolve("call#1", "RETRY").done("call#1/item/0", "kept").done("call#1/item/1", "b")
    assert world.output == ["kept", "b"]
    world = World(each("[1, 2]", step={"onFailure": "INCIDENT", "compensate": UNDO})).failed("call#1/item/1")
    world.done("call#1/item/0", "kept").resolve("call#1", "RETRY").done("call#1/item/1", "b")
    assert world.output == ["kept", "b"]
    assert len(world.state.undo) == 2


def test_an_item_of_a_repeating_step_goes_on_where_it_failed() -> None:
    repeat = {"until": "__iteration__ = 1"}
    world = World(each("[1]", step={"onFailure": "INCIDENT", "repeat": repeat, "compensate": UNDO}))
    world.done("call#1/item/0/round/0", "a").failed("call#1/item/0/round/1").resolve("call#1", "RETRY")
    assert world.keys() == ["call#1/item/0/round/1"]
    assert world.done("call#1/item/0/round/1", "b").output == [["a", "b"]]
    assert len(world.state.undo) == 2


def test_an_operator_completes_or_fails_the_whole_step() -> None:
    world = World(each("[1]", step={"onFailure": "INCIDENT"})).failed("call#1/item/0")
    assert world.resolve("call#1", "COMPLETE", output=["x"]).output == ["x"]
    world = World(each("[1]", step={"onFailure": "INCIDENT"})).failed("call#1/item/0")
    assert world.resolve("call#1", "FAIL").failure.code == "BROKEN"


def test_items_added_while_the_step_is_parked_run_with_the_retry() -> None:
    world = World(each("[1]", step={"onFailure": "INCIDENT"})).failed("call#1/item/0").signal("call.add", 2)
    assert world.keys() == ["call#1"]
    assert world.resolve("call#1", "RETRY").keys() == items(0, 1)


def test_people_may_be_asked_per_item() -> None:
    world = World(line(confirm("ok", forEach=over("['ann', 'bob']"), assignment={"assignee": expr("__each__")})))
    assert [world.command(key).assignee for key in sorted(world.open)] == ["ann", "bob"]
    world.done("ok#1/item/1").done("ok#1/item/0")
    assert world.ended is not None


def test_children_of_a_batch_are_one_command_and_have_numbers() -> None:
    world = World(line(batch("kids", "[1, 2, 3]", concurrency=2), output=expr("__steps__.kids")))
    command = world.command("kids#1/item/0")
    assert [(one.key, one.index, one.name) for one in command.children] == [
        ("kids#1/item/0", 0, "kids 1/3"),
        ("kids#1/item/1", 1, "kids 2/3"),
    ]
    world.done("kids#1/item/0", "a").done("kids#1/item/2", "c").done("kids#1/item/1", "b")
    assert world.output == ["a", "b", "c"]


def test_a_retry_of_a_batch_repeats_only_failed_children_as_new_attempts() -> None:
    world = World(line(batch("kids", "[1, 2]", retry={"maxAttempts": 2, "initialInterval": 5})))
    world.done("kids#1/item/0").failed("kids#1/item/1")
    assert world.keys() == ["kids#1/item/1/retry"]
    world.fire("kids#1/item/1/retry")
    assert world.command("kids#1/item/1").attempt == 2
    assert world.failed("kids#1/item/1").failure.attempts == 2


def test_a_child_spawned_for_an_operator_has_a_new_number() -> None:
    world = World(line(child("kid", onFailure="INCIDENT"))).failed("kid#1").resolve("kid#1", "RETRY")
    assert world.command("kid#1").attempt == 2


def test_a_list_that_is_too_long_is_refused() -> None:
    assert World(each("$append([1..10000], 1)")).failure.code == "BATCH_TOO_LARGE"


def test_an_item_withdrawn_by_the_failing_run_that_succeeds_all_the_same_is_undone() -> None:
    world = World(each("['a', 'b']", step={"compensate": UNDO})).failed("call#1/item/1")
    world.done("call#1/item/0", "done")
    assert world.command("call#1/item/0/compensate").parameters == "a"
    assert world.done("call#1/item/0/compensate").failure.code == "BROKEN"


def test_an_item_that_succeeds_after_its_step_has_gone_on_is_undone_when_the_run_fails() -> None:
    definition = each("['a', 'b']", completionCondition="__counts__.completed = 1", step={"compensate": UNDO})
    definition["steps"].append(action("then"))
    definition["stepTransitions"][-1] = arrow("call -> then")
    definition["stepTransitions"].append(arrow("then -> end"))
    world = World(definition).done("call#1/item/1").done("call#1/item/0").failed("then#1")
    assert world.done("call#1/item/0/compensate").done("call#1/item/1/compensate").failure.step_id == "then"


def test_a_failure_of_an_item_may_be_caught_by_a_transition() -> None:
    call = action("call", forEach=over("[1, 2]"))
    definition = document(
        call,
        put("mend", why=expr("__error__.message")),
        arrow("start -> call"),
        arrow("call -> end"),
        arrow("call -> mend", on="ERROR"),
        arrow("mend -> end"),
    )
    world = World(definition).failed("call#1/item/0").settle()
    assert world.output == {"why": "item 0: call#1/item/0 failed"}

"""Joins that do not wait for all of their branches."""

from typing import Any

import pytest

from tests.documents import (
    Document,
    action,
    arrow,
    confirm,
    document,
    expr,
    join,
    policy_join,
    put,
    split,
    step,
)
from tests.engine.world import World


def raced(policy: str, names: str = "abc", *, after: Document | None = None, **fields: Any) -> Document:
    """Actions named by letters between a split and a join with a policy, then perhaps a step."""
    join_fields = {name: fields.pop(name) for name in ("n", "cancel", "outputMapping") if name in fields}
    parts: list[Document] = [split("s"), policy_join("j", policy, **join_fields), arrow("start -> s")]
    for name in names:
        parts += [action(name), arrow(f"s -> {name}"), arrow(f"{name} -> j")]
    if after is None:
        parts.append(arrow("j -> end"))
    else:
        parts += [after, arrow(f"j -> {after['id']}"), arrow(f"{after['id']} -> end")]
    return document(*parts, **fields)


def test_any_goes_on_with_the_first_branch() -> None:
    world = World(raced("ANY", after=confirm("ok"))).done("b#1")
    assert world.keys() == ["a#1", "c#1", "ok#1"]
    assert world.statuses()["j"] == "COMPLETED"


def test_late_tokens_are_swallowed() -> None:
    world = World(raced("ANY", after=confirm("ok"))).done("b#1").done("a#1").done("c#1")
    assert world.keys() == ["ok#1"]
    assert world.state.steps["j"].visits == 1
    assert world.done("ok#1").output == {}


def test_late_branches_do_not_hold_up_the_end() -> None:
    world = World(raced("ANY")).done("b#1")
    assert world.withdrawn == {"a#1", "c#1"}
    assert world.settle().output == {}
    assert world.statuses() == {
        "a": "CANCELLED", "b": "COMPLETED", "c": "CANCELLED", "end": "COMPLETED", "j": "COMPLETED", "s": "COMPLETED",
        "start": "COMPLETED",
    }  # fmt: skip


def test_remaining_branches_are_withdrawn_where_the_join_says_so() -> None:
    world = World(raced("ANY", after=confirm("ok"), cancel=True)).done("b#1")
    assert world.withdrawn == {"a#1", "c#1"}
    assert world.settle().keys() == ["ok#1"]
    assert world.done("ok#1").output == {}


@pytest.mark.parametrize(("n", "needed"), [(1, 1), (2, 2), (3, 3), (9, 3)])
def test_n_of_m_counts_branches(n: int, needed: int) -> None:
    world = World(raced("N_OF_M", n=n, after=confirm("ok")))
    for at, key in enumerate(("c#1", "a#1", "b#1")):
        assert ("ok#1" in world.open) is (at >= needed)
        world.done(key)
    assert world.done("ok#1").output == {}


def test_all_settled_waits_for_all_and_gives_each_one_its_result() -> None:
    world = World(raced("ALL_SETTLED", output=expr("__steps__.j")))
    world.done("c#1", 3).failed("a#1", "BROKEN").done("b#1", 2)
    assert world.output == [
        {
            "transitionId": "s-a",
            "status": "FAILED",
            "error": {"code": "BROKEN", "message": "a#1 failed", "stepId": "a", "attempt": 1},
        },
        {"transitionId": "s-b", "status": "COMPLETED", "output": 2},
        {"transitionId": "s-c", "status": "COMPLETED", "output": 3},
    ]
    assert world.statuses()["a"] == "FAILED"


def test_all_settled_goes_on_when_every_branch_has_failed() -> None:
    world = World(raced("ALL_SETTLED", "ab", output=expr("__steps__.j.status")))
    assert world.failed("a#1").failed("b#1").output == ["FAILED", "FAILED"]


def test_a_failure_before_any_has_gone_on_fails_the_run() -> None:
    world = World(raced("ANY")).failed("a#1")
    assert world.settle().failure.step_id == "a"


@pytest.mark.parametrize("policy", ["ANY", "N_OF_M"])
def test_a_late_branch_that_fails_is_swallowed_too(policy: str) -> None:
    world = World(raced(policy, n=1, after=confirm("ok")) if policy == "N_OF_M" else raced(policy, after=confirm("ok")))
    world.done("b#1").failed("a#1")
    assert world.keys() == ["c#1", "ok#1"]
    assert world.statuses()["a"] == "FAILED"
    assert world.done("ok#1").settle().output == {}


def settled_around(*inner: Document) -> Document:
    """An ALL_SETTLED region whose first branch is given and whose second is the action `other`."""
    return document(
        split("s"),
        policy_join("j", "ALL_SETTLED"),
        action("other"),
        arrow("start -> s"),
        *inner,
        arrow("j -> end"),
        arrow("other -> j"),
        {**arrow("s -> other"), "id": "z"},
        output=expr("__steps__.j.status"),
    )


def test_a_failure_inside_nested_splits_ends_the_whole_branch() -> None:
    world = World(
        settled_around(
            split("s2"),
            join("j2"),
            action("x"),
            confirm("y"),
            arrow("s -> s2"),
            arrow("s2 -> x"),
            arrow("s2 -> y"),
            arrow("x -> j2"),
            arrow("y -> j2"),
            arrow("j2 -> j"),
        )
    )
    world.failed("x#1")
    assert world.keys() == ["other#1"]
    assert world.statuses()["y"] == "CANCELLED"
    assert world.done("other#1").output == ["FAILED", "COMPLETED"]


def test_a_token_that_waits_at_a_join_of_a_failed_branch_goes_with_it() -> None:
    world = World(
        settled_around(
            split("s2"),
            join("j2"),
            action("x"),
            put("y", y=1),
            arrow("s -> s2"),
            arrow("s2 -> x"),
            arrow("s2 -> y"),
            arrow("x -> j2"),
            arrow("y -> j2"),
            arrow("j2 -> j"),
        )
    )
    assert world.state.filled
    world.failed("x#1")
    assert not world.state.filled
    assert world.done("other#1").output == ["FAILED", "COMPLETED"]


def inner_any(*, cancel: bool = False) -> Document:
    return settled_around(
        split("s2"),
        policy_join("j2", "ANY", cancel=cancel),
        action("x"),
        action("y"),
        action("z"),
        arrow("s -> s2"),
        arrow("s2 -> x"),
        arrow("s2 -> y"),
        arrow("x -> j2"),
        arrow("y -> j2"),
        arrow("j2 -> z"),
        arrow("z -> j"),
    )


def test_a_failure_in_a_region_inside_of_one_that_settles_ends_the_outer_branch() -> None:
    world = World(inner_any()).failed("x#1")
    assert world.withdrawn == {"y#1"}
    assert world.settle().done("other#1").output == ["FAILED", "COMPLETED"]


def test_a_late_branch_of_an_inner_region_may_fail_without_harm() -> None:
    world = World(inner_any()).done("x#1").failed("y#1")
    assert world.done("z#1").done("other#1").output == ["COMPLETED", "COMPLETED"]


def test_an_inner_region_counts_in_its_outer_branch() -> None:
    world = World(inner_any(cancel=True)).done("x#1").settle()
    assert world.failed("z#1").done("other#1").output == ["FAILED", "COMPLETED"]


def test_a_region_left_open_in_a_late_branch_does_not_hold_up_the_end() -> None:
    definition = document(
        split("s"),
        policy_join("j", "ANY"),
        action("fast"),
        split("s2"),
        policy_join("j2", "ALL_SETTLED"),
        confirm("x"),
        confirm("y"),
        arrow("start -> s"),
        arrow("s -> fast"),
        arrow("fast -> j"),
        arrow("s -> s2"),
        arrow("s2 -> x"),
        arrow("s2 -> y"),
        arrow("x -> j2"),
        arrow("y -> j2"),
        arrow("j2 -> j"),
        arrow("j -> end"),
    )
    assert World(definition).done("fast#1").output == {}
    world = World(definition).done("x#1").done("fast#1")
    assert world.output == {}


def test_a_person_in_a_late_branch_may_still_answer() -> None:
    definition = document(
        split("s"),
        policy_join("j", "ANY"),
        action("fast"),
        confirm("slow"),
        put("note", noted=True),
        confirm("ok"),
        arrow("start -> s"),
        arrow("s -> fast"),
        arrow("fast -> j"),
        arrow("s -> slow"),
        arrow("slow -> note"),
        arrow("note -> j"),
        arrow("j -> ok"),
        arrow("ok -> end"),
    )
    world = World(definition).done("fast#1").done("slow#1")
    assert world.done("ok#1").output == {"noted": True}


def looped(policy: str, **fields: Any) -> Document:
    """Rounds of a region, as long as `more` says so."""
    return document(
        join("again", "EXCLUSIVE"),
        split("s"),
        action("a"),
        action("b"),
        policy_join("j", policy, **fields),
        step("n", "SYS_SET", assignments=[{"targetPath": "n", "value": expr("(__context__.n ?? 0) + 1")}]),
        split("more", "EXCLUSIVE"),
        arrow("start -> again"),
        arrow("again -> s"),
        arrow("s -> a"),
        arrow("s -> b"),
        arrow("a -> j"),
        arrow("b -> j"),
        arrow("j -> n"),
        arrow("n -> more"),
        arrow("more -> again", condition="__context__.n < 3"),
        arrow("more -> end", isDefault=True),
    )


def test_each_activation_of_a_split_has_a_region_of_its_own() -> None:
    world = World(looped("ANY"))
    world.done("a#1").done("a#2")
    assert world.keys() == ["a#3", "b#1", "b#2", "b#3"]
    world.done("b#2").done("b#1")
    assert world.state.steps["j"].visits == 2
    assert world.done("b#3").settle().output == {"n": 3}


def test_only_the_activation_that_has_gone_on_withdraws_its_rest() -> None:
    world = World(looped("ANY", cancel=True)).done("a#1")
    assert world.withdrawn == {"b#1"}
    assert world.settle().done("b#2").withdrawn == {"a#2"}
    assert world.settle().done("a#3").settle().output == {"n": 3}


def test_a_region_opened_by_an_inclusive_split_counts_the_branches_that_were_opened() -> None:
    definition = document(
        split("s", "INCLUSIVE"),
        policy_join("j", "ALL_SETTLED"),
        action("a"),
        action("b"),
        action("c"),
        arrow("start -> s"),
        arrow("s -> a", condition="__context__.a"),
        arrow("s -> b", condition="true"),
        arrow("s -> c", isDefault=True),
        arrow("a -> j"),
        arrow("b -> j"),
        arrow("c -> j"),
        arrow("j -> end"),
        output=expr("[__steps__.j.transitionId]"),
    )
    assert World(definition, {"a": False}).done("b#1").output == ["s-b"]
    assert World(definition, {"a": True}).done("b#1").failed("a#1").output == ["s-a", "s-b"]


def test_two_of_m_opened_by_an_inclusive_split_needs_no_more_than_were_opened() -> None:
    definition = document(
        split("s", "INCLUSIVE"),
        policy_join("j", "N_OF_M", n=2),
        action("a"),
        action("b"),
        arrow("start -> s"),
        arrow("s -> a", condition="false"),
        arrow("s -> b", isDefault=True),
        arrow("a -> j"),
        arrow("b -> j"),
        arrow("j -> end"),
    )
    assert World(definition).done("b#1").output == {}


def test_a_join_maps_what_it_gives() -> None:
    mapping = [{"targetPath": "all", "value": expr("__steps__.j.output")}]
    assert World(raced("ALL_SETTLED", "ab", outputMapping=mapping)).done("a#1", 1).done("b#1", 2).output == {
        "all": [1, 2]
    }


BAD = [{"targetPath": "all", "value": expr("__steps__.j.said")}]


@pytest.mark.parametrize("last", ["done", "failed"])
def test_a_join_whose_mapping_fails_fails_itself(last: str) -> None:
    world = World(raced("ALL_SETTLED", "ab", outputMapping=BAD)).done("a#1")
    getattr(world, last)("b#1")
    assert world.failure.step_id == "j"
    assert world.statuses()["j"] == "FAILED"


@pytest.mark.parametrize("last", ["done", "failed"])
def test_a_join_whose_mapping_fails_can_be_parked_and_tried_again(last: str) -> None:
    definition = raced("ALL_SETTLED", "ab", outputMapping=BAD, onFailure="INCIDENT")
    definition["steps"] = [
        {**part, "onFailure": "FAIL"} if part["id"] in "ab" else part for part in definition["steps"]
    ]
    world = World(definition).done("a#1")
    getattr(world, last)("b#1")
    assert world.keys() == ["j#1"]
    world.resolve("j#1", "RETRY")
    assert world.keys() == ["j#2"]
    assert world.resolve("j#2", "COMPLETE", output={"said": 1}).output == {"all": 1}


@pytest.mark.parametrize("how", ["RETRY", "COMPLETE"])
def test_a_parked_join_goes_on_for_its_own_activation(how: str) -> None:
    definition = looped("ANY", cancel=True)
    definition["onFailure"] = "INCIDENT"
    writes = {
        "j": [{"targetPath": "seen", "value": expr("__context__.n")}],
        "b": [{"targetPath": "n", "value": expr("__context__.n ?? 0")}],
    }
    for part in definition["steps"]:
        part["outputMapping"] = writes.get(part["id"], [])
    world = World(definition).done("a#1")
    assert world.keys() == ["b#1", "j#1"]
    world.done("b#1").resolve("j#1", how)
    assert world.keys() == ["a#2", "b#2"]
    assert world.done("a#2").settle().done("a#3").settle().output == {"n": 3, "seen": 2}


def test_a_failure_caught_by_a_transition_is_no_failure_of_the_branch() -> None:
    definition = settled_around(
        action("x"), put("mend", mended=True), arrow("s -> x"), arrow("x -> mend", on="ERROR"), arrow("mend -> j")
    )
    definition["stepTransitions"].append(arrow("x -> j"))
    assert World(definition).failed("x#1").done("other#1").output == ["COMPLETED", "COMPLETED"]


def test_an_error_is_not_seen_any_more_after_the_join() -> None:
    definition = document(
        split("s"),
        policy_join("j", "ANY"),
        action("x"),
        action("y"),
        put("after", seen=expr("$exists(__error__)")),
        arrow("start -> s"),
        arrow("s -> x"),
        arrow("s -> y"),
        arrow("x -> j"),
        {**arrow("x -> j", on="ERROR"), "id": "caught"},
        arrow("y -> j"),
        arrow("j -> after"),
        arrow("after -> end"),
    )
    assert World(definition).failed("x#1").settle().output == {"seen": False}


def test_guardrails_hold_in_a_region_that_settles() -> None:
    world = World(raced("ALL_SETTLED", "ab", limits={"maxSteps": 4}))
    world.failed("a#1").failed("b#1")
    assert world.failure.code == "MAX_STEPS_EXCEEDED"

"""What the step language promises, on the real server: items, iterations, races, joins, error paths, milestones."""

from typing import Any

import pytest

from tests.documents import action, arrow, batch, confirm, document, expr, join, line, put, split, step
from tests.workflows.harness import Executions, event_types, failure_of


def each(items: str, **fields: Any) -> dict[str, Any]:
    """A `forEach` over an expression."""
    return {"iterable": {"type": "EXPRESSION", "expr": {"src": items}}, **fields}


async def test_an_action_runs_for_each_item_and_keeps_their_order(running: Executions) -> None:
    over = action("call", parameters={"n": expr("__each__ * 10 + __index__")}, forEach=each("[1..7]", concurrency=3))
    handle = await running.start(line(over, output=expr("__steps__.call.n")))
    assert await handle.result() == [10, 21, 32, 43, 54, 65, 76]
    scheduled = [
        event.activity_task_scheduled_event_attributes.activity_id
        for event in (await handle.fetch_history()).events
        if event.HasField("activity_task_scheduled_event_attributes")
    ]
    assert scheduled == [f"call#1/item/{n}" for n in range(7)]


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("COLLECT", [1, "CHOOSY", 3, "CHOOSY"]),
        ({"type": "TOLERATE", "count": 2}, [1, "CHOOSY", 3, "CHOOSY"]),
        ({"type": "TOLERATE", "count": 1}, "CHOOSY"),
        ("FAIL_FAST", "CHOOSY"),
    ],
)
async def test_failed_items_are_borne_as_the_policy_says(running: Executions, policy: Any, expected: Any) -> None:
    over = action(
        "call",
        actionKey="test.choosy",
        parameters={"n": expr("__each__"), "bad": [2, 4]},
        forEach=each("[1..4]", failurePolicy=policy),
    )
    handle = await running.start(line(over, output=expr("__steps__.call")))
    if isinstance(expected, str):
        failure = await failure_of(handle)
        assert (failure["code"], failure["stepId"]) == (expected, "call")
        return
    output = await handle.result()
    assert [one if isinstance(one, int) else one["error"]["code"] for one in output] == expected


async def test_an_action_is_repeated_with_what_the_last_round_fed_back(running: Executions) -> None:
    double = action(
        "call",
        parameters={"n": expr("(__iteration__ = 0 ? 1 : __previous__) * 2")},
        repeat={"until": "__result__.n >= 32", "feedback": expr("__result__.n")},
    )
    handle = await running.start(line(double, output=expr("__steps__.call.n")))
    assert await handle.result() == [2, 4, 8, 16, 32]


async def test_each_item_has_rounds_of_its_own(running: Executions) -> None:
    both = action(
        "call",
        parameters={"n": expr("__each__ * 10 + __iteration__")},
        forEach=each("[1, 2]"),
        repeat={"while": "__iteration__ < __each__"},
    )
    handle = await running.start(line(both, output=expr("[__steps__.call[0].n, __steps__.call[1].n]")))
    assert await handle.result() == [10, 20, 21]


def race() -> dict[str, Any]:
    """A signal, a person and a delay, the first of which decides."""
    return document(
        split("e", "EVENT"),
        step("signal", "SYS_WAIT_SIGNAL", signal="paid"),
        confirm("person"),
        step("delay", "SYS_DELAY", duration=1.5),
        join("m", "EXCLUSIVE"),
        *(arrow(f"e -> {name}") for name in ("signal", "person", "delay")),
        *(arrow(f"{name} -> m") for name in ("signal", "person", "delay")),
        arrow("start -> e"),
        arrow("m -> end"),
    )


@pytest.mark.parametrize("winner", ["signal", "person", "delay"])
async def test_the_first_event_wins_and_the_others_are_withdrawn(running: Executions, winner: str) -> None:
    handle = await running.start(race())
    await running.waits_for(handle, "delay", "person", "signal")
    if winner == "signal":
        await running.deliver(handle, "paid")
    elif winner == "person":
        await running.complete(handle, "person")
    await handle.result()
    statuses = await running.statuses(handle)
    assert {name: statuses[name] for name in ("signal", "person", "delay")} == {
        **dict.fromkeys(("signal", "person", "delay"), "CANCELLED"),
        winner: "COMPLETED",
    }
    assert (await event_types(handle)).count("timer_canceled") == int(winner != "delay")


def joined(policy: dict[str, Any], *branches: dict[str, Any]) -> dict[str, Any]:
    """Branches between a split and a join with a policy; the output is what arrived at the join."""
    return document(
        split("s"),
        *branches,
        {**join("j"), "join": policy},
        *(arrow(f"s -> {one['id']}") for one in branches),
        *(arrow(f"{one['id']} -> j") for one in branches),
        arrow("start -> s"),
        arrow("j -> end"),
    )


async def test_a_join_of_any_goes_on_with_the_first_and_withdraws_the_rest(running: Executions) -> None:
    slow = action("slow", actionKey="test.sleep", parameters={"seconds": 30}, timeout=60)
    definition = joined({"policy": "ANY", "cancelRemaining": True}, action("quick"), slow, confirm("person"))
    handle = await running.start(definition)
    await handle.result()
    statuses = await running.statuses(handle)
    assert (statuses["quick"], statuses["slow"], statuses["person"]) == ("COMPLETED", "CANCELLED", "CANCELLED")


async def test_late_branches_do_not_hold_up_the_end(running: Executions) -> None:
    handle = await running.start(joined({"policy": "N_OF_M", "n": 2}, action("a"), action("b"), confirm("person")))
    await handle.result()
    assert (await running.statuses(handle))["person"] == "CANCELLED"


async def test_a_join_that_settles_tells_what_became_of_each_branch(running: Executions) -> None:
    bad = action("bad", actionKey="test.fail")
    definition = joined({"policy": "ALL_SETTLED"}, action("ok", parameters={"n": 1}), bad)
    definition["output"] = expr("__steps__.j.(output.n ?? error.code)")
    handle = await running.start(definition)
    assert sorted(map(str, await handle.result())) == ["1", "BROKEN"]


def caught(*arrows: dict[str, Any], code: str) -> dict[str, Any]:
    """A step that fails with a code, and paths for that."""
    return document(
        action("bad", actionKey="test.fail", parameters={"code": code}),
        put("named", path="named"),
        put("any", path="any"),
        put("good", path="good"),
        join("m", "EXCLUSIVE"),
        arrow("start -> bad"),
        arrow("bad -> good"),
        *arrows,
        *(arrow(f"{name} -> m") for name in ("good", "named", "any")),
        arrow("m -> end"),
        output={"path": expr("__context__.path"), "code": expr("__error__.code", default=None)},
    )


@pytest.mark.parametrize(("code", "path"), [("NO_STOCK", "named"), ("OTHER", "any")])
async def test_an_error_goes_the_way_that_is_meant_for_it(running: Executions, code: str, path: str) -> None:
    definition = caught(
        arrow("bad -> named", on="ERROR", errorCodes=["NO_STOCK"]), arrow("bad -> any", on="ERROR"), code=code
    )
    handle = await running.start(definition)
    assert (await handle.result())["path"] == path
    assert (await running.row(handle)).closed_as == "COMPLETED"


async def test_one_of_two_steps_with_a_mutex_waits_for_the_other(running: Executions) -> None:
    nap = {"actionKey": "test.sleep", "parameters": {"seconds": 0.3}, "mutex": "door"}
    handle = await running.start(joined({"policy": "ALL"}, action("a", **nap), action("b", **nap)))
    await handle.result()
    order = [
        name for name in await event_types(handle) if name in {"activity_task_scheduled", "activity_task_completed"}
    ]
    assert order == ["activity_task_scheduled", "activity_task_completed"] * 2


async def test_a_milestone_that_passes_withdraws_its_step(running: Executions) -> None:
    definition = document(
        split("s"),
        action("slow", actionKey="test.sleep", parameters={"seconds": 30}, timeout=60, enabledWhile="__context__.open"),
        action("quick"),
        put("close", open=False),
        join("j"),
        *(arrow(text) for text in ("start -> s", "s -> slow", "s -> quick", "quick -> close", "slow -> j")),
        arrow("close -> j"),
        arrow("j -> end"),
    )
    handle = await running.start(definition, {"open": True})
    assert await handle.result() == {"open": False}
    assert (await running.statuses(handle))["slow"] == "SKIPPED"


async def test_a_datasource_is_read_before_its_step(running: Executions) -> None:
    source = {"alias": "customer", "dataSourceId": "test.echo", "params": {"n": 4}, "select": "__result__.n"}
    handle = await running.start(
        line(
            action("call", parameters={"n": expr("__datasources__.customer + 1")}, dataSources=[source]),
            output=expr("__steps__.call.n"),
        )
    )
    assert await handle.result() == 5


async def test_parallelism_bounds_the_actions_that_run_at_once(running: Executions) -> None:
    over = action("call", actionKey="test.sleep", parameters={"seconds": 0.05}, forEach=each("[1..6]"))
    handle = await running.start(line(over, limits={"parallelism": 2}))
    await handle.result()
    opened = most = 0
    for name in await event_types(handle):
        opened += (name == "activity_task_scheduled") - (name == "activity_task_completed")
        most = max(most, opened)
    assert most == 2


@pytest.mark.parametrize(
    ("outcome", "closed_as"), [("COMPLETED", "COMPLETED"), ("FAILED", "FAILED"), ("CANCELLED", "CANCELLED")]
)
async def test_a_terminate_ends_everything_at_once(cached: Executions, outcome: str, closed_as: str) -> None:
    slug = f"leaf-{cached.task_queue[-8:]}"
    await cached.template(slug, line(confirm("wait")))
    definition = document(
        split("s"),
        confirm("person"),
        batch("all", "[1, 2]", childWorkflowTemplateVersionId=f"{slug}@1.0.0"),
        confirm("go"),
        step("stop", "SYS_TERMINATE", outcome=outcome, message="enough"),
        join("j"),
        *(arrow(f"s -> {name}") for name in ("person", "all", "go")),
        *(arrow(text) for text in ("start -> s", "person -> j", "all -> j", "go -> stop", "j -> end")),
    )
    handle = await cached.start(definition)
    await cached.children(handle, 2)
    await cached.complete(handle, "go")
    await cached.closed(handle)
    rows = await cached.rows(handle)
    row = await cached.row(handle)
    said = "TERMINATED: enough" if closed_as == "FAILED" else "enough"
    assert (row.closed_as, row.status_reason) == (closed_as, said)
    assert {row.closed_as for row in rows if row.parent_id} == {"CANCELLED"}

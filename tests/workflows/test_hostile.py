"""Expressions written to hurt: each ends in a coded failure, at the first attempt of its workflow task."""

import resource
from collections.abc import AsyncIterator

import pytest

import engine.expression
from engine.interpreter import PURE_STEPS_PER_CALL
from tests.documents import arrow, document, expr, join, line, put, split
from tests.workflows.harness import Executions, event_types, failure_of

HOSTILE = {
    "recursion for ever": ("($f := function($n) { $f($n + 1) + 1 }; $f(0))", "EXPRESSION_LIMIT"),
    "tail recursion for ever": ("($f := function($n) { $f($n + 1) }; $f(0))", "EXPRESSION_LIMIT"),
    "mutual recursion": (
        "($f := function($n) { $g($n) }; $g := function($n) { $f($n) }; $f(0))",
        "EXPRESSION_LIMIT",
    ),
    "ten million elements": ("$count([1..10000000])", "EXPRESSION_LIMIT"),
    "a hundred megabytes": ('$length($pad("x", 100000000))', "EXPRESSION_LIMIT"),
    "doubling": ('$reduce([1..60], function($a, $b) { $a & $a }, "xxxxxxxx")', "EXPRESSION_LIMIT"),
    "ten thousand operators": (" + ".join(["1"] * 10_000), "EXPRESSION_INVALID"),
    "a thousand brackets": ("(" * 1000 + "1" + ")" * 1000, "EXPRESSION_INVALID"),
    "a thousand signs": ("-" * 1000 + "1", "EXPRESSION_INVALID"),
    "eval": ('$eval("1")', "EXPRESSION_INVALID"),
    "nested maps": (
        "$count($map([1..1000], function($a) { $map([1..1000], function($b) { $a * $b }) }))",
        "EXPRESSION_LIMIT",
    ),
}


@pytest.fixture
async def guarded(executions: Executions) -> AsyncIterator[Executions]:
    """Executions with a worker that must be as well afterwards as it was before."""
    async with executions.worker():
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        yield executions
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        assert grown < 200 * 1024, f"the process grew by {grown // 1024} MiB"
        alive = await executions.start(line(put("fine", fine=True)))
        assert await alive.result() == {"fine": True}
    await executions.replay_all()


@pytest.mark.parametrize(("source", "code"), HOSTILE.values(), ids=HOSTILE.keys())
async def test_a_hostile_expression_fails_its_run_and_nothing_else(guarded: Executions, source: str, code: str) -> None:
    handle = await guarded.start(line(put("bad", x=expr(source))))
    # On a slow machine the clock, the last net, may be faster than the count.
    clock = {"EXPRESSION_TIMEOUT"} if code == "EXPRESSION_LIMIT" else set()
    assert (await failure_of(handle))["code"] in {code} | clock
    types = await event_types(handle)
    assert "workflow_task_failed" not in types
    assert "workflow_task_timed_out" not in types


async def test_a_catastrophic_pattern_ends_within_its_bounds(guarded: Executions) -> None:
    source = '$contains("' + "a" * 40 + '!", /(a+)+$/)'
    handle = await guarded.start(line(put("bad", x=expr(source))))
    assert await handle.result() == {"x": False}
    assert "workflow_task_failed" not in await event_types(handle)


async def test_an_expression_that_only_the_clock_stops_fails_the_same_way_on_replay(
    guarded: Executions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine.expression, "CLOCK_MS", 5)
    source = "$sum($map([1..9000], function($n) { $n * 2 })) + 0.25"
    handle = await guarded.start(line(put("slow", x=expr(source)), put("then", y=1)))
    failure = await failure_of(handle)
    assert (failure["code"], failure["stepId"]) == ("EXPRESSION_TIMEOUT", "slow")
    assert "marker_recorded" in await event_types(handle)
    monkeypatch.undo()


async def test_a_loop_of_slow_expressions_stops_for_breath_instead_of_tripping_the_deadlock_detector(
    guarded: Executions,
) -> None:
    work = "$sum($map([1..9000], function($n) { $n * 2 }))"
    rounds = 80
    definition = document(
        join("again", "EXCLUSIVE"),
        put("count", n=expr(f"(({work}) * 0) + __context__.n + 1")),
        split("x", "EXCLUSIVE"),
        arrow("start -> again"),
        arrow("again -> count"),
        arrow("count -> x"),
        arrow("x -> again", condition=f"__context__.n < {rounds}"),
        arrow("x -> end", isDefault=True),
        limits={"maxSteps": 100_000, "maxStepVisits": 100_000},
    )
    assert 4 * rounds < PURE_STEPS_PER_CALL
    handle = await guarded.start(definition, {"n": 0})
    assert await handle.result() == {"n": rounds}
    types = await event_types(handle)
    assert "workflow_task_failed" not in types
    assert "timer_fired" in types


async def test_many_slow_expressions_in_one_step_fail_it_before_the_deadlock_detector_fires(
    guarded: Executions,
) -> None:
    slow = expr("$sum($map([1..9000], function($n) { $n * 2 }))")
    handle = await guarded.start(line(put("slow", **{f"v{n}": slow for n in range(200)})))
    failure = await failure_of(handle)
    assert (failure["code"], failure["stepId"]) == ("EXPRESSION_TIMEOUT", "slow")
    types = await event_types(handle)
    assert "workflow_task_failed" not in types
    assert "workflow_task_timed_out" not in types

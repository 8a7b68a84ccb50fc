"""Compensation on the real server, as the other side of HTTP sees it."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from activities.http import http_request_action
from app.settings import HttpActionSettings
from tests.documents import action, arrow, batch, child, confirm, document, expr, join, line, split
from tests.workflows.counterpart import Counterpart, call, calling
from tests.workflows.harness import ACTIONS, Executions, Handle, failure_of


@pytest.fixture
async def calling_out(executions: Executions) -> AsyncIterator[Executions]:
    """Executions with a worker that may call this machine."""
    http = http_request_action(HttpActionSettings(allowed_private_hosts=("127.0.0.1",)))
    async with executions.worker(actions=(*ACTIONS, http)):
        yield executions
    await executions.replay_all()


BAD = action("bad", actionKey="test.fail")


def undoable(step_id: str, url: str, path: str | None = None, **fields: Any) -> dict[str, Any]:
    """A call that another call undoes."""
    path = path or step_id
    return call(step_id, url, path, compensate=calling(url, f"undo-{path}"), **fields)


def undone(counterpart: Counterpart) -> list[str]:
    """What was undone, in order."""
    return [path.removeprefix("/undo-") for path in counterpart.order if path.startswith("/undo-")]


async def test_a_failure_undoes_what_was_done_latest_first(calling_out: Executions, counterpart: Counterpart) -> None:
    steps = [undoable(name, counterpart.url) for name in ("a", "b", "c")]
    handle = await calling_out.start(line(*steps, BAD))
    assert (await failure_of(handle))["code"] == "BROKEN"
    assert undone(counterpart) == ["c", "b", "a"]
    statuses = await calling_out.statuses(handle)
    assert {statuses[name] for name in ("a", "b", "c")} == {"COMPENSATED"}
    assert all(len(keys) == 1 for keys in counterpart.keys.values())
    assert (await calling_out.closed(handle)).closed_as == "FAILED"


async def test_a_compensator_sees_what_its_step_saw_when_it_completed(
    calling_out: Executions, counterpart: Counterpart
) -> None:
    body = {"method": "POST", "url": f"{counterpart.url}/undo", "body": expr("[__result__.n, __context__.n]")}
    first = action("first", parameters={"n": 7}, compensate={"actionKey": "http.request", "parameters": body})
    change = {"id": "change", "type": "SYS_SET", "name": "c", "assignments": [{"targetPath": "n", "value": 2}]}
    handle = await calling_out.start(line(first, change, BAD), {"n": 1})
    await failure_of(handle)
    assert counterpart.bodies["/undo"] == b"[7,1]"


async def test_parallel_branches_items_and_rounds_are_undone_in_reverse_order_of_completion(
    calling_out: Executions, counterpart: Counterpart
) -> None:
    url = counterpart.url

    def path(prefix: str, source: str) -> dict[str, Any]:
        return {"method": "POST", "url": {"type": "template", "src": f"{url}/{prefix}-{{{{ {source} }}}}"}}

    each = action(
        "each",
        actionKey="http.request",
        parameters=path("item", "$string(__each__)"),
        compensate={"actionKey": "http.request", "parameters": path("undo-item", "$string(__each__)")},
        forEach={"iterable": {"type": "EXPRESSION", "expr": {"src": "[1..4]"}}, "concurrency": 1},
    )
    rounds = action(
        "rounds",
        actionKey="http.request",
        parameters=path("round", "$string(__iteration__)"),
        compensate={"actionKey": "http.request", "parameters": path("undo-round", "$string(__iteration__)")},
        repeat={"while": "__iteration__ < 2"},
    )
    definition = document(
        split("s"),
        each,
        rounds,
        join("j"),
        BAD,
        *(arrow(text) for text in ("start -> s", "s -> each", "s -> rounds", "each -> j", "rounds -> j", "j -> bad")),
        arrow("bad -> end"),
    )
    handle = await calling_out.start(definition)
    await failure_of(handle)
    undoes = undone(counterpart)
    assert len(undoes) == 6
    assert [name for name in undoes if "item" in name] == ["item-4", "item-3", "item-2", "item-1"]
    assert [name for name in undoes if "round" in name] == ["round-1", "round-0"]


async def test_a_running_action_that_still_succeeds_is_undone_too(
    calling_out: Executions, counterpart: Counterpart
) -> None:
    url = counterpart.url
    arrows = ("start -> s", "s -> slow-wait", "s -> go", "go -> bad", "bad -> j", "slow-wait -> j", "j -> end")
    slow = undoable("slow-wait", url)
    definition = document(split("s"), slow, confirm("go"), BAD, join("j"), *(arrow(text) for text in arrows))
    handle = await calling_out.start(definition)
    await counterpart.called("/slow-wait")
    await calling_out.complete(handle, "go")
    counterpart.gate.set()
    await failure_of(handle)
    # Cancelled or not, what the other side was asked for is either undone or was never answered as done.
    done = (await calling_out.statuses(handle))["slow-wait"]
    assert undone(counterpart) == (["slow-wait"] if done == "COMPENSATED" else [])


async def child_of(executions: Executions, url: str, *steps: dict[str, Any]) -> str:
    """The reference of a child that does two things that can be undone, and these steps."""
    slug = f"leaf-{executions.task_queue[-8:]}"
    await executions.template(slug, line(undoable("x", url, "child-x"), undoable("y", url, "child-y"), *steps))
    return f"{slug}@1.0.0"


async def test_a_completed_child_is_undone_with_its_parent(calling_out: Executions, counterpart: Counterpart) -> None:
    reference = await child_of(calling_out, counterpart.url)
    sub = child("sub", childWorkflowTemplateVersionId=reference)
    handle = await calling_out.start(line(undoable("a", counterpart.url), sub, undoable("b", counterpart.url), BAD))
    await failure_of(handle)
    assert undone(counterpart) == ["b", "child-y", "child-x", "a"]
    assert all(len(keys) == 1 for keys in counterpart.keys.values())


async def test_every_child_of_a_batch_is_undone(calling_out: Executions, counterpart: Counterpart) -> None:
    reference = await child_of(calling_out, counterpart.url)
    handle = await calling_out.start(
        line(batch("all", "[1..3]", concurrency=1, childWorkflowTemplateVersionId=reference), BAD)
    )
    await failure_of(handle)
    assert undone(counterpart) == ["child-y", "child-x"] * 3
    assert len(counterpart.keys["/undo-child-x"]) == 3


async def with_running_child(executions: Executions, counterpart: Counterpart, *branch: dict[str, Any]) -> Handle:
    """A run beside whose child another branch goes on; the child has done something and waits for a person."""
    reference = await child_of(executions, counterpart.url, confirm("ask"))
    sub = child("sub", childWorkflowTemplateVersionId=reference)
    ids = [one["id"] for one in branch]
    definition = document(
        undoable("a", counterpart.url),
        split("s"),
        sub,
        *branch,
        join("j"),
        *(arrow(text) for text in ("start -> a", "a -> s", "s -> sub", f"s -> {ids[0]}", "sub -> j")),
        *(arrow(f"{one} -> {two}") for one, two in zip(ids, [*ids[1:], "j"], strict=True)),
        arrow("j -> end"),
    )
    handle = await executions.start(definition)
    leaf = (await executions.children(handle, 1))[0]
    await executions.waits_for(leaf, "ask")
    return handle


async def test_a_running_child_undoes_itself_before_its_parent_does(
    calling_out: Executions, counterpart: Counterpart
) -> None:
    handle = await with_running_child(calling_out, counterpart, confirm("go"), BAD)
    await calling_out.complete(handle, "go")
    await failure_of(handle)
    assert undone(counterpart) == ["child-y", "child-x", "a"]
    assert {row.closed_as for row in await calling_out.rows(handle)} == {"FAILED", "CANCELLED"}


async def test_a_cancel_compensates_unless_it_is_told_not_to(calling_out: Executions, counterpart: Counterpart) -> None:
    handle = await with_running_child(calling_out, counterpart, confirm("go"))
    await calling_out.control(handle, "CANCEL")
    assert (await calling_out.closed(handle)).closed_as == "CANCELLED"
    assert undone(counterpart) == ["child-y", "child-x", "a"]


async def test_a_native_cancel_compensates(calling_out: Executions, counterpart: Counterpart) -> None:
    handle = await with_running_child(calling_out, counterpart, confirm("go"))
    await handle.cancel()
    assert (await calling_out.closed(handle)).closed_as == "CANCELLED"
    assert undone(counterpart) == ["child-y", "child-x", "a"]


async def test_a_cancel_without_compensation_leaves_what_children_did_too(
    calling_out: Executions, counterpart: Counterpart
) -> None:
    reference = await child_of(calling_out, counterpart.url, confirm("ask"))
    many = batch("all", "[1..6]", childWorkflowTemplateVersionId=reference)
    handle = await calling_out.start(line(undoable("a", counterpart.url), many))
    for leaf in await calling_out.children(handle, 6):
        await calling_out.waits_for(leaf, "ask")
    await calling_out.control(handle, "CANCEL", compensate=False)
    assert (await calling_out.closed(handle)).closed_as == "CANCELLED"
    assert undone(counterpart) == []
    assert {row.closed_as for row in await calling_out.rows(handle)} == {"CANCELLED"}


async def test_a_compensator_that_fails_for_good_is_an_incident_and_the_others_go_on(
    calling_out: Executions, counterpart: Counterpart
) -> None:
    counterpart.refused.add("/undo-b")
    steps = [undoable(name, counterpart.url) for name in ("a", "b", "c")]
    handle = await calling_out.start(line(*steps, BAD))
    await counterpart.called("/undo-a")
    for _ in range(100):
        view = await calling_out.view(handle)
        if [wait.kind for wait in view.waiting_for] == ["INCIDENT"]:
            break
        await asyncio.sleep(0.05)
    assert undone(counterpart) == ["c", "b", "a"]
    counterpart.refused.clear()
    await calling_out.control(handle, "RETRY_INCIDENT", "b")
    failure = await failure_of(handle)
    assert failure["code"] == "BROKEN"
    assert undone(counterpart) == ["c", "b", "a", "b"]
    assert len(counterpart.keys["/undo-b"]) == 1

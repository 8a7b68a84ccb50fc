"""Actions that are withdrawn while they run: they hear of it, and the run waits for how they end."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from temporalio.client import WorkflowFailureError

from millrace.actions import Action, ActionFailure, Call, action
from tests.documents import action as act
from tests.documents import arrow, batch, confirm, document, expr, join, line, policy_join, split
from tests.workflows.harness import ACTIONS, Executions, Handle, failure_of


class Seen:
    """What the actions of one test did, by the id of the step."""

    def __init__(self) -> None:
        self.begun: Counter[str] = Counter()
        self.told: Counter[str] = Counter()
        self.undone: list[Any] = []
        self.gate = asyncio.Event()

    async def told_to_stop(self, call: Call) -> None:
        """An attempt that takes a minute, unless it is told to stop: then it notes that, and raises."""
        self.begun[call.step_id] += 1
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            self.told[call.step_id] += 1
            raise

    async def begins(self, step_id: str) -> None:
        """Returns when an attempt of the step runs."""
        while not self.begun[step_id]:
            await asyncio.sleep(0.02)


@pytest.fixture
def seen() -> Seen:
    return Seen()


def actions(seen: Seen) -> list[Action]:
    """One that ends when it is told to, one that then succeeds, one that then fails, and one that does not listen."""

    @action("w.obedient")
    async def obedient(call: Call) -> None:
        """Stops."""
        await seen.told_to_stop(call)

    @action("w.stubborn", idempotent=True, expected_duration=0.5)
    async def stubborn(call: Call, n: int = 1) -> int:
        """Succeeds all the same."""
        try:
            await seen.told_to_stop(call)
        except asyncio.CancelledError:
            await asyncio.sleep(0.3)
        return n

    @action("w.faltering")
    async def faltering(call: Call) -> None:
        """Fails, and says that it may be tried again."""
        try:
            await seen.told_to_stop(call)
        except asyncio.CancelledError:
            raise ActionFailure("FALTERED", "it was disturbed") from None

    return [*ACTIONS, obedient, stubborn, faltering, *_others(seen)]


def _others(seen: Seen) -> list[Action]:
    @action("w.deaf")
    async def deaf(call: Call) -> str:
        """Ends when the test lets it."""
        seen.begun[call.step_id] += 1
        while not seen.gate.is_set():
            try:
                await seen.gate.wait()
            except asyncio.CancelledError:
                seen.told[call.step_id] += 1
        return "done"

    @action("w.undo")
    async def undo(n: Any = None) -> None:
        """Notes what is undone."""
        seen.undone.append(n)

    return [deaf, undo]


@asynccontextmanager
async def working(executions: Executions, seen: Seen) -> AsyncIterator[None]:
    """A worker with these actions; at the end it waits for none of them."""
    async with executions.worker(actions=actions(seen)):
        try:
            yield
        finally:
            seen.gate.set()


UNDO = {"actionKey": "w.undo", "parameters": {"n": expr("__result__")}}


def slow(step_id: str, key: str, **fields: Any) -> dict[str, Any]:
    return act(step_id, actionKey=f"w.{key}", parameters={}, timeout=90, **fields)


def beside(one: dict[str, Any]) -> dict[str, Any]:
    """A step, and beside it one that waits for a person and then fails."""
    arrows = ("start -> s", "s -> go", "go -> bad", "bad -> j", "j -> end")
    more = (f"s -> {one['id']}", f"{one['id']} -> j")
    bad = act("bad", actionKey="test.fail", parameters={})
    return document(split("s"), one, confirm("go"), bad, join("j"), *(arrow(text) for text in (*arrows, *more)))


async def ends(handle: Handle, within: float = 40) -> None:
    with pytest.raises(WorkflowFailureError):
        await asyncio.wait_for(handle.result(), within)


async def test_a_withdrawn_action_hears_of_it_and_is_not_undone(executions: Executions, seen: Seen) -> None:
    async with working(executions, seen):
        handle = await executions.start(beside(slow("one", "obedient", compensate=UNDO)))
        await seen.begins("one")
        await executions.complete(handle, "go")
        assert (await asyncio.wait_for(failure_of(handle), 20))["code"] == "BROKEN"
    assert (seen.told["one"], seen.undone) == (1, [])
    await executions.replay_all()


@pytest.mark.parametrize("local", [[], ["w.stubborn"]], ids=["ordinary", "local"])
@pytest.mark.parametrize("how", ["failure", "cancel"])
async def test_a_withdrawn_action_that_succeeds_all_the_same_is_undone(
    executions: Executions, seen: Seen, local: list[str], how: str
) -> None:
    async with working(executions, seen):
        handle = await executions.start(beside(slow("one", "stubborn", compensate=UNDO)), local_actions=local)
        await seen.begins("one")
        if how == "cancel":
            await handle.cancel()
        else:
            await executions.complete(handle, "go")
        await ends(handle)
        assert (await executions.statuses(handle))["one"] == "COMPENSATED"
    assert (seen.told["one"], seen.undone) == (1, [1])
    await executions.replay_all()


async def test_no_attempt_begins_after_the_withdrawal(executions: Executions, seen: Seen) -> None:
    one = slow("one", "faltering", compensate=UNDO, retry={"maxAttempts": 5, "initialInterval": 0.1})
    async with working(executions, seen):
        handle = await executions.start(beside(one))
        await seen.begins("one")
        await handle.cancel()
        await ends(handle)
    assert (seen.begun["one"], seen.told["one"], seen.undone) == (1, 1, [])
    await executions.replay_all()


async def test_an_action_between_two_attempts_is_withdrawn_at_once(executions: Executions, seen: Seen) -> None:
    one = act("one", actionKey="test.fail", parameters={"retryable": True}, retry={"initialInterval": 60})
    async with working(executions, seen):
        handle = await executions.start(line(one))
        await executions.waits_for(handle, "one")
        await asyncio.sleep(0.5)
        await handle.cancel()
        await ends(handle, 3)
    assert (await executions.closed(handle)).closed_as == "CANCELLED"
    await executions.replay_all()


def raced(rest: str) -> dict[str, Any]:
    """Whoever is first goes on to a step that fails; the other branch is withdrawn."""
    arrows = ("start -> s", "s -> go", "s -> one", "go -> j", "one -> j", "j -> ask", "ask -> bad", "bad -> end")
    bad = act("bad", actionKey="test.fail", parameters={})
    steps = (
        split("s"),
        slow("one", rest, compensate=UNDO),
        confirm("go"),
        policy_join("j", "ANY", cancel=True),
        confirm("ask"),
        bad,
    )
    return document(*steps, *(arrow(text) for text in arrows))


async def test_the_run_goes_on_while_a_withdrawn_branch_is_awaited_and_undoes_it_when_it_fails(
    executions: Executions, seen: Seen
) -> None:
    async with working(executions, seen):
        handle = await executions.start(raced("stubborn"))
        await seen.begins("one")
        await executions.complete(handle, "go")
        view = await executions.waits_for(handle, "ask", "one")
        assert {wait.step_id: wait.kind for wait in view.waiting_for} == {"ask": "PERSON", "one": "WITHDRAWN"}
        await executions.waits_for(handle, "ask")
        await executions.complete(handle, "ask")
        assert (await failure_of(handle))["code"] == "BROKEN"
    assert seen.undone == [1]
    await executions.replay_all()


async def test_a_run_that_waits_for_a_deaf_action_says_so_and_ends_when_it_does(
    executions: Executions, seen: Seen
) -> None:
    async with working(executions, seen):
        handle = await executions.start(line(slow("one", "deaf", compensate=UNDO)))
        await seen.begins("one")
        await handle.cancel()
        view = await executions.waits_for(handle, "one")
        while view.waiting_for[0].kind == "ACTION":
            await asyncio.sleep(0.05)
            view = await executions.view(handle)
        assert view.waiting_for[0].kind == "WITHDRAWN"
        metadata = await handle.query("__temporal_workflow_metadata")
        shown = metadata["currentDetails"] if isinstance(metadata, dict) else metadata.current_details
        assert "WITHDRAWN" in shown
        seen.gate.set()
        await ends(handle)
    assert seen.undone == ["done"]
    await executions.replay_all()


async def test_a_run_that_waits_for_a_deaf_action_can_be_terminated(executions: Executions, seen: Seen) -> None:
    async with working(executions, seen):
        handle = await executions.start(line(slow("one", "deaf")))
        await seen.begins("one")
        await handle.cancel()
        while not seen.told["one"]:
            await asyncio.sleep(0.05)
        await handle.terminate()
        await ends(handle, 3)
        seen.gate.set()


async def test_what_a_withdrawn_chunk_of_children_had_done_is_undone_by_the_run(
    executions: Executions, seen: Seen
) -> None:
    slug = f"leaf-{executions.task_queue[-8:]}"
    first = act("first", actionKey="test.echo", parameters={"n": expr("__context__.n")})
    first["compensate"] = {"actionKey": "w.undo", "parameters": {"n": expr("__result__.n")}}
    await executions.template(slug, line(first, confirm("ask", skipIf="__context__.n < 3")))
    mapping = [{"targetPath": "n", "value": expr("__each__")}]
    reference = {"childWorkflowTemplateVersionId": f"{slug}@1.0.0"}
    many = batch("many", "[1..501]", concurrency=2, inputMapping=mapping, **reference)
    async with working(executions, seen):
        handle = await executions.start(beside(many))
        # One lane begins with 1, the other with 252: the first two are done, and 3 and 252 wait.
        for _ in range(400):
            waiting = [row for row in await executions.rows(handle) if row.parent_id and row.closed_as is None]
            if len(await executions.rows(handle)) == 5 and len(waiting) == 2:
                break
            await asyncio.sleep(0.05)
        await asyncio.sleep(1)
        await executions.complete(handle, "go")
        assert (await asyncio.wait_for(failure_of(handle), 30))["code"] == "BROKEN"
        memory = await executions.memory(handle)
    assert sorted(seen.undone) == [1, 2, 3, 252]
    assert seen.undone[-2:] == [2, 1], "the run undoes what had ended, latest first, after what was running"
    assert sorted(memory["lost"]["fans"]["many#1"]["results"]) == ["0", "1"]
    await executions.replay_all()

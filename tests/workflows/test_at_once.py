"""Requests that come together, in one workflow task: the second is judged as if it had come later."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from temporalio.client import WorkflowUpdateFailedError
from temporalio.service import RPCError

from tests.documents import action, confirm, line, step
from tests.workflows.harness import Executions, Handle, refused

DELAY = step("later", "SYS_DELAY", duration="PT1H")
PARKED = action("bad", actionKey="test.fail", onFailure="INCIDENT", retry={"maxAttempts": 1})
ASKS = action("ask", actionKey="test.ask", parameters={"question": "why?"})


async def said(asked: Awaitable[Any]) -> str:
    """What became of a request: the status, or the code of the refusal."""
    try:
        return str(await asked)
    except WorkflowUpdateFailedError as error:
        return str(getattr(error.cause, "type", None))


async def together(
    executions: Executions, step_: dict[str, Any], *asking: Callable[[Handle], Awaitable[Any]]
) -> tuple[Handle, list[str]]:
    """What becomes of requests that a run finds waiting when its worker comes back."""
    async with executions.worker():
        handle = await executions.start(line(step_, confirm("last")))
        for _ in range(200):
            waits = (await executions.view(handle)).waiting_for
            if waits and waits[0].kind in ("TIMER", "INCIDENT", "SUSPENDED", "PERSON"):
                break
            await asyncio.sleep(0.05)
    answers = []
    for ask in asking:
        answers.append(asyncio.create_task(said(ask(handle))))
        # They are judged in the order in which they came.
        await asyncio.sleep(0.1)
    async with executions.worker():
        found = list(await asyncio.gather(*answers))
        with contextlib.suppress(RPCError):
            await handle.terminate()
    await executions.replay_all()
    return handle, found


@pytest.mark.parametrize(
    ("step_", "first", "second", "answer"),
    [
        (DELAY, ("PAUSE", None), ("PAUSE", None), "UNCHANGED"),
        (DELAY, ("PAUSE", None), ("RESUME", None), "APPLIED"),
        (DELAY, ("CANCEL", None), ("CANCEL", None), "UNCHANGED"),
        (DELAY, ("SKIP_TIMER", "later"), ("SKIP_TIMER", "later"), "NO_TIMER"),
        (PARKED, ("COMPLETE_INCIDENT", "bad"), ("FAIL_INCIDENT", "bad"), "NO_INCIDENT"),
        (ASKS, ("RESUME_STEP", "ask"), ("RESUME_STEP", "ask"), "STEP_NOT_OPEN"),
        (ASKS, ("PAUSE", None), ("RESUME_STEP", "ask"), "APPLIED"),
    ],
)
async def test_the_second_of_two_requests_that_come_together_knows_of_the_first(
    executions: Executions,
    step_: dict[str, Any],
    first: tuple[str, str | None],
    second: tuple[str, str | None],
    answer: str,
) -> None:
    _, found = await together(
        executions,
        step_,
        lambda handle: executions.control(handle, *first),
        lambda handle: executions.control(handle, *second),
    )
    assert found == ["APPLIED", answer]


async def test_of_two_people_who_answer_together_the_second_is_told_what_was_taken(executions: Executions) -> None:
    async def answer(handle: Handle, who: str, outcome: str) -> str:
        done = await executions.complete(handle, "person", outcome=outcome, completed_by=who)
        return f"{done['output']['completedBy']}: {done['output']['outcome']}"

    _, found = await together(
        executions,
        step("person", "HUMAN_CONFIRM", outcomes=["yes", "no"]),
        lambda handle: answer(handle, "ann", "yes"),
        lambda handle: answer(handle, "bob", "no"),
        lambda handle: answer(handle, "cyd", "yes"),
    )
    assert found == ["ann: yes", "STEP_ALREADY_COMPLETED", "ann: yes"]


async def test_a_completed_step_gives_its_first_answer_to_the_same_and_refuses_another(running: Executions) -> None:
    person = step("person", "HUMAN_CONFIRM", outcomes=["yes", "no"])
    handle = await running.start(line(person, confirm("last")))
    await running.waits_for(handle, "person")
    first = await running.complete(handle, "person", outcome="yes", completed_by="ann")
    assert await running.complete(handle, "person", outcome="yes", completed_by="bob") == first
    for other in ({"outcome": "no"}, {"outcome": "yes", "comment": "but"}, {"outcome": "yes", "visit": 1, "data": 1}):
        assert await refused(running.complete(handle, "person", **other)) == "STEP_ALREADY_COMPLETED"
    with pytest.raises(WorkflowUpdateFailedError) as refusal:
        await running.complete(handle, "person", outcome="no", completed_by="bob")
    assert "ann" in str(refusal.value.cause)
    assert "yes" in str(refusal.value.cause)
    await running.complete(handle, "last")
    await handle.result()

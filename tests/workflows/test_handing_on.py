"""What one run hands on to the next, on a server that suggests that after sixty events: not too much, and all of it."""

import asyncio
import itertools

from sqlmodel import select

from app.db.tables import DeadLetter
from app.run_contracts import COMPLETE_STEP, StepCompletion
from tests.documents import action, arrow, confirm, document, expr, join, line, split
from tests.workflows.harness import Executions, failure_of
from tests.workflows.test_long_runs import runs_of


async def test_a_run_whose_state_is_too_large_for_its_next_run_fails_and_does_not_stand_still(
    renewed: Executions,
) -> None:
    megabyte = {"n": expr("$pad('', 1000000, 'x')")}
    items = {"iterable": {"type": "EXPRESSION", "expr": {"src": "[1..30]"}}, "concurrency": 10}
    steps = [action(f"step{number}", parameters=megabyte, forEach=items) for number in range(3)]
    handle = await renewed.start(line(*steps, confirm("ask")))
    failure = await failure_of(handle)
    assert failure["code"] == "STATE_TOO_LARGE"
    assert await runs_of(handle, renewed.client) >= 2, "what fits was passed on before"
    assert (await renewed.closed(handle)).closed_as == "FAILED"
    async with renewed.database.transaction() as session:
        [letter] = (await session.execute(select(DeadLetter))).scalars()
    assert (letter.code, letter.state) == ("STATE_TOO_LARGE", None), "a retry asks the run for it"


async def test_the_next_run_closes_rows_also_right_after_very_many_were_opened_at_once(renewed: Executions) -> None:
    # The rows of one moment are a millisecond apart, so that the last ones are two seconds ahead of the clock.
    items = {"iterable": {"type": "EXPRESSION", "expr": {"src": "[1..500]"}}, "concurrency": 500}
    calls = [action(f"call{number}", parameters={"n": number}) for number in range(8)]
    asks = [confirm(f"ask{number}", forEach=items) for number in range(4)]
    pairs = [("start", "call0"), *itertools.pairwise([*(one["id"] for one in calls), "s"]), ("j", "end")]
    pairs += [pair for one in asks for pair in (("s", one["id"]), (one["id"], "j"))]
    definition = document(*calls, *asks, split("s"), join("j"), *(arrow(f"{one} -> {other}") for one, other in pairs))
    handle = await renewed.start(definition)
    latest = renewed.client.get_workflow_handle(handle.id)
    while "ask3" not in await renewed.statuses(latest):
        await asyncio.sleep(0.02)
    for item in itertools.count():
        await latest.execute_update(COMPLETE_STEP, StepCompletion(step_id="ask0", item=item))
        if (await latest.describe()).run_id != handle.first_execution_run_id:
            break
    await latest.execute_update(COMPLETE_STEP, StepCompletion(step_id="ask3", item=499))
    async with renewed.database.driver() as connection:
        for _ in range(40):
            row = await connection.fetchrow(
                "SELECT status, opened_at, now() FROM human_task WHERE key = 'ask3#1/item/499'"
            )
            if row["status"] == "COMPLETED":
                break
            await asyncio.sleep(0.1)
    await latest.terminate()
    assert row["status"] == "COMPLETED", row

"""One execution with very many steps, and one with very many children."""

import os
import time
from typing import Any

from tests.documents import arrow, batch, document, expr, join, line, put, split
from tests.workflows.outages import House, a_house

ROUNDS = (3_333, 16_666, 33_333)
STEPS_A_ROUND = 3
CHILDREN = int(os.environ.get("SOAK_CHILDREN", "10000"))
MEGABYTE = 1024 * 1024
MOST_EVENTS = 51_200
FLAT = 1.5


async def many_steps() -> dict[str, Any]:
    """About 10,000, 50,000 and 100,000 steps in one execution; the cost of a step must not grow with their number."""
    figures = []
    async with a_house() as house:
        await _counted(house, 100)
        for rounds in ROUNDS:
            figures.append(await _counted(house, rounds))
    costs = [one["microsecondsAStep"] for one in figures]
    assert costs[-1] <= FLAT * costs[0], costs
    return {"runs": figures}


async def _counted(house: House, rounds: int) -> dict[str, Any]:
    definition = document(
        join("again", "EXCLUSIVE"),
        put("count", n=expr("__context__.n + 1")),
        split("x", "EXCLUSIVE"),
        arrow("start -> again"),
        arrow("again -> count"),
        arrow("count -> x"),
        arrow("x -> again", condition=f"__context__.n < {rounds}"),
        arrow("x -> end", isDefault=True),
        limits={"maxSteps": 1_000_000, "maxStepVisits": 1_000_000},
    )
    began = time.monotonic()
    handle = await house.executions.start(definition, {"n": 0})
    assert await handle.result() == {"n": rounds}
    seconds = time.monotonic() - began
    steps = rounds * STEPS_A_ROUND
    return {
        "steps": steps,
        "seconds": round(seconds, 2),
        "microsecondsAStep": round(seconds / steps * 1e6, 1),
        "historyEvents": (await handle.describe()).history_length,
        "workerMegabytes": house.worker_bytes() // MEGABYTE,
    }


async def many_children() -> dict[str, Any]:
    """A BATCH of ten thousand children (SOAK_CHILDREN says otherwise): all there, in order, in histories that fit."""
    async with a_house() as house:
        slug = f"leaf-{house.executions.task_queue[-8:]}"
        await house.executions.template(slug, line(put("set", n=expr("__context__.n * 2"))))
        mapping = [{"targetPath": "n", "value": expr("__each__")}]
        many = batch("all", "__context__.items", concurrency=100, childWorkflowTemplateVersionId=f"{slug}@1.0.0")
        began = time.monotonic()
        handle = await house.executions.start(
            line({**many, "inputMapping": mapping}, output=expr("$count(__steps__.all)")),
            {"items": list(range(CHILDREN))},
        )
        count = await handle.result()
        seconds = time.monotonic() - began
        assert count == CHILDREN
        rows = await house.executions.rows(handle)
        assert len(rows) == CHILDREN + 1
        assert {row.closed_as for row in rows} == {"COMPLETED"}
        longest = 0
        async for run in house.executions.client.list_workflows("WorkflowType = 'millrace.batch'"):
            longest = max(longest, run.history_length)
        events = (await handle.describe()).history_length
        assert max(events, longest) < MOST_EVENTS
        return {
            "children": CHILDREN,
            "seconds": round(seconds, 1),
            "childrenASecond": round(CHILDREN / seconds, 1),
            "historyEvents": events,
            "longestChunkHistory": longest,
            "workerMegabytes": house.worker_bytes() // MEGABYTE,
        }

"""Batches that run in chunks: of the same children, with the same numbers, names and order as any other."""

from collections import Counter

from tests.documents import action, batch, expr, line, put
from tests.workflows.harness import Executions, event_types, failure_of


async def test_a_batch_of_many_items_runs_in_chunks_and_its_output_is_whole(cached: Executions) -> None:
    slug = f"leaf-{cached.task_queue[-8:]}"
    await cached.template(slug, line(put("double", n=expr("__context__.n * 2")), output=expr("__context__.n")))
    mapping = [{"targetPath": "n", "value": expr("__each__ + __index__")}]
    many = batch(
        "all", "[1..620]", concurrency=40, childWorkflowTemplateVersionId=f"{slug}@1.0.0", inputMapping=mapping
    )
    handle = await cached.start(line(many, output=expr("__steps__.all")))
    assert await handle.result() == [2 * (n + n - 1) for n in range(1, 621)]
    rows = await cached.rows(handle)
    parents = {row.parent_id for row in rows}
    assert len(rows) == 621
    assert len(parents) == 2, "every child names the execution itself as its parent"
    assert {row.closed_as for row in rows} == {"COMPLETED"}
    assert "all 620/620" in {row.name for row in rows}
    counts = Counter(await event_types(handle))
    assert counts["child_workflow_execution_completed"] == 2
    assert sum(counts.values()) < 60


async def test_a_failure_in_one_chunk_withdraws_the_others(cached: Executions) -> None:
    slug = f"leaf-{cached.task_queue[-8:]}"
    fails = action("fail", actionKey="test.fail", skipIf="__context__.n != 7")
    await cached.template(slug, line(fails))
    mapping = [{"targetPath": "n", "value": expr("__each__")}]
    many = batch(
        "all", "[1..600]", concurrency=20, childWorkflowTemplateVersionId=f"{slug}@1.0.0", inputMapping=mapping
    )
    handle = await cached.start(line(many))
    failure = await failure_of(handle)
    assert failure["code"] == "BROKEN"
    assert failure["stepId"] == "all"
    assert "item 6" in failure["message"]
    assert all(row.closed_as is not None for row in await cached.rows(handle) if row.status != "CREATED")

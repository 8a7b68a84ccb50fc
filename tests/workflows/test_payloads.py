"""Large values and definitions in runs: kept outside history, read wherever they are wanted, over outages too."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import func
from sqlmodel import select
from temporalio.client import Client

from app.contracts import workflow_id
from app.db.payload_tables import PayloadBlob
from app.payloads.storage import WORKER_PATIENCE, PayloadStorage
from app.settings import DatabaseSettings, PayloadSettings
from millrace.actions import action as declared
from tests.documents import action, batch, child, expr, line, put
from tests.wire_cutter import Relay
from tests.workflows.harness import ACTIONS, Executions, Handle

MEBIBYTE = 1024 * 1024


@declared("test.large")
async def large(letter: str, size: int) -> str:
    """A text of so many letters."""
    return letter * size


@declared("test.measure")
async def measure(text: str) -> int:
    """How long a text is."""
    return len(text)


MORE_ACTIONS = (*ACTIONS, large, measure)


@pytest.fixture
async def running(executions: Executions) -> AsyncIterator[Executions]:
    """Executions with a worker that has the actions of this module; every history is replayed in the end."""
    async with executions.worker(actions=MORE_ACTIONS):
        yield executions
    await executions.replay_all()


def produce(size: int, letter: str, **fields: Any) -> dict[str, Any]:
    """A step that gives a text."""
    return action("large", actionKey="test.large", parameters={"letter": letter, "size": size}, **fields)


MEASURE = action("measure", actionKey="test.measure", parameters={"text": expr("__steps__.large")})


async def history_bytes(handle: Handle) -> list[int]:
    """The size of each event of a run."""
    return [event.ByteSize() for event in (await handle.fetch_history()).events]


async def blob_sizes(executions: Executions) -> tuple[int, int]:
    """How many values are stored, and the bytes of all of them."""
    async with executions.database.transaction() as session:
        found = await session.execute(select(func.count(), func.coalesce(func.sum(PayloadBlob.size), 0)))
        return tuple(found.one())  # type: ignore[return-value]


async def test_a_large_result_flows_to_a_later_step_and_to_the_output_and_leaves_history_small(
    running: Executions,
) -> None:
    definition = line(
        produce(MEBIBYTE, "a"),
        MEASURE,
        output={"length": expr("__steps__.measure"), "text": expr("__steps__.large")},
    )
    handle = await running.start(definition)
    output = await asyncio.wait_for(handle.result(), 30)
    assert output == {"length": MEBIBYTE, "text": "a" * MEBIBYTE}
    sizes = await history_bytes(handle)
    assert max(sizes) < 1_500, sizes
    assert sum(sizes) < 12_000, sizes


async def test_a_result_of_seven_mebibytes_is_none_too_large(running: Executions) -> None:
    definition = line(produce(7 * MEBIBYTE, "b", timeout=30), MEASURE, output=expr("__steps__.measure"))
    handle = await running.start(definition)
    assert await asyncio.wait_for(handle.result(), 60) == 7 * MEBIBYTE
    assert sum(await history_bytes(handle)) < 12_000


async def test_a_large_output_of_a_child_reaches_its_parent(running: Executions) -> None:
    slug = f"leaf-{running.task_queue[-8:]}"
    await running.template(slug, line(produce(200_000, "c"), output=expr("__steps__.large")))
    fields = {"childWorkflowTemplateVersionId": f"{slug}@1.0.0"}
    handle = await running.start(line(child("sub", **fields), output=expr("$length(__steps__.sub)")))
    assert await asyncio.wait_for(handle.result(), 30) == 200_000
    assert sum(await history_bytes(handle)) < 12_000


async def test_a_large_definition_with_fifty_children_is_copied_into_no_history(running: Executions) -> None:
    before, bytes_before = await blob_sizes(running)
    slug = f"leaf-{running.task_queue[-8:]}"
    padding = 200_000 * "d"
    pad = put("pad", pad={"type": "const", "value": padding})
    await running.template(slug, line(pad, output=expr("__context__.n")))
    mapping = [{"targetPath": "n", "value": expr("__each__")}]
    fields = {"childWorkflowTemplateVersionId": f"{slug}@1.0.0", "inputMapping": mapping, "concurrency": 10}
    parent = line(pad, batch("all", "[1..50]", **fields))
    handle = await running.start({**parent, "output": expr("$sum(__steps__.all)")})
    assert await asyncio.wait_for(handle.result(), 90) == sum(range(1, 51))
    sizes = await history_bytes(handle)

    assert sum(sizes) < 200_000
    assert max(sizes) < 30_000, "the answer of register_children names fifty children, and no definition"
    ofchildren = []
    for row in await running.rows(handle):
        if row.parent_id is not None:
            run = running.client.get_workflow_handle(workflow_id(row.id))
            ofchildren.append(sum(await history_bytes(run)))

    assert len(ofchildren) == 50
    assert max(ofchildren) < 8_000
    after, bytes_after = await blob_sizes(running)
    assert (after - before, bytes_after - bytes_before < 420_000) == (2, True), "one blob for each definition"


@pytest.fixture
async def over_relay(
    temporal_client: Client, executions: Executions, relayed_database_url: str
) -> AsyncIterator[Executions]:
    """Executions whose stored values, and nothing else, go over the wire that can be cut."""
    settings = DatabaseSettings(connect_timeout=0.5)
    storage = PayloadStorage(relayed_database_url, PayloadSettings(cache_bytes=0), settings, WORKER_PATIENCE)
    client = Client(temporal_client.service_client, data_converter=storage.converter)
    yield Executions(client, executions.database, executions.task_queue, storage.converter)
    await storage.close()


@pytest.mark.parametrize("seconds", [2.0, 9.0], ids=["a moment", "longer than a task waits"])
async def test_a_run_survives_that_its_results_cannot_be_stored_for_a_while(
    over_relay: Executions, postgres_relay: Relay, seconds: float
) -> None:
    retry = {"maxAttempts": 20, "initialInterval": 0.2, "backoff": "fixed"}
    steps = (
        action("first", actionKey="test.sleep", parameters={"seconds": 1}),
        produce(100_000 + int(seconds), "e", timeout=5, retry=retry),
        {**MEASURE, "timeout": 5, "retry": retry},
    )
    async with over_relay.worker(actions=MORE_ACTIONS):
        handle = await over_relay.start(line(*steps, output=expr("__steps__.measure")))
        await over_relay.waits_for(handle, "first")
        await postgres_relay.cut()
        await asyncio.sleep(1 + seconds)
        assert (await handle.describe()).close_time is None
        await postgres_relay.mend()
        assert await asyncio.wait_for(handle.result(), 60) == 100_000 + int(seconds)


async def test_a_run_whose_definition_cannot_be_read_waits_for_it(
    over_relay: Executions, postgres_relay: Relay
) -> None:
    handle = await over_relay.start(line(put("note", done=True), output=expr("__context__.done")))
    await postgres_relay.cut()
    async with over_relay.worker(actions=MORE_ACTIONS):
        await asyncio.sleep(8)
        assert (await handle.describe()).close_time is None
        await postgres_relay.mend()
        assert await asyncio.wait_for(handle.result(), 60) is True

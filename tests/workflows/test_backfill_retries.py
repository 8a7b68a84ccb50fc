"""A backfill's workflow that is told of a retry in the very moment in which it ends."""

from temporalio.client import Client

from tests.workflows.memory_blobs import MemoryBlobs
from tests.workflows.recorded_ways_in import told_at_the_end
from tests.workflows.test_histories import replayer


async def test_a_change_that_comes_with_the_end_is_looked_at(temporal_client: Client) -> None:
    handle, calls = await told_at_the_end(temporal_client)
    assert calls == 2
    await replayer(MemoryBlobs()).replay_workflow(await handle.fetch_history())

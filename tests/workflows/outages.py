"""Servers that go away in the middle of runs, and come back: what is done meanwhile, and what must hold after."""

import asyncio
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
import pytest
from temporalio.client import Client

from app.db.migrate import migrate
from app.embedded import EmbeddedPostgres, EmbeddedTemporal, start_postgres, start_temporal
from app.payloads.errors import PayloadUnavailable
from app.processes import OwnProcess
from tests.documents import action, batch, child, confirm, expr, line, step
from tests.workflows.counterpart import Counterpart, call, serving_counterpart
from tests.workflows.harness import Executions, Handle, event_types, executions_on
from tests.workflows.killing import Workers


@dataclass
class House:
    """Servers that can be stopped and started again, a worker process, and the other side of its calls."""

    home: Path
    postgres: EmbeddedPostgres
    temporal: EmbeddedTemporal
    executions: Executions
    counterpart: Counterpart
    started: list[OwnProcess]
    workers: Workers

    def worker_bytes(self) -> int:
        """The memory that the workers hold."""
        return sum(int(psutil.Process(one.pid).memory_info().rss) for one in self.workers.processes if not one.ended())

    async def restart_temporal(self, number: signal.Signals) -> None:
        """Ends the server, and starts it where it was."""
        os.kill(self.temporal.process.pid, number)
        await self.temporal.process.stop()
        port = int(self.temporal.address.rpartition(":")[2])
        self.temporal = await start_temporal(self.home, self.started.append, port=port)

    async def called(self, step_id: str, times: int = 1) -> None:
        await self.counterpart.called(f"/{step_id}", times)

    def call(self, step_id: str, **fields: Any) -> dict[str, Any]:
        """A step that calls the counterpart."""
        return call(step_id, self.counterpart.url, **fields)


@asynccontextmanager
async def a_house(answering_after: float = 0.0, **environment: str) -> AsyncIterator[House]:
    """Everything, with its data on disk; `environment` is added to that of the workers."""
    home = Path(tempfile.mkdtemp(prefix="mr-", dir="/tmp"))
    started: list[OwnProcess] = []
    try:
        postgres = await start_postgres(home, started.append)
        temporal = await start_temporal(home, started.append)
        await migrate(postgres.url())
        client = await Client.connect(temporal.address)
        async with executions_on(client, postgres.url()) as executions:
            workers = Workers(executions.task_queue, temporal.address, postgres.url(), home)
            workers.environment |= environment
            workers.start()
            async with serving_counterpart(answering_after) as counterpart:
                yield House(home, postgres, temporal, executions, counterpart, started, workers)
            await executions.replay_all()
            await workers.stop()
    finally:
        for process in reversed(started):
            await process.stop()
        shutil.rmtree(home, ignore_errors=True)


async def ends_well(house: House, *handles: Handle) -> None:
    """Returns when the runs have completed, and their rows and those of their children say so."""
    for handle in handles:
        assert (await asyncio.wait_for(house.executions.closed(handle), 60)).closed_as == "COMPLETED"
        assert {row.closed_as for row in await house.executions.rows(handle)} == {"COMPLETED"}


async def restarted(house: House, number: signal.Signals) -> None:
    """Restarts Temporal while runs are under way; they must go on, and repeat nothing that was complete."""
    executions, name = house.executions, f"{number.name}-{uuid4().hex[:4]}"
    leaf = f"leaf-{uuid4().hex[:8]}"
    await executions.template(leaf, line(house.call(f"{name}-wait-child")))
    signalled, early = (step(name, "SYS_WAIT_SIGNAL", signal=name) for name in ("paid", "early"))
    documents = {
        "action": line(house.call(f"{name}-a"), house.call(f"{name}-wait"), house.call(f"{name}-b")),
        "timer": line(step("delay", "SYS_DELAY", duration=4), house.call(f"{name}-c")),
        "signal": line(signalled, early, house.call(f"{name}-d")),
        "person": line(confirm("ask"), house.call(f"{name}-e")),
        "child": line(child("sub", childWorkflowTemplateVersionId=f"{leaf}@1.0.0"), house.call(f"{name}-f")),
    }
    handles = {kind: await executions.start(document) for kind, document in documents.items()}
    await house.called(f"{name}-wait")
    await house.called(f"{name}-wait-child")
    await executions.waits_for(handles["person"], "ask")
    await executions.waits_for(handles["signal"], "paid")
    assert await executions.deliver(handles["signal"], "early") == "BUFFERED"
    await house.restart_temporal(number)
    await executions.complete(handles["person"], "ask")
    assert await executions.deliver(handles["signal"], "paid") == "DELIVERED"
    house.counterpart.gate.set()
    await ends_well(house, *handles.values())
    house.counterpart.gate.clear()
    calls = {path: count for path, count in house.counterpart.calls.items() if path.startswith(f"/{name}-")}
    assert {path for path, count in calls.items() if count > 1 and "wait" not in path} == set()
    assert len(calls) == 8
    assert all(len(house.counterpart.keys[path]) == 1 for path in calls)


async def away(house: House, seconds: float) -> None:
    """Takes Postgres away for so long, while runs start, wait, spawn children, fail and complete."""
    executions = house.executions
    leaf = f"leaf-{uuid4().hex[:8]}"
    await executions.template(leaf, line(action("call", parameters={"n": expr("__context__.n")})))
    mapping = [{"targetPath": "n", "value": expr("__each__")}]
    spawns = batch("all", "[1..5]", childWorkflowTemplateVersionId=f"{leaf}@1.0.0", inputMapping=mapping)
    spawning = await executions.start(line(confirm("ask"), spawns, output=expr("$count(__steps__.all)")))
    completing = await executions.start(line(confirm("ask"), house.call("away-once")))
    waiting = await executions.start(line(step("paid", "SYS_WAIT_SIGNAL", signal="paid"), confirm("ask")))
    failing = await executions.start(line(confirm("ask"), action("bad", actionKey="test.fail")))
    for handle in (spawning, completing, failing):
        await executions.waits_for(handle, "ask")
    await executions.waits_for(waiting, "paid")
    prepared = await executions.prepare(line(action("call")))
    await house.postgres.process.stop()
    begun = asyncio.get_running_loop().time()
    for handle in (spawning, completing, failing):
        await executions.complete(handle, "ask")
    with pytest.raises(PayloadUnavailable):
        await executions.launch(prepared)
    assert await executions.deliver(waiting, "paid") == "DELIVERED"
    await executions.waits_for(waiting, "ask")
    await executions.complete(waiting, "ask")
    await asyncio.sleep(max(0.0, seconds - (asyncio.get_running_loop().time() - begun)))
    house.postgres = await start_postgres(house.home, house.started.append)
    starting = await executions.launch(prepared)
    await ends_well(house, spawning, completing, waiting, starting)
    assert await spawning.result() == 5
    assert len(await executions.rows(spawning)) == 6
    assert (await executions.closed(failing)).closed_as == "FAILED"
    assert house.counterpart.calls["/away-once"] == 1


async def recorded(house: House, seconds: float) -> None:
    """Takes Postgres away for so long while a run asks a person: the row is there after, and retries cost no events."""
    executions = house.executions
    handle = await executions.start(line(step("paid", "SYS_WAIT_SIGNAL", signal="paid"), confirm("ask")))
    await executions.waits_for(handle, "paid")
    await house.postgres.process.stop()
    begun = asyncio.get_running_loop().time()
    await executions.deliver(handle, "paid")
    await executions.waits_for(handle, "ask")
    while "activity_task_scheduled" not in await event_types(handle):
        assert asyncio.get_running_loop().time() - begun < 20, "nothing but local activities is tried"
        await asyncio.sleep(0.2)
    count = len(await event_types(handle))
    await asyncio.sleep(max(0.0, seconds - (asyncio.get_running_loop().time() - begun)))
    assert len(await event_types(handle)) == count
    house.postgres = await start_postgres(house.home, house.started.append)
    for _ in range(400):
        async with executions.database.driver() as connection:
            statuses = await connection.fetch("SELECT status FROM human_task WHERE step_id = 'ask' AND key = 'ask#1'")
        if [row["status"] for row in statuses if row["status"] == "OPEN"]:
            break
        await asyncio.sleep(0.1)
    else:
        raise AssertionError("the row was never written")
    await executions.complete(handle, "ask")
    await ends_well(house, handle)

"""Records histories for `histories/`: `python -m tests.workflows.record`.

Each change of what the driver does leaves a recording here, and all of them are replayed in CI for ever. A file that
exists is never written again: delete it only when no run that old can still be open anywhere.
"""

import asyncio
import contextlib
import json
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

from temporalio.client import Client, WorkflowFailureError
from temporalio.contrib.pydantic import pydantic_data_converter

from app.contracts import COMPLETE_STEP, StepCompletion
from app.db.migrate import migrate
from app.db.session import Database
from app.embedded import embedded_servers
from app.settings import Settings
from tests.documents import action, arrow, batch, child, confirm, document, expr, join, line, put, split
from tests.workflows.harness import Executions, Handle

FOLDER = Path(__file__).with_name("histories")
LEAF = "recorded-leaf"


async def everything(executions: Executions) -> Handle:
    """Actions, gateways of all kinds, a loop, a person, a child and a batch, to a good end."""
    mapping = [{"targetPath": "n", "value": expr("__each__")}]
    reference = {"childWorkflowTemplateVersionId": f"{LEAF}@1.0.0"}
    definition = document(
        split("all"),
        action("call", parameters={"n": 1}),
        confirm("person", outcomes=["yes", "no"], timeout=600),
        child("one", inputMapping=[{"targetPath": "n", "value": 5}], **reference),
        batch("many", "[1..5]", concurrency=2, inputMapping=mapping, **reference),
        join("met"),
        split("some", "INCLUSIVE"),
        put("a", a=1),
        put("b", b=1),
        put("c", c=1),
        join("those", "INCLUSIVE"),
        join("again", "EXCLUSIVE"),
        action("poll", parameters={"n": 2}),
        put("count", n=expr("(__context__.n ?? 0) + 1")),
        split("more", "EXCLUSIVE"),
        arrow("start -> all"),
        *(arrow(f"all -> {name}") for name in ("call", "person", "one", "many")),
        *(arrow(f"{name} -> met") for name in ("call", "person", "one", "many")),
        arrow("met -> some"),
        arrow("some -> a", condition="true"),
        arrow("some -> b", condition="__steps__.person.outcome = 'yes'"),
        arrow("some -> c", isDefault=True),
        *(arrow(f"{name} -> those") for name in "abc"),
        arrow("those -> again"),
        arrow("again -> poll"),
        arrow("poll -> count"),
        arrow("count -> more"),
        arrow("more -> again", condition="__context__.n < 3"),
        arrow("more -> end", isDefault=True),
    )
    handle = await executions.start(definition)
    while not any(wait.step_id == "person" for wait in (await executions.view(handle)).waiting_for):
        await asyncio.sleep(0.05)
    await handle.execute_update(COMPLETE_STEP, StepCompletion(step_id="person", outcome="yes"))
    await handle.result()
    return handle


async def failure(executions: Executions) -> Handle:
    """An action fails for good while another still runs."""
    definition = document(
        split("s"),
        action("slow", actionKey="test.sleep", parameters={"seconds": 30}, timeout=60),
        action("bad", actionKey="test.fail", parameters={"retryable": True}, retry={"maxAttempts": 2}),
        join("j"),
        *(arrow(f"s -> {name}") for name in ("slow", "bad")),
        *(arrow(f"{name} -> j") for name in ("slow", "bad")),
        arrow("start -> s"),
        arrow("j -> end"),
    )
    return await _ended(await executions.start(definition))


async def cancelled(executions: Executions) -> Handle:
    """Cancelled while it waits for a person, an action and a child's action."""
    definition = document(
        split("s"),
        action("slow", actionKey="test.sleep", parameters={"seconds": 30}, timeout=60),
        confirm("person"),
        child("sub", childWorkflowTemplateVersionId="recorded-slow@1.0.0"),
        join("j"),
        *(arrow(f"s -> {name}") for name in ("slow", "person", "sub")),
        *(arrow(f"{name} -> j") for name in ("slow", "person", "sub")),
        arrow("start -> s"),
        arrow("j -> end"),
    )
    handle = await executions.start(definition)
    await executions.waits_for(handle, "slow", "person", "sub")
    while len(await executions.rows(handle)) < 2:
        await asyncio.sleep(0.05)
    await asyncio.sleep(0.5)
    await handle.cancel()
    return await _ended(handle)


async def many_pure_steps(executions: Executions) -> Handle:
    """A pure loop long enough to yield."""
    definition = document(
        join("again", "EXCLUSIVE"),
        put("count", n=expr("(__context__.n ?? 0) + 1")),
        split("x", "EXCLUSIVE"),
        arrow("start -> again"),
        arrow("again -> count"),
        arrow("count -> x"),
        arrow("x -> again", condition="__context__.n < 1000"),
        arrow("x -> end", isDefault=True),
        limits={"maxSteps": 100_000, "maxStepVisits": 100_000},
    )
    return await _ended(await executions.start(definition))


async def keyed(executions: Executions) -> Handle:
    """A timer, a child and a batch whose summaries in history end with their keys."""
    reference = {"childWorkflowTemplateVersionId": f"{LEAF}@1.0.0"}
    mapping = [{"targetPath": "n", "value": expr("__each__")}]
    definition = line(
        confirm("person", timeout=600),
        child("one", inputMapping=[{"targetPath": "n", "value": 5}], **reference),
        batch("many", "[1..2]", inputMapping=mapping, **reference),
    )
    handle = await executions.start(definition)
    await executions.waits_for(handle, "person")
    await handle.execute_update(COMPLETE_STEP, StepCompletion(step_id="person"))
    return await _ended(handle)


SCENARIOS: dict[str, Callable[[Executions], Awaitable[Handle]]] = {
    "everything": everything,
    "failure": failure,
    "cancelled": cancelled,
    "many-pure-steps": many_pure_steps,
    "keyed": keyed,
}


async def _ended(handle: Handle) -> Handle:
    with contextlib.suppress(WorkflowFailureError):
        await handle.result()
    return handle


async def record() -> None:
    """Plays each scenario that has no file yet, and writes its history."""
    missing = {name: play for name, play in SCENARIOS.items() if not (FOLDER / f"{name}.json").exists()}
    with tempfile.TemporaryDirectory(dir="/tmp") as home:
        async with embedded_servers(Settings(home=Path(home))) as settings:
            url = settings.database.url
            assert url is not None
            assert settings.temporal.address is not None
            await migrate(url.get_secret_value())
            client = await Client.connect(
                settings.temporal.address, data_converter=pydantic_data_converter, identity="recorder"
            )
            database = Database(url.get_secret_value())
            executions = Executions(client, database, f"q-{uuid4().hex}")
            async with executions.worker():
                await executions.template(LEAF, line(action("call", parameters={"n": expr("__context__.n")})))
                slow = action("slow", actionKey="test.sleep", parameters={"seconds": 30}, timeout=60)
                await executions.template("recorded-slow", line(slow))
                for name, play in missing.items():
                    history = await (await play(executions)).fetch_history()
                    (FOLDER / f"{name}.json").write_text(_without_traces(history.to_json()))
            await database.close()


def _without_traces(text: str) -> str:
    """A history without stack traces, which tell of the machine it was recorded on and of nothing else."""
    return json.dumps(_trimmed(json.loads(text)), indent=2) + "\n"


def _trimmed(value: Any) -> Any:
    match value:
        case dict():
            return {key: _trimmed(member) for key, member in value.items() if key != "stackTrace"}
        case list():
            return [_trimmed(item) for item in value]
        case _:
            return value


if __name__ == "__main__":
    asyncio.run(record())

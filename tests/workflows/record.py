"""Records histories for `histories/`: `python -m tests.workflows.record`.

Each change of what the driver does leaves a recording here, and all of them are replayed in CI for ever. A file that
exists is never written again: delete it only when no run that old can still be open anywhere.
"""

import asyncio
import base64
import contextlib
import json
import re
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

from temporalio.client import Client, WorkflowFailureError

from app.db.migrate import migrate
from app.db.session import Database
from app.embedded import embedded_servers
from app.payloads.postgres import READ
from app.run_contracts import COMPLETE_STEP, StepCompletion
from app.settings import Settings
from tests.documents import action, arrow, batch, child, confirm, document, expr, join, line, put, split
from tests.workflows.harness import Executions, Handle, executions_on
from tests.workflows.memory_blobs import dump_blobs
from tests.workflows.recorded_runs import (
    asked_together,
    awaited,
    counted,
    migrated,
    moved,
    rows_insisted_on,
    steered,
    undone,
    withdrawn_chunk,
)
from tests.workflows.recorded_ways_in import backfilled, delivering, ticked, told_at_the_end, waited, withdrawn_tick

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


async def stored_values(executions: Executions) -> Handle:
    """A result too large for history, handed to a second action and to a child, and given as the output."""
    mapping = [{"targetPath": "n", "value": expr("__steps__.large.n")}]
    return await _ended(
        await executions.start(
            line(
                action("large", parameters={"n": expr("$pad('', 66000, 'millrace ')")}),
                action("again", parameters={"n": expr("__steps__.large.n")}),
                child("sub", childWorkflowTemplateVersionId=f"{LEAF}@1.0.0", inputMapping=mapping),
                output=expr("__steps__.again.n"),
            )
        )
    )


async def local_steps(executions: Executions) -> Handle:
    """Local activities: a chain of them, a renewed workflow task, a long pause between attempts, and a withdrawal."""
    definition = document(
        action("first", parameters={"n": 1}),
        action("second", parameters={"n": expr("__steps__.first.n")}),
        split("s"),
        action("slow", actionKey="test.sleep", parameters={"seconds": 30}, timeout=60),
        action(
            "bad",
            actionKey="test.fail",
            parameters={"retryable": True},
            retry={"maxAttempts": 2, "initialInterval": 0.5},
        ),
        join("j"),
        arrow("start -> first"),
        arrow("first -> second"),
        arrow("second -> s"),
        *(arrow(f"s -> {name}") for name in ("slow", "bad")),
        *(arrow(f"{name} -> j") for name in ("slow", "bad")),
        arrow("j -> end"),
    )
    return await _ended(await executions.start(definition, local_actions=["test.echo", "test.fail", "test.sleep"]))


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


async def backfill_told_at_the_end(executions: Executions) -> Handle:
    """A backfill that looks again, because it is told of a change by the time it is done."""
    handle, _ = await told_at_the_end(executions.client)
    return handle


SCENARIOS: dict[str, Callable[[Executions], Awaitable[Handle]]] = {
    "everything": everything,
    "failure": failure,
    "cancelled": cancelled,
    "many-pure-steps": many_pure_steps,
    "stored-values": stored_values,
    "local-steps": local_steps,
    "keyed": keyed,
    "steered": steered,
    "undone": undone,
    "migrated": migrated,
    "awaited": awaited,
    "rows-insisted-on": rows_insisted_on,
    "withdrawn-chunk": withdrawn_chunk,
    "moved": moved,
    "asked-together": asked_together,
    "ticked": lambda executions: ticked(executions, "recorded-short"),
    "withdrawn-tick": lambda executions: withdrawn_tick(executions, "recorded-slow"),
    "backfilled": lambda executions: backfilled(executions, LEAF),
    "waited": waited,
    "counted": counted,
    "backfill-told-at-the-end": backfill_told_at_the_end,
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
            client = await Client.connect(settings.temporal.address, identity="recorder")
            async with (
                executions_on(client, url.get_secret_value()) as executions,
                executions.worker(),
                delivering(executions),
            ):
                await executions.template(LEAF, line(action("call", parameters={"n": expr("__context__.n")})))
                slow = action("slow", actionKey="test.sleep", parameters={"seconds": 30}, timeout=60)
                await executions.template("recorded-slow", line(slow))
                short = action("short", actionKey="test.sleep", parameters={"seconds": 1.5}, timeout=60)
                await executions.template("recorded-short", line(short))
                for name, play in missing.items():
                    history = await (await play(executions)).fetch_history()
                    text = _without_traces(history.to_json())
                    (FOLDER / f"{name}.json").write_text(text)
                    dump_blobs(FOLDER / f"{name}.json", await _stored(executions.database, json.loads(text)))


async def _stored(database: Database, history: Any) -> dict[str, bytes]:
    """The stored values that a history refers to."""
    named = {
        name for data in _payload_data(history) for name in re.findall(r"[0-9a-f]{64}", data.decode(errors="ignore"))
    }
    async with database.driver() as connection:
        rows = await connection.fetch(READ, list(named))
    return {row["sha256"]: row["bytes"] for row in rows}


def _payload_data(value: Any) -> Iterator[bytes]:
    match value:
        case dict():
            for key, member in value.items():
                if key == "data" and isinstance(member, str):
                    yield base64.b64decode(member)
                else:
                    yield from _payload_data(member)
        case list():
            for item in value:
                yield from _payload_data(item)


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

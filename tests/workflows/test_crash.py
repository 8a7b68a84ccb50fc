"""A worker killed in the middle, and another one after it: nothing is lost, no completed step runs again."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from tests.documents import action, arrow, batch, document, expr, join, line, split
from tests.workflows.counterpart import Counterpart, call
from tests.workflows.harness import Executions, event_types
from tests.workflows.killing import SOON, Workers


async def test_a_killed_worker_loses_nothing_and_repeats_no_completed_step(
    executions: Executions, workers: Workers, counterpart: Counterpart
) -> None:
    url = counterpart.url
    definition = document(
        call("first", url),
        split("s"),
        call("quick", url),
        call("wait", url),
        join("j"),
        call("last", url),
        arrow("start -> first"),
        arrow("first -> s"),
        arrow("s -> quick"),
        arrow("s -> wait"),
        arrow("quick -> j"),
        arrow("wait -> j"),
        arrow("j -> last"),
        arrow("last -> end"),
        output=expr("__steps__.last.body.path"),
    )
    killed = workers.start()
    handle = await executions.start(definition, task_timeout=SOON)
    await counterpart.called("/wait")
    await counterpart.called("/quick")
    await asyncio.sleep(0.3)
    os.kill(killed.pid, signal.SIGKILL)
    workers.start()
    counterpart.gate.set()
    assert await asyncio.wait_for(handle.result(), 60) == "/last"
    assert {path: counterpart.calls[path] for path in ("/first", "/quick", "/last")} == {
        "/first": 1,
        "/quick": 1,
        "/last": 1,
    }
    assert counterpart.calls["/wait"] >= 2
    assert all(len(keys) == 1 for keys in counterpart.keys.values())
    assert len(set.union(*counterpart.keys.values())) == 4
    assert (await executions.row(handle)).closed_as == "COMPLETED"


async def test_a_worker_killed_in_the_middle_of_a_batch_starts_every_child_once(
    executions: Executions, workers: Workers, counterpart: Counterpart
) -> None:
    url = counterpart.url
    parameters = {"method": "POST", "url": {"type": "template", "src": url + "/child-{{ __context__.n }}"}}
    leaf = action("call", actionKey="http.request", parameters=parameters, timeout=2)
    slug = f"leaf-{executions.task_queue[-8:]}"
    await executions.template(slug, line(leaf))
    mapping = [{"targetPath": "n", "value": expr("$string(__each__)")}]
    fields = {"childWorkflowTemplateVersionId": f"{slug}@1.0.0", "inputMapping": mapping, "concurrency": 4}
    killed = workers.start()
    handle = await executions.start(line(batch("all", "[1..16]", **fields), output=expr("$count(__steps__.all)")))
    await counterpart.called("/child-5")
    os.kill(killed.pid, signal.SIGKILL)
    workers.start()
    assert await asyncio.wait_for(handle.result(), 90) == 16
    rows = await executions.rows(handle)
    assert len(rows) == 17
    assert {row.closed_as for row in rows} == {"COMPLETED"}
    assert len(counterpart.calls) == 16
    assert all(len(keys) == 1 for keys in counterpart.keys.values())


@pytest.fixture
def short_module(tmp_path: Path) -> str:
    """A module with a short idempotent action that calls the counterpart."""
    (tmp_path / "short_actions.py").write_text(
        "import httpx\n"
        "from millrace.actions import Call, action\n\n\n"
        '@action("short.post", idempotent=True, expected_duration=0.1)\n'
        "async def post(url: str, call: Call) -> str:\n"
        "    async with httpx.AsyncClient(timeout=60, trust_env=False) as client:\n"
        '        answer = await client.post(url, headers={"Idempotency-Key": call.idempotency_key})\n'
        "    return str(answer.json()['path'])\n"
    )
    return "short_actions"


async def test_local_steps_of_a_killed_worker_run_again_under_the_same_keys(
    executions: Executions, workers: Workers, counterpart: Counterpart, short_module: str, tmp_path: Path
) -> None:
    """Not even those that were done are in history: their workflow task had not ended."""
    workers.run(short_module, tmp_path)
    steps = [
        action(name, actionKey="short.post", parameters={"url": f"{counterpart.url}/{name}"}, timeout=60)
        for name in ("first", "wait", "last")
    ]
    killed = workers.start()
    handle = await executions.start(line(*steps, output=expr("__steps__.last")), local_actions=["short.post"])
    await counterpart.called("/wait")
    os.kill(killed.pid, signal.SIGKILL)
    workers.start()
    counterpart.gate.set()
    assert await asyncio.wait_for(handle.result(), 60) == "/last"
    assert {path: counterpart.calls[path] for path in ("/first", "/wait", "/last")} == {
        "/first": 2,
        "/wait": 2,
        "/last": 1,
    }
    assert all(len(keys) == 1 for keys in counterpart.keys.values())
    types = await event_types(handle)
    assert "activity_task_scheduled" not in types
    assert types.count("workflow_task_timed_out") == 1
    await executions.replay_all()

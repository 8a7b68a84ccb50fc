"""A worker killed in the middle, and another one after it: nothing is lost, no completed step runs again."""

import asyncio
import os
import signal

from tests.documents import action, arrow, batch, document, expr, join, line, split
from tests.workflows.counterpart import Counterpart, call
from tests.workflows.harness import Executions
from tests.workflows.killing import Workers


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
    handle = await executions.start(definition)
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

"""A worker killed in the middle, and another one after it: nothing is lost, no completed step runs again."""

import asyncio
import os
import signal
import socket
import sys
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from app.processes import OwnProcess, spawn
from tests.documents import action, arrow, batch, document, expr, join, line, split
from tests.workflows.harness import Executions, event_types


class Counterpart:
    """An HTTP server that counts calls by path and keeps some waiting until it is told."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.keys: defaultdict[str, set[str]] = defaultdict(set)
        self.gate = asyncio.Event()
        self.url = ""

    async def answer(self, request: Request) -> JSONResponse:
        """Counts; a path with `wait` in it is answered when the gate is open."""
        path = request.url.path
        self.calls[path] += 1
        self.keys[path].add(request.headers["idempotency-key"])
        if "wait" in path:
            await self.gate.wait()
        return JSONResponse({"path": path})

    async def called(self, path: str) -> None:
        """Returns when somebody has called the path."""
        for _ in range(600):
            if self.calls[path]:
                return
            await asyncio.sleep(0.05)
        raise AssertionError(f"nobody called {path}: {self.calls}")


@pytest.fixture
async def counterpart() -> AsyncIterator[Counterpart]:
    """The server, on a free port."""
    subject = Counterpart()
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    app = Starlette(routes=[Route("/{path:path}", subject.answer, methods=["GET", "POST"])])
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", ws="none"))
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    while not server.started:
        await asyncio.sleep(0.01)
    subject.url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    yield subject
    subject.gate.set()
    server.should_exit = True
    server.force_exit = True
    await serving


class Workers:
    """Worker processes of one test."""

    def __init__(self, executions: Executions, temporal_address: str, database_url: str, folder: Path) -> None:
        self._folder = folder
        self._environment = {
            **os.environ,
            "MILLRACE_HOME": str(folder),
            "MILLRACE_DATABASE__URL": database_url,
            "MILLRACE_TEMPORAL__ADDRESS": temporal_address,
            "MILLRACE_TEMPORAL__TASK_QUEUE": executions.task_queue,
            "MILLRACE_HTTP_ACTION__ALLOWED_PRIVATE_HOSTS": '["127.0.0.1"]',
        }
        self.processes: list[OwnProcess] = []

    def run(self, module: str, folder: Path) -> None:
        """Workers started from now on have the actions of a module in a folder."""
        self._environment |= {"MILLRACE_WORKER__ACTIONS": f'["{module}"]', "PYTHONPATH": str(folder)}

    def start(self) -> OwnProcess:
        """One more worker."""
        command = [sys.executable, "-m", "app.cli.main", "worker"]
        log = self._folder / f"worker-{len(self.processes)}.log"
        process = spawn("worker", command, log, environment=self._environment)
        self.processes.append(process)
        return process


@pytest.fixture
async def workers(
    executions: Executions, temporal_address: str, database_url: str, tmp_path: Path
) -> AsyncIterator[Workers]:
    """Worker processes, ended with the test."""
    subject = Workers(executions, temporal_address, database_url, tmp_path)
    yield subject
    for process in subject.processes:
        await process.stop(patience=5)


def call(step_id: str, url: str, **fields: Any) -> dict[str, Any]:
    """A step that calls the counterpart; an attempt that gets no answer is detected after two seconds."""
    parameters = {"method": "POST", "url": f"{url}/{step_id}"}
    return action(
        step_id,
        actionKey="http.request",
        parameters=parameters,
        timeout=2,
        retry={"maxAttempts": 10, "initialInterval": 0.2},
        **fields,
    )


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

"""Two hundred executions of mixed definitions, while workers and the API are killed at random.

At the end every run has ended as it should or says what it waits for, nothing that was complete has run again, and
rows and Temporal agree.
"""

import asyncio
import os
import random
import signal
import socket
import sys
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import UTC
from typing import Any
from uuid import uuid4

import httpx
from sqlalchemy import text
from sqlmodel import select
from temporalio.exceptions import TemporalError

from app.contracts import workflow_id
from app.db.tables import WorkflowExecution
from app.processes import OwnProcess, spawn
from tests.documents import action, arrow, batch, confirm, document, join, line, split, step
from tests.workflows.counterpart import calling
from tests.workflows.harness import Handle
from tests.workflows.outages import House, a_house

EXECUTIONS = int(os.environ.get("SOAK_EXECUTIONS", "200"))
SECONDS = float(os.environ.get("SOAK_SECONDS", "150"))
# How long runs may take once nothing is killed any more.
PATIENCE = 300.0
SEED = 7
WORKERS = 2


@dataclass
class Fire:
    """What is under way, and what was killed."""

    house: House
    url: str = ""
    api: OwnProcess | None = None
    kills: Counter[str] = field(default_factory=Counter)
    kinds: dict[str, str] = field(default_factory=dict)
    posts_again: int = 0
    over: bool = False
    # Not for secrets: the same kills at the same places of the plan in every run.
    chance: random.Random = field(default_factory=lambda: random.Random(SEED))


async def run() -> dict[str, Any]:
    """The whole of it."""
    async with a_house(answering_after=0.2) as house:
        fire = Fire(house)
        port = _free_port()
        fire.url = f"http://127.0.0.1:{port}/api/v1"
        _start_api(fire, port)
        for _ in range(WORKERS - 1):
            house.workers.start()
        await _store_templates(fire)
        began = time.monotonic()
        people = asyncio.create_task(_people(fire))
        killing = asyncio.create_task(_kill(fire, port, began + SECONDS))
        await _start_all(fire)
        await killing
        await _until_settled(fire)
        fire.over = True
        await people
        seconds = time.monotonic() - began
        return {"executions": EXECUTIONS, "seconds": round(seconds, 1), "kills": dict(fire.kills)} | await _judge(fire)


def _definitions(house: House, leaf: str) -> dict[str, dict[str, Any]]:
    """By kind; a kind is also the slug, with a suffix."""

    def calls(step_id: str, **fields: Any) -> dict[str, Any]:
        return action(step_id, **{**calling(house.counterpart.url, step_id), **fields})

    undo = {"compensate": calling(house.counterpart.url, "undo")}
    each = {"iterable": {"type": "EXPRESSION", "expr": {"src": "[1..5]"}}, "concurrency": 2}
    branches = document(
        split("s"),
        calls("left"),
        calls("right", repeat={"while": "__iteration__ < 3"}),
        join("j"),
        calls("last"),
        *(arrow(one) for one in ("start -> s", "s -> left", "s -> right", "left -> j", "right -> j")),
        *(arrow(one) for one in ("j -> last", "last -> end")),
    )
    many = batch("all", "[1..5]", concurrency=2, childWorkflowTemplateVersionId=leaf)
    return {
        "chain": line(*(calls(f"c{n}") for n in range(6))),
        "branches": branches,
        "timer": line(calls("a"), step("delay", "SYS_DELAY", duration=5), calls("b")),
        "signal": line(calls("a"), step("paid", "SYS_WAIT_SIGNAL", signal="paid"), calls("b")),
        "person": line(calls("a"), confirm("ask"), calls("b")),
        "items": line(calls("a", forEach=each), calls("b")),
        "batch": line(calls("a"), many, calls("b")),
        "undone": line(*(calls(f"u{n}", **undo) for n in range(4)), action("bad", actionKey="test.fail")),
        "waiting": line(calls("a"), confirm("never")),
    }


async def _store_templates(fire: Fire) -> None:
    executions = fire.house.executions
    suffix = uuid4().hex[:6]
    leaf = action("one", **calling(fire.house.counterpart.url, "leaf"))
    await executions.template(f"leaf-{suffix}", line(leaf, {**leaf, "id": "two"}))
    for kind, definition in _definitions(fire.house, f"leaf-{suffix}@1.0.0").items():
        await executions.template(kind, definition)
    async with executions.database.transaction() as session:
        await session.execute(text("UPDATE workflow_template SET status = 'ACTIVE'"))


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _start_api(fire: Fire, port: int) -> None:
    environment = {**fire.house.workers.environment, "MILLRACE_API__PORT": str(port)}
    command = [sys.executable, "-m", "app.cli.main", "api"]
    fire.api = spawn("api", command, fire.house.home / "logs" / "api.log", environment=environment)
    fire.house.started.append(fire.api)


async def _start_all(fire: Fire) -> None:
    """Starts every execution through the API, again and again under the same key until it has answered."""
    kinds = list(_definitions(fire.house, ""))
    pause = SECONDS * 0.8 / EXECUTIONS
    async with httpx.AsyncClient(timeout=10) as client, asyncio.TaskGroup() as group:
        for number in range(EXECUTIONS):
            group.create_task(_start_one(fire, client, kinds[number % len(kinds)], number))
            await asyncio.sleep(pause)


async def _start_one(fire: Fire, client: httpx.AsyncClient, kind: str, number: int) -> None:
    while True:
        try:
            answer = await client.post(
                f"{fire.url}/templates/{kind}/execute",
                json={"context": {"number": number}},
                headers={"Idempotency-Key": f"soak-{number}"},
            )
        except httpx.TransportError:
            answer = None
        if answer is not None and answer.status_code < 500:
            answer.raise_for_status()
            fire.kinds[answer.json()["executionId"]] = kind
            return
        fire.posts_again += 1
        await asyncio.sleep(0.5)


async def _kill(fire: Fire, port: int, until: float) -> None:
    """Every few seconds a worker, at times the API; another one is started at once."""
    while time.monotonic() < until:
        await asyncio.sleep(fire.chance.uniform(4, 10))
        if fire.api is not None and fire.chance.random() < 0.25:
            os.kill(fire.api.pid, signal.SIGKILL)
            fire.kills["api"] += 1
            _start_api(fire, port)
            continue
        alive = [one for one in fire.house.workers.processes if not one.ended()]
        os.kill(fire.chance.choice(alive).pid, signal.SIGKILL)
        fire.kills["worker"] += 1
        fire.house.workers.start()


def _handle(fire: Fire, execution_id: str) -> Handle:
    return fire.house.executions.client.get_workflow_handle(workflow_id(execution_id))


async def _people(fire: Fire) -> None:
    """Signals and people that come whenever they like, some of them twice."""
    served: set[str] = set()
    while not fire.over:
        await asyncio.sleep(1)
        asked = [
            (execution_id, kind)
            for execution_id, kind in fire.kinds.items()
            if kind in ("signal", "person") and execution_id not in served
        ]
        answers = await asyncio.gather(*(_serve(fire, execution_id, kind) for execution_id, kind in asked))
        served |= {execution_id for (execution_id, _), answer in zip(asked, answers, strict=True) if answer}


async def _serve(fire: Fire, execution_id: str, kind: str) -> bool:
    """Whether the run has got what it waits for. Not there yet, or nobody works just now: the next round asks again."""
    handle = _handle(fire, execution_id)
    try:
        async with asyncio.timeout(8):
            if kind == "signal":
                await handle.signal("paid", 1)
            else:
                await fire.house.executions.complete(handle, "ask")
                await fire.house.executions.complete(handle, "ask")
    except (TimeoutError, TemporalError):
        return False
    return True


async def _until_settled(fire: Fire) -> None:
    """Returns when only those are open that wait for ever."""
    patient = time.monotonic() + PATIENCE
    left: list[WorkflowExecution] = []
    while time.monotonic() < patient:
        rows = await _rows(fire)
        left = [row for row in rows if row.closed_as is None and fire.kinds.get(str(row.id)) != "waiting"]
        if not left:
            return
        await asyncio.sleep(1)
    raise AssertionError(f"{len(left)} have not ended: {[(str(one.id), one.name) for one in left[:5]]}")


async def _rows(fire: Fire) -> list[WorkflowExecution]:
    async with fire.house.executions.database.transaction() as session:
        return list((await session.execute(select(WorkflowExecution))).scalars())


async def _judge(fire: Fire) -> dict[str, Any]:
    """What must hold, and the figures."""
    rows = await _rows(fire)
    roots = [row for row in rows if row.parent_id is None]
    assert len(roots) == EXECUTIONS == len(fire.kinds), (len(roots), len(fire.kinds))
    statuses: Counter[str] = Counter()
    late: list[str] = []
    ended: dict[str, float] = {}
    for row in rows:
        handle = _handle(fire, str(row.id))
        described = await handle.describe()
        name = described.status.name.replace("CANCELED", "CANCELLED") if described.status else "?"
        assert name == (row.closed_as or "RUNNING"), f"{row.id}: the row says {row.closed_as}, Temporal {name}"
        kind = fire.kinds.get(str(row.id), "leaf")
        assert name == {"undone": "FAILED", "waiting": "RUNNING"}.get(kind, "COMPLETED"), f"{kind} {row.id} is {name}"
        if name == "RUNNING":
            waits = (await fire.house.executions.view(handle)).waiting_for
            assert [wait.step_id for wait in waits] == ["never"], waits
        statuses[name] += 1
        ended |= await _ended(handle, str(row.id))
    counterpart = fire.house.counterpart
    for key, times in counterpart.times.items():
        assert key in ended, f"nobody knows of {key}"
        if max(times) > ended[key]:
            late.append(key)
    assert late == [], f"called again after they were complete: {late[:5]}"
    assert counterpart.times.keys() == ended.keys()
    await fire.house.executions.replay_all()
    calls = sum(map(len, counterpart.times.values()))
    return {
        "runs": len(rows),
        "statuses": dict(statuses),
        "completedCalls": len(ended),
        "callsMadeAgain": calls - len(ended),
        "calledAgainAfterCompletion": len(late),
        "postsRepeated": fire.posts_again,
        "disagreements": 0,
    }


async def _ended(handle: Handle, execution_id: str) -> dict[str, float]:
    """When each call was complete, in seconds since the epoch, by idempotency key; twice is an error."""
    scheduled: dict[int, tuple[str, str]] = {}
    found: defaultdict[str, list[float]] = defaultdict(list)
    for event in (await handle.fetch_history()).events:
        if event.HasField("activity_task_scheduled_event_attributes"):
            given = event.activity_task_scheduled_event_attributes
            scheduled[event.event_id] = (given.activity_type.name, given.activity_id)
        elif event.HasField("activity_task_completed_event_attributes"):
            name, key = scheduled[event.activity_task_completed_event_attributes.scheduled_event_id]
            if name == "http.request":
                found[f"{execution_id}/{key}"].append(event.event_time.ToDatetime(UTC).timestamp())
    assert all(len(times) == 1 for times in found.values()), found
    return {key: times[0] for key, times in found.items()}

"""A backfill whose worker and whose command are killed again and again; at the end each row has been started once."""

import asyncio
import csv
import json
import os
import random
import signal
import socket
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import text

from app.processes import OwnProcess, spawn
from tests.documents import line, put
from tests.workflows.outages import House

# Seconds without any progress until it is taken to be stuck: a kill of the worker costs up to twenty.
PATIENCE = 60.0
OVER = ("COMPLETED", "CANCELLED", "FAILED")


class Command:
    """`millrace backfill` as a process of its own, to be killed."""

    def __init__(self, house: House, port: int) -> None:
        self._house = house
        self._environment = {**house.workers.environment, "MILLRACE_API_URL": f"http://127.0.0.1:{port}"}
        self._count = 0
        self.process: OwnProcess | None = None

    def run(self, *words: str) -> None:
        """Runs the command with these words; it is left to run."""
        self._count += 1
        log = self._house.home / "logs" / f"backfill-{self._count}.log"
        command = [sys.executable, "-m", "app.cli.main", "backfill", *words]
        self.process = spawn("backfill", command, log, environment=self._environment)
        self._house.started.append(self.process)

    def kill(self) -> None:
        """SIGKILL, if it still runs."""
        if self.process is not None and not self.process.ended():
            os.kill(self.process.pid, signal.SIGKILL)


async def killed_meanwhile(house: House, rows: int, kills: int, rate: float | None = None) -> dict[str, Any]:
    """Starts so many rows while so many processes are killed; the figures, when all is as it must be."""
    port = _free_port()
    api = _start_api(house, port)
    file = _written(house.home, rows)
    await house.executions.template("past", line(put("note", noted=True)))
    async with house.executions.database.transaction() as session:
        await session.execute(text("UPDATE workflow_template SET status = 'ACTIVE'"))
    command = Command(house, port)
    limits = [] if rate is None else ["--rate", f"{rate:g}"]
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}/api/v1", timeout=30) as client:
        await _answers(client)
        began = time.monotonic()
        command.run(str(file), "--template", "past", "--event-id", "id", *limits)
        killed = await _kill(house, command, client, rows, kills)
        seconds = time.monotonic() - began
        bad = house.home / "bad.csv"
        command.run("--resume", await _id(client), "--bad-rows", str(bad), "--json")
        assert command.process is not None
        while not command.process.ended():
            await asyncio.sleep(0.1)
        found = (await client.get("/backfills")).json()["items"]
        assert len(found) == 1, found
        assert found[0]["status"] == "COMPLETED", found
        assert found[0]["rows"]["started"] == rows, found
        assert bad.read_text().splitlines() == ["number,code,reason,row"]
    await _judge(house, rows)
    await api.stop()
    return {"rows": rows, "seconds": round(seconds, 1), "kills": dict(killed), "executions": rows}


async def _kill(house: House, command: Command, client: httpx.AsyncClient, rows: int, kills: int) -> Counter[str]:
    """Kills the command while it loads, and then command and worker in turn; whatever was killed is started again."""
    chance = random.Random(11)
    killed: Counter[str] = Counter()
    backfill_id = await _id(client)
    command.kill()
    killed["command"] += 1
    command.run("--resume", backfill_id)
    marks = sorted(chance.sample(range(rows // 20, rows * 9 // 10), kills - 1))
    settled, patient = 0, time.monotonic() + PATIENCE
    while True:
        found = (await client.get(f"/backfills/{backfill_id}")).json()
        if found["status"] in OVER:
            return killed
        now = found["rows"]["total"] - found["rows"]["pending"]
        if now != settled:
            settled, patient = now, time.monotonic() + PATIENCE
        assert time.monotonic() < patient, f"nothing happens any more: {found}"
        if marks and found["status"] == "RUNNING" and settled >= marks[0]:
            marks.pop(0)
            if sum(killed.values()) % 2:
                house.workers.kill()
                house.workers.start()
                killed["worker"] += 1
            else:
                command.kill()
                command.run("--resume", backfill_id)
                killed["command"] += 1
        await asyncio.sleep(0.05)


async def _judge(house: House, rows: int) -> None:
    """Each row has one execution and each execution one row, and all of them come to a good end."""
    statement = text(
        """
        SELECT count(*), count(DISTINCT execution.context->>'id'), count(execution.closed_as),
            (SELECT count(DISTINCT execution_id) FROM backfill_row)
        FROM workflow_execution AS execution
        """
    )
    until = time.monotonic() + PATIENCE + rows / 20
    while True:
        async with house.executions.database.transaction() as session:
            counted = tuple((await session.execute(statement)).one())
        assert counted[0] == rows, counted
        if counted == (rows, rows, rows, rows):
            return
        assert time.monotonic() < until, counted
        await asyncio.sleep(0.5)


async def _id(client: httpx.AsyncClient) -> str:
    """The id of the one backfill there is."""
    for _ in range(600):
        found = (await client.get("/backfills")).json()["items"]
        if found:
            return str(found[0]["id"])
        await asyncio.sleep(0.05)
    raise AssertionError("no backfill was begun")


async def _answers(client: httpx.AsyncClient) -> None:
    for _ in range(600):
        try:
            if (await client.get("/backfills")).is_success:
                return
        except httpx.TransportError:
            pass
        await asyncio.sleep(0.1)
    raise AssertionError("the API does not answer")


def _start_api(house: House, port: int) -> OwnProcess:
    environment = {**house.workers.environment, "MILLRACE_API__PORT": str(port)}
    command = [sys.executable, "-m", "app.cli.main", "api"]
    process = spawn("api", command, house.home / "logs" / "api.log", environment=environment)
    house.started.append(process)
    return process


def _written(home: Path, rows: int) -> Path:
    file = home / "past.csv"
    with file.open("w", newline="") as written:
        lines = csv.writer(written)
        lines.writerow(("id", "who", "note"))
        lines.writerows((f"r-{n}", f"person {n}", json.dumps({"n": n})) for n in range(rows))
    return file


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])

"""What it takes to accept a trigger over HTTP, beside `start_workflow` alone with the same payload.

The API runs as its own process, as it does in service. No worker polls, so that only accepting is measured. Every
event has an id of its own: each request commits a row, starts a workflow and says so in the row.
"""

import asyncio
import itertools
import json
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from sqlalchemy import func, select
from sqlmodel import col
from temporalio.client import Client
from temporalio.common import (
    RawValue,
    SearchAttributeKey,
    SearchAttributePair,
    TypedSearchAttributes,
    WorkflowIDReusePolicy,
)

from app.contracts import (
    ATTRIBUTE_ENTITY_ID,
    ATTRIBUTE_ENTITY_TYPE,
    ATTRIBUTE_ROOT,
    ATTRIBUTE_TEMPLATE,
    ATTRIBUTE_VERSION,
    ExecutionStart,
    workflow_id,
)
from app.db.session import Database
from app.db.statuses import EntityType
from app.db.tables import RecordStatus, WorkflowExecution, new_id
from app.payloads.content import definition_payload
from app.payloads.storage import PayloadStorage
from app.processes import spawn
from app.settings import Settings
from app.temporal import connect
from bench.figures import Figure, Say
from bench.http_client import Caller
from bench.load import Side, take_turns
from bench.runs import five_actions
from bench.servers import database_url, own_servers, store_template

SLUG = "accepted"
SERVICE = "streetlight"
PATH = "/api/v1/triggers/service-requests"
PAYLOAD = Path(__file__).parent.parent / "examples" / "payloads" / "open311-service-request.json"
GIVEN_TO_ROOTS = (
    ATTRIBUTE_TEMPLATE,
    ATTRIBUTE_VERSION,
    ATTRIBUTE_ROOT,
    ATTRIBUTE_ENTITY_TYPE,
    ATTRIBUTE_ENTITY_ID,
)
AT_ONCE = (1, 20)
BLOCKS = 4
BLOCK_SIZE = 80
REACH = 1.5
API_READY_WITHIN = 30.0


class Sides:
    """Both ways to start the same."""

    def __init__(self, client: Client, caller: Caller, queue: str) -> None:
        self.client = client
        self.caller = caller
        self.queue = queue
        self.context: dict[str, Any] = json.loads(PAYLOAD.read_text())
        self.definition = RawValue(definition_payload(json.dumps(five_actions())))
        self.attributes = TypedSearchAttributes(
            [SearchAttributePair(SearchAttributeKey.for_keyword(name), SERVICE) for name in GIVEN_TO_ROOTS]
        )
        self.accepted = 0
        self._numbers = itertools.count()

    async def accept(self) -> None:
        """One trigger over HTTP."""
        event = {"eventId": f"event-{next(self._numbers)}", "entityId": SERVICE, "context": self.context}
        status, answer = await self.caller.post(PATH, event)
        if status != 202 or answer["status"] != RecordStatus.STARTED:
            raise AssertionError(f"{status}: {answer}")
        self.accepted += 1

    async def start(self) -> None:
        """The start of one workflow with the arguments that the API would give it, and nothing else."""
        await self._start()

    async def start_to_be_found(self) -> None:
        """The same with what the API adds so that people find it: a summary, search attributes, and no second run."""
        await self._start(
            search_attributes=self.attributes,
            static_summary=f"{SLUG} v1.0.0 · {EntityType.SERVICE_CATALOG} {SERVICE}",
            id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
        )

    async def _start(self, **options: Any) -> None:
        execution_id = new_id()
        start = ExecutionStart(
            execution_id=execution_id,
            name=SLUG,
            root_id=execution_id,
            template_id=execution_id,
            template=SLUG,
            version_id=execution_id,
            version="1.0.0",
            context=self.context,
            trigger={"source": "bench", "eventId": str(uuid4())},
        )
        await self.client.start_workflow(
            SLUG, args=[start, self.definition], id=workflow_id(execution_id), task_queue=self.queue, **options
        )


async def measure(say: Say) -> list[Figure]:
    """One at a time, and many."""
    say("starting PostgreSQL, Temporal and the API")
    figures = []
    async with own_servers("bench-nobody-polls") as settings, both_sides(settings) as sides:
        for at_once in AT_ONCE:
            say(f"{BLOCKS * BLOCK_SIZE} starts on each side, {at_once} at a time")
            for start, called, reach in (
                (sides.start, "start_workflow", REACH),
                (sides.start_to_be_found, "the same, with summary and attributes", None),
            ):
                ours, bare = await take_turns(sides.accept, start, blocks=BLOCKS, size=BLOCK_SIZE, at_once=at_once)
                figures.append(_figure(at_once, ours, bare, called, reach))
        await _check_rows(settings, sides.accepted)
    return figures


@asynccontextmanager
async def both_sides(settings: Settings) -> AsyncIterator[Sides]:
    """The API in a process of its own with the template linked, and a client of Temporal."""
    database = Database(database_url(settings), settings.database)
    try:
        await store_template(database, SLUG, five_actions(), service=SERVICE)
    finally:
        await database.close()
    storage = PayloadStorage(database_url(settings), settings.payloads, settings.database)
    client = await connect(settings.temporal, storage.converter)
    try:
        async with _api(settings) as (host, port), Caller(host, port) as caller:
            yield Sides(client, caller, settings.temporal.task_queue)
    finally:
        await storage.close()


@asynccontextmanager
async def _api(settings: Settings) -> AsyncIterator[tuple[str, int]]:
    """Where the API listens, for the block. Raises RuntimeError with what it said when it does not start."""
    host, port = "127.0.0.1", _free_port()
    environment = {
        "MILLRACE_DATABASE__URL": database_url(settings),
        "MILLRACE_TEMPORAL__ADDRESS": settings.temporal.address or "",
        "MILLRACE_TEMPORAL__TASK_QUEUE": settings.temporal.task_queue,
        "MILLRACE_API__HOST": host,
        "MILLRACE_API__PORT": str(port),
        "MILLRACE_LOG__LEVEL": "ERROR",
    }
    command = [sys.executable, "-m", "app.cli.main", "api"]
    process = spawn("api", command, settings.home / "logs" / "api.log", environment=environment)
    try:
        deadline = time.monotonic() + API_READY_WITHIN
        while not await _listens(host, port):
            if process.ended() or time.monotonic() > deadline:
                raise RuntimeError(f"the API did not start:\n{process.last_words()}")
            await asyncio.sleep(0.05)
        yield host, port
    finally:
        await process.stop()


async def _listens(host: str, port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection(host, port)
    except OSError:
        return False
    writer.close()
    await writer.wait_closed()
    return True


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


async def _check_rows(settings: Settings, accepted: int) -> None:
    """Raises AssertionError unless there is one started row for each trigger."""
    database = Database(database_url(settings), settings.database)
    try:
        statement = select(func.count()).where(col(WorkflowExecution.status) == RecordStatus.STARTED)
        async with database.transaction() as session:
            started = (await session.execute(statement)).scalar_one()
    finally:
        await database.close()
    if started != accepted:
        raise AssertionError(f"{started} rows are STARTED, {accepted} triggers were accepted")


def _figure(at_once: int, ours: Side, bare: Side, called: str, reach: float | None) -> Figure:
    mine, other = ours.milliseconds(0.50), bare.milliseconds(0.50)
    many = "one at a time" if at_once == 1 else f"{at_once} at a time"
    return Figure(
        part="accept",
        case=f"p50, {many}",
        millrace=f"{mine:.1f} ms, {ours.rate:.0f} /s",
        beside=f"{called} {other:.1f} ms, {bare.rate:.0f} /s",
        ratio=f"{mine / other:.2f} ×",
        goal="" if reach is None else f"≤ {reach} ×",
        reached=None if reach is None else mine / other <= reach,
        numbers={"millrace": ours.numbers(), "bare": bare.numbers(), "ratio": mine / other},
    )

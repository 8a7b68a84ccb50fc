"""Five actions through Millrace and five activities by hand: the same function, server and worker options.

A Millrace run is the whole of it: accepted the way the API accepts it, its row written, started, closed. A run by
hand is one workflow and nothing else, so what Millrace adds has nowhere to hide.
"""

import itertools
import statistics
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import uuid4

from sqlalchemy import func, select
from sqlmodel import col
from temporalio import activity
from temporalio.client import Client
from temporalio.converter import DataConverter
from temporalio.worker import PollerBehaviorAutoscaling, Worker

from app.contracts import workflow_id
from app.db.session import Database
from app.db.tables import ClosedAs, WorkflowExecution
from app.executions.queries import find_target
from app.executions.service import start_execution
from app.executions.starting import StartRequest
from app.payloads.storage import WORKER_PATIENCE, PayloadStorage
from app.settings import Settings
from app.temporal import Temporal, connect, register_search_attributes
from bench.by_hand import ADD, BY_HAND, BY_HAND_OUTSIDE, STEPS, ByHand, ByHandLocal, ByHandOutside
from bench.definitions import Document, expression, line, step
from bench.figures import Figure, Say
from bench.load import Side, take_turns
from bench.servers import database_url, own_servers, store_action, store_template
from bench.stalls import SLOW, stalls
from millrace.actions import Action, action
from worker import build_worker

ACTION_KEY = "bench.add"
SHORT_ACTION_KEY = "bench.add_short"
SLUG = "five-actions"
SHORT_SLUG = "five-short-actions"
QUEUE_BY_HAND = "bench-by-hand"
AT_ONCE = 20
BLOCKS = 4
BLOCK_SIZE = 60
LOOKED_AT = 10
REACH_RATE = 0.95
REACH_EVENTS = 3


async def add(value: int, by: int) -> dict[str, int]:
    """Adds."""
    return {"value": value + by}


ADD_ACTION: Action = action(ACTION_KEY)(add)
SHORT_ACTION: Action = action(SHORT_ACTION_KEY, idempotent=True, expected_duration=0.01)(add)


@activity.defn(name=ADD)
async def add_by_hand(value: int, by: int) -> dict[str, int]:
    """The same function as an activity of its own."""
    return await add(value, by)


def five_actions(action_key: str = ACTION_KEY) -> Document:
    """The definition: each action takes what the one before gave."""
    sources = ["__context__.n", *(f"__steps__.{name}.value" for name in STEPS)]
    steps = [
        step(name, "SYS_ACTION", actionKey=action_key, parameters={"value": expression(source), "by": 1})
        for name, source in zip(STEPS, sources, strict=False)
    ]
    return line(steps, output=expression(sources[-1]))


class Sides:
    """Both ways to do the same; each keeps the workflow ids of its runs."""

    def __init__(self, client: Client, database: Database, settings: Settings, converter: DataConverter) -> None:
        self.client = client
        self.database = database
        self.settings = settings
        self.elsewhere = Temporal(settings.temporal, converter)
        self.beside = Temporal(settings.temporal, converter)
        self.beside.work_beside(client)
        self.of_millrace: list[str] = []
        self.of_hand: list[str] = []
        self.slow: list[str] = []
        self._numbers = itertools.count()

    async def millrace(self, slug: str = SLUG, eager: bool = False) -> None:
        """One execution, from the request to its output; started eagerly, or as from another process."""
        began = time.monotonic()
        number = next(self._numbers)
        request = StartRequest(context={"n": number}, trigger={"source": "bench"}, name=None, key=f"bench:{number}")
        started = await start_execution(
            self.database,
            self.beside if eager else self.elsewhere,
            self.settings,
            lambda connection: find_target(connection, slug, None, request.key),
            request,
        )
        if started is None:
            raise AssertionError(f"the template {slug} is not there")
        run = workflow_id(started.execution_id)
        self.of_millrace.append(run)
        _expect(number, await self.client.get_workflow_handle(run).result())
        self._note(run, began)

    async def by_hand(self, name: str = BY_HAND) -> None:
        """One workflow."""
        began = time.monotonic()
        number = next(self._numbers)
        run = f"by-hand/{uuid4()}"
        self.of_hand.append(run)
        output = await self.client.execute_workflow(
            name, {"n": number}, id=run, task_queue=QUEUE_BY_HAND, result_type=int
        )
        _expect(number, output)
        self._note(run, began)

    def _note(self, run: str, began: float) -> None:
        if time.monotonic() - began > SLOW:
            self.slow.append(run)

    async def events(self, runs: list[str]) -> list[int]:
        """How many events the last few runs have."""
        return [len((await self.client.get_workflow_handle(run).fetch_history()).events) for run in runs[-LOOKED_AT:]]

    async def check_rows(self) -> None:
        """Raises AssertionError unless every execution's row says that it completed."""
        statement = select(func.count()).where(col(WorkflowExecution.closed_as) == ClosedAs.COMPLETED)
        async with self.database.transaction() as session:
            closed = (await session.execute(statement)).scalar_one()
        if closed != len(self.of_millrace):
            raise AssertionError(f"{closed} rows of {len(self.of_millrace)} executions are closed")


def _expect(number: int, output: Any) -> None:
    if output != number + len(STEPS):
        raise AssertionError(f"{number} gave {output}")


async def measure(say: Say) -> list[Figure]:
    """Rates, latencies and events of both sides."""
    say("starting PostgreSQL and Temporal")
    async with own_servers("bench-millrace") as settings, both_sides(settings) as sides:
        figures: list[Figure] = []
        for name, called in ((BY_HAND, "by hand"), (BY_HAND_OUTSIDE, "by hand, no sandbox")):
            say(f"{BLOCKS * BLOCK_SIZE} executions on each side, {AT_ONCE} at a time: {called}")
            ours, theirs = await take_turns(
                sides.millrace, partial(sides.by_hand, name), blocks=BLOCKS, size=BLOCK_SIZE, at_once=AT_ONCE
            )
            figures += [_rate(ours, theirs, called), *(_latency(ours, theirs, part, called) for part in (0.50, 0.95))]
        await sides.check_rows()
        figures.append(_events(await sides.events(sides.of_millrace), await sides.events(sides.of_hand)))
        figures.append(await slow_runs("runs", sides))
    return figures


@asynccontextmanager
async def both_sides(settings: Settings) -> AsyncIterator[Sides]:
    """Both workers polling, each its own task queue, and what they need."""
    database = Database(database_url(settings), settings.database)
    storage = PayloadStorage(database_url(settings), settings.payloads, settings.database, WORKER_PATIENCE)
    try:
        for slug, entry in ((SLUG, ADD_ACTION), (SHORT_SLUG, SHORT_ACTION)):
            await store_template(database, slug, five_actions(entry.key), service=slug)
            await store_action(database, entry)
        client = await connect(settings.temporal, storage.converter)
        await register_search_attributes(client)
        async with (
            build_worker(client, database, settings, [ADD_ACTION, SHORT_ACTION]),
            _worker_by_hand(client, settings),
        ):
            yield Sides(client, database, settings, storage.converter)
    finally:
        await storage.close()
        await database.close()


def _worker_by_hand(client: Client, settings: Settings) -> Worker:
    """The options of `build_worker`, for the workflow by hand."""
    activities: list[Callable[..., Any]] = [add_by_hand]
    return Worker(
        client,
        task_queue=QUEUE_BY_HAND,
        workflows=[ByHand, ByHandOutside, ByHandLocal],
        activities=activities,
        max_cached_workflows=settings.worker.max_cached_workflows,
        max_concurrent_activities=settings.worker.max_concurrent_activities,
        graceful_shutdown_timeout=timedelta(seconds=settings.worker.graceful_shutdown),
        workflow_task_poller_behavior=PollerBehaviorAutoscaling(),
        activity_task_poller_behavior=PollerBehaviorAutoscaling(),
    )


async def slow_runs(part: str, sides: Sides) -> Figure:
    """How many executions took unusually long, and where the slowest stood still."""
    found = await stalls(sides.client, sides.slow)
    worst = max(found, key=lambda stall: float(stall["seconds"]), default=None)
    said = "" if worst is None else f"{worst['seconds']:.1f} s from {worst['after']} to {worst['before']}"
    return Figure(
        part, f"executions over {SLOW:.0f} s; the longest gap", str(len(found)), said, numbers={"slow": found}
    )


def _rate(ours: Side, theirs: Side, called: str) -> Figure:
    ratio = ours.rate / theirs.rate
    by_block = [mine / other for mine, other in zip(ours.blocks, theirs.blocks, strict=True)]
    return Figure(
        part="runs",
        case=f"five actions, {AT_ONCE} at a time",
        millrace=f"{ours.rate:.1f} /s",
        beside=f"{called} {theirs.rate:.1f} /s",
        ratio=f"{ratio:.2f} × ({min(by_block):.2f} to {max(by_block):.2f})",
        goal=f"≥ {REACH_RATE} ×",
        reached=ratio >= REACH_RATE,
        numbers={"millrace": ours.numbers(), "byHand": theirs.numbers(), "ratioByBlock": by_block},
    )


def _latency(ours: Side, theirs: Side, part: float, called: str) -> Figure:
    mine, other = ours.milliseconds(part), theirs.milliseconds(part)
    return Figure(
        part="runs",
        case=f"latency, p{part * 100:.0f}",
        millrace=f"{mine:.0f} ms",
        beside=f"{called} {other:.0f} ms",
        ratio=f"{mine / other:.2f} ×",
        numbers={"ratio": mine / other},
    )


def _events(ours: list[int], theirs: list[int]) -> Figure:
    mine, other = statistics.median(ours), statistics.median(theirs)
    return Figure(
        part="runs",
        case="events in history, median",
        millrace=f"{mine:.0f}",
        beside=f"by hand {other:.0f}",
        ratio=f"{mine - other:+.0f}",
        goal=f"≤ {REACH_EVENTS} more",
        reached=mine - other <= REACH_EVENTS,
        numbers={"millrace": ours, "byHand": theirs},
    )

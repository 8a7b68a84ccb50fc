"""Executions as they change, for any number of listeners: one follower for each execution and process.

A follower waits until the run's history goes on, looks once, and tells its listeners what is different. It lives as
long as somebody listens.
"""

import asyncio
import itertools
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Literal
from uuid import UUID

import structlog
from pydantic import BaseModel

from app.db.session import Database
from app.db.tables import RecordStatus
from app.errors import AppError, Unavailable
from app.executions.reading import get_row, read_whole
from app.executions.runs import RuntimeStatus
from app.executions.schemas import EndView, ExecutionView, SnapshotView, StatusView, WaitingView
from app.executions.watching import Watch
from app.run_contracts import StepView
from app.temporal import Temporal

log = structlog.get_logger(__name__)

# Seconds: between two looks at one execution at least; until the next one when something could not be said; until
# the next attempt when Temporal or PostgreSQL is away.
_PAUSE = 0.2
_UNSAID = 5.0
_AWAY = 2.0
# Changes that wait for a slow listener; then it gets a fresh snapshot instead of them.
_MOST_WAITING = 500

_OPEN = (RuntimeStatus.IN_PROGRESS, RuntimeStatus.NOT_STARTED, None)
_END = "-end"

EventName = Literal["snapshot", "step", "waiting", "status", "end"]


@dataclass(frozen=True, slots=True)
class Change:
    """What listeners are told: the name of the event, its data as JSON, and an id."""

    event: EventName
    data: str
    id: str


class Subscription:
    """One listener's share: changes in order, then None."""

    def __init__(self) -> None:
        self._waiting: deque[Change] = deque()
        self._over = False
        self._news = asyncio.Event()

    async def next(self) -> Change | None:
        """The next change, as soon as there is one; None when nothing will come any more."""
        while not self._waiting:
            if self._over:
                return None
            self._news.clear()
            await self._news.wait()
        return self._waiting.popleft()

    def tell(self, changes: list[Change], snapshot: Change) -> None:
        """Adds changes, or the snapshot instead when too many wait already."""
        if len(self._waiting) + len(changes) > _MOST_WAITING:
            self._waiting.clear()
            changes = [snapshot, *(change for change in changes if change.event == "end")]
        self._waiting.extend(changes)
        self._news.set()

    def end(self) -> None:
        """Nothing more will come."""
        self._over = True
        self._news.set()


@dataclass(frozen=True, slots=True)
class _Look:
    execution: ExecutionView
    steps: list[StepView] | None

    @property
    def is_over(self) -> bool:
        return self.execution.runtime_status not in _OPEN or self.execution.status in (
            RecordStatus.COMPLETED,
            RecordStatus.FAILED_TO_START,
        )


class _Follower:
    def __init__(self, database: Database, temporal: Temporal, execution_id: UUID) -> None:
        self._database = database
        self._temporal = temporal
        self._execution_id = execution_id
        self._watch = Watch(temporal, execution_id)
        self._look: _Look | None = None
        self._numbers = itertools.count(1)
        self.listeners: set[Subscription] = set()

    def add(self, listener: Subscription) -> None:
        """Lets somebody listen; a snapshot comes first."""
        self.listeners.add(listener)
        if self._look is not None:
            snapshot = self._snapshot(self._look)
            listener.tell([snapshot], snapshot)

    async def follow(self) -> None:
        """Looks and tells until the execution is over."""
        await self._begin()
        while True:
            look = await self._looked()
            if look is not None:
                self._tell(look)
                if look.is_over:
                    return
            await asyncio.sleep(_PAUSE)
            await self._wait(look)

    async def _begin(self) -> None:
        with suppress(Unavailable):
            await self._watch.begin()

    async def _looked(self) -> _Look | None:
        try:
            execution, steps = await read_whole(self._database, self._temporal, self._execution_id)
        except Unavailable as error:
            log.warning("following_postponed", execution_id=str(self._execution_id), code=error.code)
            return None
        if steps is None and self._look is not None:
            steps = self._look.steps
        return _Look(execution, steps)

    async def _wait(self, look: _Look | None) -> None:
        """Until the run may look different. What could not be said is asked for again in a while."""
        settled = look is not None and look.execution.problem is None
        with suppress(TimeoutError):
            try:
                async with asyncio.timeout(None if settled else _UNSAID):
                    await self._watch.changed()
            except Unavailable:
                await asyncio.sleep(_AWAY)

    def _tell(self, look: _Look) -> None:
        before, self._look = self._look, look
        snapshot = self._snapshot(look)
        changes = [snapshot] if before is None else [self._change(*one) for one in _differences(before, look)]
        if look.is_over:
            changes.append(self._change("end", _end(look.execution), _END))
        for listener in self.listeners:
            if changes:
                listener.tell(changes, snapshot)

    def _snapshot(self, look: _Look) -> Change:
        return self._change("snapshot", SnapshotView(execution=look.execution, steps=look.steps))

    def _change(self, event: EventName, data: BaseModel, mark: str = "") -> Change:
        text = data.model_dump_json(by_alias=True, exclude_unset=True, ensure_ascii=True)
        return Change(event, text, f"{time.time_ns() // 1_000_000}-{next(self._numbers)}{mark}")


def _differences(before: _Look, now: _Look) -> Iterator[tuple[EventName, BaseModel]]:
    known = {step.id: step for step in before.steps or ()}
    for step in now.steps or ():
        if known.get(step.id) != step:
            yield "step", step
    was, waits = _waiting(before.execution), _waiting(now.execution)
    if was != waits:
        yield "waiting", waits
    if _status(before.execution) != _status(now.execution):
        yield "status", _status(now.execution)


def _waiting(execution: ExecutionView) -> WaitingView:
    return WaitingView(waiting_for=execution.waiting_for, paused=execution.paused)


def _status(execution: ExecutionView) -> StatusView:
    return StatusView(status=execution.status, runtime_status=execution.runtime_status, problem=execution.problem)


def _end(execution: ExecutionView) -> EndView:
    view = EndView(runtime_status=execution.runtime_status)
    if execution.error is not None:
        view.error = execution.error
    elif "output" in execution.model_fields_set:
        view.output = execution.output
    return view


class Followers:
    """The followers of one process."""

    def __init__(self, database: Database, temporal: Temporal) -> None:
        self._database = database
        self._temporal = temporal
        self._followers: dict[UUID, tuple[_Follower, asyncio.Task[None]]] = {}
        self._closed = False

    def __len__(self) -> int:
        return len(self._followers)

    @asynccontextmanager
    async def listen(self, execution_id: UUID) -> AsyncIterator[Subscription]:
        """What happens to an execution from now on, a snapshot first. Raises EXECUTION_NOT_FOUND."""
        await get_row(self._database, execution_id)
        listener = Subscription()
        if self._closed:
            listener.end()
            yield listener
            return
        if execution_id not in self._followers:
            follower = _Follower(self._database, self._temporal, execution_id)
            running = asyncio.create_task(self._run(execution_id, follower), name=f"follow {execution_id}")
            running.add_done_callback(_log_failure)
            self._followers[execution_id] = follower, running
        follower, task = self._followers[execution_id]
        follower.add(listener)
        try:
            yield listener
        finally:
            follower.listeners.discard(listener)
            if not follower.listeners:
                self._forget(execution_id, follower)
                task.cancel()

    async def close(self) -> None:
        """Ends every stream; from now on there is nothing to hear."""
        self._closed = True
        tasks = [task for _, task in self._followers.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, execution_id: UUID, follower: _Follower) -> None:
        try:
            await follower.follow()
        except AppError as error:
            # Its row has been deleted, say: nothing is left to follow.
            log.warning("following_ended", execution_id=str(execution_id), code=error.code)
        finally:
            self._forget(execution_id, follower)
            for listener in follower.listeners:
                listener.end()

    def _forget(self, execution_id: UUID, follower: _Follower) -> None:
        """At once, so that nobody joins a follower that is about to stop."""
        known = self._followers.get(execution_id)
        if known is not None and known[0] is follower:
            del self._followers[execution_id]


def _log_failure(task: asyncio.Task[None]) -> None:
    """A bug ends the follower and so its streams, whose listeners come back; here it is at least said."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("following_failed", follower=task.get_name(), exc_info=error)


def is_end(event_id: str | None) -> bool:
    """Whether an id is that of an `end`: whoever has seen it need not come back."""
    return event_id is not None and event_id.endswith(_END)

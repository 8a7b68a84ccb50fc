"""The dispatcher: delivers what is stored and waits, as long as the process lives."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from uuid import UUID

import structlog

from app.db.session import Database
from app.errors import Unavailable
from app.inbox.calling import call_queued
from app.inbox.delivering import deliver, deliver_due, find_due, hand_over, put_off
from app.inbox.settling import Handover
from app.inbox.storing import CHANNEL
from app.settings import Settings
from app.temporal import Temporal

log = structlog.get_logger(__name__)

# Batches whose signals are being handed over: a run that does not answer takes its time, and holds up no other event.
MOST_HANDING_OVER = 20


class Dispatcher:
    """One process's dispatcher; any number of processes may have one."""

    def __init__(self, database: Database, temporal: Temporal, settings: Settings) -> None:
        self._database = database
        self._temporal = temporal
        self._settings = settings
        self._asked = asyncio.Event()
        self._stopping = asyncio.Event()
        self._handing_over: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Delivers until it is told to stop. Nothing that fails ends it."""
        listening = asyncio.create_task(self._listen())
        while not self._stopping.is_set():
            await _within(self._settings.inbox.interval, self._asked)
            self._asked.clear()
            if not self._stopping.is_set():
                await self._deliver_all()
        await listening
        await asyncio.gather(*self._handing_over)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Delivers for as long as the block lasts; what is being delivered at its end is not broken off."""
        running = asyncio.create_task(self.run())
        try:
            yield
        finally:
            self.stop()
            await running

    def stop(self) -> None:
        """Ends `run` once what is being delivered has been: nothing is broken off in the middle."""
        self._stopping.set()
        self._asked.set()

    async def _deliver_all(self) -> None:
        try:
            await call_queued(self._database, self._settings.limits)
            while await self._deliver_batch():
                # A batch that is not full says nothing: a trigger with many has only had its share.
                continue
        except Unavailable as error:
            log.warning("delivering_postponed", code=error.code)
        # The edge of a background task: an error that ended it would go unnoticed.
        except Exception:
            log.exception("delivering_failed")
            await self._deliver_apart()

    async def _deliver_apart(self) -> None:
        """Each by itself: what nobody foresaw about one event must not keep all others waiting."""
        try:
            for event_id in await find_due(self._database, self._settings.inbox.batch):
                await self._deliver_one(event_id)
        except Unavailable as error:
            log.warning("delivering_postponed", code=error.code)
        # The edge of a background task, as above.
        except Exception:
            log.exception("delivering_failed")

    async def _deliver_one(self, event_id: UUID) -> None:
        try:
            await deliver(self._database, self._temporal, self._settings, [event_id])
        except Unavailable:
            raise
        # The edge of one event.
        except Exception:
            log.exception("event_not_deliverable", event_id=str(event_id))
            await put_off(self._database, event_id)

    async def _deliver_batch(self) -> int:
        if len(self._handing_over) >= MOST_HANDING_OVER:
            await asyncio.wait(self._handing_over, return_when=asyncio.FIRST_COMPLETED)
        return await deliver_due(self._database, self._temporal, self._settings, self._hand_over_later)

    def _hand_over_later(self, handovers: Sequence[Handover]) -> None:
        if handovers:
            task = asyncio.create_task(self._hand_over(handovers))
            self._handing_over.add(task)
            task.add_done_callback(self._handing_over.discard)

    async def _hand_over(self, handovers: Sequence[Handover]) -> None:
        try:
            await hand_over(self._database, self._temporal, handovers)
        except Unavailable as error:
            log.warning("handing_over_postponed", code=error.code)
        # As above.
        except Exception:
            log.exception("handing_over_failed")

    async def _listen(self) -> None:
        """Wakes the dispatcher when events are stored; without it they are found with the next look."""
        while not self._stopping.is_set():
            with suppress(Unavailable):
                async with self._database.listening(CHANNEL, self._asked.set) as lost:
                    waiting = [asyncio.create_task(each.wait()) for each in (lost, self._stopping)]
                    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                    for each in waiting:
                        each.cancel()
            await _within(self._settings.inbox.interval, self._stopping)


async def _within(seconds: float, event: asyncio.Event) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()

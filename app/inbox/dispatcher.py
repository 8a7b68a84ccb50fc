"""The dispatcher: delivers what is stored and waits, as long as the process lives."""

import asyncio
from contextlib import suppress

import structlog

from app.db.session import Database
from app.errors import Unavailable
from app.inbox.calling import call_queued
from app.inbox.delivering import deliver_due
from app.inbox.storing import CHANNEL
from app.settings import Settings
from app.temporal import Temporal

log = structlog.get_logger(__name__)


class Dispatcher:
    """One process's dispatcher; any number of processes may have one."""

    def __init__(self, database: Database, temporal: Temporal, settings: Settings) -> None:
        self._database = database
        self._temporal = temporal
        self._settings = settings
        self._asked = asyncio.Event()
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Delivers until it is told to stop. Nothing that fails ends it."""
        listening = asyncio.create_task(self._listen())
        while not self._stopping.is_set():
            await _within(self._settings.inbox.interval, self._asked)
            self._asked.clear()
            if not self._stopping.is_set():
                await self._deliver_all()
        await listening

    def stop(self) -> None:
        """Ends `run` once what is being delivered has been: nothing is broken off in the middle."""
        self._stopping.set()
        self._asked.set()

    async def _deliver_all(self) -> None:
        try:
            await call_queued(self._database, self._settings.limits)
            while await deliver_due(self._database, self._temporal, self._settings) == self._settings.inbox.batch:
                # There may be more.
                continue
        except Unavailable as error:
            log.warning("delivering_postponed", code=error.code)
        # The edge of a background task: an error that ended it would go unnoticed.
        except Exception:
            log.exception("delivering_failed")

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

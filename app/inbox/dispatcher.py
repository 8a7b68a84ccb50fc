"""The dispatcher: delivers what is stored and waits, as long as the process lives."""

import asyncio
from contextlib import suppress

import structlog

from app.db.session import Database
from app.errors import Unavailable
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

    async def run(self) -> None:
        """Delivers until it is cancelled. Nothing that fails ends it."""
        listening = asyncio.create_task(self._listen())
        try:
            while True:
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._settings.inbox.interval):
                        await self._asked.wait()
                self._asked.clear()
                await self._deliver_all()
        finally:
            listening.cancel()
            with suppress(asyncio.CancelledError):
                await listening

    async def _deliver_all(self) -> None:
        try:
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
        while True:
            with suppress(Unavailable):
                async with self._database.listening(CHANNEL, self._asked.set) as lost:
                    await lost.wait()
            await asyncio.sleep(self._settings.inbox.interval)

"""A store that is away for a moment is waited for; one that stays away is a coded failure, never a silent one."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Literal, TypeVar

import structlog
from temporalio import activity
from temporalio.api.common.v1 import Payload
from temporalio.converter import (
    StorageDriver,
    StorageDriverClaim,
    StorageDriverRetrieveContext,
    StorageDriverStoreContext,
)

from app.errors import Unavailable
from app.payloads.errors import PayloadUnavailable

log = structlog.get_logger(__name__)

Result = TypeVar("Result")

_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 1.0
# Seconds before an attempt's deadline at which its result is given up, so that the failure still gets through.
_MARGIN = 1.0


class PatientDriver(StorageDriver):
    """A driver that is tried again for `patience` seconds; inside an activity nearly until the attempt runs out.

    An action whose result cannot be stored would run again, effects and all, so its result is held as long as its
    timeout lets it. What then still fails is raised as `PayloadUnavailable`, and Temporal tries the task again.
    """

    def __init__(self, driver: StorageDriver, patience: float) -> None:
        self._driver = driver
        self._patience = patience

    def name(self) -> str:
        """The driver's name."""
        return self._driver.name()

    def type(self) -> str:
        """The driver's kind."""
        return self._driver.type()

    async def store(self, context: StorageDriverStoreContext, payloads: Sequence[Payload]) -> list[StorageDriverClaim]:
        """What the driver gives. Raises `PayloadUnavailable`."""
        return await self._tried("store", lambda: self._driver.store(context, payloads))

    async def retrieve(
        self, context: StorageDriverRetrieveContext, claims: Sequence[StorageDriverClaim]
    ) -> list[Payload]:
        """What the driver gives. Raises `PayloadUnavailable`."""
        return await self._tried("read", lambda: self._driver.retrieve(context, claims))

    async def _tried(self, what: Literal["store", "read"], call: Callable[[], Awaitable[Result]]) -> Result:
        give_up = time.monotonic() + _time_left(self._patience)
        pause = _FIRST_PAUSE
        while True:
            try:
                return await call()
            # The SDK's S3 driver raises RuntimeError for whatever its client raised, ValueError for wrong content.
            except (Unavailable, RuntimeError, ValueError) as error:
                if time.monotonic() + pause > give_up:
                    log.warning("payload_unavailable", what=what, driver=self.name(), cause=str(error))
                    done = "stored" if what == "store" else "read"
                    message = f"a value kept outside history cannot be {done} now: {error}"
                    raise PayloadUnavailable("PAYLOAD_STORE_UNAVAILABLE", message) from error
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)


def _time_left(patience: float) -> float:
    """How long to try, in seconds."""
    if not activity.in_activity():
        return patience
    info = activity.info()
    if info.start_to_close_timeout is None:
        return patience
    left = info.started_time + info.start_to_close_timeout - datetime.now(UTC)
    return max(left.total_seconds() - _MARGIN, 0.0)

"""Whether a worker polls the task queue: asked now and then, remembered, never waited for by a start."""

import asyncio
import time
from datetime import UTC, datetime, timedelta

import structlog
from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest
from temporalio.service import RPCError

from app.errors import Unavailable
from app.temporal import Temporal, translated

log = structlog.get_logger(__name__)

# Seconds: how long an answer is passed on, how long it is held to be true by those who cannot wait for a newer one,
# and how often a process asks of its own accord: more often while none polls, so that nobody is alarmed for long.
FRESH = 5.0
KNOWN = 30.0
INTERVAL = 10.0
UNPOLLED_INTERVAL = 1.0

# A poll ends after a minute at the latest; the server remembers pollers for longer than they live.
_LIVES = timedelta(seconds=75)


class Pollers:
    """What this process knows of the workers on its task queue."""

    def __init__(self, temporal: Temporal) -> None:
        self._temporal = temporal
        self._polled: bool | None = None
        self._asked_at = float("-inf")
        self._asking = asyncio.Lock()

    def known(self) -> bool | None:
        """Whether a worker polled a moment ago; None when there is no recent answer. Costs nothing."""
        return self._polled if time.monotonic() - self._asked_at < KNOWN else None

    async def polled(self) -> bool:
        """Whether a worker polls, by an answer at most five seconds old. Raises `Unavailable`."""
        async with self._asking:
            if self._polled is None or time.monotonic() - self._asked_at >= FRESH:
                self._note(await self._ask())
            return bool(self._polled)

    async def watch(self) -> None:
        """Keeps what is known fresh, until cancelled."""
        while True:
            try:
                self._note(await self._ask())
            except Unavailable as error:
                log.debug("pollers_unknown", code=error.code)
            except RPCError as error:
                log.warning("pollers_unknown", status=error.status.name)
            await asyncio.sleep(INTERVAL if self._polled else UNPOLLED_INTERVAL)

    def _note(self, polled: bool) -> None:
        self._polled = polled
        self._asked_at = time.monotonic()

    async def _ask(self) -> bool:
        client = await self._temporal.client()
        request = DescribeTaskQueueRequest(
            namespace=client.namespace,
            task_queue=TaskQueue(name=self._temporal.settings.task_queue),
            task_queue_type=TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW,
        )
        with translated():
            answer = await client.workflow_service.describe_task_queue(request, timeout=self._temporal.timeout)
        oldest = datetime.now(UTC) - _LIVES
        return any(poller.last_access_time.ToDatetime(tzinfo=UTC) > oldest for poller in answer.pollers)

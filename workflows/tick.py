"""What a Temporal Schedule starts at each of its times: the tick is put into the inbox, or a source is polled.

Where the schedule's overlap policy is to mean what the tick starts, and not the moment of putting it into the inbox,
the tick lasts until that has ended. A cancel (CANCEL_OTHER) is handed on to it, and its end is waited for.
"""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from temporalio import workflow
from temporalio.common import SearchAttributeKey

from app.contracts import (
    POLL_SOURCE,
    STORE_TICK,
    TICK_IS_OVER,
    TICK_WORKFLOW,
    WITHDRAW_TICK,
)
from app.tick_contracts import Tick, TickRequest, TickStored
from workflows.policies import INSISTING

NOMINAL_TIME = SearchAttributeKey.for_datetime("TemporalScheduledStartTime")

# Seconds between two looks at whether what was started has ended: twice as long each time, up to the longest.
FIRST_LOOK = 1.0
LONGEST_PAUSE = 30.0
# A source has its own time to answer, which is shorter; a worker that is gone is noticed sooner.
_POLLING: dict[str, Any] = {
    **INSISTING,
    "start_to_close_timeout": timedelta(minutes=6),
    "heartbeat_timeout": timedelta(seconds=15),
}

Answer = TypeVar("Answer")


@workflow.defn(name=TICK_WORKFLOW, sandboxed=False)
class TickRun:
    """One tick of one schedule."""

    def __init__(self) -> None:
        self._cancelled = False

    @workflow.run
    async def run(self, tick: Tick) -> TickStored:
        """Gives how many events there were; ends as cancelled once it was, and what it started has ended."""
        about = TickRequest(schedule_id=tick.schedule_id, at=tick.at or _nominal_time())
        stored = TickStored()
        if tick.at is None:
            name, how = (POLL_SOURCE, _POLLING) if tick.poll else (STORE_TICK, INSISTING)
            stored = await self._answered(name, about, TickStored, how)
            if not tick.waits or stored.events == 0:
                return stored
        await self._until_over(about, withdrawn=tick.withdrawn)
        if tick.withdrawn or self._cancelled:
            raise asyncio.CancelledError
        return stored

    async def _until_over(self, about: TickRequest, *, withdrawn: bool) -> None:
        pause = FIRST_LOOK
        while True:
            if self._cancelled and not withdrawn:
                withdrawn = True
                await self._answered(WITHDRAW_TICK, about, bool, INSISTING)
                pause = FIRST_LOOK
            if await self._answered(TICK_IS_OVER, about, bool, INSISTING):
                return
            if workflow.info().is_continue_as_new_suggested():
                following = Tick(schedule_id=about.schedule_id, waits=True, at=about.at, withdrawn=withdrawn)
                workflow.continue_as_new(following)
            try:
                await workflow.sleep(pause, summary="until the next look at what was started")
            except asyncio.CancelledError:
                self._cancelled = True
            pause = min(pause * 2, LONGEST_PAUSE)

    async def _answered(self, name: str, about: TickRequest, kind: type[Answer], how: dict[str, Any]) -> Answer:
        """The answer of an activity, also when the tick is cancelled meanwhile: half of it may have been done."""
        asked = workflow.start_activity(name, about, result_type=kind, **how)
        while True:
            try:
                answer: Answer = await asyncio.shield(asked)
                return answer
            except asyncio.CancelledError:
                self._cancelled = True


def _nominal_time() -> str:
    """The time that the schedule meant, which is not when it was started: it may be being caught up with."""
    info = workflow.info()
    meant: datetime = info.typed_search_attributes.get(NOMINAL_TIME) or info.start_time.replace(microsecond=0)
    return meant.astimezone(UTC).isoformat()

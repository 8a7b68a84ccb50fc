"""A backfill: its rows are started a few at a time, at its rate, until there are none left.

What it is to do stands in its row, which people change; a signal says that it has been. So a run needs to know no more
than when the next start is due, and one that is lost can be started again at any time.
"""

from datetime import timedelta

from temporalio import workflow
from temporalio.common import RetryPolicy

from app.backfill_contracts import (
    BACKFILL_CHANGED,
    BACKFILL_WORKFLOW,
    MOST_ROWS,
    BackfillRun,
    StartedRows,
    StartRows,
)
from app.contracts import START_ROWS
from workflows.moment import now
from workflows.pace import Pace

# Seconds between looks at rows that wait for something else, growing from the first to the last.
FIRST_LOOK, LAST_LOOK = 1.0, 30.0

LOOKS_AGAIN = "backfill-looks-again"

_ATTEMPTS = RetryPolicy(
    initial_interval=timedelta(seconds=1), backoff_coefficient=2.0, maximum_interval=timedelta(seconds=30)
)


@workflow.defn(name=BACKFILL_WORKFLOW, sandboxed=False)
class BackfillStarts:
    """Starts the rows of one backfill. It runs outside the SDK's sandbox, as executions do (decision 0006)."""

    def __init__(self) -> None:
        self._changes = 0

    @workflow.signal(name=BACKFILL_CHANGED)
    def changed(self) -> None:
        """Somebody has paused, resumed or cancelled it."""
        self._changes += 1

    @workflow.run
    async def run(self, given: BackfillRun) -> None:
        """Ends when the backfill is over."""
        pace = Pace(given.rate, given.next_at if given.next_at is not None else _seconds())
        look = FIRST_LOOK
        while True:
            seen = self._changes
            most = pace.due(_seconds(), MOST_ROWS)
            if most == 0:
                await self._sleep(max(pace.pause(_seconds()), 0.001), seen)
                continue
            done = await self._start(given, most)
            pace.started(done.taken)
            match done.status:
                case "COMPLETED" | "CANCELLED" | "FAILED" if done.waits is None:
                    if self._changes == seen or not workflow.patched(LOOKS_AGAIN):
                        return
                    # Perhaps its refused rows are retried, and whoever asked for that has found this run.
                case "LOADING" | "PAUSED" if done.waits is None:
                    await workflow.wait_condition(lambda seen=seen: self._changes != seen)  # type: ignore[misc]
                    pace.next_at = max(pace.next_at, _seconds())
                case "RUNNING":
                    await self._sleep(pace.pause(_seconds()) if done.waits is None else look, seen)
                    look = FIRST_LOOK if done.taken else min(look * 2, LAST_LOOK)
                case _:
                    # Rows that were under way have yet to be started, or refused.
                    await self._sleep(look, seen)
                    look = min(look * 2, LAST_LOOK)
                    pace.next_at = max(pace.next_at, _seconds())
            info = workflow.info()
            if info.is_continue_as_new_suggested() or info.get_current_history_length() > given.most_events:
                workflow.continue_as_new(given.model_copy(update={"next_at": pace.next_at}))

    async def _start(self, given: BackfillRun, most: int) -> StartedRows:
        done: StartedRows = await workflow.execute_activity(
            START_ROWS,
            StartRows(backfill_id=given.backfill_id, most=most),
            result_type=StartedRows,
            start_to_close_timeout=timedelta(minutes=5),
            heartbeat_timeout=timedelta(seconds=10),
            retry_policy=_ATTEMPTS,
        )
        return done

    async def _sleep(self, seconds: float, seen: int) -> None:
        """So long, unless the backfill is changed meanwhile."""
        if seconds <= 0:
            return
        try:
            await workflow.wait_condition(lambda: self._changes != seen, timeout=seconds)
        except TimeoutError:
            return


def _seconds() -> float:
    return now() / 1000

"""Servers that are away for longer than tests can wait."""

import signal
import time
from typing import Any

from tests.workflows.outages import a_house, away, restarted

AWAY = 20.0


async def postgres_away() -> dict[str, Any]:
    """Postgres away for twenty seconds, while runs are refused, wait, spawn, fail and complete."""
    async with a_house() as house:
        began = time.monotonic()
        await away(house, AWAY)
        return {"secondsAway": AWAY, "secondsUntilAllHadEnded": round(time.monotonic() - began, 1)}


async def temporal_restarted() -> dict[str, Any]:
    """Temporal stopped, then killed, three times each, with runs at every kind of await."""
    async with a_house() as house:
        seconds = []
        for number in (signal.SIGTERM, signal.SIGKILL) * 3:
            began = time.monotonic()
            await restarted(house, number)
            seconds.append(round(time.monotonic() - began, 1))
        return {"restarts": len(seconds), "secondsUntilAllHadEnded": seconds}

"""Calls made so many at a time, the two sides in turns, so that whatever drifts hits both."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from bench.measuring import percentile

Call = Callable[[], Awaitable[object]]


@dataclass(slots=True)
class Side:
    """What one side did: a latency for each call, and for each block its calls a second; all in seconds.

    `cpu` is what this process spent meanwhile, the side's own work and the making of the calls.
    """

    latencies: list[float] = field(default_factory=list)
    blocks: list[float] = field(default_factory=list)
    seconds: float = 0.0
    cpu: float = 0.0

    @property
    def rate(self) -> float:
        """Calls a second, over all blocks."""
        return len(self.latencies) / self.seconds

    def milliseconds(self, part: float) -> float:
        """The latency that `part` (0 to 1) of the calls did not exceed."""
        return percentile(self.latencies, part) * 1e3

    def numbers(self) -> dict[str, object]:
        """What goes into the result file."""
        return {
            "calls": len(self.latencies),
            "perSecond": self.rate,
            "perSecondByBlock": self.blocks,
            "p50Milliseconds": self.milliseconds(0.50),
            "p95Milliseconds": self.milliseconds(0.95),
            "cpuMillisecondsPerCall": self.cpu / len(self.latencies) * 1e3,
        }


async def take_turns(first: Call, second: Call, *, blocks: int, size: int, at_once: int) -> tuple[Side, Side]:
    """`blocks` blocks of `size` calls on each side, in the order 1 2 2 1 1 2 …; a smaller one first, unmeasured."""
    calls = (first, second)
    sides = (Side(), Side())
    for call in calls:
        await add_block(Side(), call, at_once * 2, at_once)
    for block in range(blocks):
        order = (0, 1) if block % 2 == 0 else (1, 0)
        for number in order:
            await add_block(sides[number], calls[number], size, at_once)
    return sides


async def add_block(side: Side, call: Call, size: int, at_once: int) -> None:
    """Makes `size` calls, so many at once, and adds what they took to a side."""
    left = iter(range(size))

    async def caller() -> None:
        for _ in left:
            began = time.perf_counter()
            await call()
            side.latencies.append(time.perf_counter() - began)

    began, cpu = time.perf_counter(), time.process_time()
    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(caller())
    took = time.perf_counter() - began
    side.cpu += time.process_time() - cpu
    side.seconds += took
    side.blocks.append(size / took)

"""How times are taken: the same way on every side, with nothing but the standard library.

SpiffWorkflow is measured with this module in an environment of its own, so it imports nothing of ours.
"""

import gc
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

SHORTEST_SAMPLE = 0.005


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds for one call: the best and the median of `samples`."""

    best: float
    median: float
    samples: int


def time_calls(call: Callable[[], object], seconds: float = 0.5, at_least: int = 5) -> Times:
    """Calls for about so many seconds, at least so many samples; the first call is a warm-up.

    A sample lasts 5 ms or more, so quick calls are made several times in one. Garbage is collected before each
    sample and collection stays switched on during it: every sample pays for its own garbage and no other's.
    """
    started = time.perf_counter()
    call()
    each = time.perf_counter() - started
    count = max(1, round(SHORTEST_SAMPLE / max(each, 1e-9)))
    samples: list[float] = []
    deadline = time.perf_counter() + seconds
    while len(samples) < at_least or time.perf_counter() < deadline:
        gc.collect()
        began = time.perf_counter()
        for _ in range(count):
            call()
        samples.append((time.perf_counter() - began) / count)
    return Times(min(samples), statistics.median(samples), len(samples))


def percentile(values: Sequence[float], part: float) -> float:
    """The value that `part` (0 to 1) of the values do not exceed; by nearest rank."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]

"""When the next of many starts is due: a rate that holds over hours, whatever each start takes."""

from dataclasses import dataclass

# Seconds. Starts are made together so often; and what is late by more is not caught up with, or what had to wait for
# a worker would then come all at once.
TICK = 1.0
LATEST = 2.0


@dataclass(slots=True)
class Pace:
    """Starts a second, `rate`, None for no limit; the next one is due `next_at`, in seconds since 1970.

    A start moves that by the time it may take, from when it was due and not from when it was made: no drift.
    """

    rate: float | None
    next_at: float

    def due(self, now: float, most: int) -> int:
        """How many may be started now, `most` at most."""
        if self.rate is None:
            return most
        self.next_at = max(self.next_at, now - max(LATEST, 1 / self.rate))
        if now < self.next_at:
            return 0
        return min(most, int((now - self.next_at) * self.rate) + 1)

    def started(self, count: int) -> None:
        """So many were started."""
        if self.rate is not None:
            self.next_at += count / self.rate

    def pause(self, now: float) -> float:
        """Seconds until something is worth doing; 0 when it is now."""
        if self.rate is None or now >= self.next_at + self._together():
            return 0.0
        return self.next_at + self._together() - now

    def _together(self) -> float:
        return TICK if self.rate is not None and self.rate * TICK > 1 else 0.0

"""What clocks decide, recorded: an expression that took too long, a call that had to stop for breath.

The engine has no clock. Where the driver's clock changes what happens, a patch marker in history says so before it
counts, and a replay reads the marker instead of its own clock.
"""

from collections.abc import Sequence
from time import perf_counter

from temporalio import workflow

from engine.errors import ClockExceeded
from engine.interpreter import PURE_STEPS_PER_CALL, Pace
from engine.protocol import Command, Yield

# Seconds. A call that has taken BREATH stops before its next turn; a turn in which it passes TOO_LONG fails. With the
# time that one evaluation may take, and a second try after a turn has failed, that stays under the two seconds after
# which the SDK takes a workflow for deadlocked.
BREATH = 0.4
TOO_LONG = 0.7
_MOST_TURNS = 2 * PURE_STEPS_PER_CALL


class ClockRecord:
    """What history holds, or will hold, about one call of the engine. `call` counts the calls of a run."""

    def __init__(self, call: int) -> None:
        self._call = call

    def recorded(self) -> Pace:
        """The pace of this call: what history says on replay, the clock otherwise."""
        if not workflow.unsafe.is_replaying():
            began = perf_counter()
            return Pace(late=lambda: perf_counter() > began + BREATH, clock=lambda: _check(began + TOO_LONG))
        turns: set[int] = set()
        while workflow.patched(self._mark(f"overdue.{len(turns)}")):
            turns.add(self._turn(f"overdue.{len(turns)}"))
        return Pace(frozenset(turns), self._turn("yield") if workflow.patched(self._mark("yield")) else None)

    def overdue(self, pace: Pace, turn: int) -> Pace:
        """Records that an expression of a turn ran out of time, and gives the pace to call again with."""
        self._record(f"overdue.{len(pace.overdue)}", turn)
        return Pace(pace.overdue | {turn}, pace.stop_at, pace.late)

    def yielded(self, commands: Sequence[Command]) -> None:
        """Records where the call stopped for breath, if it did."""
        for command in commands:
            if isinstance(command, Yield) and command.late_at is not None:
                self._record("yield", command.late_at)

    def _record(self, kind: str, turn: int) -> None:
        workflow.patched(self._mark(kind))
        workflow.patched(self._mark(kind, turn))

    def _turn(self, kind: str) -> int:
        return next(turn for turn in range(_MOST_TURNS) if workflow.patched(self._mark(kind, turn)))

    def _mark(self, kind: str, turn: int | None = None) -> str:
        mark = f"clock-{self._call}-{kind}"
        return mark if turn is None else f"{mark}-{turn}"


def _check(deadline: float) -> None:
    if perf_counter() > deadline:
        raise ClockExceeded("the expressions of one step")

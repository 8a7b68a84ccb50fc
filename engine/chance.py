"""Time and chance inside expressions: given, never taken, so that a replay sees the same."""

import random  # noqa: TID251 - generators made from a given seed, nothing else
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Moment:
    """When an expression is evaluated: workflow time in milliseconds since 1970, and the seed of its chance. Two
    expressions that may draw chance at the same time need different seeds.

    `clock`, where there is one, is asked before each evaluation and raises `ClockExceeded` when all of them together
    have taken too long.
    """

    now_ms: int
    seed: str
    clock: Callable[[], None] | None = field(default=None, compare=False)

    def at(self, place: str) -> "Moment":
        """The same moment for one of several expressions. Raises `ClockExceeded`."""
        if self.clock is not None:
            self.clock()
        return Moment(self.now_ms, f"{self.seed}/{place}", self.clock)


class Chance:
    """Numbers drawn one after the other from a generator that is made from the seed alone."""

    def __init__(self, seed: str) -> None:
        self._generator = random.Random(seed)

    def random(self) -> float:
        """At least 0 and below 1."""
        return self._generator.random()

    def uuid(self) -> str:
        """A version 4 UUID."""
        return str(uuid.UUID(int=self._generator.getrandbits(128), version=4))

    def shuffled(self, items: object) -> list[object]:
        """The items of a list in another order; anything else is a list of one."""
        if not isinstance(items, list):
            return [items]
        shuffled = list(items)
        for last in range(len(shuffled) - 1, 0, -1):
            other = int(self._generator.random() * (last + 1))
            shuffled[last], shuffled[other] = shuffled[other], shuffled[last]
        return shuffled

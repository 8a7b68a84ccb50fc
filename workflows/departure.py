"""When a run goes on as a new one: history has grown long, and what is under way can be let go of or has ended.

A run applies nothing while it waits for that, so the wait must be short. What takes longer is let be, and the run goes
on as it is until that has ended: a long action must not hold up everything else because the history is long.
"""

import asyncio
from collections.abc import Callable, Collection
from datetime import timedelta

from temporalio import workflow

_LONG_HISTORY = 8_000

# Events, and bytes. The server ends a run of 51,200 events or 50 MiB: from here on it waits as long as it must.
_FULL_HISTORY = 40_000
_FULL_HISTORY_BYTES = 40 * 1024 * 1024

# Events. A child that ends soon is waited for: it is cheaper to be told of its end than to ask for it.
_PUT_OFF = 1_000

# An action that does not say otherwise has ended after so long.
_PATIENCE = timedelta(seconds=15)


class Departure:
    """How long a run has been about to go on as a new one, and what it has not waited for."""

    def __init__(self) -> None:
        self._long_since: int | None = None
        self._waited_for: frozenset[str] = frozenset()
        self._stays = False

    def is_due(self, has_children: bool, children_survive: bool, under_way: Callable[[], set[str]]) -> bool:
        """Whether history is long, no child is open (or that has been put off long enough), and all has ended by now
        that had taken too long. `under_way` gives the keys of what the run would lose.
        """
        if self._stays or not _is_long():
            return False
        length = workflow.info().get_current_history_length()
        self._long_since = length if self._long_since is None else self._long_since
        if has_children and not (children_survive and length - self._long_since >= _PUT_OFF):
            return False
        return not self._waited_for or _is_full() or not self._waited_for & under_way()

    def patience(self) -> asyncio.Task[None] | None:
        """A timer: what is under way is waited for until it is done. None: for as long as it takes."""
        if _is_full():
            return None
        return asyncio.create_task(workflow.sleep(_PATIENCE, summary="what is under way"), name="patience")

    def stay(self) -> None:
        """The run ends as the one that it is: it has more than it could pass on."""
        self._stays = True

    def put_off(self, under_way: Collection[str]) -> None:
        """This has taken too long: the run goes on as it is until all of it has ended."""
        self._waited_for = frozenset(under_way)


def _is_long() -> bool:
    info = workflow.info()
    return info.is_continue_as_new_suggested() or info.get_current_history_length() >= _LONG_HISTORY


def _is_full() -> bool:
    info = workflow.info()
    full = info.get_current_history_length() >= _FULL_HISTORY
    return full or info.get_current_history_size() >= _FULL_HISTORY_BYTES

"""Who gets an event that is a signal: the execution that waits for it, or the one that was started under its key."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from app.db.session import Connection
from app.db.statuses import DeliveryKind
from app.inbox.aims import Aim
from app.inbox.awaiting import Wait, find_given, find_wait, lock_keys
from app.inbox.queries import find_correlated
from engine.errors import EngineError


@dataclass(frozen=True, slots=True)
class Receiver:
    """An execution that gets a signal: for one of its waits, or for whenever it takes it."""

    execution_id: UUID
    wait: Wait | None = None


class Receivers:
    """Finds them for one batch of events, of which no statement has been written yet."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._started: dict[tuple[UUID, str], UUID] = {}
        self._given: set[UUID] = set()

    async def lock(self, aims: Sequence[Aim]) -> None:
        """Keeps others from the keys of all aims: two events with one key that are delivered at once must not both find
        that nothing runs, nor both the same wait.
        """
        await lock_keys(self._connection, {place for aim in aims if (place := _place(aim)) is not None})

    def note_started(self, template_id: UUID, key: str, execution_id: UUID) -> None:
        """This batch starts an execution under a correlation key."""
        self._started[template_id, key] = execution_id

    async def find(self, aim: Aim, template_id: UUID, key: str) -> Receiver | None:
        """Who was asked before, who has waited longest for this, or who is open and was started under the key."""
        before, subscription = aim.before, aim.subscription
        if before is not None and before.kind is DeliveryKind.SIGNAL and before.execution_id is not None:
            # It may have been taken, and only the answer was lost.
            if before.wait_id is None:
                return Receiver(before.execution_id)
            return Receiver(
                before.execution_id, await find_given(self._connection, before.wait_id, before.execution_id)
            )
        assert subscription is not None
        assert subscription.signal is not None
        wait = await find_wait(self._connection, template_id, subscription.signal, key, self._given)
        if wait is not None:
            self._given.add(wait.id)
            return Receiver(wait.execution_id, wait)
        started = self._started.get((template_id, key))
        if started is None:
            started = next(iter(await find_correlated(self._connection, template_id, key)), None)
        return None if started is None else Receiver(started)


def _place(aim: Aim) -> tuple[UUID, str] | None:
    """The template and the correlation key; None where there is no key, also because the payload has none: that is said
    when it is the aim's turn.
    """
    subscription = aim.subscription
    if aim.template_id is None or subscription is None:
        return None
    try:
        key = subscription.correlation_key(aim.event.payload)
    except EngineError:
        return None
    return None if key is None else (aim.template_id, key)

"""Keys: what a command and the event that answers it share.

`fetch#2` is the second visit of a step, `fetch#2/item/17` one of its items, `fetch#2/round/3` one of its iterations (an
item may have them too); a role at the end names what belongs to it: `fetch#2/timeout`, `fetch#2/data/customer`.
"""

from dataclasses import dataclass

TIMEOUT = "timeout"
RETRY = "retry"
DUE = "due"
DELAY = "delay"
DATA = "data"
COMPENSATE = "compensate"
BATCH = "batch"
DEADLINE = "deadline"


def visit_key(step_id: str, visit: int) -> str:
    """The key of one activation of a step."""
    return f"{step_id}#{visit}"


def item_key(key: str, index: int) -> str:
    """The key of one item of an activation."""
    return f"{key}/item/{index}"


def round_key(key: str, index: int) -> str:
    """The key of one iteration of an activation or an item."""
    return f"{key}/round/{index}"


def role_key(key: str, role: str) -> str:
    """The key of what belongs to an activation: its timeout, the pause before its next attempt, its compensator."""
    return f"{key}/{role}"


@dataclass(frozen=True, slots=True)
class Key:
    """A key taken apart; what it does not name is None."""

    step_id: str
    visit: int
    item: int | None = None
    round: int | None = None
    role: str | None = None

    @classmethod
    def parse(cls, key: str) -> "Key":
        """Reads a key that the engine wrote."""
        head, *tail = key.split("/")
        step_id, _, visit = head.rpartition("#")
        item = number = None
        if tail[:1] == ["item"]:
            item = int(tail[1])
            tail = tail[2:]
        if tail[:1] == ["round"]:
            number = int(tail[1])
            tail = tail[2:]
        return cls(step_id, int(visit), item, number, "/".join(tail) or None)

    @classmethod
    def read(cls, text: str) -> "Key | None":
        """Reads a text that may be a key; None for what is none, such as the id of an activity of no step."""
        try:
            key = cls.parse(text)
        except (ValueError, IndexError):
            return None
        return key if key.step_id else None

    def __str__(self) -> str:
        unit = self.unit_key if self.round is None else round_key(self.unit_key, self.round)
        return unit if self.role is None else role_key(unit, self.role)

    @property
    def visit_key(self) -> str:
        """The key of the activation this key belongs to."""
        return visit_key(self.step_id, self.visit)

    @property
    def unit_key(self) -> str:
        """The key of the item, or of the activation that has none."""
        return self.visit_key if self.item is None else item_key(self.visit_key, self.item)

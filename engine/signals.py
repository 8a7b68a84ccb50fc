"""Signals: to the step that waits for one, to the step whose items it adds to, or into the buffer."""

import json

from engine.draft import Draft
from engine.errors import EngineError
from engine.events import SignalReceived
from engine.json_types import JSON
from engine.plan import Plan, SignalNode, WorkNode
from engine.state import Buffered, Phase, Stage, State, Work
from engine.values import Const

ADD = ".add"

# How many ids of signals are remembered, by which a repetition is known.
REMEMBERED = 1_000


def text_of(value: JSON) -> str:
    """A signal's name, or a correlation key, as text: a number or a boolean is its JSON."""
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, ensure_ascii=False)


def matches(wanted: tuple[str, ...], name: str, key: str | None) -> bool:
    """Whether a step that waits for (name[, key]) takes a signal; a step without a key takes any."""
    return wanted[:1] == (name,) and (len(wanted) == 1 or wanted[1] == key)


def waiting_signal(draft: Draft, wanted: tuple[str, ...]) -> Buffered | None:
    """Takes the earliest fitting signal out of the buffer; those that have waited too long are forgotten."""
    alive = [signal for signal in draft.signals if signal.expires > draft.at]
    found = next((signal for signal in alive if matches(wanted, signal.name, signal.key)), None)
    draft.signals = tuple(signal for signal in alive if signal is not found)
    return found


def receives(draft: Draft, event: SignalReceived) -> str | None:
    """The key of the activation or item that takes a signal: the one that it is for, or has waited longest."""
    return taker(draft, event.name, event.correlation_key, event.wait_key)


def taker(state: State | Draft, name: str, key: str | None, wait_key: str | None = None) -> str | None:
    """The key of the activation or item that would take a signal, or whether the one of `wait_key` would."""
    if wait_key is not None:
        work = state.work.get(wait_key)
        return wait_key if work is not None and _takes(work, name, key) else None
    waiting = [
        (work.since, work.step_id, work.visit, -1 if work.item is None else work.item, place)
        for place, work in state.work.items()
        if _takes(work, name, key)
    ]
    return min(waiting)[-1] if waiting else None


def _takes(work: Work, name: str, key: str | None) -> bool:
    return bool(work.signal) and work.stage is Stage.RUNNING and matches(work.signal, name, key)


def growing(state: State | Draft, name: str) -> str | None:
    """The key of the step over items that a signal `<stepId>.add` adds to."""
    if not name.endswith(ADD):
        return None
    step_id = name.removesuffix(ADD)
    return min((key for key, fan in state.fans.items() if fan.work.step_id == step_id), default=None)


def early_items(draft: Draft, step_id: str) -> list[JSON]:
    """Takes the items out of the buffer that came for a step before it began."""
    items: list[JSON] = []
    while True:
        early = waiting_signal(draft, (f"{step_id}{ADD}",))
        if early is None:
            return items
        items.extend(added(early.payload))


def added(payload: JSON) -> tuple[JSON, ...]:
    """The items that a signal brings: a list is several, anything else is one."""
    return tuple(payload) if isinstance(payload, list) else (payload,)


def buffer(draft: Draft, event: SignalReceived) -> None:
    """Keeps a signal that nobody waits for yet. One too many is dropped and has not come: those who can be told are
    told before, and may send it again.
    """
    limits = draft.plan.limits
    alive = tuple(signal for signal in draft.signals if signal.expires > draft.at)
    if len(alive) < limits.buffered_signals:
        expires = draft.at + round(limits.signal_ttl * 1000)
        alive = (*alive, Buffered(event.name, event.correlation_key, event.payload, draft.at, expires, event.id))
    else:
        forget(draft, event)
    draft.signals = alive


def forget(draft: Draft, event: SignalReceived) -> None:
    """A signal that was just noted as come has not: it may be sent again."""
    if event.id is not None:
        draft.receipts = draft.receipts[:-1]


def repeated(draft: Draft, event: SignalReceived) -> bool:
    """Whether this very signal has come before; remembers it if not."""
    if event.id is None:
        return False
    if event.id in draft.receipts:
        return True
    draft.receipts = (*draft.receipts[-REMEMBERED + 1 :], event.id)
    return False


def _adds_items(plan: Plan, name: str) -> bool:
    """Whether a step over items could take a signal of this name."""
    index = plan.by_id.get(name.removesuffix(ADD)) if name.endswith(ADD) else None
    node = None if index is None else plan.nodes[index]
    return isinstance(node, WorkNode) and node.each is not None


def names_taken(plan: Plan) -> list[str] | None:
    """The names of all signals that steps of this process take; None when one is worked out only when it is reached."""
    found = set()
    for node in plan.nodes:
        if isinstance(node, SignalNode):
            if not isinstance(node.signal, Const):
                return None
            found.add(text_of(node.signal.value))
        if isinstance(node, WorkNode) and node.each is not None:
            found.add(f"{node.id}{ADD}")
    return sorted(found)


def fate(
    plan: Plan, state: State, name: str, key: str | None, signal_id: str | None, at: int, *, by_name: bool = True
) -> str:
    """What will become of a signal: DELIVERED or BUFFERED.

    Raises `EngineError`: EXECUTION_ENDED, SIGNAL_BUFFER_FULL, SIGNAL_UNKNOWN (no step of this process could ever
    take it; with `by_name` also where steps wait for signals of other names only).
    """
    if state.phase is not Phase.RUNNING:
        raise EngineError("EXECUTION_ENDED", "the execution has ended or is ending")
    if signal_id is not None and signal_id in state.receipts:
        waits = any(signal.id == signal_id for signal in state.signals)
        return "BUFFERED" if waits else "DELIVERED"
    if growing(state, name) is not None or taker(state, name, key) is not None:
        return "DELIVERED"
    if not any(isinstance(node, SignalNode) for node in plan.nodes) and not _adds_items(plan, name):
        raise EngineError("SIGNAL_UNKNOWN", "no step of this process waits for a signal")
    names = names_taken(plan) if by_name else None
    if names is not None and name not in names:
        raise EngineError("SIGNAL_UNKNOWN", f"no step of this process takes a signal {name}, but: {', '.join(names)}")
    alive = sum(signal.expires > at for signal in state.signals)
    if alive >= plan.limits.buffered_signals:
        raise EngineError("SIGNAL_BUFFER_FULL", f"{alive} signals wait already, which is as many as may")
    return "BUFFERED"

"""Taking work back: an activation, an item, a branch, everything. What runs outside is told to stop and still answers.

What was asked for in this very call is simply not asked for. What has begun outside moves to `State.leaving`, and its
answer is only noted: the run may go on meanwhile, but it does not end before all of it has answered.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from engine.draft import Draft
from engine.json_types import JSON
from engine.keys import BATCH, DATA, DELAY, DUE, RETRY, TIMEOUT, Key, role_key, round_key
from engine.plan import ActionNode, ChildNode, HumanNode, Node, SignalNode, WorkNode
from engine.protocol import (
    CloseHumanTask,
    CloseIncident,
    CloseWait,
    Command,
    OpenHumanTask,
    OpenIncident,
    OpenWait,
    RunAction,
    SpawnBatch,
    SpawnChildren,
    StartTimer,
    Withdraw,
)
from engine.state import Fan, Stage, StepStatus, Token, Work

_OUTSIDE = frozenset({Stage.RUNNING, Stage.EXPIRED})
# More than a chunk can have made of any child: how often it tried is not known when it did not end well.
_SPENT = 1_000
_TIMERS = (TIMEOUT, RETRY, DUE, DELAY)


def command_key(node: Node, key: str, work: Work) -> str:
    """The key under which an activation's (or item's) present attempt runs."""
    repeats = isinstance(node, WorkNode) and node.repeat is not None
    return round_key(key, work.round) if repeats and f"/{BATCH}/" not in key else key


def withdraw_all(draft: Draft) -> None:
    """Everything that is open."""
    _withdraw_where(draft, lambda work: True)
    draft.ready.clear()
    draft.todo.clear()


def withdraw_branch(draft: Draft, scope: str) -> None:
    """Everything inside one branch of a region: activations, tokens, regions in it."""
    inner = {scope}
    changed = True
    while changed:
        within = [key for key, region in draft.regions.items() if region.scope in inner]
        branches = {f"{key}/{branch}" for key in within for branch in draft.regions[key].branches}
        for key in sorted(within):
            draft.regions = draft.regions.delete(key)
        changed = bool(branches - inner)
        inner |= branches
    _withdraw_where(draft, lambda work: work.scope in inner)
    kept = [token for token in draft.ready if token.scope not in inner]
    draft.ready.clear()
    draft.ready.extend(kept)
    for name in ("arrived", "filled"):
        waiting = getattr(draft, name)
        for key in sorted(waiting):
            if key.partition("@")[2] in inner:
                waiting = waiting.delete(key)
        setattr(draft, name, waiting)


def withdraw_rivals(draft: Draft, race: str) -> None:
    """The other targets of an event split: somebody has won."""
    if not race:
        return
    _withdraw_where(draft, lambda work: work.race == race)
    rivals: list[Token] = [token for token in draft.ready if token.race == race]
    for token in rivals:
        draft.ready.remove(token)


def withdraw_visit(draft: Draft, key: str, status: StepStatus = StepStatus.CANCELLED) -> None:
    """One activation with all of its items."""
    fan = draft.fans.get(key)
    if fan is not None:
        withdraw_items(draft, key)
        draft.fans = draft.fans.delete(key)
        _leave(draft, key)
        draft.show(fan.work, status)
    work = draft.work.get(key)
    if work is not None:
        take_back(draft, key)
        _leave(draft, key)
        draft.show(work, status)


def withdraw_items(draft: Draft, key: str) -> None:
    """The open items of a step over items."""
    step = Key.parse(key)
    open_items: list[tuple[int, str]] = sorted(
        (work.item, name)
        for name, work in draft.work.items()
        if work.item is not None and work.step_id == step.step_id and work.visit == step.visit
    )
    fan = draft.fans[key]
    for _, name in open_items:
        fan = with_progress(fan, name, draft.work[name])
        take_back(draft, name)
    draft.fans = draft.fans.set(key, fan._replace(open=0))


def with_progress(fan: Fan, key: str, work: Work) -> Fan:
    """A step over items that remembers how far one of them, or the children of a chunk of them, have come."""
    if work.item is None:
        return fan
    if f"/{BATCH}/" in key:
        numbers = range(work.item, min(work.item + fan.chunk, len(fan.items)))
        spent = {number: fan.tries.get(number, 0) + _SPENT for number in numbers if number not in fan.results}
        return fan._replace(tries=fan.tries.update(spent))
    tries = fan.tries.set(work.item, work.tries) if work.tries else fan.tries
    kept = bool(work.round or work.deadlines)
    return fan._replace(tries=tries, left=fan.left.set(work.item, work) if kept else fan.left)


def halt(draft: Draft, key: str) -> None:
    """Stops whatever an activation or item waits for, without an end of it: it has failed, or is passed over."""
    if key in draft.fans:
        withdraw_items(draft, key)
    work = draft.work.get(key)
    if work is not None:
        take_back(draft, key)
        draft.work = draft.work.set(key, work._replace(stage=Stage.READY))


def take_back(draft: Draft, key: str) -> None:
    """One activation without items, or one item: stops what it waits for, and forgets it."""
    work = draft.work[key]
    node = draft.plan.node(work.step_id)
    draft.work = draft.work.delete(key)
    disarm(draft, key)
    _forget(draft, key)
    match work.stage:
        case Stage.READING:
            stop_reads(draft, key, work)
        case Stage.INCIDENT:
            if not _dropped(draft, lambda one: isinstance(one, OpenIncident) and one.key == key):
                draft.commands.append(CloseIncident(key, "WITHDRAWN"))
        case Stage.QUEUED:
            draft.waiting.remove(key)
        case Stage.CLOSED | Stage.MUTEX:
            draft.gated = tuple(name for name in draft.gated if name != key)
        case stage if stage in _OUTSIDE:
            _stop(draft, node, key, work)
        case _:
            pass


def disarm(draft: Draft, key: str, *roles: str) -> None:
    """Stops the timers of an activation or item, or those of the given roles."""
    for role in roles or _TIMERS:
        name = role_key(key, role)
        if name in draft.timers:
            draft.timers = draft.timers.delete(name)
            if not _dropped(draft, partial(_starts, name)):
                draft.commands.append(Withdraw((name,)))


def _starts(name: str, command: Command) -> bool:
    return isinstance(command, StartTimer) and command.key == name


def release(draft: Draft, key: str) -> None:
    """Gives the mutex back that an activation holds, and its place among those that a milestone guards."""
    for name in sorted(name for name, holder in draft.locks.items() if holder == key):
        draft.locks = draft.locks.delete(name)
    if key in draft.guarded:
        draft.guarded = tuple(name for name in draft.guarded if name != key)


def _leave(draft: Draft, key: str) -> None:
    release(draft, key)
    _forget(draft, key)


def _forget(draft: Draft, key: str) -> None:
    """Nothing more is to be gone on with."""
    kept = [entry for entry in draft.todo if entry.partition(" ")[2] != key]
    if len(kept) != len(draft.todo):
        draft.todo.clear()
        draft.todo.extend(kept)


def _withdraw_where(draft: Draft, wanted: Callable[[Work], bool]) -> None:
    visits = {key for key, fan in draft.fans.items() if wanted(fan.work)}
    visits |= {key for key, work in draft.work.items() if work.item is None and wanted(work)}
    for key in sorted(visits):
        withdraw_visit(draft, key)


def _stop(draft: Draft, node: Node, key: str, work: Work) -> None:
    """Stops an attempt that runs outside. What was to begin in this very call never does."""
    match node:
        case HumanNode():
            if not _dropped(draft, lambda one: isinstance(one, OpenHumanTask) and one.key == key):
                draft.commands.append(CloseHumanTask(key, "CANCELLED"))
        case SignalNode():
            end_wait(draft, key, work)
        case ActionNode() | ChildNode():
            name = command_key(node, key, work)
            if not _never_begun(draft, name):
                draft.leaving = draft.leaving.set(name, _with_item(draft, work))
                draft.commands.append(Withdraw((name,)))
            elif isinstance(node, ActionNode):
                draft.running -= 1
        case _:
            pass


def end_wait(draft: Draft, key: str, work: Work) -> None:
    """An activation or item no longer waits for a signal; only waits under a correlation key are told of outside."""
    keyed = len(work.signal) > 1
    if keyed and not _dropped(draft, lambda one: isinstance(one, OpenWait) and one.key == key):
        draft.commands.append(CloseWait(key))


def _with_item(draft: Draft, work: Work) -> Work:
    """What leaves may still succeed, and is then undone by what its item was; `since` is when it was withdrawn."""
    if work.item is None:
        return work._replace(since=draft.at)
    return work._replace(each=(item_of(draft, work),), since=draft.at)


def item_of(draft: Draft, work: Work) -> JSON:
    """The item that an activation is for; one that was withdrawn has it itself, since its step may have gone on."""
    if work.item is None:
        raise AssertionError("an activation without items has none")
    if work.each:
        return work.each[0]
    fan = draft.fans[Key(work.step_id, work.visit).visit_key]
    return fan.items[work.item - fan.offset]


def stop_reads(draft: Draft, key: str, work: Work) -> None:
    """Stops the reads of datasources that have not answered."""
    for alias in work.reads:
        name = role_key(key, f"{DATA}/{alias}")
        if not _never_begun(draft, name):
            draft.leaving = draft.leaving.set(name, work)
            draft.commands.append(Withdraw((name,)))


def _never_begun(draft: Draft, key: str) -> bool:
    """Drops the command of this very call that would begin what is withdrawn; tells whether there was one."""
    if _dropped(draft, lambda one: isinstance(one, RunAction | SpawnBatch) and one.key == key):
        return True
    for at, command in enumerate(draft.commands):
        if isinstance(command, SpawnChildren) and any(child.key == key for child in command.children):
            left = tuple(child for child in command.children if child.key != key)
            draft.commands[at : at + 1] = [replace(command, children=left)] if left else []
            return True
    return False


def _dropped(draft: Draft, wanted: Callable[[Command], bool]) -> bool:
    for at, command in enumerate(draft.commands):
        if wanted(command):
            del draft.commands[at]
            return True
    return False

"""What gateways do with tokens. None of it leaves the interpreter."""

import json

from engine.draft import Draft
from engine.errors import EngineError
from engine.keys import visit_key
from engine.plan import (
    Edge,
    EventSplitNode,
    ExclusiveJoinNode,
    ExclusiveSplitNode,
    InclusiveJoinNode,
    InclusiveSplitNode,
    ParallelJoinNode,
    ParallelSplitNode,
    RouteNode,
)
from engine.regions import arrive_at_policy, is_inside, is_late, open_region
from engine.state import Token
from engine.values import holds, path_of, required


def split_parallel(draft: Draft, node: ParallelSplitNode, edge: Edge | None) -> None:
    """A token for every outgoing transition."""
    visit = draft.enter(node)
    draft.passed(node, visit)
    if node.closed_by is None:
        draft.send(*node.outgoing)
    else:
        open_region(draft, node, visit, node.outgoing)


def split_exclusive(draft: Draft, node: ExclusiveSplitNode, edge: Edge | None) -> None:
    """The conditional transition when it holds, otherwise the default."""
    visit = draft.enter(node)
    chosen = _holding(draft, node, visit)
    draft.passed(node, visit)
    draft.send(*(chosen[:1] or _default(node)))


def split_inclusive(draft: Draft, node: InclusiveSplitNode, edge: Edge | None) -> None:
    """Every transition whose condition holds; the default only when none does."""
    visit = draft.enter(node)
    chosen = _holding(draft, node, visit) or _default(node)
    draft.passed(node, visit)
    if node.closed_by is None:
        draft.send(*chosen)
    else:
        open_region(draft, node, visit, chosen)


def route(draft: Draft, node: RouteNode, edge: Edge | None) -> None:
    """The transition whose branch key is selected, otherwise the default."""
    visit = draft.enter(node)
    selected = required(node.select, draft.seen(), draft.moment(visit_key(node.id, visit)))
    wanted = selected if isinstance(selected, str) else json.dumps(selected)
    chosen = tuple(out for out in node.outgoing if out.branch_key == wanted) or _default(node)
    if not chosen:
        message = f"no branch of {node.id} is for {wanted[:100]!r}, and none is the default"
        raise EngineError("ROUTE_NOT_FOUND", message, path_of(node.select))
    draft.passed(node, visit)
    draft.send(*chosen[:1])


def split_event(draft: Draft, node: EventSplitNode, edge: Edge | None) -> None:
    """A token for every target, which compete: the first to finish wins."""
    visit = draft.enter(node)
    draft.passed(node, visit)
    race = visit_key(node.id, visit)
    draft.ready.extend(Token(out.id, draft.scope, draft.error, race) for out in node.outgoing)


def join_exclusive(draft: Draft, node: ExclusiveJoinNode, edge: Edge | None) -> None:
    """Each arriving token passes."""
    draft.passed(node, draft.enter(node))
    draft.send(*node.outgoing)


def join_parallel(draft: Draft, node: ParallelJoinNode, edge: Edge | None) -> None:
    """Waits for one token on each incoming transition, or for what its policy asks for."""
    if node.policy is not None:
        arrive_at_policy(draft, node, edge)
        return
    _arrive(draft, node, edge)
    if draft.filled[_at(node.id, draft.scope)] == len(node.incoming):
        _fire(draft, node, draft.scope)


def join_inclusive(draft: Draft, node: InclusiveJoinNode, edge: Edge | None) -> None:
    """Waits; whether it goes on is decided when nothing else can move (`release_inclusive_join`)."""
    _arrive(draft, node, edge)


def release_inclusive_join(draft: Draft) -> bool:
    """Lets the first inclusive join go on that no token elsewhere can still reach; tells whether one did.

    BPMN 2.0.2: a token holds a join up when it can reach an empty incoming transition by a path not through the
    join and cannot also reach a filled one that way. When nothing is under way that could bring a token, only joins
    wait for each other, and the first in plan order goes on. Inside a branch of a region only the branch counts.
    """
    plan = draft.plan
    waiting = sorted((plan.by_id[name], scope) for name, scope in map(_place, draft.filled))
    joins = [(node, scope) for index, scope in waiting if isinstance(node := plan.nodes[index], InclusiveJoinNode)]
    if not joins:
        return False
    elsewhere = [(1 << index, scope) for index, scope in waiting]
    under_way = [*draft.work.values(), *(fan.work for fan in draft.fans.values())]
    active = [(1 << plan.by_id[work.step_id], work.scope) for work in under_way if not is_late(draft, work.scope)]
    elsewhere = [*active, *((bit, scope) for bit, scope in elsewhere if not is_late(draft, scope))]
    for node, scope in joins:
        others = 0
        for bit, other in elsewhere:
            if is_inside(draft, other, scope):
                others |= bit
        if not _held_up(draft, node, scope, others & ~(1 << node.index)):
            _fire(draft, node, scope)
            return True
    if not active:
        _fire(draft, *joins[0])
        return True
    return False


def _held_up(draft: Draft, node: InclusiveJoinNode, scope: str, elsewhere: int) -> bool:
    empty = filled = 0
    for edge in node.incoming:
        if _at(edge.id, scope) in draft.arrived:
            filled |= node.reach[edge.slot]
        else:
            empty |= node.reach[edge.slot]
    return bool(elsewhere & empty & ~filled)


def _at(name: str, scope: str) -> str:
    """Where tokens of a branch wait: they never meet those of another activation of it."""
    return f"{name}@{scope}" if scope else name


def _place(key: str) -> tuple[str, str]:
    name, _, scope = key.partition("@")
    return name, scope


def _arrive(draft: Draft, node: ParallelJoinNode | InclusiveJoinNode, edge: Edge | None) -> None:
    if edge is None:
        raise AssertionError("a join is entered by a transition")
    key = _at(edge.id, draft.scope)
    present = draft.arrived.get(key, 0)
    draft.arrived = draft.arrived.set(key, present + 1)
    if not present:
        join = _at(node.id, draft.scope)
        draft.filled = draft.filled.set(join, draft.filled.get(join, 0) + 1)


def _fire(draft: Draft, node: ParallelJoinNode | InclusiveJoinNode, scope: str) -> None:
    """Takes one token from each filled transition and sends one on; it is on no error path any more."""
    draft.scope, draft.error, draft.race = scope, None, ""
    draft.passed(node, draft.enter(node))
    arrived = draft.arrived
    filled = 0
    for edge in node.incoming:
        key = _at(edge.id, scope)
        present = arrived.get(key, 0)
        if present > 1:
            arrived = arrived.set(key, present - 1)
            filled += 1
        elif present:
            arrived = arrived.delete(key)
    draft.arrived = arrived
    join = _at(node.id, scope)
    draft.filled = draft.filled.set(join, filled) if filled else draft.filled.delete(join)
    draft.send(*node.outgoing)


def _holding(draft: Draft, node: ExclusiveSplitNode | InclusiveSplitNode, visit: int) -> tuple[Edge, ...]:
    scope = draft.seen()
    moment = draft.moment(visit_key(node.id, visit))
    return tuple(edge for edge in node.outgoing if edge.condition is not None and holds(edge.condition, scope, moment))


def _default(node: ExclusiveSplitNode | InclusiveSplitNode | RouteNode) -> tuple[Edge, ...]:
    return tuple(edge for edge in node.outgoing if edge.is_default)

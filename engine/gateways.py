"""What gateways do with tokens. None of it leaves the interpreter."""

from engine.draft import Draft
from engine.plan import (
    Edge,
    ExclusiveJoinNode,
    ExclusiveSplitNode,
    InclusiveJoinNode,
    InclusiveSplitNode,
    ParallelJoinNode,
    ParallelSplitNode,
)
from engine.protocol import visit_key
from engine.values import holds


def split_parallel(draft: Draft, node: ParallelSplitNode, edge: Edge | None) -> None:
    """A token for every outgoing transition."""
    draft.passed(node, draft.enter(node))
    draft.send(*node.outgoing)


def split_exclusive(draft: Draft, node: ExclusiveSplitNode, edge: Edge | None) -> None:
    """The conditional transition when it holds, otherwise the default."""
    visit = draft.enter(node)
    chosen = _holding(draft, node, visit)
    draft.passed(node, visit)
    draft.send(*(chosen[:1] or _default(node)))


def split_inclusive(draft: Draft, node: InclusiveSplitNode, edge: Edge | None) -> None:
    """Every transition whose condition holds; the default only when none does."""
    visit = draft.enter(node)
    chosen = _holding(draft, node, visit)
    draft.passed(node, visit)
    draft.send(*(chosen or _default(node)))


def join_exclusive(draft: Draft, node: ExclusiveJoinNode, edge: Edge | None) -> None:
    """Each arriving token passes."""
    draft.passed(node, draft.enter(node))
    draft.send(*node.outgoing)


def join_parallel(draft: Draft, node: ParallelJoinNode, edge: Edge | None) -> None:
    """Waits for one token on each incoming transition."""
    _arrive(draft, node, edge)
    if draft.filled[node.id] == len(node.incoming):
        _fire(draft, node)


def join_inclusive(draft: Draft, node: InclusiveJoinNode, edge: Edge | None) -> None:
    """Waits; whether it goes on is decided when nothing else can move (`release_inclusive_join`)."""
    _arrive(draft, node, edge)


def release_inclusive_join(draft: Draft) -> bool:
    """Lets the first inclusive join go on that no token elsewhere can still reach; tells whether one did.

    BPMN 2.0.2: a token holds a join up when it can reach an empty incoming transition by a path not through the
    join and cannot also reach a filled one that way. When nothing is under way that could bring a token, only joins
    wait for each other, and the first in plan order goes on.
    """
    plan = draft.plan
    waiting = sorted(plan.by_id[step_id] for step_id in draft.filled)
    joins = [node for index in waiting if isinstance(node := plan.nodes[index], InclusiveJoinNode)]
    if not joins:
        return False
    elsewhere = 0
    for index in waiting:
        elsewhere |= 1 << index
    for work in draft.work.values():
        elsewhere |= 1 << plan.by_id[work.step_id]
    for node in joins:
        if not _held_up(draft, node, elsewhere & ~(1 << node.index)):
            _fire(draft, node)
            return True
    if not draft.work:
        _fire(draft, joins[0])
        return True
    return False


def _held_up(draft: Draft, node: InclusiveJoinNode, elsewhere: int) -> bool:
    empty = filled = 0
    for edge in node.incoming:
        if edge.id in draft.arrived:
            filled |= node.reach[edge.slot]
        else:
            empty |= node.reach[edge.slot]
    return bool(elsewhere & empty & ~filled)


def _arrive(draft: Draft, node: ParallelJoinNode | InclusiveJoinNode, edge: Edge | None) -> None:
    if edge is None:
        raise AssertionError("a join is entered by a transition")
    present = draft.arrived.get(edge.id, 0)
    draft.arrived = draft.arrived.set(edge.id, present + 1)
    if not present:
        draft.filled = draft.filled.set(node.id, draft.filled.get(node.id, 0) + 1)


def _fire(draft: Draft, node: ParallelJoinNode | InclusiveJoinNode) -> None:
    """Takes one token from each filled transition and sends one on."""
    draft.passed(node, draft.enter(node))
    arrived = draft.arrived
    filled = 0
    for edge in node.incoming:
        present = arrived.get(edge.id, 0)
        if present > 1:
            arrived = arrived.set(edge.id, present - 1)
            filled += 1
        elif present:
            arrived = arrived.delete(edge.id)
    draft.arrived = arrived
    draft.filled = draft.filled.set(node.id, filled) if filled else draft.filled.delete(node.id)
    draft.send(*node.outgoing)


def _holding(draft: Draft, node: ExclusiveSplitNode | InclusiveSplitNode, visit: int) -> tuple[Edge, ...]:
    scope = draft.scope()
    moment = draft.moment(visit_key(node.id, visit))
    return tuple(edge for edge in node.outgoing if edge.condition is not None and holds(edge.condition, scope, moment))


def _default(node: ExclusiveSplitNode | InclusiveSplitNode) -> tuple[Edge, ...]:
    return tuple(edge for edge in node.outgoing if edge.is_default)

"""Moving an open run to another version: whether it can go on there, and the state with which it does.

What runs outside (actions, children, reads of datasources) answers under the key it was begun with, so its step must
be there under the same id and be of the same kind. What only waits (people, signals, delays, gates, tokens) can be
mapped to another step: it is withdrawn at the old one, and the new one is entered in its place.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from engine.draft import Draft, Step
from engine.keys import DEADLINE, Key
from engine.plan import Edge, Node, ParallelJoinNode, Plan, WorkNode
from engine.protocol import StartTimer, Withdraw
from engine.state import Stage, State, Token, Work
from engine.withdrawal import withdraw_visit

_OUTSIDE = frozenset({Stage.RUNNING, Stage.EXPIRED, Stage.READING, Stage.SUSPENDED, Stage.RETRYING, Stage.QUEUED})
_WAITING = frozenset({"HumanNode", "SignalNode", "DelayNode"})


@dataclass(frozen=True, slots=True)
class Finding:
    """Why a run cannot go on with another version as it is."""

    step_id: str
    code: Literal["NEEDS_MAPPING", "IMPOSSIBLE"]
    reason: str


def findings(old: Plan, new: Plan, state: State, mapping: Mapping[str, str]) -> tuple[Finding, ...]:
    """Everything that stands in the way, the first for each step, in order of step; nothing when the run can go on."""
    found: dict[str, Finding] = {}
    for finding in _findings(old, new, state, mapping):
        found.setdefault(finding.step_id, finding)
    return tuple(found[key] for key in sorted(found))


def verdict(found: tuple[Finding, ...]) -> Literal["SAFE", "NEEDS_MAPPING", "IMPOSSIBLE"]:
    """What the findings come to."""
    if not found:
        return "SAFE"
    return "IMPOSSIBLE" if any(one.code == "IMPOSSIBLE" for one in found) else "NEEDS_MAPPING"


def migrate(old: Plan, new: Plan, state: State, mapping: Mapping[str, str], at: int) -> Step:
    """The state with which the run goes on, and what is to be done about it; `findings` has found nothing."""
    draft = Draft(old, state, at)
    entering: list[Token] = []
    for key, work in sorted(_visits(state).items()):
        target = mapping.get(work.step_id, work.step_id)
        if target != work.step_id:
            withdraw_visit(draft, key)
            entering.append(Token(new.node(target).incoming[0].id, work.scope, work.error, work.race))
        elif work.edge not in new.edges:
            _reenter_by(draft, new, key, work)
    tokens = [replace_token(old, new, token, mapping) for token in draft.ready]
    draft.ready.clear()
    draft.ready.extend((*tokens, *entering))
    draft.plan = new
    _rearm_deadline(draft, old, new)
    if (draft.ready or draft.todo) and not draft.yielded:
        draft.ask_for_breath()
    return draft.freeze()


def replace_token(old: Plan, new: Plan, token: Token, mapping: Mapping[str, str]) -> Token:
    """A token on the same transition of the new version, or on one into the step that its target has become."""
    edge = new.edges.get(token.edge)
    target = mapping.get(old.nodes[old.edges[token.edge].target].id, old.nodes[old.edges[token.edge].target].id)
    if edge is not None and new.nodes[edge.target].id == target:
        return token
    return token._replace(edge=new.node(target).incoming[0].id)


def _visits(state: State) -> dict[str, Work]:
    """The open activations, each once: of a step over items its own."""
    visits = {key: fan.work for key, fan in state.fans.items()}
    return visits | {key: work for key, work in state.work.items() if work.item is None}


def _findings(old: Plan, new: Plan, state: State, mapping: Mapping[str, str]) -> Iterator[Finding]:
    for source, target in sorted(mapping.items()):
        if target not in new.by_id:
            yield Finding(source, "NEEDS_MAPPING", f"the new version has no step {target}")
    for work in [*_visits(state).values(), *state.leaving.values()]:
        yield from _of_work(old, new, state, work, mapping)
    for token in state.ready:
        ahead = old.nodes[old.edges[token.edge].target].id
        if mapping.get(ahead, ahead) not in new.by_id:
            yield Finding(ahead, "NEEDS_MAPPING", "a token is on its way there, and the new version has no such step")
    for name in state.arrived:
        yield from _of_join(old, new, name.partition("@")[0])
    yield from _starving(old, new, state, mapping)
    for region in state.regions.values():
        yield from _of_region(old, new, region.split, region.branches)


def _of_work(old: Plan, new: Plan, state: State, work: Work, mapping: Mapping[str, str]) -> Iterator[Finding]:
    source = old.node(work.step_id)
    target_id = mapping.get(source.id, source.id)
    mapped = target_id != source.id
    outside = not _only_waits(source, work, state)
    if target_id not in new.by_id:
        if outside:
            yield Finding(source.id, "IMPOSSIBLE", "it runs, and the new version has no such step: let it end first")
        elif not mapped:
            yield Finding(source.id, "NEEDS_MAPPING", "it is open, and the new version has no such step")
        return
    target = new.node(target_id)
    if mapped and outside:
        yield Finding(source.id, "IMPOSSIBLE", "it runs, so that it cannot become another step: let it end first")
    elif mapped and type(source) is not type(target):
        reason = f"it is a {source.type} and {target_id} a {target.type}; a step is mapped to one of its kind"
        yield Finding(source.id, "IMPOSSIBLE", reason)
    elif mapped and not target.incoming:
        yield Finding(source.id, "IMPOSSIBLE", f"{target_id} cannot be entered")
    elif not mapped and type(source) is not type(target):
        reason = f"it is a {source.type} and would be a {target.type}"
        yield Finding(source.id, "IMPOSSIBLE" if outside else "NEEDS_MAPPING", reason)
    elif not mapped and _form(source) != _form(target):
        yield Finding(source.id, "IMPOSSIBLE", "it runs over items, or repeats, in one version only: let it end first")


def _form(node: Node) -> tuple[bool, bool]:
    return (node.each is not None, node.repeat is not None) if isinstance(node, WorkNode) else (False, False)


def _only_waits(node: Node, work: Work, state: State) -> bool:
    """Whether nothing runs outside for an activation, so that it can be withdrawn without loss."""
    key = Key(work.step_id, work.visit).visit_key
    if key in state.fans or work.item is not None:
        return False
    return type(node).__name__ in _WAITING or work.stage not in _OUTSIDE


def _of_join(old: Plan, new: Plan, edge_id: str) -> Iterator[Finding]:
    before = old.edges[edge_id]
    join = old.nodes[before.target]
    after = new.edges.get(edge_id)
    if after is None or new.nodes[after.target].id != join.id:
        yield Finding(join.id, "IMPOSSIBLE", f"a token waits there on transition {edge_id}, which leads elsewhere now")
    elif type(new.nodes[after.target]) is not type(join) or _policy(new.nodes[after.target]) != _policy(join):
        yield Finding(join.id, "IMPOSSIBLE", "a token waits there, and the join is of another kind now")


def _starving(old: Plan, new: Plan, state: State, mapping: Mapping[str, str]) -> Iterator[Finding]:
    """Joins that a token will come to, or has come to, and that wait for a transition nothing can come by any more."""
    ahead = {old.nodes[old.edges[token.edge].target].id for token in state.ready}
    ahead |= {work.step_id for work in _visits(state).values()}
    reached = new.beyond([new.by_id[name] for name in (mapping.get(one, one) for one in ahead) if name in new.by_id])
    arrived = {name.partition("@")[0] for name in state.arrived}
    for node in new.nodes:
        if not isinstance(node, ParallelJoinNode) or node.policy is not None:
            continue
        fed = [edge.id in arrived or bool(reached >> edge.source & 1) for edge in node.incoming]
        if any(fed) and not all(fed):
            missing = ", ".join(edge.id for edge, is_fed in zip(node.incoming, fed, strict=True) if not is_fed)
            yield Finding(
                node.id, "IMPOSSIBLE", f"it would wait for ever for {missing}, which nothing comes by any more"
            )


def _policy(node: Node) -> bool:
    return isinstance(node, ParallelJoinNode) and node.policy is not None


def _of_region(old: Plan, new: Plan, split: str, branches: tuple[str, ...]) -> Iterator[Finding]:
    index = new.by_id.get(split)
    node = None if index is None else new.nodes[index]
    closed_by = getattr(node, "closed_by", None)
    before = old.nodes[getattr(old.node(split), "closed_by", 0) or 0]
    there = node is not None and {edge.id for edge in node.outgoing} >= set(branches)
    if node is None or closed_by is None or not there or new.nodes[closed_by].id != before.id:
        yield Finding(split, "IMPOSSIBLE", "its branches are open, and they are others in the new version")


def _reenter_by(draft: Draft, new: Plan, key: str, work: Work) -> None:
    """The transition by which a step was entered is gone: another one into it stands in, for a retry."""
    incoming: tuple[Edge, ...] = new.node(work.step_id).incoming
    edge = incoming[0].id if incoming else ""
    if key in draft.work:
        draft.change(key, edge=edge)
    if key in draft.fans:
        fan = draft.fans[key]
        draft.fans = draft.fans.set(key, fan._replace(work=fan.work._replace(edge=edge)))


def _rearm_deadline(draft: Draft, old: Plan, new: Plan) -> None:
    """The new version's deadline counts from the run's beginning, like the old one's."""
    timeout = new.limits.execution_timeout
    if timeout == old.limits.execution_timeout:
        return
    if DEADLINE in draft.timers:
        draft.timers = draft.timers.delete(DEADLINE)
        draft.commands.append(Withdraw((DEADLINE,)))
    if timeout is not None:
        due = draft.run.at + round(timeout * 1000)
        draft.timers = draft.timers.set(DEADLINE, due)
        draft.commands.append(StartTimer(DEADLINE, due, "deadline of the execution"))


def with_version(state: State, version_id: str, version: str) -> State:
    """The state as that of a run of another version."""
    return replace(state, run=replace(state.run, version_id=version_id, version=version))

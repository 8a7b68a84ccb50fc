"""Definition → plan. Assumes what `validate` checks and refuses, with a coded error, what it could not build on."""

from collections.abc import Mapping, Sequence
from typing import Any

from engine.definition import Definition, Transition, read_definition
from engine.errors import EngineError
from engine.nodes import NodeBuilder
from engine.plan import Edge, Plan
from engine.reach import plan_order
from engine.sites import Sites, read_sites
from engine.steps import StartStep
from engine.values import Value


def compile_document(document: Mapping[str, Any]) -> Plan:
    """The plan of a stored definition; raises pydantic's `ValidationError` or `EngineError`."""
    return compile_definition(read_definition(document))


def compile_definition(definition: Definition) -> Plan:
    """The plan of a definition.

    Raises `EngineError` (code DEFINITION_INVALID or EXPRESSION_INVALID) with the path of the first fault.
    """
    sites = read_sites(definition)
    if sites.faults:
        raise sites.faults[0]
    order = _order(definition)
    edges = _edges(definition, order, sites)
    builder = NodeBuilder(definition, sites, edges, order)
    nodes = tuple(builder.node(index, position) for index, position in enumerate(order))
    return Plan(
        nodes=nodes,
        by_id={node.id: node.index for node in nodes},
        edges={edge.id: edge for edge in edges},
        limits=definition.limits,
        output=sites.value("output") if definition.output is not None else None,
        variables={variable.key: variable.default for variable in definition.variables},
    )


def _order(definition: Definition) -> list[int]:
    """Positions of the steps in the document, in plan order."""
    position = {step.id: at for at, step in enumerate(definition.steps)}
    if len(position) != len(definition.steps):
        raise EngineError("DEFINITION_INVALID", "step ids must be unique", "steps")
    starts = [at for at, step in enumerate(definition.steps) if isinstance(step, StartStep)]
    if len(starts) != 1:
        raise EngineError("DEFINITION_INVALID", "a definition has exactly one START", "steps")
    following: list[list[int]] = [[] for _ in definition.steps]
    for at, transition in enumerate(definition.step_transitions):
        source, target = position.get(transition.from_step_id), position.get(transition.to_step_id)
        if source is None or target is None:
            raise EngineError("DEFINITION_INVALID", "a transition joins two existing steps", f"stepTransitions[{at}]")
        following[source].append(target)
    return plan_order(following, starts[0])


def _edges(definition: Definition, order: Sequence[int], sites: Sites) -> list[Edge]:
    index = {definition.steps[position].id: at for at, position in enumerate(order)}
    slots = [0] * len(order)
    edges = []
    for at, transition in enumerate(definition.step_transitions):
        target = index[transition.to_step_id]
        condition = sites.get(f"stepTransitions[{at}].condition")
        edges.append(_edge(transition, index[transition.from_step_id], target, slots[target], condition))
        slots[target] += 1
    if len({edge.id for edge in edges}) != len(edges):
        raise EngineError("DEFINITION_INVALID", "transition ids must be unique", "stepTransitions")
    return edges


def _edge(transition: Transition, source: int, target: int, slot: int, condition: Value | None) -> Edge:
    arrival = transition.on_arrival
    return Edge(
        id=transition.id,
        source=source,
        target=target,
        slot=slot,
        condition=condition,
        is_default=transition.is_default,
        branch_key=transition.branch_key,
        on=transition.on,
        error_codes=transition.error_codes,
        arrival_status=None if arrival is None else arrival.status,
    )

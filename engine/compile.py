"""Definition → plan. Assumes what `validate` checks and refuses, with a coded error, what it could not build on."""

from collections.abc import Mapping, Sequence
from typing import Any, assert_never

from engine.definition import (
    ActionStep,
    ChildStep,
    ConfirmStep,
    Definition,
    EndStep,
    GatewayStep,
    Retry,
    SetStep,
    StartStep,
    StepType,
    ValueMapping,
    read_definition,
)
from engine.errors import EngineError
from engine.plan import (
    ActionNode,
    ChildNode,
    Edge,
    EndNode,
    ExclusiveJoinNode,
    ExclusiveSplitNode,
    HumanNode,
    InclusiveJoinNode,
    InclusiveSplitNode,
    Node,
    ParallelJoinNode,
    ParallelSplitNode,
    Plan,
    PlanNode,
    SetNode,
    StartNode,
    Write,
)
from engine.reach import join_reach, plan_order
from engine.sites import Sites, read_sites
from engine.values import NOTHING

ACTION_RETRY = Retry()
NO_RETRY = Retry.model_validate({"maxAttempts": 1})
ACTION_TIMEOUT = 10.0

_GATEWAYS: dict[StepType, type[Node]] = {
    StepType.GATEWAY_PARALLEL_SPLIT: ParallelSplitNode,
    StepType.GATEWAY_PARALLEL_JOIN: ParallelJoinNode,
    StepType.GATEWAY_EXCLUSIVE_SPLIT: ExclusiveSplitNode,
    StepType.GATEWAY_EXCLUSIVE_JOIN: ExclusiveJoinNode,
    StepType.GATEWAY_INCLUSIVE_SPLIT: InclusiveSplitNode,
    StepType.GATEWAY_INCLUSIVE_JOIN: InclusiveJoinNode,
}


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
    builder = _NodeBuilder(definition, sites, edges)
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
        condition = None if transition.condition is None else sites.value(f"stepTransitions[{at}].condition")
        edges.append(
            Edge(
                transition.id,
                index[transition.from_step_id],
                target,
                slots[target],
                condition,
                transition.is_default,
            )
        )
        slots[target] += 1
    if len({edge.id for edge in edges}) != len(edges):
        raise EngineError("DEFINITION_INVALID", "transition ids must be unique", "stepTransitions")
    return edges


class _NodeBuilder:
    """Makes nodes, with their edges gathered once for the whole plan."""

    def __init__(self, definition: Definition, sites: Sites, edges: list[Edge]) -> None:
        self._steps = definition.steps
        self._sites = sites
        self._outgoing: list[list[Edge]] = [[] for _ in definition.steps]
        self._incoming: list[list[Edge]] = [[] for _ in definition.steps]
        for edge in edges:
            self._outgoing[edge.source].append(edge)
            self._incoming[edge.target].append(edge)
        self._reach = join_reach(
            [[edge.target for edge in outgoing] for outgoing in self._outgoing],
            [[edge.source for edge in incoming] for incoming in self._incoming],
        )

    def node(self, index: int, position: int) -> PlanNode:
        """The node at `index` of the plan for the step at `position` of the document."""
        step = self._steps[position]
        path = f"steps[{position}]"
        shared: dict[str, Any] = {
            "index": index,
            "id": step.id,
            "type": step.type.value,
            "name": step.name,
            "path": path,
            "outgoing": tuple(self._outgoing[index]),
            "incoming": tuple(self._incoming[index]),
            "output_mapping": self._writes(step.output_mapping, f"{path}.outputMapping"),
        }
        match step:
            case StartStep():
                return StartNode(**shared)
            case EndStep():
                return EndNode(**shared)
            case SetStep():
                return SetNode(**shared, writes=self._writes(step.assignments, f"{path}.assignments"))
            case ActionStep() | ConfirmStep() | ChildStep():
                return self._work(step, path, shared)
            case GatewayStep():
                return self._gateway(step, shared)
            case _:
                assert_never(step)

    def _work(self, step: ActionStep | ConfirmStep | ChildStep, path: str, shared: dict[str, Any]) -> PlanNode:
        shared["retry"] = step.retry or (ACTION_RETRY if isinstance(step, ActionStep) else NO_RETRY)
        shared["timeout"] = step.timeout or (ACTION_TIMEOUT if isinstance(step, ActionStep) else None)
        match step:
            case ActionStep():
                parameters = self._sites.value(f"{path}.parameters")
                return ActionNode(**shared, action_key=step.action_key, parameters=parameters)
            case ConfirmStep():
                return self._human(step, path, shared)
            case ChildStep():
                return self._child(step, path, shared)
            case _:
                assert_never(step)

    def _human(self, step: ConfirmStep, path: str, shared: dict[str, Any]) -> HumanNode:
        assigned = step.assignment
        return HumanNode(
            **shared,
            assignee=NOTHING if assigned is None else self._sites.value(f"{path}.assignment.assignee"),
            candidate_groups=() if assigned is None else assigned.candidate_groups,
            outcomes=step.outcomes,
        )

    def _child(self, step: ChildStep, path: str, shared: dict[str, Any]) -> ChildNode:
        named = step.child_workflow_name is not None
        batch = step.mode == "BATCH"
        if batch and step.iterable is None:
            raise EngineError("DEFINITION_INVALID", "a BATCH needs an iterable", f"{path}.iterable")
        return ChildNode(
            **shared,
            version_ref=step.child_workflow_template_version_id,
            template_ref=step.child_workflow_template_id,
            child_name=self._sites.value(f"{path}.childWorkflowName") if named else None,
            items=self._sites.value(f"{path}.iterable") if batch else None,
            inputs=self._writes(step.input_mapping, f"{path}.inputMapping"),
            projection=self._writes(step.context_projection, f"{path}.contextProjection"),
            concurrency=step.concurrency,
        )

    def _gateway(self, step: GatewayStep, shared: dict[str, Any]) -> PlanNode:
        if step.type is StepType.GATEWAY_INCLUSIVE_JOIN:
            return InclusiveJoinNode(**shared, reach=self._reach(shared["index"]))
        node: PlanNode = _GATEWAYS[step.type](**shared)  # type: ignore[assignment]
        return node

    def _writes(self, mappings: Sequence[ValueMapping], path: str) -> tuple[Write, ...]:
        return tuple(
            Write(
                tuple(mapping.target_path.split(".")),
                self._sites.value(f"{path}[{at}].value"),
                mapping.mode == "append",
            )
            for at, mapping in enumerate(mappings)
        )

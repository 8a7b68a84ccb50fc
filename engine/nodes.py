"""A step of the definition → its node in the plan."""

from collections.abc import Mapping, Sequence
from typing import Any, assert_never

from engine.definition import Definition
from engine.enclosure import OPENING, Regions
from engine.errors import EngineError
from engine.plan import (
    ActionNode,
    ChildNode,
    CompensationPlan,
    DataRead,
    DelayNode,
    DisabledNode,
    EachPlan,
    Edge,
    EndNode,
    EventSplitNode,
    ExclusiveJoinNode,
    ExclusiveSplitNode,
    HumanNode,
    InclusiveJoinNode,
    InclusiveSplitNode,
    JoinPlan,
    Node,
    ParallelJoinNode,
    ParallelSplitNode,
    PlanNode,
    RepeatPlan,
    RouteNode,
    SetNode,
    SignalNode,
    StartNode,
    TerminateNode,
    Write,
)
from engine.reach import join_reach
from engine.sites import Sites
from engine.steps import (
    ActionStep,
    ChildStep,
    ConfirmStep,
    DelayStep,
    EndStep,
    FailurePolicyFields,
    ForEach,
    FormStep,
    GatewayStep,
    HumanStep,
    JoinStep,
    RedirectStep,
    Retry,
    RouteStep,
    SetStep,
    SignalStep,
    StartStep,
    Step,
    StepType,
    TerminateStep,
    UploadStep,
    ValueMapping,
    WorkStep,
)
from engine.values import NOTHING, Value, leaves

ACTION_RETRY = Retry()
NO_RETRY = Retry.model_validate({"maxAttempts": 1})
ACTION_TIMEOUT = 10.0

_PARKING = (WorkStep, SetStep, DelayStep, GatewayStep, JoinStep, RouteStep)
_GATEWAYS: dict[StepType, type[Node]] = {
    StepType.GATEWAY_EXCLUSIVE_SPLIT: ExclusiveSplitNode,
    StepType.GATEWAY_EXCLUSIVE_JOIN: ExclusiveJoinNode,
    StepType.GATEWAY_EVENT_SPLIT: EventSplitNode,
}


class NodeBuilder:
    """Makes nodes, with their edges and regions gathered once for the whole plan.

    `order` gives the position in the document of each node of the plan.
    """

    def __init__(self, definition: Definition, sites: Sites, edges: Sequence[Edge], order: Sequence[int]) -> None:
        self._definition = definition
        self._steps = definition.steps
        self._sites = sites
        self._outgoing: list[list[Edge]] = [[] for _ in definition.steps]
        self._incoming: list[list[Edge]] = [[] for _ in definition.steps]
        for edge in edges:
            self._outgoing[edge.source].append(edge)
            self._incoming[edge.target].append(edge)
        following = [[edge.target for edge in outgoing] for outgoing in self._outgoing]
        preceding = [[edge.source for edge in incoming] for incoming in self._incoming]
        self._reach = join_reach(following, preceding)
        self._splits, self._closers = self._regions(order, following, preceding)

    def _regions(
        self, order: Sequence[int], following: Sequence[Sequence[int]], preceding: Sequence[Sequence[int]]
    ) -> tuple[Mapping[int, int], Mapping[int, int]]:
        """Join → split and split → join of the regions whose join has a policy of its own, by index in the plan."""
        ordered = [self._steps[position] for position in order]
        splits = {at for at, step in enumerate(ordered) if step.type in OPENING}
        joins = [at for at, step in enumerate(ordered) if isinstance(step, JoinStep) and step.join.policy != "ALL"]
        split_of = Regions(following, preceding, 0, splits).close(joins)
        for join in joins:
            if join not in split_of:
                path = f"steps[{order[join]}].join"
                raise EngineError(
                    "DEFINITION_INVALID", f"no split's branches all end at {ordered[join].id} alone", path
                )
        return split_of, {split: join for join, split in split_of.items()}

    def node(self, index: int, position: int) -> PlanNode:
        """The node at `index` of the plan for the step at `position` of the document."""
        step = self._steps[position]
        path = f"steps[{position}]"
        shared = self._shared(step, index, path)
        if shared["active_status"] == "DISABLED":
            return DisabledNode(**shared)
        match step:
            case StartStep():
                return StartNode(**shared)
            case EndStep():
                return EndNode(**shared)
            case SetStep():
                return SetNode(**shared, writes=self._writes(step.assignments, f"{path}.assignments"))
            case DelayStep():
                return self._delay(step, path, shared)
            case TerminateStep():
                return TerminateNode(**shared, outcome=step.outcome, message=self._sites.value(f"{path}.message"))
            case RouteStep():
                return RouteNode(**shared, select=self._sites.value(f"{path}.select"))
            case JoinStep():
                return ParallelJoinNode(**shared, policy=self._join(step, index))
            case GatewayStep():
                return self._gateway(step, shared)
            case _:
                return self._work(step, path, shared)

    def _shared(self, step: Step, index: int, path: str) -> dict[str, Any]:
        policy = step.activation_policy
        status = None if policy is None else policy.default_status
        on_failure = step.on_failure if isinstance(step, WorkStep) else None
        parks = isinstance(step, _PARKING) and (on_failure or self._definition.on_failure) == "INCIDENT"
        return {
            "index": index,
            "id": step.id,
            "type": step.type.value,
            "name": step.name,
            "path": path,
            "outgoing": tuple(edge for edge in self._outgoing[index] if edge.on == "SUCCESS"),
            "on_error": tuple(edge for edge in self._outgoing[index] if edge.on != "SUCCESS"),
            "incoming": tuple(self._incoming[index]),
            "output_mapping": self._writes(step.output_mapping, f"{path}.outputMapping"),
            "active_status": status,
            "parks": parks,
            "due_in": step.due_in,
            "data": self._data(step, path),
        }

    def _data(self, step: Step, path: str) -> tuple[DataRead, ...]:
        return tuple(
            DataRead(
                source.alias,
                source.data_source_id,
                self._sites.value(f"{path}.dataSources[{at}].params"),
                self._sites.get(f"{path}.dataSources[{at}].select"),
                source.scope == "per-item",
            )
            for at, source in enumerate(step.data_sources)
        )

    def _work(
        self,
        step: ActionStep | ConfirmStep | FormStep | RedirectStep | UploadStep | SignalStep | ChildStep,
        path: str,
        shared: dict[str, Any],
    ) -> PlanNode:
        action = isinstance(step, ActionStep)
        shared |= {
            "retry": step.retry or (ACTION_RETRY if action else NO_RETRY),
            "retry_delay": self._sites.get(f"{path}.retry.delay"),
            "timeout": step.timeout,
            "compensate": self._compensation(step, path),
            "each": self._each(step, path),
            "repeat": self._repeat(step, path),
            "mutex": step.mutex,
            "enabled_while": self._sites.get(f"{path}.enabledWhile"),
            "skip_if": self._sites.get(f"{path}.skipIf"),
            "output_schema": step.output_schema,
        }
        match step:
            case ActionStep():
                parameters = self._sites.value(f"{path}.parameters")
                return ActionNode(**shared, action_key=step.action_key, parameters=parameters)
            case SignalStep():
                signal, key = self._sites.value(f"{path}.signal"), self._sites.get(f"{path}.correlationKey")
                return SignalNode(**shared, signal=signal, correlation_key=key, buffer=step.buffer)
            case ChildStep():
                return self._child(step, path, shared)
            case ConfirmStep() | FormStep() | RedirectStep() | UploadStep():
                return self._human(step, path, shared)
            case _:
                assert_never(step)

    def _compensation(self, step: WorkStep, path: str) -> CompensationPlan | None:
        undo = step.compensate
        if undo is None:
            return None
        parameters = self._sites.value(f"{path}.compensate.parameters")
        return CompensationPlan(undo.action_key, parameters, undo.retry or ACTION_RETRY, undo.timeout or ACTION_TIMEOUT)

    def _each(self, step: WorkStep, path: str) -> EachPlan | None:
        over: ForEach | ChildStep
        if isinstance(step, ChildStep) and step.mode == "BATCH":
            if step.iterable is None:
                raise EngineError("DEFINITION_INVALID", "a BATCH needs an iterable", f"{path}.iterable")
            over, items, condition = step, f"{path}.iterable", f"{path}.completionCondition"
        elif step.for_each is not None:
            over = step.for_each
            items, condition = f"{path}.forEach.iterable", f"{path}.forEach.completionCondition"
        else:
            return None
        count, percent = _tolerated(over.failure_policy)
        enough = self._sites.get(condition)
        return EachPlan(
            items=self._sites.value(items),
            concurrency=over.concurrency,
            collects=over.failure_policy.type == "COLLECT",
            tolerated=count,
            tolerated_percent=percent,
            enough=enough,
            enough_sees_results=enough is not None and _refers_to(enough, "__results__"),
        )

    def _repeat(self, step: WorkStep, path: str) -> RepeatPlan | None:
        if step.repeat is None:
            return None
        place = f"{path}.repeat"
        return RepeatPlan(
            self._sites.get(f"{place}.while"),
            self._sites.get(f"{place}.until"),
            step.repeat.max_iterations,
            self._sites.get(f"{place}.feedback"),
        )

    def _human(self, step: HumanStep, path: str, shared: dict[str, Any]) -> HumanNode:
        assigned, escalation = step.assignment, step.escalation
        return HumanNode(
            **shared,
            assignee=NOTHING if assigned is None else self._sites.value(f"{path}.assignment.assignee"),
            candidate_groups=() if assigned is None else assigned.candidate_groups,
            outcomes=step.outcomes,
            form=step.form.schema_ if isinstance(step, FormStep) else None,
            ui_schema=step.form.ui_schema if isinstance(step, FormStep) else None,
            url=self._sites.get(f"{path}.url"),
            documents=step.documents if isinstance(step, UploadStep) else (),
            escalation_assignee=self._sites.get(f"{path}.escalation.assignment.assignee"),
            escalation_groups=() if escalation is None else escalation.assignment.candidate_groups,
        )

    def _child(self, step: ChildStep, path: str, shared: dict[str, Any]) -> ChildNode:
        return ChildNode(
            **shared,
            version_ref=step.child_workflow_template_version_id,
            template_ref=step.child_workflow_template_id,
            child_name=self._sites.get(f"{path}.childWorkflowName"),
            inputs=self._writes(step.input_mapping, f"{path}.inputMapping"),
            projection=self._writes(step.context_projection, f"{path}.contextProjection"),
            wait=step.wait,
        )

    def _delay(self, step: DelayStep, path: str, shared: dict[str, Any]) -> DelayNode:
        if (step.duration is None) == (step.until is None):
            raise EngineError("DEFINITION_INVALID", "a delay has either a duration or an until", path)
        return DelayNode(**shared, duration=self._sites.get(f"{path}.duration"), until=self._sites.get(f"{path}.until"))

    def _join(self, step: JoinStep, index: int) -> JoinPlan | None:
        policy = step.join
        if policy.policy == "ALL":
            return None
        need = {"ANY": 1, "N_OF_M": policy.n or 1, "ALL_SETTLED": None}[policy.policy]
        return JoinPlan(self._splits[index], need, policy.policy == "ALL_SETTLED", policy.cancel_remaining)

    def _gateway(self, step: GatewayStep, shared: dict[str, Any]) -> PlanNode:
        index = shared["index"]
        match step.type:
            case StepType.GATEWAY_INCLUSIVE_JOIN:
                return InclusiveJoinNode(**shared, reach=self._reach(index))
            case StepType.GATEWAY_PARALLEL_SPLIT:
                return ParallelSplitNode(**shared, closed_by=self._closers.get(index))
            case StepType.GATEWAY_INCLUSIVE_SPLIT:
                return InclusiveSplitNode(**shared, closed_by=self._closers.get(index))
            case _:
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


def _tolerated(policy: FailurePolicyFields) -> tuple[int | None, float | None]:
    if policy.type != "TOLERATE":
        return None, None
    return policy.count, policy.percent


def _refers_to(value: Value, root: str) -> bool:
    return any(reference.root == root for _, references in leaves(value) for reference in references)

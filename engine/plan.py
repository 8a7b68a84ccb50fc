"""The plan: a definition made flat and frozen, with everything the interpreter would otherwise search for.

Nodes stand in plan order (reverse postorder from START, so a step comes after the steps that lead to it, back edges
aside) and refer to each other by index; the run's state refers to steps by id, so that it survives a change of plan.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from engine.definition import Limits
from engine.json_types import JSON
from engine.steps import Document, Retry
from engine.values import Value


@dataclass(frozen=True, slots=True)
class Edge:
    """A transition: `slot` is its place among the incoming transitions of its target.

    `on` is SUCCESS, ERROR or TIMEOUT; without `error_codes` every error is meant. `arrival_status` is the status that
    the target has while it is active.
    """

    id: str
    source: int
    target: int
    slot: int
    condition: Value | None = None
    is_default: bool = False
    branch_key: str | None = None
    on: str = "SUCCESS"
    error_codes: tuple[str, ...] = ()
    arrival_status: str | None = None


@dataclass(frozen=True, slots=True)
class Write:
    """A value written to a path of the context; `append` adds to a list there."""

    target: tuple[str, ...]
    value: Value
    append: bool = False


@dataclass(frozen=True, slots=True)
class DataRead:
    """A datasource read before a step, or before each of its items."""

    alias: str
    source: str
    params: Value
    select: Value | None
    per_item: bool


@dataclass(frozen=True, slots=True)
class EachPlan:
    """A step over items, at most `concurrency` at once. `tolerated` (or `tolerated_percent`) failures are borne;
    None bears none, `collects` bears all.
    """

    items: Value
    concurrency: int
    collects: bool
    tolerated: int | None
    tolerated_percent: float | None
    enough: Value | None
    enough_sees_results: bool


@dataclass(frozen=True, slots=True)
class RepeatPlan:
    """A step again and again."""

    while_: Value | None
    until: Value | None
    most: int
    feedback: Value | None


@dataclass(frozen=True, slots=True)
class CompensationPlan:
    """The action that undoes a completed step."""

    action_key: str
    parameters: Value
    retry: Retry
    timeout: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """What every step has in the plan. `outgoing` are the transitions on success, `on_error` the others.

    `active_status` is the status of the step while it is active, where the definition says so; `parks` tells that a
    failure becomes an incident.
    """

    index: int
    id: str
    type: str
    name: str
    path: str
    outgoing: tuple[Edge, ...] = ()
    on_error: tuple[Edge, ...] = ()
    incoming: tuple[Edge, ...] = ()
    output_mapping: tuple[Write, ...] = ()
    active_status: str | None = None
    parks: bool = False
    due_in: float | None = None
    data: tuple[DataRead, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DisabledNode(Node):
    """A step of any kind that is DISABLED: a token passes it by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StartNode(Node):
    """Where the one token begins."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EndNode(Node):
    """Consumes tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SetNode(Node):
    """Writes into the context."""

    writes: tuple[Write, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DelayNode(Node):
    """Waits for a time, or until one; exactly one of the two is there."""

    duration: Value | None
    until: Value | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TerminateNode(Node):
    """Ends the whole execution."""

    outcome: str
    message: Value


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkNode(Node):
    """A step that does something outside the interpreter. `timeout` is in seconds, for one attempt."""

    retry: Retry
    retry_delay: Value | None = None
    timeout: float | None
    compensate: CompensationPlan | None = None
    each: EachPlan | None = None
    repeat: RepeatPlan | None = None
    mutex: str | None = None
    enabled_while: Value | None = None
    skip_if: Value | None = None
    output_schema: Mapping[str, JSON] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionNode(WorkNode):
    """Calls a registered action."""

    action_key: str
    parameters: Value


@dataclass(frozen=True, slots=True, kw_only=True)
class HumanNode(WorkNode):
    """Waits for a person. `form` is the JSON Schema of what they fill in, `documents` what they hand in."""

    assignee: Value
    candidate_groups: tuple[str, ...]
    outcomes: tuple[str, ...]
    form: Mapping[str, JSON] | None = None
    ui_schema: Mapping[str, JSON] | None = None
    url: Value | None = None
    documents: tuple[Document, ...] = ()
    escalation_assignee: Value | None = None
    escalation_groups: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalNode(WorkNode):
    """Waits for a signal; with `buffer` one that came before counts too."""

    signal: Value
    correlation_key: Value | None
    buffer: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildNode(WorkNode):
    """Runs a child execution, or (with `each`) one for each item; without `wait` nobody waits for its end."""

    version_ref: str | None
    template_ref: str | None
    child_name: Value | None
    inputs: tuple[Write, ...]
    projection: tuple[Write, ...]
    wait: bool = True


@dataclass(frozen=True, slots=True)
class JoinPlan:
    """A join that closes a region: `split` is the index of the split that opens it, `need` how many branches must
    arrive (None: all that were opened), `settles` whether failed branches count as arrived.
    """

    split: int
    need: int | None
    settles: bool
    cancels: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ParallelSplitNode(Node):
    """Sends a token along every outgoing transition. `closed_by` is the index of the join of its region, if any."""

    closed_by: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ParallelJoinNode(Node):
    """Takes one token from every incoming transition and sends one on; or goes on by the policy of its region."""

    policy: JoinPlan | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExclusiveSplitNode(Node):
    """Sends the token along the conditional transition when it holds, otherwise along the default."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteNode(Node):
    """Sends the token along the transition whose branch key is selected, otherwise along the default, if any."""

    select: Value


@dataclass(frozen=True, slots=True, kw_only=True)
class EventSplitNode(Node):
    """Opens every target; the first to finish wins, the others are withdrawn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExclusiveJoinNode(Node):
    """Passes each token on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InclusiveSplitNode(Node):
    """Sends a token along every outgoing transition whose condition holds; the default only when none does."""

    closed_by: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class InclusiveJoinNode(Node):
    """Goes on when no token elsewhere can still come (BPMN 2.0.2).

    `reach[slot]` is the set of nodes, as bits by index, from which a token can reach that incoming transition
    without passing this join.
    """

    reach: tuple[int, ...] = ()


PlanNode = (
    StartNode
    | EndNode
    | DisabledNode
    | SetNode
    | DelayNode
    | TerminateNode
    | ActionNode
    | HumanNode
    | SignalNode
    | ChildNode
    | ParallelSplitNode
    | ParallelJoinNode
    | ExclusiveSplitNode
    | RouteNode
    | EventSplitNode
    | ExclusiveJoinNode
    | InclusiveSplitNode
    | InclusiveJoinNode
)


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything the interpreter needs of a definition; equal for equal definitions."""

    nodes: tuple[PlanNode, ...]
    by_id: Mapping[str, int]
    edges: Mapping[str, Edge]
    limits: Limits
    output: Value | None = None
    variables: Mapping[str, JSON] = field(default_factory=dict)

    @property
    def start(self) -> PlanNode:
        """The START node: plan order begins with it."""
        return self.nodes[0]

    def node(self, step_id: str) -> PlanNode:
        """The node of a step; KeyError when the plan has none of that id."""
        return self.nodes[self.by_id[step_id]]

    def beyond(self, begin: Iterable[int], until: int | None = None) -> int:
        """These steps and all that can come after them, on paths that end before `until`, as bits by index."""
        stack = [index for index in dict.fromkeys(begin) if index != until]
        seen = sum(1 << index for index in stack)
        while stack:
            node = self.nodes[stack.pop()]
            for edge in (*node.outgoing, *node.on_error):
                if edge.target != until and not seen >> edge.target & 1:
                    seen |= 1 << edge.target
                    stack.append(edge.target)
        return seen

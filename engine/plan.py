"""The plan: a definition made flat and frozen, with everything the interpreter would otherwise search for.

Nodes stand in plan order (reverse postorder from START, so a step comes after the steps that lead to it, back edges
aside) and refer to each other by index; the run's state refers to steps by id, so that it survives a change of plan.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from engine.definition import Limits, Retry
from engine.json_types import JSON
from engine.values import Value


@dataclass(frozen=True, slots=True)
class Edge:
    """A transition: `slot` is its place among the incoming transitions of its target."""

    id: str
    source: int
    target: int
    slot: int
    condition: Value | None = None
    is_default: bool = False


@dataclass(frozen=True, slots=True)
class Write:
    """A value written to a path of the context; `append` adds to a list there."""

    target: tuple[str, ...]
    value: Value
    append: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """What every step has in the plan."""

    index: int
    id: str
    type: str
    name: str
    path: str
    outgoing: tuple[Edge, ...] = ()
    incoming: tuple[Edge, ...] = ()
    output_mapping: tuple[Write, ...] = ()


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
class WorkNode(Node):
    """A step that does something outside the interpreter. `timeout` is in seconds, for one attempt."""

    retry: Retry
    timeout: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionNode(WorkNode):
    """Calls a registered action."""

    action_key: str
    parameters: Value


@dataclass(frozen=True, slots=True, kw_only=True)
class HumanNode(WorkNode):
    """Waits for a person."""

    assignee: Value
    candidate_groups: tuple[str, ...]
    outcomes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildNode(WorkNode):
    """Runs one child execution, or (with `items`) one for each item, at most `concurrency` at once."""

    version_ref: str | None
    template_ref: str | None
    child_name: Value | None
    items: Value | None
    inputs: tuple[Write, ...]
    projection: tuple[Write, ...]
    concurrency: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ParallelSplitNode(Node):
    """Sends a token along every outgoing transition."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ParallelJoinNode(Node):
    """Takes one token from every incoming transition and sends one on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExclusiveSplitNode(Node):
    """Sends the token along the conditional transition when it holds, otherwise along the default."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExclusiveJoinNode(Node):
    """Passes each token on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InclusiveSplitNode(Node):
    """Sends a token along every outgoing transition whose condition holds; the default only when none does."""


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
    | SetNode
    | ActionNode
    | HumanNode
    | ChildNode
    | ParallelSplitNode
    | ParallelJoinNode
    | ExclusiveSplitNode
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

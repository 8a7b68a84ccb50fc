"""Definition → plan, compared with plans written down before."""

import json
from pathlib import Path
from typing import Any

import pytest

from engine.compile import compile_document
from engine.errors import EngineError
from engine.plan import ChildNode, Edge, InclusiveJoinNode, Plan, PlanNode
from tests.documents import action, arrow, batch, document, expr, join, line, put, split

ROOT = Path(__file__).parents[2]
GOLDEN = Path(__file__).with_name("golden")
EXAMPLES = sorted((ROOT / "examples").glob("*.json"))


def written_down(plan: Plan) -> str:
    """A plan as text, one line a node."""
    return "".join(f"{_node(plan, node)}\n" for node in plan.nodes)


def _node(plan: Plan, node: PlanNode) -> str:
    arrows = ", ".join(_edge(plan, edge) for edge in node.outgoing)
    more = ""
    if isinstance(node, InclusiveJoinNode):
        more = f" reach={[bin(reach) for reach in node.reach]}"
    if isinstance(node, ChildNode):
        more = f" child={node.version_ref or node.template_ref} batch={node.each is not None}"
    return f"{node.index:3} {node.type} {node.id}{more} -> {arrows or 'nothing'}"


def _edge(plan: Plan, edge: Edge) -> str:
    kind = " (default)" if edge.is_default else " (if)" if edge.condition is not None else ""
    return f"{plan.nodes[edge.target].id}[{edge.slot}]{kind}"


@pytest.mark.parametrize("file", EXAMPLES, ids=[file.stem for file in EXAMPLES])
def test_an_example_compiles_to_the_plan_written_down(file: Path) -> None:
    golden = GOLDEN / f"{file.stem}.plan"
    plan = written_down(compile_document(json.loads(file.read_text())))
    assert plan == golden.read_text(), f"the plan of {file.name} has changed; if that is right, write it to {golden}"


def test_the_same_definition_gives_equal_plans() -> None:
    definition = line(action("a", parameters=expr("__context__.x")), put("b", y=1), batch("c", "[1, 2]"))
    assert compile_document(definition) == compile_document(json.loads(json.dumps(definition)))


def test_steps_stand_in_plan_order_whatever_their_order_in_the_document() -> None:
    definition = document(
        put("last", a=1),
        join("j"),
        put("right", b=1),
        split("s"),
        put("left", c=1),
        arrow("start -> s"),
        arrow("s -> left"),
        arrow("s -> right"),
        arrow("left -> j"),
        arrow("right -> j"),
        arrow("j -> last"),
        arrow("last -> end"),
    )
    assert list(compile_document(definition).by_id) == ["start", "s", "left", "right", "j", "last", "end"]


def test_dotted_lower_case_types_are_the_same_types() -> None:
    definition = line(action("a"))
    dotted = json.loads(json.dumps(definition).replace("SYS_ACTION", "sys.action").replace('"START"', '"start"'))
    assert compile_document(dotted) == compile_document(definition)


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"steps": [{"id": "x", "type": "END", "name": "x"}]}, "steps"),
        ({"stepTransitions": [{"id": "t", "fromStepId": "start", "toStepId": "nowhere"}]}, "stepTransitions[0]"),
        ({"steps": [{"id": "start", "type": "START", "name": "x"}] * 2}, "steps"),
        ({"output": expr("1 +")}, "output.expr"),
        ({"output": {"type": "field", "ref": {"source": "NOWHERE"}}}, "output.ref.source"),
    ],
)
def test_what_cannot_be_built_on_is_refused_with_its_path(change: dict[str, Any], path: str) -> None:
    with pytest.raises(EngineError) as refused:
        compile_document(line() | change)
    assert refused.value.path == path


def test_a_batch_without_an_iterable_is_refused() -> None:
    broken = batch("b", "[]")
    del broken["iterable"]
    with pytest.raises(EngineError, match="iterable"):
        compile_document(line(broken))

"""Every rule: what breaks it, and what comes close and does not."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from engine.problems import Severity
from tests.documents import Document, expr, step
from tests.engine.definitions import const, edge, find, find_edge, write

Change = Callable[[Document], object]


@dataclass(frozen=True)
class Broken:
    """A change to the definition that uses everything, and where the rule must say so."""

    change: Change
    path: str
    severity: Severity = Severity.ERROR
    world: dict[str, Any] = field(default_factory=dict)


def drop_step(document: Document, step_id: str) -> None:
    """Takes a step away with the transitions at it."""
    document["steps"] = [each for each in document["steps"] if each["id"] != step_id]
    document["stepTransitions"] = [
        each for each in document["stepTransitions"] if step_id not in (each["fromStepId"], each["toStepId"])
    ]


def drop_edge(document: Document, edge_id: str) -> None:
    """Takes a transition away."""
    document["stepTransitions"] = [each for each in document["stepTransitions"] if each["id"] != edge_id]


def add_step(*steps: Document) -> Change:
    return lambda document: document["steps"].extend(steps)


def add_edge(*edges: Document) -> Change:
    return lambda document: document["stepTransitions"].extend(edges)


def both(*changes: Change) -> Change:
    def change(document: Document) -> None:
        for each in changes:
            each(document)

    return change


def of(step_id: str, **fields: Any) -> Change:
    return lambda document: find(document, step_id).update(fields)


def of_edge(edge_id: str, **fields: Any) -> Change:
    return lambda document: find_edge(document, edge_id).update(fields)


def top(**fields: Any) -> Change:
    return lambda document: document.update(fields)


def nothing(document: Document) -> None:
    """The definition that uses everything, as it is."""


def group(at: int, **fields: Any) -> Change:
    return lambda document: document["stepGroups"][at].update(fields)


def batch_without_iterable(document: Document) -> None:
    del find(document, "batch")["iterable"]


def no_legacy_type(document: Document) -> None:
    del document["legacyServiceRequestType"]


def without_group_key(document: Document) -> None:
    del document["stepGroups"][0]["legacyServiceRequestTaskGroupKey"]


def no_version(document: Document) -> None:
    del find(document, "batch")["childWorkflowTemplateVersionId"]


WARNING = Severity.WARNING
HOME = of("collect", group={"groupId": "rest", "order": 1})
ISLAND = both(
    add_step(step("one", "SYS_ACTION", actionKey="http.request"), step("two", "GATEWAY_EXCLUSIVE_JOIN")),
    add_edge(edge("one", "two"), edge("two", "one")),
)
ALWAYS = both(
    lambda document: drop_edge(document, "start-collect"),
    add_step(step("again", "SYS_SUB_WORKFLOW", childWorkflowTemplateId="onboarding")),
    add_edge(edge("start", "again"), edge("again", "collect")),
)

EXAMPLES: dict[str, tuple[Broken | Change, ...]] = {
    "GRAPH_EXACTLY_ONE_START": (
        Broken(lambda document: drop_step(document, "start"), "steps"),
        Broken(add_step(step("s2", "start")), "steps[13]"),
        of("start", type="start"),
    ),
    "GRAPH_EXACTLY_ONE_END": (
        Broken(lambda document: drop_step(document, "end"), "steps"),
        Broken(add_step(step("e2", "END")), "steps[13]"),
        of("end", type="end"),
    ),
    "START_STEP_NO_INCOMING": (Broken(add_edge(edge("mark", "start")), "steps[0]"), nothing),
    "START_STEP_HAS_OUTGOING": (
        Broken(lambda document: drop_edge(document, "start-collect"), "steps[0]"),
        nothing,
    ),
    "END_STEP_SINGLE_INCOMING": (
        Broken(lambda document: drop_edge(document, "either-end"), "steps[12]"),
        Broken(add_edge(edge("mark", "end")), "steps[12]"),
        add_edge(edge("mark", "either")),
    ),
    "END_STEP_NO_OUTGOING": (Broken(add_edge(edge("end", "either")), "steps[12]"), nothing),
    "TRANSITION_ENDS_EXIST": (
        Broken(add_edge(edge("ftech", "end")), "stepTransitions[15].fromStepId"),
        Broken(add_edge(edge("fetch", "ned")), "stepTransitions[15].toStepId"),
        add_edge(edge("fetch", "end")),
    ),
    "TRANSITIONS_UNIQUE": (
        Broken(add_edge({**edge("start", "collect"), "id": "again"}), "stepTransitions[15]"),
        add_edge(edge("collect", "start")),
    ),
    "NO_SELF_LOOPS": (
        Broken(add_edge(edge("mark", "mark")), "stepTransitions[15]"),
        add_edge(edge("gather", "mark")),
    ),
    "NO_ISOLATED_STEPS": (Broken(add_step(step("alone", "GATEWAY_PARALLEL_JOIN")), "steps[13]"), ISLAND),
    "STEP_REACHABLE_FROM_START": (
        Broken(ISLAND, "steps[13]"),
        Broken(lambda document: drop_edge(document, "fork-batch"), "steps[5]"),
        add_step(step("alone", "GATEWAY_PARALLEL_JOIN")),
    ),
    "STEP_CAN_REACH_END": (
        Broken(ISLAND, "steps[13]"),
        Broken(lambda document: drop_edge(document, "mark-gather"), "steps[9]"),
        add_step(step("alone", "GATEWAY_PARALLEL_JOIN")),
    ),
    "ONLY_SPLIT_GATEWAY_CAN_FAN_OUT": (
        Broken(add_edge(edge("collect", "either")), "steps[1]"),
        Broken(add_edge(edge("start", "either")), "steps[0]"),
        Broken(add_edge(edge("meet", "either")), "steps[7]"),
        add_edge(edge("fork", "mark")),
    ),
    "JOIN_GATEWAY_MANY_IN_SINGLE_OUT": (
        Broken(lambda document: drop_edge(document, "batch-meet"), "steps[7]"),
        Broken(lambda document: drop_edge(document, "mark-gather"), "steps[10]"),
        Broken(lambda document: drop_edge(document, "route-either"), "steps[11]"),
        Broken(add_edge(edge("meet", "either")), "steps[7]"),
        Broken(lambda document: drop_edge(document, "either-end"), "steps[11]"),
        add_edge(edge("mark", "meet")),
    ),
    "CONDITIONAL_SPLIT_SINGLE_DEFAULT": (
        Broken(of_edge("route-either", isDefault=False, condition="true"), "steps[2]"),
        Broken(of_edge("choose-mark", isDefault=True), "steps[8]"),
        Broken(of_edge("route-either", condition="true"), "stepTransitions[3].condition"),
        Broken(lambda document: find_edge(document, "choose-mark").pop("condition"), "stepTransitions[10]"),
        Broken(of_edge("fork-batch", isDefault=True), "stepTransitions[5].isDefault", WARNING),
        add_edge(edge("choose", "either", condition="true")),
    ),
    "EXCLUSIVE_SPLIT_TWO_OUTGOING": (
        Broken(add_edge(edge("route", "end", condition="true")), "steps[2]"),
        Broken(lambda document: drop_edge(document, "route-fetch"), "steps[2]"),
        add_edge(edge("choose", "end", condition="true")),
    ),
    "ONLY_EXCLUSIVE_INCLUSIVE_STEP_HAVE_CONDITION": (
        Broken(of_edge("fork-batch", condition="true"), "stepTransitions[5].condition"),
        Broken(of_edge("start-collect", condition="true"), "stepTransitions[0].condition"),
        of_edge("route-fetch", condition={"type": "jsonata", "src": "true"}),
    ),
    "MISSING_BATCH_ITERATOR": (Broken(batch_without_iterable, "steps[5].iterable"), of("single", mode="SINGLE")),
    "STEP_IDS_UNIQUE": (Broken(add_step(step("mark", "END")), "steps[13].id"), add_step(step("Mark", "END"))),
    "TRANSITION_IDS_UNIQUE": (
        Broken(of_edge("fork-batch", id="either-end"), "stepTransitions[14].id"),
        of_edge("fork-batch", id="other"),
    ),
    "STEP_GROUP_IDS_UNIQUE": (Broken(group(1, id="kyc"), "stepGroups[1].id"), group(1, id="KYC")),
    "VARIABLE_KEYS_UNIQUE": (
        Broken(top(variables=[{"key": "region"}, {"key": "region"}]), "variables[1].key"),
        top(variables=[{"key": "region"}, {"key": "Region"}]),
    ),
    "NO_GROUP_FOR_SPECIAL_NODES": (
        Broken(of("start", group={"groupId": "rest"}), "steps[0].group"),
        Broken(of("meet", group={"groupId": "rest"}), "steps[7].group"),
        Broken(group(1, stepIds=["single", "end"]), "stepGroups[1].stepIds[1]"),
        Broken(group(1, stepIds=["route"]), "stepGroups[1].stepIds[0]"),
        group(1, stepIds=["single", "mark"]),
    ),
    "GROUP_STEP_IDS_EXISTS": (
        Broken(group(1, stepIds=["singel"]), "stepGroups[1].stepIds[0]"),
        Broken(of("fetch", group={"groupId": "kyx"}), "steps[3].group.groupId"),
        of("fetch", group={"groupId": "kyc"}),
    ),
    "STEP_BELONGS_TO_ONLY_ONE_GROUP": (
        Broken(group(1, stepIds=["single", "fetch"]), "stepGroups[1].stepIds[1]"),
        Broken(group(1, stepIds=["single", "single"]), "stepGroups[1].stepIds[1]"),
        Broken(HOME, "steps[1].group.groupId"),
        group(1, stepIds=["single", "batch"]),
    ),
    "STEP_GROUP_CANNOT_BE_EMPTY": (Broken(group(1, stepIds=[]), "stepGroups[1].stepIds"), nothing),
    "LEGACY_SERVICE_REQUEST_REQUIRES_STEP_GROUPS": (
        Broken(top(stepGroups=[]), "legacyServiceRequestType"),
        both(top(stepGroups=[]), no_legacy_type),
    ),
    "LEGACY_SERVICE_REQUEST_TYPE_GROUP_TASK_UNIQUE": (
        Broken(
            of("fetch", legacyServiceRequestTaskKey="collect-documents"),
            "steps[3].legacyServiceRequestTaskKey",
        ),
        of("single", legacyServiceRequestTaskKey="collect-documents"),
    ),
    "LEGACY_SERVICE_REQUEST_TASK_GROUP_EXISTS_IN_TEMPLATE": (
        Broken(group(0, legacyServiceRequestTaskGroupKey="kyc"), "stepGroups[0].legacyServiceRequestTaskGroupKey"),
        Broken(top(legacyServiceRequestType="GST"), "stepGroups[0].legacyServiceRequestTaskGroupKey"),
        Broken(no_legacy_type, "stepGroups[0].legacyServiceRequestTaskGroupKey", WARNING),
        Broken(
            nothing,
            "stepGroups[0].legacyServiceRequestTaskGroupKey",
            Severity.NOT_CHECKED,
            {"legacy_tasks": None},
        ),
        without_group_key,
    ),
    "LEGACY_SERVICE_REQUEST_TASK_EXISTS_IN_TEMPLATE": (
        Broken(of("collect", legacyServiceRequestTaskKey="nope"), "steps[1].legacyServiceRequestTaskKey"),
        Broken(without_group_key, "steps[1].legacyServiceRequestTaskKey"),
        Broken(no_legacy_type, "steps[1].legacyServiceRequestTaskKey", WARNING),
        of("collect", legacyServiceRequestTaskKey="verify"),
    ),
    "LEGACY_SERVICE_REQUEST_TASK_ONLY_ON_HUMAN_STEP": (
        Broken(of("fetch", legacyServiceRequestTaskKey="verify"), "steps[3].legacyServiceRequestTaskKey"),
        of("collect", legacyServiceRequestTaskKey="verify"),
    ),
    "TARGET_PATH_VALID": (
        Broken(of("mark", assignments=[write("a..b", 1)]), "steps[9].assignments[0].targetPath"),
        Broken(of("batch", inputMapping=[write(".a", 1)]), "steps[5].inputMapping[0].targetPath"),
        Broken(of("batch", contextProjection=[write("a.", 1)]), "steps[5].contextProjection[0].targetPath"),
        Broken(of("fetch", outputMapping=[write("__context__.a", 1)]), "steps[3].outputMapping[0].targetPath"),
        of("mark", assignments=[write("a.0._b__", 1)]),
    ),
    "VARIABLE_DEFAULT_FITS": (
        Broken(top(variables=[{"key": "region", "default": 5}]), "variables[0].default"),
        Broken(top(variables=[{"key": "region", "dataType": "number", "default": True}]), "variables[0].default"),
        top(variables=[{"key": "region", "dataType": "boolean", "default": True}]),
        top(variables=[{"key": "region", "dataType": "array", "default": [1]}]),
        top(variables=[{"key": "region", "dataType": "number"}]),
    ),
    "SCHEMA_VALID": (
        Broken(top(inputSchema={"type": "objekt"}), "inputSchema"),
        Broken(top(inputSchema={"$ref": "https://example.com/schema.json"}), "inputSchema"),
        top(inputSchema={"$ref": "#/$defs/a", "$defs": {"a": {"type": "object"}}}),
    ),
    "EXPRESSION_COMPILES": (
        Broken(of_edge("route-fetch", condition="((1)"), "stepTransitions[2].condition"),
        Broken(of("fetch", parameters={"url": expr("(1")}), "steps[3].parameters.url.expr"),
        Broken(of("fetch", parameters={"url": {"type": "const"}}), "steps[3].parameters.url"),
        Broken(top(output={"a": [{"type": "template", "src": "{{ (1 }}"}]}), "output.a[0].src"),
        top(output={"a": [{"type": "template", "src": "{{ 1 }}"}]}),
        of("batch", iterable={"type": "EXPRESSION"}),
    ),
    "REFERENCE_EXISTS": (
        Broken(of("mark", assignments=[write("a", expr("__steps__.ftech.x"))]), "steps[9].assignments[0].value.expr"),
        Broken(top(output=expr("__variables__.regoin")), "output.expr"),
        Broken(top(output=expr("__execution__.template")), "output.expr"),
        Broken(top(output=expr("__steps__.mark.x")), "output.expr"),
        Broken(top(output=expr("__steps__.choose")), "output.expr"),
        Broken(top(output=expr("__each__.x")), "output.expr"),
        Broken(of("single", inputMapping=[write("a", expr("__each__"))]), "steps[6].inputMapping[0].value.expr"),
        Broken(of("fetch", outputMapping=[write("a", expr("__child__"))]), "steps[3].outputMapping[0].value.expr"),
        Broken(of_edge("route-fetch", condition="__steps__.collect.result"), "stepTransitions[2].condition"),
        Broken(of("batch", iterable={"type": "STEP", "stepId": "nope"}), "steps[5].iterable"),
        top(output=expr("__variables__.region & __execution__.id & __steps__.collect.outcome")),
        of("batch", iterable={"type": "STEP", "stepId": "fetch", "select": "items"}),
    ),
    "REFERENCE_BEFORE_AVAILABLE": (
        Broken(of("fetch", parameters={"url": expr("__steps__.single.x")}), "steps[3].parameters.url.expr"),
        Broken(top(output=expr("__steps__.fetch.x")), "output.expr", WARNING),
        top(output=expr("__steps__.fetch.x", default=1)),
    ),
    "ACTION_EXISTS": (Broken(of("fetch", actionKey="http.requets"), "steps[3].actionKey"), nothing),
    "ACTION_TIMEOUT_IN_RANGE": (
        Broken(of("fetch", timeout=300.5), "steps[3].timeout"),
        of("fetch", timeout=300),
    ),
    "ACTION_PARAMETERS_VALID": (
        Broken(of("fetch", parameters={"method": "GET"}), "steps[3].parameters"),
        Broken(of("fetch", parameters=None), "steps[3].parameters"),
        Broken(of("fetch", parameters={"method": "PUT", "url": "x"}), "steps[3].parameters.method"),
        Broken(of("fetch", parameters={"method": const(5), "url": expr("1")}), "steps[3].parameters.method"),
        Broken(
            of("fetch", parameters={"method": expr("1"), "url": expr("1"), "urll": expr("1")}),
            "steps[3].parameters",
        ),
        Broken(
            of("fetch", parameters={"method": "GET", "url": "x", "headers": {"a": expr("1"), "b": 5}}),
            "steps[3].parameters.headers.b",
        ),
        of("fetch", parameters={"method": expr("1"), "url": expr("1"), "headers": {"a": expr("1")}}),
        of("fetch", parameters=expr("__context__.all")),
        of("fetch", actionKey="unknown"),
    ),
    "ITERABLE_VALID": (
        Broken(of("batch", iterable={"type": "EXPRESSION"}), "steps[5].iterable"),
        Broken(of("batch", iterable={"type": "STEP"}), "steps[5].iterable"),
        Broken(of("batch", iterable={"type": "STEP", "stepId": "fetch", "expr": {"src": "1"}}), "steps[5].iterable"),
        Broken(
            of("batch", iterable={"type": "EXPRESSION", "stepId": "fetch", "expr": {"src": "1"}}),
            "steps[5].iterable",
        ),
        Broken(of("single", iterable={"type": "EXPRESSION", "expr": {"src": "1"}}), "steps[6].iterable"),
        of("batch", iterable={"type": "STEP", "stepId": "fetch"}),
    ),
    "CHILD_REFERENCE_GIVEN": (
        Broken(no_version, "steps[5]"),
        Broken(of("batch", childWorkflowTemplateId="filing"), "steps[5]"),
        both(no_version, of("batch", childWorkflowTemplateId="filing")),
    ),
    "CHILD_EXISTS": (
        Broken(
            of("batch", childWorkflowTemplateVersionId="director@7.0.0"),
            "steps[5].childWorkflowTemplateVersionId",
        ),
        Broken(of("single", childWorkflowTemplateId="filling"), "steps[6].childWorkflowTemplateId"),
        of("single", childWorkflowTemplateId="idle"),
        of("single", childWorkflowTemplateId="id-of-onboarding"),
    ),
    "CHILD_PUBLISHED": (
        Broken(
            of("batch", childWorkflowTemplateVersionId="director@2.0.0"),
            "steps[5].childWorkflowTemplateVersionId",
        ),
        Broken(
            of("batch", childWorkflowTemplateVersionId="director@0.9.0"),
            "steps[5].childWorkflowTemplateVersionId",
            WARNING,
        ),
        Broken(of("single", childWorkflowTemplateId="idle"), "steps[6].childWorkflowTemplateId", WARNING),
        nothing,
    ),
    "CHILD_CYCLE_BOUNDED": (
        Broken(ALWAYS, "steps[13].childWorkflowTemplateId"),
        Broken(
            both(ALWAYS, of("again", childWorkflowTemplateId="id-of-onboarding")),
            "steps[13].childWorkflowTemplateId",
            world={"templates": {"filing": None}},
        ),
        Broken(
            both(ALWAYS, of("again", childWorkflowTemplateId=None, childWorkflowTemplateVersionId="outer@1.0.0")),
            "steps[13].childWorkflowTemplateVersionId",
            WARNING,
        ),
        Broken(nothing, "steps[5]", Severity.NOT_CHECKED, {"template_id": None}),
        of("single", childWorkflowTemplateId="onboarding"),
        both(ALWAYS, of("again", mode="BATCH", iterable={"type": "EXPRESSION", "expr": {"src": "[1]"}})),
        both(ALWAYS, of("again", childWorkflowTemplateId="filing")),
    ),
}

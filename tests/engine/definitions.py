"""A definition that uses the whole language and breaks no rule, the catalogue it needs, and words to change it with."""

from itertools import pairwise
from typing import Any

from engine.catalogue import ActionEntry, Catalogue, VersionEntry

Document = dict[str, Any]


def step(step_id: str, kind: str, **fields: Any) -> Document:
    """A step whose name is its id."""
    return {"id": step_id, "type": kind, "name": step_id, **fields}


def edge(source: str, target: str, **fields: Any) -> Document:
    """A transition named after its ends."""
    return {"id": f"{source}-{target}", "fromStepId": source, "toStepId": target, **fields}


def chain(*steps: Document) -> Document:
    """START, the steps one after the other, END."""
    every = [step("start", "START"), *steps, step("end", "END")]
    ids = [each["id"] for each in every]
    return {"steps": every, "stepTransitions": [edge(*pair) for pair in pairwise(ids)]}


def graph(kinds: dict[str, str], *edges: str | Document) -> Document:
    """Steps by id and type, and transitions, as `a-b` or with all their fields."""
    return {
        "steps": [step(name, kind) for name, kind in kinds.items()],
        "stepTransitions": [edge(*each.split("-")) if isinstance(each, str) else each for each in edges],
    }


def expr(source: str, **fields: Any) -> Document:
    """A JSONata value."""
    return {"type": "expr", "expr": {"src": source}, **fields}


def const(value: Any) -> Document:
    """A constant value."""
    return {"type": "const", "value": value}


def write(target: str, value: Any) -> Document:
    """A mapping."""
    return {"targetPath": target, "value": value}


def _every_kind_of_step() -> list[Document]:
    return [
        step("start", "START"),
        step(
            "collect",
            "HUMAN_CONFIRM",
            legacyServiceRequestTaskKey="collect-documents",
            group={"groupId": "kyc", "order": 1},
            assignment={"assignee": expr("__context__.owner"), "candidateGroups": ["agents"]},
            outcomes=["approved", "rejected"],
        ),
        step("route", "GATEWAY_EXCLUSIVE_SPLIT"),
        step(
            "fetch",
            "SYS_ACTION",
            actionKey="http.request",
            parameters={"method": "GET", "url": expr("__context__.url"), "headers": {"x": "y"}},
            outputMapping=[write("answer", expr("__steps__.fetch.status"))],
        ),
        step("fork", "GATEWAY_PARALLEL_SPLIT"),
        step(
            "batch",
            "SYS_SUB_WORKFLOW",
            mode="BATCH",
            childWorkflowTemplateVersionId="director@1.0.0",
            iterable={"type": "EXPRESSION", "expr": {"src": "__context__.directors"}},
            inputMapping=[write("director", expr("__each__")), write("at", expr("__index__"))],
            contextProjection=[write("done", expr("__child__"))],
        ),
        step("single", "SYS_SUB_WORKFLOW", childWorkflowTemplateId="filing"),
        step("meet", "GATEWAY_PARALLEL_JOIN"),
        step("choose", "GATEWAY_INCLUSIVE_SPLIT"),
        step("mark", "SYS_SET", assignments=[write("marked.at", expr("__steps__.single.at"))]),
        step("gather", "GATEWAY_INCLUSIVE_JOIN"),
        step("either", "GATEWAY_EXCLUSIVE_JOIN"),
        step("end", "END"),
    ]


def everything() -> Document:
    """A valid definition with every kind of step, groups, variables, an older system's keys and a loop."""
    return {
        "inputSchema": {"type": "object", "properties": {"amount": {"type": "number"}}},
        "variables": [{"key": "region", "dataType": "string", "default": "EU"}],
        "legacyServiceRequestType": "DSC",
        "steps": _every_kind_of_step(),
        "stepTransitions": [
            edge("start", "collect"),
            edge("collect", "route"),
            edge("route", "fetch", condition="__steps__.collect.outcome = 'approved'"),
            edge("route", "either", isDefault=True),
            edge("fetch", "fork"),
            edge("fork", "batch"),
            edge("fork", "single"),
            edge("batch", "meet"),
            edge("single", "meet"),
            edge("meet", "choose"),
            edge("choose", "mark", condition={"src": "__context__.amount > 5"}),
            edge("choose", "gather", isDefault=True),
            edge("mark", "gather"),
            edge("gather", "either"),
            edge("either", "end"),
        ],
        "stepGroups": [
            {
                "id": "kyc",
                "name": "KYC",
                "stepIds": ["collect", "fetch"],
                "legacyServiceRequestTaskGroupKey": "kyc-group",
            },
            {"id": "rest", "name": "Rest", "stepIds": ["single"]},
        ],
        "output": {"region": expr("__variables__.region"), "of": expr("__execution__.rootId")},
    }


HTTP_SCHEMA: Document = {
    "type": "object",
    "properties": {
        "method": {"enum": ["GET", "POST"]},
        "url": {"type": "string"},
        "headers": {"type": "object", "additionalProperties": {"type": "string"}},
    },
    "required": ["method", "url"],
    "additionalProperties": False,
}


def version(template: str, number: str, status: str = "PUBLISHED", *children: str) -> VersionEntry:
    """A version whose ids are made of its template's slug."""
    return VersionEntry(f"{template}-{number}", f"id-of-{template}", template, number, status, children)


def world(**fields: Any) -> Catalogue:
    """A catalogue in which `everything()` is valid and belongs to the template `onboarding`."""
    given: dict[str, Any] = {
        "actions": {"http.request": ActionEntry("http.request", HTTP_SCHEMA)},
        "versions": {
            "director@1.0.0": version("director", "1.0.0"),
            "director@2.0.0": version("director", "2.0.0", "DRAFT"),
            "director@0.9.0": version("director", "0.9.0", "DEPRECATED"),
            "circle@1.0.0": version("circle", "1.0.0", "PUBLISHED", "onboarding"),
            "outer@1.0.0": version("outer", "1.0.0", "PUBLISHED", "circle@1.0.0"),
        },
        "templates": {
            "filing": version("filing", "3.0.0"),
            "idle": None,
            "onboarding": version("onboarding", "1.0.0", "PUBLISHED", "director@1.0.0"),
        },
        "legacy_tasks": {"DSC": {"kyc-group": frozenset({"collect-documents", "verify"})}},
        "template_id": "id-of-onboarding",
        **fields,
    }
    return Catalogue(**given)


def find(document: Document, step_id: str) -> Document:
    """The step of that id, to be changed in place."""
    found: Document = next(each for each in document["steps"] if each["id"] == step_id)
    return found


def find_edge(document: Document, edge_id: str) -> Document:
    """The transition of that id, to be changed in place."""
    found: Document = next(each for each in document["stepTransitions"] if each["id"] == edge_id)
    return found

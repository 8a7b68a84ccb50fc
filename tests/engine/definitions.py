"""Two definitions that use the whole language and break no rule, the catalogue they need, and words to change them."""

from itertools import pairwise
from typing import Any

from engine.catalogue import ActionEntry, Catalogue, VersionEntry
from tests.documents import Document, expr, step


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
            dueIn="P3D",
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
    """A valid definition of the older kinds of steps, with groups, variables and an older system's keys."""
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


def _kinds_that_wait() -> list[Document]:
    return [
        step("start", "START"),
        step("first", "GATEWAY_EVENT_SPLIT"),
        step("ask", "HUMAN_FORM", form={"schema": {"type": "object"}}, outcomes=["sent"]),
        step("called", "SYS_WAIT_SIGNAL", signal="withdrawn", correlationKey=expr("__context__.order")),
        step("late", "SYS_DELAY", duration="P2D"),
        step("stop", "SYS_TERMINATE", outcome="CANCELLED", message="withdrawn by the customer"),
        step("heard", "GATEWAY_EXCLUSIVE_JOIN"),
        step(
            "pick",
            "GATEWAY_ROUTE",
            select=expr("__datasources__.order.body.way"),
            dataSources=[
                {"alias": "order", "dataSourceId": "http.request", "params": {"method": "GET", "url": "http://a"}}
            ],
        ),
        step(
            "papers",
            "HUMAN_DOC_UPLOAD",
            documents=[{"key": "id", "label": "Passport", "accept": ["application/pdf", ".png", "image/*"]}],
            dueIn="P3D",
            escalation={"assignment": {"candidateGroups": ["leads"]}},
        ),
        step("sign", "HUMAN_URL_REDIRECT", url=expr("__context__.url"), timeout="P7D"),
        step("picked", "GATEWAY_EXCLUSIVE_JOIN"),
    ]


def _kinds_that_may_fail() -> list[Document]:
    return [
        step("fan", "GATEWAY_PARALLEL_SPLIT"),
        step(
            "charge",
            "SYS_ACTION",
            actionKey="payment.charge",
            parameters={"amount": expr("__context__.amount")},
            compensate={"actionKey": "payment.refund", "parameters": {"amount": expr("__result__.amount")}},
            skipIf="__context__.amount = 0",
            mutex="account",
        ),
        step("refuse", "SYS_SET", assignments=[write("refused", expr("__error__.code"))]),
        step(
            "poll",
            "SYS_ACTION",
            actionKey="report.build",
            parameters={"again": expr("__previous__")},
            timeout="PT1H",
            repeat={"until": "__result__.done", "maxIterations": 5, "feedback": expr("__result__.next")},
        ),
        step(
            "each",
            "SYS_ACTION",
            actionKey="http.request",
            parameters={"method": "GET", "url": expr("__datasources__.place.url & __each__")},
            forEach={
                "iterable": {"type": "EXPRESSION", "expr": {"src": "__context__.items"}},
                "failurePolicy": {"type": "TOLERATE", "percent": 10},
                "completionCondition": "__counts__.completed >= 3",
            },
            dataSources=[
                {
                    "alias": "place",
                    "dataSourceId": "http.request",
                    "params": {"method": "GET", "url": expr("__each__")},
                    "scope": "per-item",
                }
            ],
        ),
        step(
            "settle",
            "GATEWAY_PARALLEL_JOIN",
            join={"policy": "ALL_SETTLED"},
            outputMapping=[write("all", expr("__steps__.settle"))],
        ),
        step("tell", "SYS_SUB_WORKFLOW", childWorkflowTemplateId="filing", wait=False, enabledWhile="__context__.on"),
        step("end", "END"),
    ]


def the_rest() -> Document:
    """A valid definition of the kinds of steps, joins and fields that `everything()` has not."""
    return {
        "limits": {"maxStepVisits": 10, "bufferedSignals": 5, "signalTtl": "P1D"},
        "onFailure": "INCIDENT",
        "steps": [*_kinds_that_wait(), *_kinds_that_may_fail()],
        "stepTransitions": [
            edge("start", "first"),
            edge("first", "ask"),
            edge("first", "called"),
            edge("first", "late"),
            edge("ask", "heard"),
            edge("called", "stop"),
            edge("late", "heard"),
            edge("heard", "pick"),
            edge("pick", "papers", branchKey="upload", onArrival={"status": "IN_PROGRESS"}),
            edge("pick", "sign", branchKey="sign"),
            edge("pick", "picked", isDefault=True),
            edge("papers", "picked"),
            edge("sign", "picked"),
            edge("picked", "fan"),
            edge("fan", "charge"),
            edge("fan", "poll"),
            edge("fan", "each"),
            edge("charge", "settle"),
            {**edge("charge", "refuse", on="ERROR", errorCodes=["CARD_DECLINED"]), "id": "declined"},
            {**edge("charge", "refuse", on="TIMEOUT"), "id": "took-too-long"},
            edge("refuse", "settle"),
            edge("poll", "settle"),
            edge("each", "settle"),
            edge("settle", "tell"),
            edge("tell", "end"),
        ],
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

PAYMENT_SCHEMA: Document = {
    "type": "object",
    "properties": {"amount": {"type": "number"}},
    "required": ["amount"],
    "additionalProperties": False,
}


def version(template: str, number: str, status: str = "PUBLISHED", *children: str) -> VersionEntry:
    """A version whose ids are made of its template's slug."""
    return VersionEntry(f"{template}-{number}", f"id-of-{template}", template, number, status, children)


def world(**fields: Any) -> Catalogue:
    """A catalogue in which `everything()` and `the_rest()` are valid and belong to the template `onboarding`."""
    given: dict[str, Any] = {
        "actions": {
            "http.request": ActionEntry("http.request", HTTP_SCHEMA, idempotent=True),
            "payment.charge": ActionEntry("payment.charge", PAYMENT_SCHEMA),
            "payment.refund": ActionEntry("payment.refund", PAYMENT_SCHEMA),
            "report.build": ActionEntry("report.build", {"type": "object"}, long=True, idempotent=True),
        },
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

"""The demo's story, and what must be true at its end.

A company looks after street lighting. A resident reports dark lamps (Open311); a dispatcher approves the repair, and
the work order and the notice go out side by side. A housing cooperative buys a maintenance plan (Stripe); it is
welcomed while each of its 24 lamps is surveyed in a child execution, one of which orders a new lamp head through a
child of its own; at the end the account team takes over.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.cli.api_client import read_json_object
from app.cli.demo_partner import Partner

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
PAYLOADS = EXAMPLES / "payloads"

# In this order: a version can only name published children.
TEMPLATES = (
    ("customer-notice", "Customer notice"),
    ("replacement-order", "Replacement order"),
    ("lamp-survey", "Lamp survey"),
    ("maintenance-plan", "Maintenance plan"),
    ("streetlight-repair", "Street light repair"),
)
LAMPS = 24
WORN_OUT = "EH-17"
OUTCOMES = {"approve": "approved", "hand_over": "accepted"}
FIRST_VERSION = "1.0.0"

Problem = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened, as it is sent to a trigger endpoint, and how many executions must come of it."""

    title: str
    path: str
    entity_type: str
    entity_id: str
    event_id: str
    template: str
    context: dict[str, Any]
    executions: int


def read_events() -> tuple[Event, Event]:
    """The service request and the purchase, from their files."""
    request = read_json_object(PAYLOADS / "open311-service-request.json")
    purchase = read_json_object(PAYLOADS / "stripe-checkout-session-completed.json")
    return (
        Event(
            "service request",
            "/triggers/service-requests",
            "SERVICE_CATALOG",
            request["service_code"],
            request["service_request_id"],
            "streetlight-repair",
            request,
            executions=2,
        ),
        Event(
            "purchase",
            "/triggers/product-purchases",
            "PRODUCT",
            purchase["data"]["object"]["metadata"]["product_id"],
            purchase["id"],
            "maintenance-plan",
            purchase,
            executions=3 + LAMPS,
        ),
    )


def read_register() -> dict[str, Any]:
    """The lamps that the asset register knows."""
    return read_json_object(PAYLOADS / "lamps.json")


def read_definition(slug: str, partner_url: str, version: str) -> dict[str, Any]:
    """An example definition that calls the partner at this address and children of this version."""
    document = read_json_object(EXAMPLES / f"{slug}.json")
    for variable in document["variables"]:
        if variable["key"] == "partnerApi":
            variable["default"] = partner_url
    for step in document["steps"]:
        child = step.get("childWorkflowTemplateVersionId")
        if child is not None:
            step["childWorkflowTemplateVersionId"] = f"{child.partition('@')[0]}@{version}"
    return document


def flattened(node: dict[str, Any], parent: str | None = None) -> Iterator[tuple[dict[str, Any], str | None]]:
    """Every execution of a tree, each with the id of the execution it stands under."""
    yield node, parent
    for child in node["children"]:
        yield from flattened(child, node["id"])


def check_tree(event: Event, tree: dict[str, Any]) -> Iterator[Problem]:
    """What is not as it should be in a finished tree: counts, links, statuses."""
    nodes = list(flattened(tree))
    if len(nodes) != event.executions:
        yield _problem(event.title, f"{len(nodes)} executions instead of {event.executions}")
    for node, parent in nodes:
        if node["parentId"] != parent:
            yield _problem(node["name"], f"parent {node['parentId']} instead of {parent}")
        if (node["status"], node["runtimeStatus"]) != ("COMPLETED", "COMPLETED"):
            yield _problem(node["name"], f"record {node['status']}, runtime {node['runtimeStatus']}")


def check_rows(tree: dict[str, Any], rows: list[dict[str, Any]]) -> Iterator[Problem]:
    """The executions listed under a root are those of its tree, with the same parents."""
    expected = {node["id"]: parent for node, parent in flattened(tree)}
    found = {row["id"]: row["parentId"] for row in rows if row["rootId"] == tree["id"]}
    if found != expected:
        yield _problem(tree["name"], f"{len(found)} executions have it as their root, not {len(expected)}")


def check_grandchild(tree: dict[str, Any]) -> Iterator[Problem]:
    """The one worn-out lamp has ordered its replacement in a child of its own, and no other has."""
    surveys = [child for child in tree["children"] if child["template"] == "lamp-survey"]
    if len(surveys) != LAMPS:
        yield _problem("batch", f"{len(surveys)} surveys instead of {LAMPS}")
    parents = [survey["name"] for survey in surveys if survey["children"]]
    if parents != [f"Survey of {WORN_OUT}"]:
        yield _problem("grandchild", f"found under {parents}")


def check_outputs(repair: Any, plan: Any) -> Iterator[Problem]:
    """Both processes have said what they should."""
    if not (isinstance(repair, dict) and repair.get("workOrder") and repair.get("urgent") is False):
        yield _problem("output of the repair", repair)
    expected = {
        "surveyed": LAMPS,
        "replacements": 1,
        "extras": {"crew": "Crew for 1 replacement(s)", "manager": "key accounts"},
        "handover": "accepted",
    }
    found = plan if isinstance(plan, dict) else {}
    if {key: found.get(key) for key in expected} != expected:
        yield _problem("output of the plan", plan)


def check_calls(partner: Partner) -> Iterator[Problem]:
    """Every effect happened for one idempotency key each, and the refused call was made again with the same one."""
    expected = {"/lamps": 1, "/visits": LAMPS, "/orders": 1, "/messages": 2, "/work-orders": 1}
    keys = {path: len(used) for path, used in partner.keys.items()}
    if keys != expected:
        yield _problem("calls to the partner", f"{keys} instead of {expected}")
    if not partner.calls["POST", "/work-orders", 503]:
        yield _problem("retry", "the work-order desk was never busy")


def _problem(path: str, message: Any) -> Problem:
    return {"path": path, "message": str(message), "severity": "ERROR", "code": "NOT_AS_EXPECTED"}

"""Why an event matches a subscription or not, and what would be made of it, for people to read."""

from collections.abc import Sequence
from typing import Any

from app.subscriptions.matching import ReadSubscription
from app.subscriptions.schemas import ConditionFinding, ExplainedView, PropertyFinding, Warned
from engine.errors import EngineError
from engine.filters.matching import Finding


def explained(subscription: ReadSubscription, payload: Any, warned: Sequence[Warned]) -> ExplainedView:
    """What the subscription makes of an event, also of one that does not match; `warned` is what is known before."""
    found = subscription.explain(payload)
    view = ExplainedView(
        holds=found.holds,
        properties=[
            PropertyFinding(property=each.property, holds=each.holds, reason=each.reason) for each in found.properties
        ],
        filter=_condition(found.filter),
        warnings=list(warned),
    )
    try:
        view.context = subscription.context(payload)
        view.name = subscription.name(payload)
        view.correlation_key = subscription.correlation_key(payload)
    except EngineError as error:
        view.problem = Warned(code=error.code, message=str(error))
    return view


def _condition(finding: Finding) -> ConditionFinding:
    return ConditionFinding(
        path=finding.path,
        text=finding.text,
        holds=finding.holds,
        left=finding.left,
        right=finding.right,
        reason=finding.reason,
        parts=[_condition(part) for part in finding.parts],
    )

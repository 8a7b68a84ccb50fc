"""Search attributes: how runs are found in Temporal's own UI and by one query for a whole page."""

from temporalio.common import SearchAttributeKey, SearchAttributePair, TypedSearchAttributes

from app.contracts import (
    ATTRIBUTE_PARENT,
    ATTRIBUTE_ROOT,
    ATTRIBUTE_TEMPLATE,
    ATTRIBUTE_VERSION,
    ATTRIBUTE_WAITING_FOR,
    ExecutionStart,
)

VERSION = SearchAttributeKey.for_keyword(ATTRIBUTE_VERSION)
WAITING_FOR = SearchAttributeKey.for_keyword(ATTRIBUTE_WAITING_FOR)


def search_attributes(start: ExecutionStart) -> TypedSearchAttributes | None:
    """What a child is found by; None where the server has not got the attributes."""
    if not start.has_search_attributes:
        return None
    values = {
        ATTRIBUTE_TEMPLATE: start.template,
        ATTRIBUTE_VERSION: start.version,
        ATTRIBUTE_ROOT: str(start.root_id),
        ATTRIBUTE_PARENT: str(start.parent_id),
    }
    return TypedSearchAttributes(
        [SearchAttributePair(SearchAttributeKey.for_keyword(name), value) for name, value in values.items()]
    )

"""What does not hinder a subscription, and should be known: it would be found out by events that come to nothing."""

from collections.abc import Collection, Mapping, Sequence
from uuid import UUID

from pydantic import ValidationError
from sqlalchemy.ext.asyncio import AsyncSession

from app.db.event_tables import Subscription
from app.db.statuses import SubscriptionMode, SubscriptionStatus
from app.db.tables import TemplateStatus, WorkflowTemplate
from app.subscriptions.queries import SubscriptionAndTemplate
from app.subscriptions.schemas import Warned
from app.versions.queries import find_version
from engine.compile import compile_definition
from engine.definition import read_definition
from engine.errors import EngineError
from engine.signals import names_taken

# By version: the names of the signals that its steps take, None where one is only known when it is reached.
Taken = Mapping[UUID, Collection[str] | None]


async def find_taken(session: AsyncSession, found: Sequence[SubscriptionAndTemplate]) -> Taken:
    """Which signals the templates of subscriptions take that send some."""
    versions = {
        template.active_version_id
        for row, template in found
        if row.mode != SubscriptionMode.START and template.active_version_id is not None
    }
    return {version_id: await _names(session, version_id) for version_id in versions}


def warnings(found: SubscriptionAndTemplate, taken: Taken) -> list[Warned]:
    """TEMPLATE_NOT_ACTIVE, SIGNAL_UNKNOWN; `taken` is what `find_taken` gives."""
    row, template = found
    warned = []
    if row.status == SubscriptionStatus.ACTIVE and template.status != TemplateStatus.ACTIVE:
        message = f"{template.slug} is {template.status}: an event that matches is refused until it is active."
        warned.append(Warned(code="TEMPLATE_NOT_ACTIVE", message=message))
    names = _names_of(row, template, taken)
    if names is not None and row.signal not in names:
        others = f"no signal {row.signal}, but: {', '.join(names)}" if names else "no signal"
        message = f"The steps of {template.slug}'s active version take {others}."
        warned.append(Warned(code="SIGNAL_UNKNOWN", message=message))
    return warned


def _names_of(row: Subscription, template: WorkflowTemplate, taken: Taken) -> Collection[str] | None:
    if row.mode == SubscriptionMode.START or template.active_version_id is None:
        return None
    return taken[template.active_version_id]


async def _names(session: AsyncSession, version_id: UUID) -> Collection[str] | None:
    version = await find_version(session, version_id)
    if version is None:
        return None
    try:
        return names_taken(compile_definition(read_definition(version.definition)))
    except (ValidationError, EngineError):
        # Published by an older release whose rules were others.
        return None

"""A shop whose executions wait for payments: for tests of events that resume."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import select
from sqlmodel import col

from app.contracts import workflow_id
from app.db.event_tables import SignalWait, TriggerDelivery
from app.db.statuses import DeliveryStatus, SubscriptionMode
from app.db.tables import WorkflowExecution, WorkflowTemplate, WorkflowTemplateVersion
from app.inbox.delivering import deliver, perform
from app.inbox.queries import lock_pending
from app.inbox.settling import Settled, settle
from app.settings import Settings, TemporalSettings
from app.temporal import Temporal
from tests.app.inbox_scenes import incoming_event, read_deliveries, store_events, subscribe
from tests.documents import expr, wait_signal
from tests.workflows.harness import Executions, Handle

ORDER = {"type": "expr", "expr": {"src": "__trigger__.order"}}
OUTPUT = expr("__steps__.wait")


def waiting(**fields: Any) -> dict[str, Any]:
    """A step that waits for the payment of the order in its context."""
    return wait_signal("wait", "paid", **{"correlationKey": expr("__context__.order"), **fields})


class Shop:
    """One template whose executions wait, its subscription, and what is posted for it."""

    def __init__(self, executions: Executions) -> None:
        self.executions = executions
        self.settings = Settings(temporal=TemporalSettings(task_queue=executions.task_queue))
        self.temporal = Temporal(self.settings.temporal, executions.converter, executions.client)
        self.key = f"payments-{uuid4().hex}"
        self.template_id = UUID(int=0)
        self.version_id = UUID(int=0)

    async def open(self, document: dict[str, Any], mode: SubscriptionMode = SubscriptionMode.RESUME) -> str:
        """The template, active, with its subscription; gives its slug."""
        slug = f"shop-{uuid4().hex[:12]}"
        self.version_id = await self.executions.template(slug, document)
        async with self.executions.database.transaction() as session:
            version = await session.get_one(WorkflowTemplateVersion, self.version_id)
            self.template_id = version.template_id
            (await session.get_one(WorkflowTemplate, self.template_id)).status = "ACTIVE"
        template = {"id": str(self.template_id)}
        await subscribe(self.executions.database, template, self.key, mode=mode, signal="paid", correlation_key=ORDER)
        return slug

    async def start(self, **context: Any) -> Handle:
        """An execution of the template."""
        event = incoming_event("", template_id=self.template_id, payload={"context": context})
        await store_events(self.executions.database, event, held=True)
        (delivered,) = await deliver(self.executions.database, self.temporal, self.settings, [event.id])
        assert delivered.status == DeliveryStatus.STARTED, delivered.error
        return self.handle(delivered.execution_id)

    def handle(self, execution_id: UUID | None) -> Handle:
        """The run of an execution."""
        return self.executions.client.get_workflow_handle(workflow_id(str(execution_id)))

    async def waits(self, count: int = 1) -> list[SignalWait]:
        """The template's open waits, once there are so many, the longest first."""
        statement = (
            select(SignalWait)
            .join(WorkflowExecution, col(WorkflowExecution.id) == SignalWait.execution_id)
            .where(col(WorkflowExecution.template_id) == self.template_id, col(SignalWait.closed_at).is_(None))
            .order_by(col(SignalWait.opened_at), col(SignalWait.id))
        )
        found: list[SignalWait] = []
        async with asyncio.timeout(20):
            while True:
                async with self.executions.database.transaction() as session:
                    found = list((await session.execute(statement)).scalars())
                if len(found) == count:
                    return found
                await asyncio.sleep(0.05)

    async def post(self, order: str, *, held: bool = False, **payload: Any) -> UUID:
        """A payment comes in; `held` from the dispatcher."""
        event = incoming_event(self.key, payload={"order": order, **payload})
        await store_events(self.executions.database, event, held=held)
        return event.id

    async def delivery(self, event_id: UUID, status: DeliveryStatus = DeliveryStatus.SIGNALLED) -> TriggerDelivery:
        """What became of a payment, once it has."""
        async with asyncio.timeout(30):
            while True:
                for each in await read_deliveries(self.executions.database, event_id):
                    if each.status == status and (status != DeliveryStatus.PENDING or each.code is not None):
                        return each
                await asyncio.sleep(0.05)

    async def put_off(self, event_id: UUID) -> None:
        """Has an event wait for an hour, unless something calls it."""
        later = datetime.now(UTC) + timedelta(hours=1)
        async with self.executions.database.driver() as connection:
            await connection.execute("UPDATE trigger_delivery SET due_at = $2 WHERE event_id = $1", event_id, later)
            await connection.execute("UPDATE trigger_event SET due_at = $2 WHERE id = $1", event_id, later)

    async def settle(self, event_id: UUID) -> Settled:
        """Decides who gets a payment, and tells nobody."""
        async with self.executions.database.driver() as connection, connection.transaction():
            return await settle(connection, self.settings, await lock_pending(connection, [event_id]), early=True)

    async def perform(self, settled: Settled) -> None:
        """Tells them."""
        async with self.executions.database.driver() as connection:
            await perform(connection, self.temporal, settled)

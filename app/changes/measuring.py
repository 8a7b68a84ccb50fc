"""What a user's database says just now of how far behind the reading is."""

from app.changes import outbox
from app.changes.replication import read_slot
from app.changes.schemas import ChangeSourceDetail
from app.connections.opening import Connections
from app.db.event_tables import ChangeSource
from app.db.statuses import ChangeMethod
from app.errors import AppError


async def measure(connections: Connections, source: ChangeSource, detail: ChangeSourceDetail) -> ChangeSourceDetail:
    """The detail with what can be measured; where the database does not say it, with the reason."""
    if source.method == ChangeMethod.POSTED:
        return detail
    try:
        async with connections.opened(source.connection) as remote:
            if source.method == ChangeMethod.OUTBOX:
                if await outbox.installed(remote, source.table_schema, source.table_name):
                    waiting = await outbox.count_waiting(remote, source.table_schema, source.table_name)
                    detail.waiting_changes = waiting
                else:
                    detail.unreachable = "OUTBOX_MISSING: the table's trigger, or the outbox, is not there."
            elif source.slot is not None:
                slot = await read_slot(remote, source.slot)
                detail.lag_bytes, detail.unread_bytes = slot.retained, slot.lag
    except AppError as error:
        detail.unreachable = f"{error.code}: {error.message}"
    return detail

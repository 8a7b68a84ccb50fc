"""The data converter of the project, and what stands behind it: the one way in which values go to Temporal.

API, worker and tests all take it from here, so that what one of them stores, the others can read.
"""

from collections.abc import Callable

from temporalio.api.common.v1 import Payload
from temporalio.contrib.pydantic import PydanticPayloadConverter
from temporalio.converter import (
    CompositePayloadConverter,
    DataConverter,
    ExternalStorage,
    StorageDriver,
    StorageDriverSelectContext,
)

from app.db.session import Database
from app.payloads.content import Blobs, ContentDriver, is_content
from app.payloads.patience import PatientDriver
from app.payloads.postgres import PostgresBlobs
from app.payloads.s3 import S3Objects, s3_driver
from app.settings import DatabaseSettings, PayloadSettings

_CONVERTERS = tuple(PydanticPayloadConverter().converters.values())

# Seconds a worker waits for a store that is away, within one workflow task, which may take ten.
WORKER_PATIENCE = 5.0

# Connections beside those of requests and rows: a start holds one of these only for the statement that stores.
_POOL = 10


class SharedPayloadConverter(CompositePayloadConverter):
    """The SDK's converter for pydantic, with one memory of types for the process.

    With payload storage the SDK makes a new converter for every task and call, and each would work out anew how the
    types of the arguments are read: a tenth of what a short execution costs.
    """

    def __init__(self) -> None:
        super().__init__(*_CONVERTERS)


class PayloadStorage:
    """Everything that one process keeps outside history. `patience` is in seconds; people who wait have none."""

    def __init__(
        self, database_url: str, payloads: PayloadSettings, database: DatabaseSettings, patience: float = 0.0
    ) -> None:
        """Connects to nothing yet. Raises `Invalid` S3_NOT_INSTALLED."""
        pool = database.model_copy(update={"pool_size": min(_POOL, database.pool_size)})
        self._database = Database(database_url, pool)
        self._objects = S3Objects(payloads) if payloads.store == "s3" else None
        large = None if self._objects is None else PatientDriver(s3_driver(self._objects, payloads), patience)
        self.converter = data_converter(PostgresBlobs(self._database), payloads, large, patience)

    async def close(self) -> None:
        """Gives every connection back."""
        await self._database.close()
        if self._objects is not None:
            await self._objects.close()


def data_converter(
    blobs: Blobs,
    settings: PayloadSettings,
    large: StorageDriver | None = None,
    patience: float = 0.0,
) -> DataConverter:
    """A converter that keeps definitions in `blobs`, and values above the threshold in `large` (`blobs` without it).

    Both can be read whatever is written, so runs go on when the configuration changes from `blobs` to `large`.
    """
    content = PatientDriver(ContentDriver(blobs, settings.cache_bytes), patience)
    drivers = [content] if large is None else [content, large]
    storage = ExternalStorage(
        drivers,
        driver_selector=_selector(content, content if large is None else large, settings.threshold),
        # Every payload is shown to the selector: definitions go to storage whatever their size.
        payload_size_threshold=0,
    )
    return DataConverter(payload_converter_class=SharedPayloadConverter, external_storage=storage)


def _selector(
    content: StorageDriver, large: StorageDriver, threshold: int
) -> Callable[[StorageDriverSelectContext, Payload], StorageDriver | None]:
    def select(_: StorageDriverSelectContext, payload: Payload) -> StorageDriver | None:
        if is_content(payload):
            return content
        return large if payload.ByteSize() > threshold else None

    return select

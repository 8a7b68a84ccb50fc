"""The connection to Temporal: made when it is first needed, and its errors translated here, once.

The API starts while Temporal is down and says so where it matters, so nothing connects before it must.
"""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from urllib.parse import quote
from uuid import UUID

import structlog
from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest, ListSearchAttributesRequest
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest, GetSearchAttributesRequest, GetSystemInfoRequest
from temporalio.client import Client, RPCTimeoutOrCancelledError
from temporalio.converter import DataConverter
from temporalio.service import RetryConfig, RPCError, RPCStatusCode

from app.contracts import SEARCH_ATTRIBUTES, workflow_id
from app.errors import Unavailable
from app.payloads.errors import PayloadUnavailable
from app.settings import TemporalSettings

log = structlog.get_logger(__name__)

# How long an answer from Temporal is proof enough that it is there, in seconds.
FRESH = 1.0

# What says something about the request; every other status says that Temporal cannot serve us now.
_ABOUT_THE_REQUEST = frozenset(
    {
        RPCStatusCode.INVALID_ARGUMENT,
        RPCStatusCode.NOT_FOUND,
        RPCStatusCode.ALREADY_EXISTS,
        RPCStatusCode.FAILED_PRECONDITION,
        RPCStatusCode.OUT_OF_RANGE,
        RPCStatusCode.UNIMPLEMENTED,
    }
)


@contextmanager
def translated() -> Iterator[None]:
    """Raises `Unavailable` for what means that Temporal, or what it keeps elsewhere, cannot be reached.

    An `RPCError` that is about the request itself passes: only the caller knows what it means.
    """
    try:
        yield
    except RPCError as error:
        if error.status in _ABOUT_THE_REQUEST:
            raise
        raise unreachable() from error
    except (RPCTimeoutOrCancelledError, TimeoutError) as error:
        raise unreachable() from error
    except PayloadUnavailable as error:
        raise Unavailable(error.code, str(error)) from error


def unreachable() -> Unavailable:
    """What users are told while Temporal cannot be reached."""
    return Unavailable("TEMPORAL_UNAVAILABLE", "Temporal cannot be reached.")


async def connect(
    settings: TemporalSettings, data_converter: DataConverter, retry: RetryConfig | None = None
) -> Client:
    """A client with a `PayloadStorage`'s converter. Workers leave `retry` to the SDK, which is patient.

    Raises `Unavailable` when Temporal cannot be reached, ValueError when the settings name no address.
    """
    if settings.address is None:
        raise ValueError("no Temporal address is configured")
    api_key = settings.api_key.get_secret_value() if settings.api_key else None
    connecting = Client.connect(
        settings.address,
        namespace=settings.namespace,
        api_key=api_key,
        tls=settings.tls or api_key is not None,
        data_converter=data_converter,
        retry_config=retry,
        connect_timeout=timedelta(seconds=settings.connect_timeout),
    )
    try:
        return await asyncio.wait_for(connecting, settings.connect_timeout)
    except (RuntimeError, RPCError, TimeoutError) as error:
        raise unreachable() from error


async def check_namespace(client: Client) -> None:
    """Raises `Unavailable` TEMPORAL_NAMESPACE_NOT_FOUND when the server has no such namespace."""
    try:
        with translated():
            await client.workflow_service.describe_namespace(DescribeNamespaceRequest(namespace=client.namespace))
    except RPCError as error:
        message = f"Temporal has no namespace {client.namespace}."
        raise Unavailable("TEMPORAL_NAMESPACE_NOT_FOUND", message) from error


async def register_search_attributes(client: Client) -> frozenset[str]:
    """Registers the project's search attributes where the server permits; those that can be used."""
    existing = await _registered(client)
    missing = [name for name in SEARCH_ATTRIBUTES if name not in existing]
    if not missing:
        return frozenset(SEARCH_ATTRIBUTES)
    keyword = IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD
    request = AddSearchAttributesRequest(namespace=client.namespace, search_attributes=dict.fromkeys(missing, keyword))
    try:
        await client.operator_service.add_search_attributes(request)
    except RPCError as error:
        log.warning("search_attributes_not_registered", missing=missing, status=error.status.name)
        return existing & frozenset(SEARCH_ATTRIBUTES)
    return frozenset(SEARCH_ATTRIBUTES)


async def _registered(client: Client) -> frozenset[str]:
    try:
        listed = await client.operator_service.list_search_attributes(
            ListSearchAttributesRequest(namespace=client.namespace)
        )
        return frozenset(listed.custom_attributes)
    except RPCError:
        # Temporal Cloud keeps the operator service to itself.
        found = await client.workflow_service.get_search_attributes(GetSearchAttributesRequest())
        return frozenset(found.keys)


class Temporal:
    """One process's way to Temporal, over a `client` that is connected if there is one.

    `attributes` are the search attributes that may be set.
    """

    def __init__(self, settings: TemporalSettings, data_converter: DataConverter, client: Client | None = None) -> None:
        self.settings = settings
        self._data_converter = data_converter
        self.attributes: frozenset[str] = frozenset()
        self._client = client
        self._of_worker: Client | None = None
        self._connecting = asyncio.Lock()
        self._answered = 0.0

    @property
    def timeout(self) -> timedelta:
        """The longest that one call may take."""
        return timedelta(seconds=self.settings.connect_timeout)

    async def client(self) -> Client:
        """The client, connected at the first call. Raises `Unavailable` when Temporal cannot be reached."""
        if self._client is None:
            async with self._connecting:
                if self._client is None:
                    self._client = await self._connect()
        return self._client

    @property
    def beside_worker(self) -> bool:
        """Whether a worker in this process takes what is started here."""
        return self._of_worker is not None

    def work_beside(self, client: Client) -> None:
        """Starts go through the client of a worker in this process that polls the same task queue.

        The server can then send the first workflow task of a run with its answer to the start.
        """
        self._of_worker = client

    async def start_client(self) -> Client:
        """The client that starts runs. Raises `Unavailable` when Temporal cannot be reached."""
        return self._of_worker or await self.client()

    async def assure(self) -> None:
        """Raises `Unavailable` unless Temporal has answered within the last second, or answers now."""
        await self.client()
        if time.monotonic() - self._answered >= FRESH:
            await self.ping()

    async def ping(self) -> None:
        """Raises `Unavailable` unless Temporal answers now."""
        client = await self.client()
        with translated():
            await client.workflow_service.get_system_info(GetSystemInfoRequest(), retry=False, timeout=self.timeout)
        self.note_answer()

    async def refresh_attributes(self) -> bool:
        """Asks anew which search attributes may be set; whether that has changed."""
        before = self.attributes
        with translated():
            self.attributes = await register_search_attributes(await self.client())
        return self.attributes != before

    def note_answer(self) -> None:
        """Temporal has just answered."""
        self._answered = time.monotonic()

    def ui_link(self, execution_id: UUID) -> str | None:
        """Where Temporal's Web UI shows an execution; None when nobody said where the Web UI is."""
        if self.settings.ui_url is None:
            return None
        base = self.settings.ui_url.rstrip("/")
        run = quote(workflow_id(execution_id), safe="")
        return f"{base}/namespaces/{quote(self.settings.namespace, safe='')}/workflows/{run}"

    async def _connect(self) -> Client:
        # A person waits for the answer: give up soon rather than after the SDK's ten seconds.
        budget = int(self.settings.connect_timeout * 1000)
        client = await connect(
            self.settings, self._data_converter, RetryConfig(max_elapsed_time_millis=budget, max_retries=2)
        )
        with translated():
            self.attributes = await register_search_attributes(client)
        self.note_answer()
        return client

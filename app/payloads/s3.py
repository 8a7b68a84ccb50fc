"""Values kept outside history in an S3-compatible store, by the SDK's own driver."""

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from temporalio.contrib.aws.s3driver import S3StorageDriver, S3StorageDriverClient

from app.errors import Invalid
from app.settings import PayloadSettings

if TYPE_CHECKING:
    pass

# Written into every reference in every history: never change it.
NAME = "aws.s3driver"


class S3Objects(S3StorageDriverClient):
    """Objects of one endpoint, below the configured prefix; connects at the first call."""

    def __init__(self, settings: PayloadSettings) -> None:
        """Raises `Invalid` S3_NOT_INSTALLED without the optional packages."""
        try:
            import aioboto3  # noqa: PLC0415 - an optional dependency
        except ImportError as error:
            raise Invalid("S3_NOT_INSTALLED", "Payloads in S3 need the extra packages of millrace[s3].") from error
        secret = settings.secret_access_key
        self._session: aioboto3.Session = aioboto3.Session(
            aws_access_key_id=settings.access_key_id,
            aws_secret_access_key=None if secret is None else secret.get_secret_value(),
            region_name=settings.region,
        )
        self._endpoint = settings.endpoint
        self._prefix = settings.prefix
        self._stack = AsyncExitStack()
        self._client: S3StorageDriverClient | None = None
        self._connecting = asyncio.Lock()

    async def put_object(self, *, bucket: str, key: str, data: bytes) -> None:
        """Uploads."""
        await (await self._connected()).put_object(bucket=bucket, key=self._prefix + key, data=data)

    async def object_exists(self, *, bucket: str, key: str) -> bool:
        """Whether there is such an object."""
        return await (await self._connected()).object_exists(bucket=bucket, key=self._prefix + key)

    async def get_object(self, *, bucket: str, key: str) -> bytes:
        """Downloads."""
        return await (await self._connected()).get_object(bucket=bucket, key=self._prefix + key)

    def describe(self) -> Mapping[str, str]:
        """What error messages add: never a secret."""
        return {"endpoint": self._endpoint or "aws", "prefix": self._prefix}

    async def close(self) -> None:
        """Closes the connections."""
        await self._stack.aclose()

    async def _connected(self) -> S3StorageDriverClient:
        async with self._connecting:
            if self._client is None:
                from temporalio.contrib.aws.s3driver.aioboto3 import (  # noqa: PLC0415 - an optional dependency
                    new_aioboto3_client,
                )

                made = self._session.client("s3", endpoint_url=self._endpoint)
                self._client = new_aioboto3_client(await self._stack.enter_async_context(made))
        return self._client


def s3_driver(objects: S3Objects, settings: PayloadSettings) -> S3StorageDriver:
    """The driver for a bucket that exists. Raises ValueError without one."""
    if settings.bucket is None:
        raise ValueError("no bucket is configured")
    return S3StorageDriver(objects, settings.bucket, driver_name=NAME)

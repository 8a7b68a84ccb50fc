"""Values kept outside history under the hash of their content: the same value is kept once, whoever uses it.

A blob is a whole Temporal payload, serialized; its name is the SHA-256 of those bytes. A payload whose metadata
carries a name already (`PAYLOAD_SHA256`) is stored, and only referred to: neither its bytes nor the database are
touched. That is how a parent starts children with a definition that it never loads.
"""

import hashlib
import time
from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from temporalio.api.common.v1 import Payload
from temporalio.converter import (
    StorageDriver,
    StorageDriverClaim,
    StorageDriverRetrieveContext,
    StorageDriverStoreContext,
)

from app.contracts import PAYLOAD_ROLE, PAYLOAD_SHA256, ROLE_DEFINITION
from app.payloads.errors import PayloadUnavailable

# Written into every reference in every history: never change it.
NAME = "millrace.content"

# Seconds for which a process trusts that what it has stored is there. The purge waits far longer (`retention.py`).
KNOWN_FOR = 3600.0
_MOST_KNOWN = 20_000
# A blob larger than this part of the cache would push everything else out of it.
_LARGEST_SHARE = 4


class Blobs(Protocol):
    """Where the bytes are: names (SHA-256, hexadecimal) to bytes."""

    async def write(self, blobs: Mapping[str, bytes]) -> None:
        """Stores what is not there, and notes that all of it was used; it is durable when this returns."""

    async def read(self, names: Collection[str]) -> dict[str, bytes]:
        """What there is of these."""


class ContentDriver(StorageDriver):
    """Stores payloads in `blobs`. Up to `cache_bytes` of payloads stay in memory.

    What has been stored is trusted to be there for `known_for` seconds, and then stored again.
    """

    def __init__(self, blobs: Blobs, cache_bytes: int, known_for: float = KNOWN_FOR) -> None:
        self._blobs = blobs
        self._cache = _Cache(cache_bytes)
        self._known = _Known(known_for)

    def name(self) -> str:
        """The name in references."""
        return NAME

    def type(self) -> str:
        """The kind of driver, for the server's statistics."""
        return NAME

    async def store(self, context: StorageDriverStoreContext, payloads: Sequence[Payload]) -> list[StorageDriverClaim]:
        """A claim for each payload. Raises `Unavailable` when the blobs cannot be reached."""
        names: list[str] = []
        unknown: dict[str, bytes] = {}
        for payload in payloads:
            name = payload.metadata.get(PAYLOAD_SHA256, b"").decode()
            if not name:
                name, written = blob_of(payload)
                if not self._known.has(name):
                    unknown[name] = written
            names.append(name)
        if unknown:
            await self._blobs.write(unknown)
            for name, written in unknown.items():
                self._known.add(name)
                # The next to want it is most likely this process: a result goes on to its workflow.
                self._cache.put(name, _payload(name, written), len(written))
        return [StorageDriverClaim({"sha256": name}) for name in names]

    async def retrieve(
        self, context: StorageDriverRetrieveContext, claims: Sequence[StorageDriverClaim]
    ) -> list[Payload]:
        """The payloads, each with its name in its metadata.

        Raises `Unavailable`, and `PayloadUnavailable` PAYLOAD_NOT_FOUND or PAYLOAD_CORRUPT.
        """
        names = [claim.claim_data["sha256"] for claim in claims]
        found = {name: payload for name in names if (payload := self._cache.get(name)) is not None}
        missing = sorted({name for name in names if name not in found})
        if missing:
            read = await self._blobs.read(missing)
            for name in missing:
                if name not in read:
                    raise PayloadUnavailable("PAYLOAD_NOT_FOUND", f"the stored value {name} is not there")
                found[name] = _checked(name, read[name])
                self._cache.put(name, found[name], len(read[name]))
        return [found[name] for name in names]


def blob_of(payload: Payload) -> tuple[str, bytes]:
    """The name and the bytes that a payload is kept under."""
    written = payload.SerializeToString(deterministic=True)
    return hashlib.sha256(written).hexdigest(), written


def definition_payload(definition: str) -> Payload:
    """A definition's own text as a payload that is always kept outside history, whatever its size.

    The text must be that of the database (`definition::text`), so that every start of a version gives one blob.
    """
    return Payload(metadata={"encoding": b"json/plain", PAYLOAD_ROLE: ROLE_DEFINITION}, data=definition.encode())


def is_content(payload: Payload) -> bool:
    """Whether a payload is kept under its content whatever its size and wherever others go."""
    return PAYLOAD_ROLE in payload.metadata or PAYLOAD_SHA256 in payload.metadata


def _checked(name: str, written: bytes) -> Payload:
    if hashlib.sha256(written).hexdigest() != name:
        raise PayloadUnavailable("PAYLOAD_CORRUPT", f"the stored value {name} is not what was stored")
    return _payload(name, written)


def _payload(name: str, written: bytes) -> Payload:
    payload = Payload.FromString(written)
    payload.metadata[PAYLOAD_SHA256] = name.encode()
    return payload


class _Cache:
    """The payloads used last. They are shared: nobody changes what the SDK is given."""

    def __init__(self, most_bytes: int) -> None:
        self._most = most_bytes
        self._held = 0
        self._entries: OrderedDict[str, tuple[Payload, int]] = OrderedDict()

    def get(self, name: str) -> Payload | None:
        entry = self._entries.get(name)
        if entry is None:
            return None
        self._entries.move_to_end(name)
        return entry[0]

    def put(self, name: str, payload: Payload, size: int) -> None:
        if name in self._entries or size > self._most // _LARGEST_SHARE:
            return
        self._entries[name] = (payload, size)
        self._held += size
        while self._held > self._most:
            _, (_, freed) = self._entries.popitem(last=False)
            self._held -= freed


class _Known:
    """Names that this process has stored within the last `known_for` seconds."""

    def __init__(self, known_for: float) -> None:
        self._known_for = known_for
        self._until: OrderedDict[str, float] = OrderedDict()

    def has(self, name: str) -> bool:
        return self._until.get(name, 0.0) > time.time()

    def add(self, name: str) -> None:
        self._until[name] = time.time() + self._known_for
        self._until.move_to_end(name)
        if len(self._until) > _MOST_KNOWN:
            self._until.popitem(last=False)

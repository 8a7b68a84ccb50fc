"""Stored values in memory: what a recorded history keeps beside it in `<name>.payloads.json`, compressed."""

import base64
import json
import zlib
from collections.abc import Collection, Mapping
from pathlib import Path


class MemoryBlobs:
    """Blobs without a database."""

    def __init__(self, blobs: Mapping[str, bytes] | None = None) -> None:
        self.blobs = dict(blobs or {})

    async def write(self, blobs: Mapping[str, bytes]) -> None:
        """Keeps them."""
        self.blobs.update(blobs)

    async def read(self, names: Collection[str]) -> dict[str, bytes]:
        """What there is of these."""
        return {name: self.blobs[name] for name in names if name in self.blobs}


def payloads_file(history: Path) -> Path:
    """Where the stored values of a recorded history are."""
    return history.with_suffix(".payloads.json")


def load_blobs(history: Path) -> MemoryBlobs:
    """The stored values of a recorded history; none for one that refers to none."""
    file = payloads_file(history)
    if not file.exists():
        return MemoryBlobs()
    return MemoryBlobs(
        {name: zlib.decompress(base64.b64decode(text)) for name, text in json.loads(file.read_text()).items()}
    )


def dump_blobs(history: Path, blobs: Mapping[str, bytes]) -> None:
    """Writes the stored values of a history, if there are any."""
    if blobs:
        written = {name: base64.b64encode(zlib.compress(blobs[name])).decode() for name in sorted(blobs)}
        payloads_file(history).write_text(json.dumps(written, indent=2) + "\n")

"""The one text of a JSON document, for hashes."""

import hashlib
import json
from typing import Any


def canonical_json(document: Any) -> str:
    """Sorted members, no blanks, nothing escaped that need not be."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest(document: Any) -> str:
    """SHA-256 of the canonical JSON, in hexadecimal."""
    return hashlib.sha256(canonical_json(document).encode()).hexdigest()

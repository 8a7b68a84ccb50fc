"""Definitions that are kept outside history, named by what they contain."""

from temporalio.api.common.v1 import Payload
from temporalio.common import RawValue

from app.contracts import PAYLOAD_SHA256


def stored_definition(sha256: str) -> RawValue:
    """The argument that refers to a stored definition, without loading it."""
    return RawValue(Payload(metadata={"encoding": b"json/plain", PAYLOAD_SHA256: sha256.encode()}))

"""Who sent this? The schemes by which webhooks are signed, checked without clock or I/O.

The standard library's hmac does it: the package `standardwebhooks` covers one of the schemes, reads the clock itself,
takes bodies that are UTF-8 only, and fails on malformed headers with errors of other kinds.

Whatever is wrong is a `Fault`, which the owner of an endpoint may see and the sender may not: to him each is the same
refusal. Without a secret nothing passes, unless the scheme is NONE.
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from app.db.statuses import WebhookScheme

Headers = Mapping[str, str]

TOLERANCE = 300
SHARED_PREFIX = "whsec_"
PUBLIC_PREFIX = "whpk_"
AUTHORIZATION = "authorization"
_MOST_SIGNATURES = 20


class Fault(StrEnum):
    """Why a request is not believed."""

    SECRET_MISSING = "SECRET_MISSING"
    SIGNATURE_MISSING = "SIGNATURE_MISSING"
    SIGNATURE_MALFORMED = "SIGNATURE_MALFORMED"
    SIGNATURE_EXPIRED = "SIGNATURE_EXPIRED"
    SIGNATURE_WRONG = "SIGNATURE_WRONG"


class Algorithm(StrEnum):
    """The hash of an HMAC."""

    SHA1 = "sha1"
    SHA256 = "sha256"
    SHA384 = "sha384"
    SHA512 = "sha512"


class Encoding(StrEnum):
    """How a signature is written."""

    HEX = "hex"
    BASE64 = "base64"


@dataclass(frozen=True, slots=True)
class Verification:
    """How senders sign. `header`, `algorithm`, `encoding` and `prefix` are HMAC's; `header` and `prefix` TOKEN's too.

    `tolerance` is how many seconds the time of sending may be away, where a scheme has one.
    """

    scheme: WebhookScheme
    header: str | None = None
    algorithm: Algorithm = Algorithm.SHA256
    encoding: Encoding = Encoding.HEX
    prefix: str = ""
    tolerance: int = TOLERANCE

    def signed_headers(self) -> frozenset[str]:
        """The headers, in lower case, that prove something and are nobody else's business."""
        match self.scheme:
            case WebhookScheme.HMAC | WebhookScheme.TOKEN:
                return frozenset({(self.header or AUTHORIZATION).lower()})
            case WebhookScheme.STANDARD:
                return frozenset({"webhook-signature"})
            case WebhookScheme.GITHUB:
                return frozenset({"x-hub-signature-256", "x-hub-signature"})
            case WebhookScheme.STRIPE:
                return frozenset({"stripe-signature"})
            case WebhookScheme.SLACK:
                return frozenset({"x-slack-signature"})
            case _:
                return frozenset()


@dataclass(frozen=True, slots=True)
class _Claim:
    """What a request says of itself: what was signed, the signatures (any one will do), and when it was sent."""

    message: bytes
    signatures: Sequence[bytes]
    sent_at: int | None = None
    public_signatures: Sequence[bytes] = ()


def verify(
    verification: Verification, secrets: Sequence[str], headers: Headers, body: bytes, now: float
) -> Fault | None:
    """None when one of the secrets made the signature; otherwise what is wrong.

    `headers` have names in lower case, `body` is as it came, `now` is in seconds since 1970. Secrets are tried in
    order, so that two are good while one replaces the other.
    """
    if verification.scheme == WebhookScheme.NONE:
        return None
    if not all(secrets) or not secrets:
        # An empty secret would be one that everybody knows.
        return Fault.SECRET_MISSING
    claim = _CLAIMS[verification.scheme](verification, headers, body)
    if isinstance(claim, Fault):
        return claim
    if claim.sent_at is not None and abs(now - claim.sent_at) > verification.tolerance:
        return Fault.SIGNATURE_EXPIRED
    if any(_made(verification, secret, claim) for secret in secrets):
        return None
    return Fault.SIGNATURE_WRONG


def secret_problem(scheme: WebhookScheme, secret: str) -> str | None:
    """Why a text cannot be a secret of the scheme; None when it can."""
    if scheme == WebhookScheme.NONE:
        return "the scheme NONE has no secret"
    if scheme != WebhookScheme.STANDARD:
        return None if len(secret) >= 8 else "a secret has at least 8 characters"
    key = _standard_key(secret)
    if key is None:
        return f"a secret is base64 after {SHARED_PREFIX}, a public key after {PUBLIC_PREFIX}"
    if secret.startswith(PUBLIC_PREFIX):
        return None if len(key) == 32 else "an Ed25519 public key has 32 bytes"
    return None if 8 <= len(key) <= 256 else "a secret has 8 to 256 bytes"


def _standard(_: Verification, headers: Headers, body: bytes) -> _Claim | Fault:
    identity, sent, given = (headers.get(f"webhook-{name}") for name in ("id", "timestamp", "signature"))
    if not (identity and sent and given):
        return Fault.SIGNATURE_MISSING
    sent_at = _seconds(sent)
    parts = [part.partition(",") for part in given.split()[:_MOST_SIGNATURES]]
    shared = [_from_base64(text) for version, _, text in parts if version == "v1"]
    public = [_from_base64(text) for version, _, text in parts if version == "v1a"]
    if sent_at is None or not (shared or public):
        return Fault.SIGNATURE_MALFORMED
    message = b".".join((_bytes(identity), _bytes(sent), body))
    return _Claim(message, _only(shared), sent_at, _only(public))


def _github(_: Verification, headers: Headers, body: bytes) -> _Claim | Fault:
    return _hashed(body, headers.get("x-hub-signature-256"), "sha256=", Encoding.HEX)


def _stripe(_: Verification, headers: Headers, body: bytes) -> _Claim | Fault:
    given = headers.get("stripe-signature")
    if not given:
        return Fault.SIGNATURE_MISSING
    parts = [part.strip().partition("=") for part in given.split(",")[:_MOST_SIGNATURES]]
    sent = next((text for name, _, text in parts if name == "t"), "")
    sent_at = _seconds(sent)
    signatures = [_from_hex(text) for name, _, text in parts if name == "v1"]
    if sent_at is None or not signatures:
        return Fault.SIGNATURE_MALFORMED
    return _Claim(_bytes(sent) + b"." + body, _only(signatures), sent_at)


def _slack(_: Verification, headers: Headers, body: bytes) -> _Claim | Fault:
    sent = headers.get("x-slack-request-timestamp")
    if not sent:
        return Fault.SIGNATURE_MISSING
    sent_at = _seconds(sent)
    if sent_at is None:
        return Fault.SIGNATURE_MALFORMED
    message = b":".join((b"v0", _bytes(sent), body))
    return _hashed(message, headers.get("x-slack-signature"), "v0=", Encoding.HEX, sent_at)


def _generic(verification: Verification, headers: Headers, body: bytes) -> _Claim | Fault:
    given = headers.get((verification.header or "").lower())
    return _hashed(body, given, verification.prefix, verification.encoding)


def _token(verification: Verification, headers: Headers, _: bytes) -> _Claim | Fault:
    name = (verification.header or AUTHORIZATION).lower()
    given = headers.get(name)
    if not given:
        return Fault.SIGNATURE_MISSING
    prefix = verification.prefix or ("Bearer " if name == AUTHORIZATION else "")
    if given[: len(prefix)].lower() != prefix.lower():
        return Fault.SIGNATURE_MALFORMED
    return _Claim(b"", [_bytes(given[len(prefix) :].strip())])


_CLAIMS: Mapping[WebhookScheme, Callable[[Verification, Headers, bytes], _Claim | Fault]] = {
    WebhookScheme.STANDARD: _standard,
    WebhookScheme.GITHUB: _github,
    WebhookScheme.STRIPE: _stripe,
    WebhookScheme.SLACK: _slack,
    WebhookScheme.HMAC: _generic,
    WebhookScheme.TOKEN: _token,
}


def _hashed(
    message: bytes, given: str | None, prefix: str, encoding: Encoding, sent_at: int | None = None
) -> _Claim | Fault:
    """The claim of a header that has one signature, after a prefix."""
    if not given:
        return Fault.SIGNATURE_MISSING
    if not given.startswith(prefix):
        return Fault.SIGNATURE_MALFORMED
    text = given[len(prefix) :]
    signature = _from_hex(text) if encoding == Encoding.HEX else _from_base64(text)
    return Fault.SIGNATURE_MALFORMED if signature is None else _Claim(message, [signature], sent_at)


def _made(verification: Verification, secret: str, claim: _Claim) -> bool:
    """Whether the secret made one of the claim's signatures; how long it takes says nothing of how near one came."""
    scheme = verification.scheme
    if scheme == WebhookScheme.TOKEN:
        # Hashed, because comparing texts of different lengths would tell the length of the secret.
        expected = hashlib.sha256(secret.encode()).digest()
        return any(hmac.compare_digest(expected, hashlib.sha256(one).digest()) for one in claim.signatures)
    key: bytes | None = secret.encode()
    if scheme == WebhookScheme.STANDARD:
        key = _standard_key(secret)
        if key is not None and secret.startswith(PUBLIC_PREFIX):
            return any(_signed_by(key, one, claim.message) for one in claim.public_signatures)
    if key is None:
        return False
    algorithm = verification.algorithm if scheme == WebhookScheme.HMAC else Algorithm.SHA256
    expected = hmac.digest(key, claim.message, algorithm.value)
    return any(hmac.compare_digest(expected, one) for one in claim.signatures)


def _signed_by(public_key: bytes, signature: bytes, message: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def _standard_key(secret: str) -> bytes | None:
    return _from_base64(secret.removeprefix(SHARED_PREFIX).removeprefix(PUBLIC_PREFIX))


def _seconds(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= 12 else None


def _from_base64(text: str) -> bytes | None:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True) or None
    except (binascii.Error, ValueError):
        return None


def _from_hex(text: str) -> bytes | None:
    try:
        return bytes.fromhex(text) or None
    except ValueError:
        return None


def _only(found: Sequence[bytes | None]) -> list[bytes]:
    return [one for one in found if one is not None]


def _bytes(text: str) -> bytes:
    """A header as it came: servers read them as Latin-1."""
    return text.encode("latin-1", "replace")

"""Each scheme against the vectors that its inventors publish, and against everything that is nearly right."""

import base64
import hashlib
import hmac

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from app.db.statuses import WebhookScheme
from app.webhooks.signatures import Algorithm, Encoding, Fault, Verification, secret_problem, verify

# The standard's own libraries are tested with this message.
STANDARD_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
STANDARD_BODY = b'{"test": 2432232314}'
STANDARD_TIME = 1614265330
STANDARD_HEADERS = {
    "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
    "webhook-timestamp": str(STANDARD_TIME),
    "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
}
STANDARD = Verification(WebhookScheme.STANDARD)

# "Validating webhook deliveries" in GitHub's documentation.
GITHUB_SECRET = "It's a Secret to Everybody"
GITHUB_HEADERS = {
    "x-hub-signature-256": "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17",
}
GITHUB = Verification(WebhookScheme.GITHUB)

# "Verifying requests from Slack" in Slack's documentation.
SLACK_SECRET = "8f742231b10e8888abcd99yyyzzz85a5"
SLACK_TIME = 1531420618
SLACK_BODY = (
    b"token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V"
    b"&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text="
    b"&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN"
    b"&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c"
)
SLACK_HEADERS = {
    "x-slack-request-timestamp": str(SLACK_TIME),
    "x-slack-signature": "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503",
}
SLACK = Verification(WebhookScheme.SLACK)
STRIPE = Verification(WebhookScheme.STRIPE)
STRIPE_SECRET = "whsec_test_secret"


def stripe_headers(body: bytes, sent_at: int, secret: str = STRIPE_SECRET, before: str = "") -> dict[str, str]:
    made = hmac.new(secret.encode(), f"{sent_at}.".encode() + body, hashlib.sha256).hexdigest()
    return {
        "stripe-signature": f"t={sent_at},{before}v1={made},v0=6ffbb59b2300aae63f272406069a9788598b792a944a07aba816"
    }


def test_the_published_message_of_standard_webhooks_is_believed() -> None:
    assert verify(STANDARD, [STANDARD_SECRET], STANDARD_HEADERS, STANDARD_BODY, STANDARD_TIME) is None


def test_the_published_message_of_github_is_believed() -> None:
    assert verify(GITHUB, [GITHUB_SECRET], GITHUB_HEADERS, b"Hello, World!", 0) is None


def test_the_published_message_of_slack_is_believed() -> None:
    assert verify(SLACK, [SLACK_SECRET], SLACK_HEADERS, SLACK_BODY, SLACK_TIME) is None


def test_a_message_signed_as_stripe_describes_is_believed() -> None:
    headers = stripe_headers(b'{"id": "evt_1"}', 1492774577)
    assert verify(STRIPE, [STRIPE_SECRET], headers, b'{"id": "evt_1"}', 1492774577) is None


def test_one_good_signature_among_several_is_enough() -> None:
    wrong = base64.b64encode(b"x" * 32).decode()
    signatures = f"v1,{wrong} v1a,{wrong} v2,?? garbage {STANDARD_HEADERS['webhook-signature']}"
    headers = STANDARD_HEADERS | {"webhook-signature": signatures}
    assert verify(STANDARD, [STANDARD_SECRET], headers, STANDARD_BODY, STANDARD_TIME) is None
    headers = stripe_headers(b"{}", 1000, before=f"v1={'0' * 64},")
    assert verify(STRIPE, [STRIPE_SECRET], headers, b"{}", 1000) is None


def test_a_message_signed_with_a_private_key_is_believed_by_its_public_one() -> None:
    private = Ed25519PrivateKey.generate()
    public = "whpk_" + base64.b64encode(private.public_key().public_bytes_raw()).decode()
    made = private.sign(f"msg_1.{STANDARD_TIME}.".encode() + b"{}")
    headers = {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(STANDARD_TIME),
        "webhook-signature": "v1a," + base64.b64encode(made).decode(),
    }
    assert secret_problem(WebhookScheme.STANDARD, public) is None
    assert verify(STANDARD, [public], headers, b"{}", STANDARD_TIME) is None
    assert verify(STANDARD, [public], headers, b"{ }", STANDARD_TIME) == Fault.SIGNATURE_WRONG


def test_a_public_key_is_never_taken_for_a_shared_secret() -> None:
    key = b"k" * 32
    made = hmac.new(key, f"msg_1.{STANDARD_TIME}.".encode() + b"{}", hashlib.sha256).digest()
    headers = {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(STANDARD_TIME),
        "webhook-signature": "v1," + base64.b64encode(made).decode(),
    }
    public = "whpk_" + base64.b64encode(key).decode()
    assert verify(STANDARD, [public], headers, b"{}", STANDARD_TIME) == Fault.SIGNATURE_WRONG


@pytest.mark.parametrize("algorithm", list(Algorithm))
@pytest.mark.parametrize("encoding", list(Encoding))
@pytest.mark.parametrize("prefix", ["", "sig="])
def test_an_hmac_is_checked_as_configured(algorithm: Algorithm, encoding: Encoding, prefix: str) -> None:
    made = hmac.new(b"a secret", b"body", algorithm.value)
    text = made.hexdigest() if encoding == Encoding.HEX else base64.b64encode(made.digest()).decode()
    verification = Verification(WebhookScheme.HMAC, "X-Signature", algorithm, encoding, prefix)
    assert verify(verification, ["a secret"], {"x-signature": prefix + text}, b"body", 0) is None
    assert verify(verification, ["a secret"], {"x-signature": prefix + text}, b"bodz", 0) == Fault.SIGNATURE_WRONG
    assert verify(verification, ["b secret"], {"x-signature": prefix + text}, b"body", 0) == Fault.SIGNATURE_WRONG


def test_a_token_is_a_header_or_a_bearer() -> None:
    bearer, named = Verification(WebhookScheme.TOKEN), Verification(WebhookScheme.TOKEN, "X-Gitlab-Token")
    assert verify(bearer, ["tok-12345"], {"authorization": "Bearer tok-12345"}, b"", 0) is None
    assert verify(bearer, ["tok-12345"], {"authorization": "bearer tok-12345"}, b"", 0) is None
    assert verify(bearer, ["tok-12345"], {"authorization": "Basic tok-12345"}, b"", 0) == Fault.SIGNATURE_MALFORMED
    assert verify(bearer, ["tok-12345"], {"authorization": "Bearer tok-1234"}, b"", 0) == Fault.SIGNATURE_WRONG
    assert verify(bearer, ["tok-12345"], {}, b"", 0) == Fault.SIGNATURE_MISSING
    assert verify(named, ["tok-12345"], {"x-gitlab-token": "tok-12345"}, b"", 0) is None
    assert verify(named, ["tok-12345"], {"authorization": "Bearer tok-12345"}, b"", 0) == Fault.SIGNATURE_MISSING


@pytest.mark.parametrize("away", [-301, 301])
def test_a_message_sent_too_long_ago_or_in_the_future_is_not_believed(away: int) -> None:
    assert (
        verify(STANDARD, [STANDARD_SECRET], STANDARD_HEADERS, STANDARD_BODY, STANDARD_TIME + away)
        == Fault.SIGNATURE_EXPIRED
    )
    assert verify(SLACK, [SLACK_SECRET], SLACK_HEADERS, SLACK_BODY, SLACK_TIME + away) == Fault.SIGNATURE_EXPIRED
    assert verify(STRIPE, [STRIPE_SECRET], stripe_headers(b"", 1000), b"", 1000 + away) == Fault.SIGNATURE_EXPIRED


@pytest.mark.parametrize("away", [-300, 300])
def test_a_message_sent_within_five_minutes_is_believed(away: int) -> None:
    assert verify(STANDARD, [STANDARD_SECRET], STANDARD_HEADERS, STANDARD_BODY, STANDARD_TIME + away) is None
    assert verify(SLACK, [SLACK_SECRET], SLACK_HEADERS, SLACK_BODY, SLACK_TIME + away) is None


def test_while_a_secret_is_replaced_both_are_good() -> None:
    assert verify(GITHUB, ["the next one", GITHUB_SECRET], GITHUB_HEADERS, b"Hello, World!", 0) is None
    assert verify(GITHUB, ["the next one"], GITHUB_HEADERS, b"Hello, World!", 0) == Fault.SIGNATURE_WRONG


@pytest.mark.parametrize("scheme", [scheme for scheme in WebhookScheme if scheme != WebhookScheme.NONE])
def test_without_a_secret_nothing_is_believed(scheme: WebhookScheme) -> None:
    headers = STANDARD_HEADERS | GITHUB_HEADERS | SLACK_HEADERS | {"authorization": "Bearer "}
    assert verify(Verification(scheme, "authorization"), [], headers, b"", 0) == Fault.SECRET_MISSING
    assert verify(Verification(scheme, "authorization"), [""], headers, b"", 0) == Fault.SECRET_MISSING


@pytest.mark.parametrize("scheme", [scheme for scheme in WebhookScheme if scheme != WebhookScheme.NONE])
def test_without_a_signature_nothing_is_believed(scheme: WebhookScheme) -> None:
    assert verify(Verification(scheme, "x-signature"), ["12345678"], {}, b"", 0) == Fault.SIGNATURE_MISSING


def test_an_unsigned_part_of_a_signed_message_cannot_be_exchanged() -> None:
    for name, value in (("webhook-id", "msg_other"), ("webhook-timestamp", str(STANDARD_TIME + 1))):
        headers = STANDARD_HEADERS | {name: value}
        assert verify(STANDARD, [STANDARD_SECRET], headers, STANDARD_BODY, STANDARD_TIME) == Fault.SIGNATURE_WRONG


ANYTHING = st.text(st.characters(max_codepoint=255), max_size=80)
NAMES = sorted({*STANDARD_HEADERS, *GITHUB_HEADERS, *SLACK_HEADERS, "stripe-signature", "authorization"})
SCHEMES = [scheme for scheme in WebhookScheme if scheme != WebhookScheme.NONE]


@given(st.sampled_from(SCHEMES), st.dictionaries(st.sampled_from(NAMES), ANYTHING), st.binary(max_size=50))
def test_nonsense_is_a_fault_and_never_an_error(scheme: WebhookScheme, headers: dict[str, str], body: bytes) -> None:
    assert isinstance(verify(Verification(scheme, "authorization"), [STANDARD_SECRET], headers, body, 0), Fault)


@pytest.mark.parametrize(
    ("scheme", "secret"),
    [
        (WebhookScheme.STANDARD, "whsec_no base64!"),
        (WebhookScheme.STANDARD, "whsec_"),
        (WebhookScheme.STANDARD, "whpk_AAAA"),
        (WebhookScheme.GITHUB, "short"),
        (WebhookScheme.NONE, "a secret of nobody"),
    ],
)
def test_what_cannot_be_a_secret_is_told_apart(scheme: WebhookScheme, secret: str) -> None:
    assert secret_problem(scheme, secret) is not None

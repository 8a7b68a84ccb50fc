"""Secrets are stored encrypted or not at all, and outlive the keys they were encrypted with first."""

from pathlib import Path

import pytest
from cryptography.fernet import Fernet
from pydantic import SecretStr, ValidationError

from app.errors import Invalid, Unavailable
from app.secrets import Vault, found_key, made_key
from app.settings import SecretsSettings

OLD, NEW = Fernet.generate_key().decode(), Fernet.generate_key().decode()


def vault(*keys: str) -> Vault:
    return Vault(SecretsSettings(keys=SecretStr(",".join(keys)) if keys else None))


def test_a_secret_comes_back_and_is_not_to_be_seen_meanwhile() -> None:
    stored = vault(OLD).close_in("häuser und gärten")
    assert "gärten" not in stored
    assert stored.isascii()
    assert vault(OLD).open_up(stored) == "häuser und gärten"


def test_the_first_key_encrypts_and_each_decrypts() -> None:
    stored = vault(OLD).close_in("a secret")
    assert vault(NEW, OLD).open_up(stored) == "a secret"
    assert vault(NEW).open_up(vault(NEW, OLD).close_in("a secret")) == "a secret"


def test_without_the_right_key_a_secret_cannot_be_read() -> None:
    stored = vault(OLD).close_in("a secret")
    for other in (vault(NEW), vault()):
        with pytest.raises(Unavailable) as refusal:
            other.open_up(stored)
        assert refusal.value.code == "SECRET_UNREADABLE"


def test_without_any_key_no_secret_is_taken() -> None:
    with pytest.raises(Invalid) as refusal:
        vault().close_in("a secret")
    assert refusal.value.code == "SECRETS_KEY_MISSING"


WRONG = {"empty": "", "short": "short", "a comma": f"{OLD},", "one cut off": f"{OLD},{OLD[:-2]}", "no base64": "!" * 44}


@pytest.mark.parametrize("keys", WRONG.values(), ids=WRONG)
def test_what_is_no_key_is_refused_at_the_start(keys: str) -> None:
    with pytest.raises(ValidationError, match="32 bytes in URL-safe base64") as refusal:
        SecretsSettings(keys=SecretStr(keys))
    assert OLD not in str(refusal.value)


def test_a_folder_gets_one_key_that_its_owner_alone_can_read(tmp_path: Path) -> None:
    assert found_key(tmp_path) is None
    key = made_key(tmp_path)
    assert (tmp_path / "secret.key").stat().st_mode & 0o777 == 0o600
    assert made_key(tmp_path) == found_key(tmp_path) == key
    assert vault(key.get_secret_value()).open_up(vault(key.get_secret_value()).close_in("x")) == "x"

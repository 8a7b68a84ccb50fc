"""Secrets at rest: encrypted before they reach the database, with keys that only the configuration has.

Fernet (AES-128-CBC with HMAC-SHA256), several keys at a time: the first encrypts, each can decrypt. Without a key no
secret is taken; nothing is ever stored in clear.
"""

import os
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from pydantic import SecretStr

from app.errors import Invalid, Unavailable
from app.settings import SecretsSettings, key_list

KEY_FILE = "secret.key"


class Vault:
    """Turns secrets into what may be stored, and back."""

    def __init__(self, settings: SecretsSettings) -> None:
        keys = settings.keys
        self._cipher = None if keys is None else MultiFernet([Fernet(key) for key in key_list(keys)])

    def close_in(self, secret: str) -> str:
        """The secret encrypted, as ASCII text, another each time. Raises `Invalid` SECRETS_KEY_MISSING."""
        if self._cipher is None:
            raise Invalid(
                "SECRETS_KEY_MISSING",
                "Secrets are stored encrypted only, and no key is configured: set MILLRACE_SECRETS__KEYS.",
            )
        return self._cipher.encrypt(secret.encode()).decode()

    def open_up(self, stored: str) -> str:
        """The secret again. Raises `Unavailable` SECRET_UNREADABLE when no key of this process decrypts it."""
        try:
            if self._cipher is not None:
                return self._cipher.decrypt(stored).decode()
        except InvalidToken:
            pass
        raise Unavailable("SECRET_UNREADABLE", "A stored secret cannot be read with the keys of this process.")


def found_key(home: Path) -> SecretStr | None:
    """The key of the folder's embedded database; None when it has none."""
    try:
        return SecretStr((home / KEY_FILE).read_text().strip())
    except FileNotFoundError:
        return None


def made_key(home: Path) -> SecretStr:
    """The key of the folder's embedded database, made where there is none; only its owner may read the file.

    The caller holds the folder, so that nobody else makes one meanwhile.
    """
    found = found_key(home)
    if found is not None:
        return found
    fresh = home / f"{KEY_FILE}.new"
    fresh.unlink(missing_ok=True)
    key = Fernet.generate_key().decode()
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(key + "\n")
        file.flush()
        os.fsync(file.fileno())
    # Whole or not at all: half a key would make everything that it has encrypted unreadable.
    fresh.replace(home / KEY_FILE)
    return SecretStr(key)

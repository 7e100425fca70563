"""The server's secret: API keys are hashed and tickets signed with it, so a stolen database opens nothing."""

import hashlib
import hmac
import os
import secrets
from pathlib import Path

from app.settings import Settings

FILE = "key-secret"
LEAST_CHARACTERS = 32


class BadSecret(ValueError):
    """The secret is missing or too short, in words for the operator."""


def secret_of(settings: Settings) -> bytes:
    """PANSYNTH_KEY_SECRET; without it, and with the embedded database, a file in DATA_DIR made at the first use.

    Raises BadSecret. A database that machines share needs a secret that they share, too, and no file can be that.
    """
    given = settings.key_secret.get_secret_value()
    if len(given) >= LEAST_CHARACTERS:
        return given.encode()
    if given:
        raise BadSecret(
            f"PANSYNTH_KEY_SECRET has {len(given)} characters; give it {LEAST_CHARACTERS} or more at random"
        )
    if settings.database_url:
        raise BadSecret(
            "PANSYNTH_DATABASE_URL is set, so set PANSYNTH_KEY_SECRET, too, the same for every API: "
            "the output of `openssl rand -hex 32`"
        )
    return _from_file(settings.data_dir / FILE)


def sign(secret: bytes, purpose: str, text: str) -> str:
    """HMAC-SHA256 in hexadecimal; what is signed for one purpose is worth nothing for another."""
    return hmac.new(secret, f"{purpose}:{text}".encode(), hashlib.sha256).hexdigest()


def _from_file(path: Path) -> bytes:
    """The file's secret. It appears whole: of several processes that make it at once, one wins."""
    if not path.exists():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        own = path.with_name(f"{FILE}.{os.getpid()}.{secrets.token_hex(4)}")
        with os.fdopen(os.open(own, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_hex(32))
            file.flush()
            os.fsync(file.fileno())
        try:
            path.hardlink_to(own)
        except FileExistsError:
            pass
        finally:
            own.unlink()
    found = path.read_bytes().strip()
    if len(found) < LEAST_CHARACTERS:
        raise BadSecret(f"{path} holds no secret; restore it, or remove it with all keys and make new ones")
    return found

"""API keys: made, found, revoked. A key is shown once, when it is made; a keyed hash of it is kept.

pansynth_1f0c9a2b77de_kZs...     the prefix, public, by which it is found; then 256 random bits
"""

import hmac
import re
import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Literal

from sqlalchemy import or_, select, update
from sqlalchemy.orm import Session

from app.access.secret import sign
from app.database import clock
from app.tables import ApiKey

Scope = Literal["read", "submit", "admin"]
SCOPES: tuple[Scope, ...] = ("read", "submit", "admin")
FORM = re.compile(r"pansynth_([0-9a-f]{12})_[A-Za-z0-9_-]{43}")
LAST_USED = timedelta(minutes=1)  # how exactly it is known when a key was last used


class KeyNotFound(LookupError):
    """There is no key with this prefix, in words for the operator."""


@dataclass(frozen=True)
class Limits:
    """What a key may use up; None: as much as the service gives."""

    max_queued_jobs: int | None = None
    max_bytes_per_day: int | None = None
    max_samples_per_day: int | None = None


def named(prefix: str) -> str:
    """A key as it is told of: by its beginning, without the secret."""
    return f"pansynth_{prefix}"


def create(
    session: Session,
    secret: bytes,
    *,
    name: str,
    tenant: str,
    scopes: Sequence[Scope],
    limits: Limits,
    expires_at: datetime | None,
) -> tuple[str, ApiKey]:
    """-> (the key, which cannot be shown again, and its row)."""
    prefix = secrets.token_hex(6)
    token = f"{named(prefix)}_{secrets.token_urlsafe(32)}"
    digest = sign(secret, "key", token)
    row = ApiKey(prefix=prefix, digest=digest, name=name, tenant=tenant, scopes=list(scopes), **asdict(limits))
    row.created_at, row.expires_at = clock(session), expires_at
    session.add(row)
    session.flush()
    return token, row


def prefix_of(token: str) -> str | None:
    """None: it does not look like a key."""
    form = FORM.fullmatch(token)
    return form[1] if form else None


def matches(secret: bytes, token: str, row: ApiKey | None) -> bool:
    """Whether the row is this key's, in a time that depends on neither; False without a row."""
    return hmac.compare_digest(sign(secret, "key", token), row.digest if row is not None else "0" * 64)


def is_active(row: ApiKey, now: datetime) -> bool:
    return row.revoked_at is None and (row.expires_at is None or now < row.expires_at)


def use_is_news(row: ApiKey, now: datetime) -> bool:
    return row.last_used_at is None or row.last_used_at < now - LAST_USED


def use(session: Session, prefix: str, now: datetime) -> None:
    """Note that the key is in use; of several requests at once one writes."""
    stale = or_(ApiKey.last_used_at.is_(None), ApiKey.last_used_at < now - LAST_USED)
    session.execute(update(ApiKey).where(ApiKey.prefix == prefix, stale).values(last_used_at=now))


def list_(session: Session) -> Sequence[ApiKey]:
    """Every key ever made, the oldest first."""
    return session.scalars(select(ApiKey).order_by(ApiKey.created_at, ApiKey.prefix)).all()


def revoke(session: Session, prefix: str) -> ApiKey:
    """Refuse the key from now on; again, it stays as it is. Raises KeyNotFound."""
    row = session.get(ApiKey, prefix.removeprefix("pansynth_"), populate_existing=True, with_for_update=True)
    if row is None:
        raise KeyNotFound(f"there is no key {prefix!r}; `pansynth keys list` shows their prefixes")
    row.revoked_at = row.revoked_at or clock(session)
    return row


def any_active(session: Session) -> bool:
    """Whether somebody could come in."""
    open_ended = or_(ApiKey.expires_at.is_(None), ApiKey.expires_at > clock(session))
    return session.scalar(select(ApiKey.prefix).where(ApiKey.revoked_at.is_(None), open_ended).limit(1)) is not None

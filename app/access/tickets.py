"""Tickets: a signed word in an address that lets its holder download from that address alone, for a short time.

A browser saves a large file by an address to which it adds no header; the key itself must never stand in one.
"""

import hmac
import re
from datetime import datetime, timedelta

from app.access.secret import sign

GOOD_FOR = timedelta(seconds=60)  # to begin the download in; what has begun goes on
FORM = re.compile(r"([0-9a-f]{12})\.([0-9]{1,12})\.([0-9a-f]{64})")


def ticket_for(secret: bytes, prefix: str, path: str, now: datetime) -> tuple[str, datetime]:
    """-> (ticket by which the key with this prefix may GET `path`, when it runs out)."""
    expires_at = (now + GOOD_FOR).replace(microsecond=0)
    stated = f"{prefix}.{int(expires_at.timestamp())}"
    return f"{stated}.{sign(secret, 'ticket', f'{stated} {path}')}", expires_at


def holder(secret: bytes, ticket: str, path: str, now: datetime) -> str | None:
    """The prefix of the key that the ticket was given to; None where it is forged, late or for another path."""
    form = FORM.fullmatch(ticket)
    if form is None:
        return None
    prefix, expires, signature = form.groups()
    right = hmac.compare_digest(signature, sign(secret, "ticket", f"{prefix}.{expires} {path}"))
    return prefix if right and now.timestamp() < int(expires) else None

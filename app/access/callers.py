"""Who asks: what a request shows becomes a Caller, or a refusal in words."""

import time
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import NamedTuple

from app.access import api_keys, tickets
from app.access.api_keys import SCOPES, Limits, Scope
from app.access.secret import secret_of
from app.database import Database, clock
from app.problems import Problem
from app.settings import Settings
from app.tables import DEFAULT_TENANT, ApiKey

BELIEVED_SECONDS = 5.0  # before a key is looked up again, so a revoked one is refused after this at the latest


@dataclass(frozen=True)
class Caller:
    """Who sends a request, and what they may do."""

    tenant: str = DEFAULT_TENANT
    key: str = ""  # the prefix; "": keys are not asked for here
    scopes: frozenset[str] = frozenset(SCOPES)
    limits: Limits = field(default_factory=Limits)

    def require(self, scope: Scope) -> None:
        """Raises Problem 403 for a key without the scope."""
        if scope not in self.scopes:
            raise Problem(
                403,
                "forbidden",
                f"this needs the scope {scope!r}, the key {api_keys.named(self.key)} has "
                f"{', '.join(sorted(self.scopes))}; use a key made with `pansynth keys create --scope {scope}`",
                headers={"WWW-Authenticate": f'Bearer realm="pansynth", error="insufficient_scope", scope="{scope}"'},
            )


ANYBODY = Caller()


class _Seen(NamedTuple):
    """A key's row as it was at a moment of the clock that all APIs share: theirs may go wrong."""

    row: ApiKey
    at: datetime


class Callers:
    """The keys that this process has seen lately."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self.settings = settings
        self.database = database
        self._believed: dict[str, tuple[float, _Seen]] = {}  # prefix -> until when (monotonic), and what

    @cached_property
    def secret(self) -> bytes:
        return secret_of(self.settings)

    def admit(self, token: str | None, path: str, ticket: str | None) -> Caller:
        """Whom the key (or, for this path alone, the ticket) was given to. Raises Problem 401. Blocking."""
        if not self.settings.api_keys_required:
            return ANYBODY
        if token is not None:
            return _caller(self._by_token(token))
        if ticket is not None:
            return _caller(self._by_ticket(ticket, path))
        raise _unauthorized("this service asks for an API key: send it as `Authorization: Bearer pansynth_...`")

    def admit_again(self, caller: Caller) -> None:
        """At the end of an upload, which may have taken hours to come. Raises Problem 401. Blocking."""
        if not caller.key:
            return
        if (seen := self._look_up(caller.key)) is None:
            raise _unauthorized(f"the key {api_keys.named(caller.key)} is no more; ask for another", "invalid_token")
        _check_active(*seen)

    def still_admits(self, caller: Caller) -> bool:
        """Whether the caller would be let in again: for answers that last. Blocking."""
        try:
            self.admit_again(caller)
        except Problem:
            return False
        return True

    def now(self) -> datetime:
        """By the clock that all APIs share, or one might take another's ticket for late. Blocking."""
        with self.database.read() as session:
            return clock(session)

    def _by_token(self, token: str) -> ApiKey:
        seen = self._look_up(api_keys.prefix_of(token))
        if not api_keys.matches(self.secret, token, seen.row if seen else None) or seen is None:
            raise _unauthorized("this service did not issue the API key; copy it whole or ask for one", "invalid_token")
        return self._used(seen)

    def _by_ticket(self, ticket: str, path: str) -> ApiKey:
        seen = self._look_up(tickets.holder(self.secret, ticket, path, self.now()))
        if seen is None:
            raise _unauthorized("the ticket is not for this address or has run out; POST /tickets gives another")
        return self._used(seen)

    def _look_up(self, prefix: str | None) -> _Seen | None:
        """One indexed query and one for the clock, or none within BELIEVED_SECONDS of the last."""
        if prefix is None:
            return None
        until, seen = self._believed.get(prefix, (0.0, None))
        if seen is not None and time.monotonic() < until:
            return seen
        with self.database.read() as session:
            row = session.get(ApiKey, prefix)
            if row is None:
                return None
            seen = _Seen(row, clock(session))
        self._believed[prefix] = (time.monotonic() + BELIEVED_SECONDS, seen)
        return seen

    def _used(self, seen: _Seen) -> ApiKey:
        """The row of a key that lets its holder in, its use written down once a minute. Raises Problem 401."""
        row, now = seen
        _check_active(row, now)
        if api_keys.use_is_news(row, now):
            with self.database.write() as session:
                api_keys.use(session, row.prefix, now)
            row.last_used_at = now  # for those who believe it
        return row


def _caller(row: ApiKey) -> Caller:
    limits = Limits(row.max_queued_jobs, row.max_bytes_per_day, row.max_samples_per_day)
    return Caller(row.tenant, row.prefix, frozenset(row.scopes), limits)


def _check_active(row: ApiKey, now: datetime) -> None:
    if not api_keys.is_active(row, now):
        state = "was revoked" if row.revoked_at else f"expired at {row.expires_at:%Y-%m-%d %H:%M} UTC"
        raise _unauthorized(f"the key {api_keys.named(row.prefix)} {state}; ask for another", "invalid_token")


def _unauthorized(detail: str, error: str = "") -> Problem:
    challenge = 'Bearer realm="pansynth"' + (f', error="{error}"' if error else "")
    return Problem(401, "unauthorized", detail, headers={"WWW-Authenticate": challenge})

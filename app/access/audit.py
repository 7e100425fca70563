"""Who did what, when, and how it ended: a row for each request with a key that changed something or was refused.

What only looks leaves no row, so that polling writes nothing, except where results leave the house. A row names
ids and routes; never a file's name, a parameter or a body.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from anyio import to_thread
from sqlalchemy import select
from sqlalchemy.orm import Session
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.access import api_keys
from app.access.browsers import SAFE_METHODS
from app.access.callers import Caller
from app.database import clock
from app.queries import number_of, page
from app.service import Service
from app.tables import AuditEntry

log = logging.getLogger(__name__)

RESULTS = ("/dataset", "/report", "/report.csv", "/report.md", "/report.png")  # ends of the routes that give them out


class Audit:
    """ASGI middleware: writes the row before the answer begins, so that no answer is without one."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_noted(message: Message) -> None:
            if message["type"] == "http.response.start":
                await self.note(scope, message)
            await send(message)

        await self.app(scope, receive, send_noted)

    async def note(self, scope: Scope, start: Mapping[str, Any]) -> None:
        caller: Caller | None = scope.get("state", {}).get("caller")
        route = getattr(scope.get("route"), "path", "")
        status: int = start["status"]
        if caller is None or not caller.key or not is_worth_a_row(scope["method"], route, status):
            return
        place = Headers(raw=start["headers"]).get("location", "") if scope["method"] == "POST" else ""
        named = place.removeprefix("/") or "/".join(map(str, scope.get("path_params", {}).values()))
        entry = AuditEntry(
            api_key=caller.key,
            tenant=caller.tenant,
            action=f"{scope['method']} {route}",
            object="".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in named[:255]),
            status=status,
        )
        try:
            await to_thread.run_sync(write, scope["app"].state.service, entry)
        except Exception as error:  # what was done is done: an answer that says otherwise would be worse
            log.error("no audit row for %s by %s: %r", entry.action, entry.api_key, error)


def is_worth_a_row(method: str, route: str, status: int) -> bool:
    return method not in SAFE_METHODS or status == 403 or (route.endswith(RESULTS) and method == "GET")


def write(service: Service, entry: AuditEntry) -> None:
    with service.database.write() as session:
        entry.at = clock(session)
        session.add(entry)


def by_command(session: Session, action: str, tenant: str, prefix: str) -> None:
    """The same for the command line, in the transaction of what it does."""
    named = f"keys/{api_keys.named(prefix)}"
    session.add(AuditEntry(at=clock(session), api_key="", tenant=tenant, action=action, object=named, status=200))


def list_(session: Session, *, limit: int = 100, cursor: str | None = None) -> tuple[Sequence[AuditEntry], str | None]:
    """The rows, newest first -> (at most `limit`, cursor of the next page or None). Raises BadCursor."""
    query = select(AuditEntry).order_by(AuditEntry.id.desc())
    if cursor:
        query = query.where(AuditEntry.id < number_of(cursor))
    return page(session, query, limit, lambda entry: entry.id)

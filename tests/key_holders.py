"""Clients with keys of their own."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from typing import Any

import httpx

from app import pools
from app.access import api_keys
from app.access.api_keys import Limits, Scope
from app.service import Service
from tests.serving import Served


def make_key(
    service: Service,
    tenant: str = "clinic",
    scopes: Sequence[Scope] = ("read", "submit"),
    expires_at: datetime | None = None,
    **limits: int,
) -> str:
    given: dict[str, Any] = {"name": "of a test", "tenant": tenant, "scopes": scopes, "expires_at": expires_at}
    with service.database.of(tenant).write() as session:
        token, _ = api_keys.create(session, service.callers.secret, limits=Limits(**limits), **given)
        pools.create_first(session)
    return token


@contextmanager
def holder_of(served: Served, token: str) -> Iterator[httpx.Client]:
    """A client that shows this key."""
    headers = {"Authorization": f"Bearer {token}"}
    with httpx.Client(base_url=served.client.base_url, headers=headers, timeout=20) as client:
        yield client


def as_of(service: Service, tenant: str) -> Service:
    """The service as a tenant sees it, for `tests.serving.fill_pool`."""
    return replace(service, database=service.database.of(tenant))

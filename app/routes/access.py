"""What concerns keys: tickets for downloads, and the audit. Keys are made on the command line, never over HTTP."""

import re
from datetime import datetime

from fastapi import Depends
from pydantic import BaseModel, ConfigDict, Field, field_validator

from app.access import api_keys, audit
from app.access.tickets import ticket_for
from app.routes.parameters import PageOf
from app.routes.router import Router
from app.service import HouseDep, ServiceDep, admin, reader

router = Router(tags=["access"])

PATH = r"/([a-zA-Z0-9._~%-][a-zA-Z0-9._~%/-]*)?"


class TicketRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")
    path: str = Field(
        max_length=300,
        description="the path to download, as in a job's links",
        json_schema_extra={"pattern": f"^{PATH}$"},
    )

    @field_validator("path")
    @classmethod
    def is_ours(cls, path: str) -> str:
        if not re.fullmatch(PATH, path):
            raise ValueError("should be a path of this service without a query, as in a job's links")
        return path


class Ticket(BaseModel):
    href: str = Field(description="the path with the ticket; it needs no header")
    expires_at: datetime | None = Field(description="until when the download must begin; null: no keys are asked for")


class AuditBody(BaseModel):
    at: datetime
    api_key: str = Field(description="the key's prefix; empty: the command line")
    tenant: str
    action: str
    object: str
    status: int

    @field_validator("api_key")
    @classmethod
    def as_it_is_named(cls, prefix: str) -> str:
        return prefix and api_keys.named(prefix)


class AuditList(BaseModel):
    items: list[AuditBody]
    next: str | None


@router.post("/tickets", dependencies=[Depends(reader)])
def make_ticket(request: TicketRequest, service: ServiceDep) -> Ticket:
    """An address that a browser can save from, for a minute; the caller's key must be good for it then, too."""
    if not service.caller.key:
        return Ticket(href=request.path, expires_at=None)
    ticket, expires_at = ticket_for(service.callers.secret, service.caller.key, request.path, service.callers.now())
    return Ticket(href=f"{request.path}?ticket={ticket}", expires_at=expires_at)


@router.get("/audit", dependencies=[Depends(admin)])
def list_audit(house: HouseDep, page: PageOf) -> AuditList:
    """Who did what, newest first, of every tenant."""
    with house.database.read() as session:
        rows, following = audit.list_(session, limit=page.limit, cursor=page.cursor)
    return AuditList(items=[AuditBody.model_validate(row, from_attributes=True) for row in rows], next=following)

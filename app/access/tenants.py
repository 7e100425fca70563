"""Whose rows a session sees.

A request's session belongs to its caller's tenant and finds that tenant's rows alone, so no route can forget it.
The sessions of workers, of the sweeper and of the command line belong to the house and find everything by id; a
name, which is unique within a tenant only, they look up and make at the tenant `default`.
"""

from sqlalchemy import ColumnElement, true
from sqlalchemy.orm import Session

from app.tables import DEFAULT_TENANT, Job, Pool

NAME = r"[a-z0-9][a-z0-9_-]{0,62}"  # of a tenant, and of a pool
NAME_IN_WORDS = "1 to 63 of a-z 0-9 _ -, the first a letter or a digit"


def tenant_of(session: Session) -> str:
    """Where the session finds names, and whom the rows it makes belong to."""
    return str(session.info.get("tenant") or DEFAULT_TENANT)


def visible(session: Session, entity: type[Job] | type[Pool]) -> ColumnElement[bool]:
    """The condition that a row found by its id must meet."""
    tenant = session.info.get("tenant")
    return true() if tenant is None else entity.tenant == tenant

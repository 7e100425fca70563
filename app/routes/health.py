"""Is it alive, is it ready, and how is it doing."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from anyio import to_thread
from fastapi import Depends, Request
from fastapi.responses import Response
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4
from sqlalchemy import text

from app import broker
from app.database import clock
from app.openapi import content, problems
from app.problems import FieldError, as_response, unavailable
from app.queries import live_workers
from app.routes.router import Router
from app.service import HouseDep, Service, admin

log = logging.getLogger(__name__)

router = Router(tags=["health"])


@router.get("/livez")
async def livez() -> dict[str, str]:
    """The process answers, though all its threads may wait for a store."""
    return {"status": "alive"}


@router.get(
    "/readyz", response_model=dict[str, str], responses=problems({503: "Something is missing; `errors` names it"})
)
async def readyz(request: Request, service: HouseDep) -> Any:
    """The database, the blob store, the broker and at least one worker are there."""
    state = request.app.state
    if state.readiness is None or state.readiness.done():
        state.readiness = asyncio.ensure_future(to_thread.run_sync(look, service, abandon_on_cancel=True))
    missing: list[FieldError] = await asyncio.shield(state.readiness)
    if missing:
        names = " and ".join(error.field for error in missing)
        return as_response(unavailable(f"not ready: {names} missing", missing))  # no refusal: it is what was asked for
    return {"status": "ready", **dict.fromkeys(CHECKS, "ok")}


@router.get("/metrics", response_class=Response, responses={200: content("text/plain")}, dependencies=[Depends(admin)])
def metrics(service: HouseDep) -> Response:
    """Prometheus text."""
    with service.database.read() as session:
        return Response(service.metrics.text(session), media_type=CONTENT_TYPE_PLAIN_0_0_4)


Check = Callable[[Service], str | None]  # what is wrong, in words


def look(service: Service) -> list[FieldError]:
    """What is missing."""
    return [FieldError(name, words) for name, check in CHECKS.items() if (words := failure(check, service))]


def failure(check: Check, service: Service) -> str | None:
    """What is wrong in words; an outage of any kind is an answer here, not an error."""
    try:
        return check(service)
    except Exception as error:
        words = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no answer'}"
        if not service.settings.api_keys_required:
            return words
        log.warning("not ready: %s", words)  # it may name hosts and users, and anybody may ask
        return "no answer; the API's log says more"


def check_store(service: Service) -> None:
    with service.database.read() as session:
        session.execute(text("SELECT 1 FROM jobs LIMIT 1"))
    service.blobs.check()


def check_broker(service: Service) -> None:
    broker.ping(service.celery)


def check_worker(service: Service) -> str | None:
    with service.database.read() as session:
        if live_workers(session, clock(session)):
            return None
    return "no worker has given a sign of life lately; start one with `pansynth worker`"


CHECKS: dict[str, Check] = {"store": check_store, "broker": check_broker, "worker": check_worker}

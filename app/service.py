"""What the routes share: made once by `create_app`, handed to each route as a dependency."""

import os
from dataclasses import dataclass, replace
from typing import Annotated

from anyio import CapacityLimiter
from celery import Celery
from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from app import broker, database, events
from app.access.browsers import SAFE_METHODS, refuse_other_sites
from app.access.callers import ANYBODY, Caller, Callers
from app.blobs import Blobs
from app.database import Database
from app.monitoring.metrics import Metrics
from app.settings import Settings
from app.uploads.decoders import Decoders
from app.uploads.turns import Turns

TAKEN_IN_AT_ONCE = 20  # uploads; half of the threads are left to all other requests


@dataclass(frozen=True)
class Service:
    settings: Settings
    database: Database
    blobs: Blobs
    celery: Celery
    metrics: Metrics
    decoders: Decoders
    turns: Turns  # at the decoders
    event_threads: CapacityLimiter  # of all event streams
    taking_in_threads: CapacityLimiter  # of all uploads on their way to the stores, which may hang
    wake_thread: CapacityLimiter  # of all wake-ups: a broker that hangs takes 10 s for each
    callers: Callers
    caller: Caller = ANYBODY


def make_service(settings: Settings) -> Service:
    """Opens the three stores; none of them is asked anything yet."""
    opened = database.connect(settings.database())
    decoders = Decoders(settings.max_pixels, os.cpu_count() or 1)
    return Service(
        settings=settings,
        database=opened,
        blobs=Blobs(settings.blobs()),
        celery=broker.celery_app(settings),
        metrics=Metrics(),
        decoders=decoders,
        turns=Turns(len(decoders)),
        event_threads=CapacityLimiter(events.THREADS),
        taking_in_threads=CapacityLimiter(TAKEN_IN_AT_ONCE),
        wake_thread=CapacityLimiter(1),
        callers=Callers(settings, opened),
    )


bearer = HTTPBearer(
    auto_error=False,
    scheme_name="api_key",
    description="A key of `pansynth keys create`, as `Authorization: Bearer pansynth_...`. GET needs its scope `read`, "
    "other methods `submit`, /metrics and /audit `admin`. Asked for wherever the service is bound beyond loopback.",
)
Shown = Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]


def house_of(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


HouseDep = Annotated[Service, Depends(house_of)]  # sees every tenant's rows


def caller_of(request: Request, house: HouseDep, shown: Shown) -> Caller:
    """Who sends the request; what they may do is not checked yet. Raises Problem 401, or 403."""
    if not house.settings.api_keys_required:
        refuse_other_sites(request)
    ticket = request.query_params.get("ticket") if request.method in SAFE_METHODS else None
    caller = house.callers.admit(shown.credentials if shown else None, request.url.path, ticket)
    request.state.caller = caller  # for the audit
    return caller


CallerDep = Annotated[Caller, Depends(caller_of)]


async def reader(caller: CallerDep) -> None:
    caller.require("read")


async def admin(caller: CallerDep) -> None:
    caller.require("admin")


async def by_method(request: Request, caller: CallerDep) -> None:
    """Looking needs `read`, everything else `submit`."""
    caller.require("read" if request.method in SAFE_METHODS else "submit")


async def service_of(house: HouseDep, caller: CallerDep) -> Service:
    """The service as its caller sees it: no route gets at rows without a caller, or at another tenant's."""
    return replace(house, database=house.database.of(caller.tenant), caller=caller)


ServiceDep = Annotated[Service, Depends(service_of)]

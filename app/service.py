"""What the routes share: made once by `create_app`, handed to each route as a dependency."""

from dataclasses import dataclass
from typing import Annotated

from anyio import CapacityLimiter
from celery import Celery
from fastapi import Depends, Request

from app import broker, database
from app.blobs import Blobs
from app.database import Database
from app.metrics import Metrics
from app.settings import Settings

DECODERS = 2  # images decoded at once: one of 60 million pixels takes 400 MB for a moment


@dataclass(frozen=True)
class Service:
    settings: Settings
    database: Database
    blobs: Blobs
    celery: Celery
    metrics: Metrics
    decoding: CapacityLimiter


def make_service(settings: Settings, metrics: Metrics) -> Service:
    """Opens the three stores; none of them is asked anything yet."""
    return Service(
        settings=settings,
        database=database.connect(settings.database()),
        blobs=Blobs(settings.blobs()),
        celery=broker.celery_app(settings),
        metrics=metrics,
        decoding=CapacityLimiter(DECODERS),
    )


def service_of(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


ServiceDep = Annotated[Service, Depends(service_of)]

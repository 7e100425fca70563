"""What a worker works with: opened once in its process, handed to every step."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from celery import Celery

from app import broker, database
from app.blobs import Blobs
from app.database import Database
from app.monitoring.figures import Figures
from app.settings import Settings
from app.uploads.decoders import Decoders
from worker.networks import WarmNetworks


@dataclass(frozen=True)
class Workplace:
    name: str  # the worker's, one per process and the same after a restart
    settings: Settings
    database: Database
    blobs: Blobs
    celery: Celery
    networks: WarmNetworks
    decoders: Decoders
    told_to_end: Callable[[], bool]  # whether the worker is to let go of its step
    figures: Figures = field(default_factory=Figures)

    @property
    def cache(self) -> Path:
        """A folder of this machine for what can be fetched again."""
        folder = self.settings.data_dir / "cache"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # patients' latents and zips
        return folder


def open_workplace(settings: Settings, name: str, told_to_end: Callable[[], bool] = lambda: False) -> Workplace:
    """Opens the stores; the networks are loaded when the first step needs them."""
    return Workplace(
        name=name,
        settings=settings,
        database=database.connect(settings.database()),
        blobs=Blobs(settings.blobs()),
        celery=broker.celery_app(settings),
        networks=WarmNetworks(settings),
        decoders=Decoders(settings.max_pixels, torch.get_num_threads()),
        told_to_end=told_to_end,
    )

"""A worker whose networks are on the machine's GPU; without one see tests/pretended_gpu.py for what it can tell."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from app.presets import PRESETS
from app.settings import Settings
from models import matching
from models.phantoms import Phantom
from tests.worker_service import dataset, manifest, submit, work_off
from worker import index, sampling
from worker.workplace import open_workplace


@pytest.fixture(scope="module")
def beginning(filled: Callable[[int], Path]) -> Path:
    return filled(3)


@pytest.mark.usefixtures("quick_alignment")
def test_a_worker_on_a_gpu_makes_a_dataset(
    settings: Settings, radiographs: Sequence[Phantom], gpu: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in (index, sampling):
        monkeypatch.setattr(step, "batch_size", lambda _: 2)  # a GPU's batches would take a CPU long
    monkeypatch.setattr(matching, "_CHUNK_CUDA", 4)
    place = open_workplace(settings.model_copy(update={"device": str(gpu)}), "gpu@test")
    preset = {**vars(PRESETS["harmonize"]), "steps": 2, "start_timestep": 5}
    job_id = submit(place, radiographs[:2], top_k=1, **preset)
    work_off(place)
    assert len(manifest(dataset(place, job_id))) == 2
    place.decoder.close()
    place.database.dispose()

"""worker/devices.py, and a worker on the machine's GPU; without one see tests/pretended_gpu.py for what it can tell."""

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
from worker.devices import choose_device, use_device
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
    place.decoders.close()
    place.database.dispose()


def test_the_device_is_the_settings_choice() -> None:
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device("cuda:1") == torch.device("cuda:1")
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


def test_a_gpu_that_is_not_there_is_noticed_at_the_start() -> None:
    use_device(torch.device("cpu"))
    with pytest.raises(RuntimeError, match="PANSYNTH_DEVICE says cuda:99, and torch finds"):
        use_device(torch.device("cuda:99"))


@pytest.mark.parametrize(("name", "index"), [("cuda", 0), ("cuda:1", 1)])
def test_a_worker_takes_its_gpu_as_torchs_current_one(monkeypatch: pytest.MonkeyPatch, name: str, index: int) -> None:
    """Of torch the two calls that need a GPU are stood in for."""
    taken: list[int] = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    use_device(torch.device(name))
    assert taken == [index]
    assert not torch.backends.cudnn.allow_tf32, "the VAE computes in float32"

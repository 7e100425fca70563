"""worker/sampling.py: samples that go wrong, and samples that are no longer wanted."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
import torch

from app import jobs, keys
from app.blobs import Blobs
from app.monitoring.figures import Figures
from models import pixels
from models.denoiser import Denoiser
from models.phantoms import Phantom
from models.synthesis import Recipe
from models.ways import synthesized
from models.weights import save_denoiser
from tests.threads import threads
from tests.tiny import make_tiny_weights, tiny_unet
from tests.worker_service import claim, dataset, failure, look, manifest, submit, work_off, work_until
from worker import sampling
from worker.tasks import work
from worker.workplace import Workplace


@pytest.fixture(scope="module")
def beginning(filled: Callable[[int], Path]) -> Path:
    return filled(6)


def cancel(place: Workplace, job_id: str) -> None:
    with place.database.write() as session:
        jobs.cancel(session, job_id, now=datetime.now(UTC))


def test_pixels_that_are_no_numbers_fail_the_job_and_are_not_kept(
    place: Workplace, radiographs: Sequence[Phantom]
) -> None:
    assert place.settings.weights_dir is not None
    folder = make_tiny_weights(place.settings.weights_dir / "broken")
    unet = tiny_unet()
    with torch.no_grad():
        unet.conv_out.bias.fill_(float("nan"))
    save_denoiser(folder, Denoiser(unet), {})
    job_id = submit(place, radiographs[:1], model="broken")
    work_off(place)
    assert "not finite" in failure(place, job_id)
    assert list(place.blobs.list(f"jobs/{job_id}/samples")) == []


def test_a_cancelled_job_stops_soon_and_writes_nothing_after(place: Workplace, radiographs: Sequence[Phantom]) -> None:
    job_id = submit(place, radiographs[:1], top_k=6, steps=900, start_timestep=1000)  # minutes of work
    work_until(place, job_id, "sampling")
    begun = threading.Event()
    place.networks.get("default").denoiser.register_forward_pre_hook(lambda *_: begun.set())
    worker = threading.Thread(target=work, args=[place])
    worker.start()
    assert begun.wait(60)
    cancel(place, job_id)
    worker.join(20)
    assert not worker.is_alive()
    assert (look(place, job_id).status, look(place, job_id).done) == ("cancelled", 0)
    assert list(place.blobs.list(f"jobs/{job_id}/samples")) == []
    assert not work(place)


@pytest.mark.parametrize(
    "parameters",
    [
        {"method": "blend"},
        {"method": "paste", "dilation": 2},
        {"sampler": "ddim", "reblend": True, "hold_anatomy": True, "match_statistics": True, "transfer_detail": True},
        {"restore_background": True, "dilation": 0},
    ],
)
def test_every_recipe_goes_from_the_parameters_to_the_sample_and_the_manifest(
    place: Workplace, radiographs: Sequence[Phantom], parameters: dict[str, object]
) -> None:
    job_id = submit(place, radiographs[:1], top_k=1, **parameters)
    work_off(place)
    (row,) = manifest(dataset(place, job_id))
    for name in {"method", "sampler", "dilation"} & parameters.keys():
        assert row[name] == str(parameters[name])
    assert row["method"] != "paste" or row["background_ssim"] == "1", "judged outside the band that was pasted"
    recipe = Recipe(**{field.name: look(place, job_id).parameters[field.name] for field in fields(Recipe)})
    guide, unlabeled = radiographs[0], radiographs[2 + int(row["pool_image_name"].removesuffix(".png"))]
    made = synthesized(
        place.networks.get("default"),
        guide.image[None],
        guide.mask[None],
        unlabeled.image[None],
        recipe,
        [int(row["seed"])],
    )
    assert pixels.sha256(pixels.image_png(made[0])) == row["image_sha256"]


def test_a_step_that_takes_long_is_handed_on_and_what_it_made_is_kept(
    place: Workplace, radiographs: Sequence[Phantom], monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once = submit(place, radiographs[:1])
    work_off(place)
    monkeypatch.setattr(sampling, "TURN_CPU", 1)
    monkeypatch.setattr(sampling, "STEP_SECONDS", 0.0)
    job_id = submit(place, radiographs[:1])
    work_until(place, job_id, "sampling")
    for done in (1, 2, 3):
        assert work(place)
        assert look(place, job_id).done == done
    work_off(place)
    assert manifest(dataset(place, job_id)) == manifest(dataset(place, at_once))


def progress(place: Workplace, job_id: str) -> list[tuple[int, int]]:
    """Of a job's next step of samples: how many were made together, and how many the job counted then."""
    seen = []

    class Looking(Figures):
        def samples_made(self, count: int) -> None:
            seen.append((count, look(place, job_id).done))

    work_until(place, job_id, "sampling")
    assert work(replace(place, figures=Looking()))
    return seen


def test_progress_is_counted_as_samples_are_made(
    place: Workplace, radiographs: Sequence[Phantom], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling, "TURN_CPU", 1)
    job_id = submit(place, radiographs[:1])
    assert progress(place, job_id) == [(1, 1), (1, 2), (1, 3)]
    assert claim(place).kind == "package"
    assert len(list(place.blobs.list(keys.sample(job_id, "x").rsplit("/", 1)[0]))) == 3


def test_a_guide_is_fetched_once_for_all_samples_that_are_made_together(
    place: Workplace, radiographs: Sequence[Phantom], monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = submit(place, radiographs[:1], top_k=4)
    work_until(place, job_id, "sampling")
    fetched: list[str] = []
    get = Blobs.get

    def get_noted(blobs: Blobs, key: str, sha256: str | None = None) -> bytes:
        fetched.append(key)
        return get(blobs, key, sha256)

    monkeypatch.setattr(Blobs, "get", get_noted)
    with threads(2):
        assert work(place)
    assert look(place, job_id).done == 4
    assert len(fetched) == len(set(fetched)) == 2 + 4  # the guide, its mask, and the pool images


def test_every_core_makes_a_sample_at_once(place: Workplace, radiographs: Sequence[Phantom]) -> None:
    few = submit(place, radiographs[:2], top_k=6)
    with threads(2):
        assert progress(place, few) == [(4, 4), (4, 8)]
    work_off(place)
    many = submit(place, radiographs[:2], top_k=6)
    with threads(6):
        assert progress(place, many) == [(6, 6), (6, 12)]

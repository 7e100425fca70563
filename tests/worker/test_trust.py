"""Samples that fail their thresholds: left out or made anew, told in the zip, the same on any number of workers."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from app.tables import Job, Sample
from app.trust import quality_summary
from models.denoiser import Denoiser
from models.memorisation import describe_training
from models.phantoms import Phantom
from models.training.latents import encode as encode_training
from models.weights import load_networks, save_denoiser
from tests.tiny import make_tiny_weights, tiny_unet
from tests.worker_service import GoingOn, dataset, failure, look, manifest, members, submit, work_off
from worker import planning, sampling
from worker.workplace import Workplace


@pytest.fixture(scope="module")
def beginning(filled: Callable[[int], Path]) -> Path:
    return filled(12)


def finished(place: Workplace, guides: Sequence[Phantom], **parameters: Any) -> tuple[str, bytes]:
    job_id = submit(place, guides, **parameters)
    work_off(place)
    return job_id, dataset(place, job_id)


def between(rows: Sequence[dict[str, str]], figure: str) -> float:
    """A threshold that some of the samples reach and some do not."""
    values = sorted(float(row[figure]) for row in rows)
    assert values[0] < values[-1]
    return (values[len(values) // 2 - 1] + values[len(values) // 2]) / 2


@pytest.fixture(scope="module")
def threshold(undisturbed: bytes) -> float:
    """Of `min_background_ssim`: half of the six samples fail it."""
    return between(manifest(undisturbed), "background_ssim")


@pytest.fixture(scope="module")
def redrawn(going_on: GoingOn, beginning: Path, radiographs: Sequence[Phantom], threshold: float) -> tuple[Job, bytes]:
    """A job of which what fails was made anew, and its dataset."""
    with going_on(beginning) as place:
        job_id, data = finished(place, radiographs[:2], min_background_ssim=threshold, on_fail="redraw")
        return look(place, job_id), data


def test_what_fails_is_dropped_and_the_rest_keeps_its_numbers(
    place: Workplace,
    radiographs: Sequence[Phantom],
    undisturbed: bytes,
    threshold: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    everything = manifest(undisturbed)
    monkeypatch.setattr(sampling, "TURN_CPU", 2)
    monkeypatch.setattr(sampling, "STEP_SECONDS", 0.0)  # handed on after every turn, with some that were dropped
    job_id, data = finished(place, radiographs[:2], min_background_ssim=threshold, on_fail="drop")
    kept = manifest(data)
    assert [row["index"] for row in kept] == [
        row["index"] for row in everything if float(row["background_ssim"]) >= threshold
    ]
    assert len(kept) == 3
    files = members(data)
    described = json.loads(files["job.json"])
    assert sorted(name for name in files if name.startswith("images/")) == [row["image"] for row in kept]
    summary = {"made": 6, "kept": 3, "dropped": 3, "redrawn": 0}
    assert described["quality_summary"] == quality_summary(look(place, job_id)) == summary
    assert place.figures.snapshot()["samples"] == 6, "those that were dropped were made, too"
    assert described["samples"] == 3
    assert [(str(entry["index"]), entry["guide"], entry["pool_image"]) for entry in described["dropped"]] == [
        (row["index"], row["guide_name"], row["pool_image_name"])
        for row in everything
        if float(row["background_ssim"]) < threshold
    ]
    assert "is below min_background_ssim" in described["dropped"][0]["detail"]
    assert "3 were dropped" in files["README.md"].decode()


def test_a_failed_sample_is_made_anew_from_the_next_pool_images(
    redrawn: tuple[Job, bytes], undisturbed: bytes, threshold: float
) -> None:
    job, data = redrawn
    first, rows = manifest(undisturbed), manifest(data)
    assert all(float(row["background_ssim"]) >= threshold for row in rows)
    failed = {row["index"] for row in first if float(row["background_ssim"]) < threshold}
    for row in rows:
        before = first[int(row["index"])]
        if row["index"] in failed:
            assert int(row["rank"]) > 3
            assert (int(row["rank"]) - int(before["rank"])) % 3 == 0, "each sample has spares of its own"
        else:
            assert row["image_sha256"] == before["image_sha256"]
    summary = quality_summary(job)
    assert summary["redrawn"] >= 3
    assert summary["made"] == summary["kept"] + summary["dropped"] + summary["redrawn"]
    assert (summary["kept"], job.done) == (len(rows), 6)
    assert len({(row["guide_name"], row["pool_image_name"]) for row in rows}) == len(rows)


def test_who_redraws_which_sample_leaves_no_trace(
    place: Workplace,
    second_place: Workplace,
    radiographs: Sequence[Phantom],
    redrawn: tuple[Job, bytes],
    threshold: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(planning, "CHUNK_CPU", 2)
    monkeypatch.setattr(sampling, "TURN_CPU", 1)
    together = submit(place, radiographs[:2], min_background_ssim=threshold, on_fail="redraw")
    work_off(second_place, place)
    assert dataset(place, together) == redrawn[1]


def test_where_no_pool_image_is_left_a_failed_sample_is_dropped(
    place: Workplace, radiographs: Sequence[Phantom], threshold: float
) -> None:
    job_id, _ = finished(place, radiographs[:1], top_k=12, min_background_ssim=threshold, on_fail="redraw")
    summary = quality_summary(look(place, job_id))
    assert summary["redrawn"] == 0
    assert summary["dropped"] > 0


def test_a_job_of_which_nothing_is_kept_fails_in_words(place: Workplace, radiographs: Sequence[Phantom]) -> None:
    job_id = submit(place, radiographs[:1], max_seam=0.0, on_fail="redraw")
    work_off(place)
    words = failure(place, job_id)
    assert "none of 3 samples" in words
    assert "is above max_seam 0" in words
    with place.database.read() as session:
        rows = session.query(Sample).filter(Sample.job_id == job_id).all()
    assert {row.redraws for row in rows} == {3}
    assert list(place.blobs.list(f"jobs/{job_id}/samples")) == []


def test_weights_that_know_their_training_images_tell_how_far_a_sample_is(
    place: Workplace, radiographs: Sequence[Phantom]
) -> None:
    assert place.settings.weights_dir is not None
    folder = make_tiny_weights(place.settings.weights_dir / "knowing")
    networks = load_networks(folder, "cpu")
    # Three images of the pool, which ought not to be; two were seen mirrored.
    seen = [radiographs[row].image[:, ::way].copy() for row, way in ((2, -1), (3, 1), (4, -1))]
    known = describe_training(encode_training(networks.vae, image[None], networks.device) for image in seen)
    save_denoiser(folder, Denoiser(tiny_unet()), {}, known)
    _, data = finished(place, radiographs[:1], top_k=12, model="knowing")
    distances = {row["pool_image_name"]: float(row["training_distance"]) for row in manifest(data)}
    copied = [distances[f"{n}.png"] for n in range(3)]
    others = [distance for name, distance in distances.items() if name not in ("0.png", "1.png", "2.png")]
    assert max(copied) < min(others)
    assert max(copied) < 0.9


def test_the_column_is_empty_where_weights_know_nothing_of_their_training(undisturbed: bytes) -> None:
    assert {row["training_distance"] for row in manifest(undisturbed)} == {""}

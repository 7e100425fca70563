"""worker/sampling.py and app/failures.py: a sample that cannot be made fails alone, and the job says which."""

import json
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sqlalchemy import select
from torch import Tensor, nn

from app import keys, queries
from app.schemas import JobBody
from app.tables import Sample
from models import pixels
from models.phantoms import Phantom
from tests.worker_service import (
    GoingOn,
    dataset,
    look,
    manifest,
    members,
    send_files,
    submit,
    work_off,
    work_off_impatiently,
    work_until,
)
from worker.tasks import work
from worker.workplace import Workplace


@pytest.fixture(scope="module")
def beginning(going_on: GoingOn, filled: Callable[[int], Path]) -> Path:
    """A pool of three radiographs and a white image."""
    with going_on(filled(3)) as place:
        nearly = np.linspace(250, 255, 256 * 512).astype(np.uint8).reshape(256, 512)
        send_files(place, [("white.png", pixels.image_png(nearly))])
        work_off(place)
    return place.settings.data_dir


@contextmanager
def at_white_images(place: Workplace, trouble: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """A denoiser that is no good for them: what it predicts goes through `trouble`."""

    def hook(_: nn.Module, given: tuple[Tensor, ...], predicted: Tensor) -> Tensor:
        return trouble(predicted) if given[0].mean() > 1 else predicted

    handle = place.networks.get("default").denoiser.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def no_numbers(predicted: Tensor) -> Tensor:
    return predicted * float("nan")


def too_large(predicted: Tensor) -> Tensor:
    return predicted + torch.empty(1 << 50, dtype=torch.uint8)[0]


def assert_fails(_: Tensor) -> Tensor:
    raise torch.AcceleratorError("CUDA error: device-side assert triggered")


def white(place: Workplace, job_id: str) -> Sample:
    with place.database.read() as session:
        query = select(Sample).where(Sample.job_id == job_id, Sample.pool_image_name == "white.png")
        return session.scalars(query).one()


def body(place: Workplace, job_id: str) -> dict[str, Any]:
    with place.database.read() as session:
        return JobBody.of(session, queries.find_job(session, job_id)).model_dump(mode="json")


def test_a_sample_without_numbers_fails_alone_and_the_dataset_lacks_it(
    place: Workplace, radiographs: Sequence[Phantom]
) -> None:
    job_id = submit(place, radiographs[:1], top_k=4)
    with at_white_images(place, no_numbers):
        work_off(place)
    lost = white(place, job_id)
    rows = manifest(dataset(place, job_id))
    assert [int(row["index"]) for row in rows] == [n for n in range(4) if n != lost.position]
    said = body(place, job_id)
    assert (said["progress"], said["error"]) == ({"done": 4, "total": 4}, None)
    assert said["quality_summary"] == {"made": 3, "kept": 3, "dropped": 0, "redrawn": 0}
    (failed,) = said["failed_samples"]
    assert failed["index"] == lost.position
    assert "not finite" in failed["detail"] and "'white.png'" in failed["detail"]
    files = members(dataset(place, job_id))
    assert json.loads(files["job.json"])["failed_samples"] == [failed]
    assert "3 samples (1 more could not be made" in files["README.md"].decode()
    assert f"images/{lost.position:06d}.png" not in files


def test_a_sample_that_needs_more_memory_than_there_is_fails_alone_after_some_tries(
    place: Workplace, radiographs: Sequence[Phantom]
) -> None:
    job_id = submit(place, radiographs[:1], top_k=4)
    with at_white_images(place, too_large):
        work_off_impatiently(place)
    assert len(manifest(dataset(place, job_id))) == 3
    (failed,) = body(place, job_id)["failed_samples"]
    assert failed["index"] == white(place, job_id).position
    assert "tried 5 times" in failed["detail"] and "ran out of memory" in failed["detail"]


def test_a_gpu_that_fails_ends_the_process_and_the_next_one_makes_the_sample(
    place: Workplace, radiographs: Sequence[Phantom], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The end is stood in for, and the GPU's error raised by hand."""
    ends: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda *end: ends.append(end))
    job_id = submit(place, radiographs[:1], top_k=4)
    with at_white_images(place, assert_fails):
        work_off(place)
    assert ends == [(os.getpid(), signal.SIGKILL)]
    assert look(place, job_id).status == "running"
    work_off_impatiently(place)
    assert len(manifest(dataset(place, job_id))) == 4


def test_what_could_not_be_made_changes_no_other_sample(place: Workplace, radiographs: Sequence[Phantom]) -> None:
    whole = submit(place, radiographs[:1], top_k=4)
    work_off(place)
    lacking = submit(place, radiographs[:1], top_k=4)
    with at_white_images(place, no_numbers):
        work_off(place)
    lost = white(place, lacking).position
    rows = manifest(dataset(place, whole))
    assert manifest(dataset(place, lacking)) == [row for row in rows if int(row["index"]) != lost]


def test_a_pool_image_that_the_store_lost_fails_its_sample(
    place: Workplace, pool: str, radiographs: Sequence[Phantom]
) -> None:
    job_id = submit(place, radiographs[:1], top_k=4)
    work_until(place, job_id, "sampling")
    place.blobs.delete(keys.pool_image(pool, white(place, job_id).pool_image_sha256))
    work_off(place)
    (failed,) = body(place, job_id)["failed_samples"]
    assert "the store holds no blob" in failed["detail"]


@pytest.mark.parametrize("whole", [False, True], ids=["cut short", "of another image"])
def test_other_bytes_than_were_written_are_asked_for_again(
    place: Workplace, pool: str, radiographs: Sequence[Phantom], whole: bool
) -> None:
    job_id = submit(place, radiographs[:1], top_k=4)
    work_until(place, job_id, "sampling")
    key = keys.pool_image(pool, white(place, job_id).pool_image_sha256)
    png = place.blobs.get(key)
    place.blobs.put(key, pixels.image_png(radiographs[0].image) if whole else png[:-10])
    work(place)
    assert (look(place, job_id).status, look(place, job_id).done) == ("running", 0)
    place.blobs.put(key, png)
    work_off_impatiently(place)
    assert len(manifest(dataset(place, job_id))) == 4
    assert body(place, job_id)["failed_samples"] == []

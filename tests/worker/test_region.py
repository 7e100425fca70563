"""worker/region.py: guides and pool images cropped from their own resolution, and told in the manifest."""

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from sqlalchemy import select

from app import jobs, keys, queries
from app.records import NewGuide
from app.tables import PoolImage
from app.weights import region_folder
from models import pixels
from models.phantoms import Phantom
from models.region import load_region, save_region
from tests.worker_service import (
    GoingOn,
    all_parameters,
    dataset,
    failure,
    look,
    make_pool,
    manifest,
    members,
    send_files,
    work_off,
    work_off_impatiently,
)
from worker import index, planning
from worker.networks import WarmNetworks
from worker.workplace import Workplace

FRAME = (700, 1500)  # height, width: what a scanner gives
Frame = tuple[NDArray[np.float32], NDArray[np.bool_]]


def full(phantom: Phantom) -> Frame:
    """A phantom as a large original, with a dark border of 100 pixels at the left and 60 at the top."""
    size = (FRAME[1] - 100, FRAME[0] - 60)
    image = np.asarray(Image.fromarray(phantom.image).resize(size, Image.Resampling.BICUBIC))
    mask = np.asarray(Image.fromarray(phantom.mask).resize(size, Image.Resampling.NEAREST))
    return (
        np.pad(image, ((60, 0), (100, 0))).astype(np.float32) / np.float32(255),
        np.pad(mask, ((60, 0), (100, 0))),
    )


def png(image: NDArray[np.float32]) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.rint(image * 255).astype(np.uint8)).save(out, "PNG")
    return out.getvalue()


def submit(place: Workplace, frames: Sequence[Frame], **parameters: Any) -> str:
    """A synthesis with region=crop, as the API takes it in."""
    job_id, guides = uuid4().hex, []
    for number, (image, mask) in enumerate(frames):
        pngs = pixels.full_image_png(pixels.to_levels(image)), pixels.full_mask_png(mask)
        for data in pngs:
            place.blobs.put(keys.original(job_id, pixels.sha256(data)), data)
        height, width = image.shape
        guides.append(NewGuide(f"guide-{number}.png", width, height, *(pixels.sha256(data) for data in pngs)))
    with place.database.write() as session:
        jobs.submit_synthesis(
            session,
            job_id,
            guides=guides,
            parameters=all_parameters(region="crop", top_k=1, **parameters),
        )
    return job_id


@pytest.fixture(scope="module")
def beginning(going_on: GoingOn, empty: Path, radiographs: Sequence[Phantom]) -> Path:
    """A pool of crops of three originals, and of a dark image, in which there is no jaw."""
    dark = np.broadcast_to(np.linspace(0, 0.01, FRAME[1], dtype=np.float32), FRAME)
    originals = [*(full(phantom)[0] for phantom in radiographs[2:5]), dark]
    with going_on(empty) as place:
        make_pool(place)
        send_files(place, [(f"{n}.png", png(image)) for n, image in enumerate(originals)], region="crop")
        work_off(place)
    return place.settings.data_dir


def test_pool_images_are_cropped_and_the_box_is_kept(place: Workplace, pool: str) -> None:
    with place.database.read() as session:
        rows = session.scalars(select(PoolImage).where(PoolImage.pool_id == pool).order_by(PoolImage.id)).all()
    for row in rows[:3]:
        assert (row.width, row.height) == (1500, 700)
        assert row.crop is not None and row.crop["found"]
        assert row.crop["left"] > 0
        assert row.crop["top"] >= 60, "the black border is cut off"
        assert (row.crop["frame_width"], row.crop["frame_height"]) == (1500, 700)
    assert rows[3].crop is not None
    assert not rows[3].crop["found"]
    assert (rows[3].crop["width"], rows[3].crop["height"]) == (1500, 700)


def test_a_sample_can_be_put_back_where_its_pool_image_was(place: Workplace, radiographs: Sequence[Phantom]) -> None:
    job_id = submit(place, [full(radiographs[0])], method="paste", dilation=0)
    work_off(place)
    data = dataset(place, job_id)
    (row,) = manifest(data)
    assert row["pool_image_region"] == row["guide_region"] == "found"
    left, top, width, height = map(int, row["pool_image_box"].split())
    assert row["pool_image_frame"] == "1500 700"
    files = members(data)
    sample = Image.open(io.BytesIO(files["images/000000.png"])).resize((width, height))
    mask = Image.open(io.BytesIO(files["masks/000000.png"])).resize((width, height), 0)
    original = np.rint(full(radiographs[2 + int(row["pool_image_name"][0])])[0] * 255)
    outside = np.asarray(mask) == 0
    difference = np.abs(np.asarray(sample) - original[top : top + height, left : left + width])
    assert np.median(difference[outside]) < 6


def test_the_mask_is_cropped_with_its_guide_and_loses_nothing(place: Workplace, radiographs: Sequence[Phantom]) -> None:
    image, mask = full(radiographs[0])
    mask = mask.copy()
    mask[2:8, 3:9] = True  # anatomy far outside the jaw
    job_id = submit(place, [(image, mask)])
    work_off(place)
    (row,) = manifest(dataset(place, job_id))
    left, top, width, height = map(int, row["guide_box"].split())
    assert (left <= 3, top <= 2) == (True, True)
    label = np.asarray(Image.open(io.BytesIO(members(dataset(place, job_id))["masks/000000.png"])))
    cut = mask[top : top + height, left : left + width]
    assert cut.sum() == mask.sum()
    assert (label == 255).mean() == pytest.approx(cut.mean(), rel=0.1)
    with place.database.read() as session:
        (guide,) = queries.guides(session, job_id)
    assert guide.crop is not None and guide.crop["found"]
    assert list(place.blobs.list(f"jobs/{job_id}/originals")) == []


def test_a_guide_is_not_cropped_of_other_bytes_than_came(place: Workplace, radiographs: Sequence[Phantom]) -> None:
    (image, mask), (_, other) = full(radiographs[0]), full(radiographs[1])
    job_id = submit(place, [(image, mask)])
    key = keys.original(job_id, pixels.sha256(pixels.full_mask_png(mask)))
    place.blobs.put(key, pixels.full_mask_png(other))
    work_off_impatiently(place)
    assert f"the store's blob {key} is not what was written" in failure(place, job_id)


def test_crops_leave_no_trace_of_who_made_them(
    place: Workplace, second_place: Workplace, radiographs: Sequence[Phantom], monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = [full(radiographs[0]), full(radiographs[1]), full(radiographs[0])]
    alone = submit(place, frames)
    work_off(place)
    monkeypatch.setattr(jobs, "MAX_PLAN_GUIDES", 1)
    monkeypatch.setattr(index, "PIECE_LATENTS", 1)
    monkeypatch.setattr(planning, "PLAN_SECONDS", 0.0)  # planned in turns: what was cropped is not cropped again
    together = submit(place, frames)
    work_off(second_place, place)
    assert dataset(place, alone) == dataset(place, together)


def test_a_finder_that_is_trained_while_a_worker_lives_finds_for_the_next_job(
    place: Workplace, pool: str, radiographs: Sequence[Phantom], tmp_path: Path
) -> None:
    settings = place.settings.model_copy(update={"weights_dir": tmp_path})
    place = replace(place, networks=WarmNetworks(settings))

    def crop_of(radiograph: Phantom) -> bool:
        send_files(place, [("new.png", png(full(radiograph)[0]))], region="crop")
        work_off(place)
        with place.database.read() as session:
            of_pool = select(PoolImage.crop).where(PoolImage.pool_id == pool).order_by(PoolImage.id.desc())
            crop = session.scalars(of_pool).first()
        assert crop is not None
        return bool(crop["found"])

    assert crop_of(radiographs[6])
    blind = load_region(region_folder(settings))
    blind.network.decode_head.classifier.bias.data = torch.tensor([100.0, -100.0])
    save_region(tmp_path / "region", blind, {})
    assert not crop_of(radiographs[7])


def test_a_whole_frame_says_so(place: Workplace, radiographs: Sequence[Phantom]) -> None:
    from tests.worker_service import submit as submit_whole

    job_id = submit_whole(place, radiographs[:1], top_k=4, method="paste")
    work_off(place)
    (row,) = (row for row in manifest(dataset(place, job_id)) if row["pool_image_name"] == "3.png")  # the dark one
    assert (row["guide_box"], row["guide_frame"], row["guide_region"]) == ("0 0 512 256", "512 256", "not asked for")
    of_pool = row["pool_image_box"], row["pool_image_frame"], row["pool_image_region"]
    assert of_pool == ("0 0 1500 700", "1500 700", "not found")
    assert look(place, job_id).parameters.get("region") is None

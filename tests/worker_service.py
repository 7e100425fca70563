"""What a client of the service does, without the HTTP: pools filled, jobs submitted and looked at."""

import csv
import io
import shutil
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sqlalchemy import select

from app import imports, jobs, keys, pools, queries
from app.presets import PRESETS
from app.records import Claim, NewGuide
from app.settings import Settings
from app.tables import Job, Step
from models import pixels
from models.phantoms import Phantom
from worker.preview import CAPTION, CELL_HEIGHT, CELL_WIDTH, GAP, HEAD
from worker.tasks import work
from worker.workplace import Workplace, open_workplace

# `with going_on(beginning) as place`: a worker on a copy of a data folder; see the fixture.
GoingOn = Callable[[Path], AbstractContextManager[Workplace]]


def begun(beginning: Path, folder: Path) -> Path:
    """A copy of a data folder, for a test to go on from."""
    return shutil.copytree(beginning, folder / "data")


def settings_for(data_dir: Path, weights_dir: Path, broker_url: str) -> Settings:
    return Settings(data_dir=data_dir, weights_dir=weights_dir, broker_url=broker_url, device="cpu", lease_seconds=9)


@contextmanager
def workplace(settings: Settings, name: str = "one@test") -> Iterator[Workplace]:
    """A worker's, closed at the end."""
    opened = open_workplace(settings, name)
    try:
        yield opened
    finally:
        opened.decoders.close()
        opened.database.dispose()


def make_pool(place: Workplace, name: str = "p") -> str:
    with place.database.write() as session:
        return pools.create(session, name).id


def send_files(place: Workplace, files: Sequence[tuple[str, bytes]], pool: str = "p", region: str = "none") -> str:
    job_id = uuid4().hex
    for position, (_, data) in enumerate(files):
        place.blobs.put(keys.upload(job_id, position), data)
    names = [name for name, _ in files]
    with place.database.write() as session:
        imports.submit_import(session, job_id=job_id, pool=pool, names=names, region=region)
    return job_id


def send_archive(place: Workplace, archive: bytes, pool: str = "p") -> str:
    job_id = uuid4().hex
    place.blobs.put(keys.archive(job_id), archive)
    with place.database.write() as session:
        imports.submit_import(session, job_id=job_id, pool=pool, archive=True)
    return job_id


def fill_pool(place: Workplace, radiographs: Sequence[Phantom], pool: str = "p") -> str:
    """A pool with these images; its id."""
    pool_id = make_pool(place, pool)
    send_files(place, [(f"{n}.png", pixels.image_png(p.image)) for n, p in enumerate(radiographs)], pool)
    work_off(place)
    return pool_id


def submit(place: Workplace, radiographs: Sequence[Phantom], **parameters: Any) -> str:
    """A synthesis with these guides; its id."""
    job_id = uuid4().hex
    guides = []
    for number, phantom in enumerate(radiographs):
        image, mask = pixels.image_png(phantom.image), pixels.mask_png(phantom.mask)
        for png in (image, mask):
            place.blobs.put(keys.guide(job_id, pixels.sha256(png)), png)
        guides.append(NewGuide(f"guide-{number}.png", 512, 256, pixels.sha256(image), pixels.sha256(mask)))
    with place.database.write() as session:
        jobs.submit_synthesis(
            session,
            job_id,
            guides=guides,
            parameters=all_parameters(**parameters),
        )
    return job_id


def all_parameters(**given: Any) -> dict[str, Any]:
    preset = vars(PRESETS["paper"])
    chosen = {
        "pool": "p",
        "top_k": 3,
        "preset": "paper",
        "selection": "ssim",
        "method": "diffusion",
        "seed": 0,
    }
    return {**chosen, "model": "default", **preset, "steps": 3, "start_timestep": 30, **given}


def work_off(*places: Workplace) -> None:
    """The workers take turns until none finds anything to do."""
    while any([work(place) for place in places]):
        pass


def work_until(place: Workplace, job_id: str, stage: str) -> None:
    while look(place, job_id).stage != stage:
        assert work(place)


def ends_after(place: Workplace, looks: int) -> bool:
    """A worker that is told to end when it has looked so often at its step's lease; whether it found a step."""
    left = iter(range(looks))
    return work(replace(place, told_to_end=lambda: next(left, None) is None))


def work_off_impatiently(place: Workplace) -> None:
    """Pauses before another try are not waited for."""
    while True:
        work_off(place)
        with place.database.write() as session:
            paused = session.scalars(select(Step).where(Step.status == "leased", Step.lease.is_(None))).all()
            for step in paused:
                step.leased_until = datetime.now(UTC) - timedelta(seconds=1)
        if not paused:
            return


def look(place: Workplace, job_id: str) -> Job:
    with place.database.read() as session:
        return queries.find_job(session, job_id)


def failure(place: Workplace, job_id: str) -> str:
    """Why the job has failed, in the words that its client reads."""
    job = look(place, job_id)
    assert job.status == "failed" and job.error is not None
    return str(job.error["detail"])


def claim(place: Workplace) -> Claim:
    with place.database.write() as session:
        claimed = jobs.claim(
            session,
            worker=place.name,
            now=datetime.now(UTC),
            lease_seconds=place.settings.lease_seconds,
            max_attempts=5,
        )
    assert claimed is not None
    return claimed


def dataset(place: Workplace, job_id: str) -> bytes:
    job = look(place, job_id)
    assert (job.status, job.error) == ("succeeded", None)
    data = place.blobs.get(keys.dataset(job_id))
    assert (pixels.sha256(data), len(data)) == (job.dataset_sha256, job.dataset_bytes)
    return data


def members(data: bytes) -> dict[str, bytes]:
    """A dataset's files by their names."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def manifest(data: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(members(data)["manifest.csv"].decode())))


def preview_row(data: bytes, row: int) -> list[NDArray[np.uint8]]:
    """The three pictures of a row of a dataset's preview."""
    with Image.open(io.BytesIO(members(data)["preview.png"])) as sheet:
        top = HEAD + row * (CELL_HEIGHT + CAPTION + GAP)
        lefts = [GAP + column * (CELL_WIDTH + GAP) for column in range(3)]
        return [np.asarray(sheet.crop((left, top, left + CELL_WIDTH, top + CELL_HEIGHT))) for left in lefts]


def in_preview(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A picture (256, 512, 3) as large as the preview shows it."""
    return np.asarray(Image.fromarray(picture).resize((CELL_WIDTH, CELL_HEIGHT), Image.Resampling.LANCZOS))

"""worker/packaging.py, manifest.py and preview.py: what is in the zip."""

import io
import json
import tracemalloc
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice, repeat
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from sqlalchemy import insert, update

from app import keys, queries
from app.blobs import Blobs
from app.tables import Guide, Job, Sample
from models import pixels
from models.phantoms import Phantom
from tests.worker_service import (
    GoingOn,
    all_parameters,
    dataset,
    failure,
    in_preview,
    look,
    manifest,
    members,
    preview_row,
    submit,
    work_off,
    work_off_impatiently,
    work_until,
)
from worker import made_samples, packaging
from worker.lease import Lease
from worker.made_samples import MadeSamples
from worker.manifest import COLUMNS, manifest_csv
from worker.preview import OUTLINE, coloured, outlined
from worker.tasks import work
from worker.workplace import Workplace

CONTRACT = (
    "index,image,mask,guide_name,guide_sha256,pool_image_name,pool_image_sha256,rank,ssim,seed,"
    "method,sampler,steps,start_timestep,dilation,model,model_sha256,image_sha256,mask_sha256"
)


@pytest.fixture(scope="module")
def sampled(going_on: GoingOn, filled: Callable[[int], Path], radiographs: Sequence[Phantom]) -> tuple[Path, str]:
    """A data folder in which the samples of a job are made and not packaged yet; the job's id."""
    with going_on(filled(6)) as place:
        job_id = submit(place, radiographs[:2])
        work_until(place, job_id, "packaging")
    return place.settings.data_dir, job_id


@pytest.fixture
def beginning(sampled: tuple[Path, str]) -> Path:
    return sampled[0]


@pytest.fixture
def job_id(sampled: tuple[Path, str]) -> str:
    return sampled[1]


def test_a_bucket_serves_the_zip_as_the_api_does(place: Workplace, job_id: str, s3_url: str) -> None:
    bucket = Blobs(s3_url)
    for key in place.blobs.list():
        bucket.put(key, place.blobs.get(key))
    place = replace(place, blobs=bucket)
    work_off(place)
    answer = httpx.get(bucket.address(keys.dataset(job_id), 60) or "", trust_env=False)
    assert answer.content == dataset(place, job_id)
    assert answer.headers["Content-Type"] == "application/zip"
    assert answer.headers["Content-Disposition"] == f'attachment; filename="pansynth-{job_id}.zip"'


def test_the_zip_has_the_layout_that_is_promised(place: Workplace, job_id: str) -> None:
    work_off(place)
    with zipfile.ZipFile(io.BytesIO(dataset(place, job_id))) as archive:
        entries = archive.infolist()
        text = archive.read("manifest.csv").decode()
        readme = archive.read("README.md").decode()
        image = Image.open(io.BytesIO(archive.read("images/000000.png")))
        mask = np.array(Image.open(io.BytesIO(archive.read("masks/000000.png"))))
        preview = Image.open(io.BytesIO(archive.read("preview.png")))
        described = json.loads(archive.read("job.json"))
    numbered = [f"{folder}/{n:06d}.png" for folder in ("images", "masks") for n in range(6)]
    assert {e.filename for e in entries} == {
        *numbered,
        "README.md",
        "job.json",
        "manifest.csv",
        "preview.png",
    }
    assert {(e.compress_type, e.date_time) for e in entries} == {(zipfile.ZIP_STORED, (1980, 1, 1, 0, 0, 0))}
    assert {e.create_system for e in entries} == {3}, "Unix, whatever the worker's machine is"
    assert {e.external_attr >> 16 for e in entries} == {0o644}, "else nobody may read what is unpacked"
    assert text.splitlines()[0].startswith(CONTRACT + ",")
    assert (image.size, image.mode) == ((512, 256), "L")
    assert set(np.unique(mask)) == {0, 255}
    assert preview.width > 3 * 300
    assert "synthetic" in readme
    assert "protect it as you protect those" in readme
    assert described["parameters"]["top_k"] == 3
    assert described["model"]["card"].startswith("Tiny")
    assert described["versions"].keys() >= {"pansynth", "torch"}
    assert job_id not in json.dumps(described), "the same request gives the same bytes"


@pytest.mark.parametrize(
    ("method", "said"), [("paste", "pixels of the guide are put"), ("blend", "latent of the guide is put")]
)
def test_the_readme_says_what_the_method_did(
    place: Workplace, radiographs: Sequence[Phantom], method: str, said: str
) -> None:
    job_id = submit(place, radiographs[:1], method=method, top_k=1)
    work_off(place)
    readme = members(dataset(place, job_id))["README.md"].decode()
    assert said in readme
    assert ("The latent" in readme) == (method != "paste"), "copied pixels have none"


def test_the_manifest_says_how_each_sample_was_made(place: Workplace, job_id: str) -> None:
    work_off(place)
    rows = manifest(dataset(place, job_id))
    with place.database.read() as session:
        ssim = [sample.ssim for sample in session.scalars(queries.made(job_id))]
    assert [row["rank"] for row in rows] == ["1", "2", "3"] * 2
    assert {row["guide_name"] for row in rows[:3]} == {"guide-0.png"}
    wanted = {name: str(value) for name, value in all_parameters().items() if name in COLUMNS and name != "seed"}
    for row in rows:
        assert {name: row[name] for name in wanted} == wanted
        assert row["model_sha256"] == look(place, job_id).parameters["model_sha256"]
        assert float(row["ssim"]) == pytest.approx(ssim[int(row["index"])], abs=1e-7)
        assert float(row["canal_contrast"]) == pytest.approx(
            float(row["canal_retention"]) * float(row["guide_canal_contrast"]), abs=0.05
        )


def test_no_name_in_the_manifest_is_a_formula(place: Workplace, job_id: str) -> None:
    with place.database.write() as session:
        session.execute(update(Guide).values(name='=HYPERLINK("x")'))
        session.execute(update(Sample).values(pool_image_name="@SUM(1).png"))
    work_off(place)
    for row in manifest(dataset(place, job_id)):
        assert (row["guide_name"], row["pool_image_name"]) == ('\'=HYPERLINK("x")', "'@SUM(1).png")


def test_a_sample_that_the_store_damaged_is_not_shipped(place: Workplace, job_id: str) -> None:
    damaged = next(iter(place.blobs.list(f"jobs/{job_id}/samples")))
    place.blobs.put(damaged, b"something else")
    work_off_impatiently(place)
    assert damaged in failure(place, job_id)
    assert not place.blobs.exists(keys.dataset(job_id))


def test_a_dataset_that_lacks_a_sample_for_no_reason_is_not_shipped(place: Workplace, job_id: str) -> None:
    with place.database.write() as session:
        session.execute(update(Sample).where(Sample.position == 4).values(image_sha256=None))
    work_off(place)
    assert failure(place, job_id) == "5 of 6 samples are there; submit the job again"
    assert not place.blobs.exists(keys.dataset(job_id))


def test_of_dropped_samples_only_what_is_told_of_them_is_in_memory(place: Workplace, job_id: str) -> None:
    with place.database.write() as session:
        job = session.get_one(Job, job_id)
        job.total, job.dropped = 6 + 5000, 5000
        about = {"job_id": job_id, "guide": 1, "pool_image_id": 1, "pool_image_name": "p.png", "pool_image_sha256": ""}
        about |= {"rank": 1, "ssim": 0.5, "seed": 7, "dropped": "seam is 1.6", "quality": {"n": list(range(200))}}
        session.execute(insert(Sample), [about | {"position": 6 + n} for n in range(5000)])
    tracemalloc.start()
    assert work(place)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    told = json.loads(members(dataset(place, job_id))["job.json"])["dropped"]
    assert (len(told), told[-1]["index"], told[-1]["detail"]) == (5000, 5005, "seam is 1.6")
    assert peak < 13_000_000, "whole rows would take 10 more"


def test_a_manifest_comes_line_by_line_for_there_may_be_a_million(place: Workplace, job_id: str) -> None:
    with place.database.read() as session:
        job, guides = queries.find_job(session, job_id), queries.guides(session, job_id)
        sample = session.get_one(Sample, (job_id, 0))
    endless = manifest_csv(job, guides, [sample], "", repeat((sample, {})))
    header, first, second = islice(endless, 3)
    assert header.startswith(CONTRACT)
    assert first == second and first.startswith("0,images/000000.png,")


def test_packaging_leaves_no_temporary_file(place: Workplace) -> None:
    work_off(place)
    assert [path.name for path in place.cache.iterdir()] == ["latents"]


def test_the_preview_shows_samples_from_all_over_the_dataset_each_beside_what_it_was_made_of(
    place: Workplace, job_id: str, radiographs: Sequence[Phantom], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packaging, "PREVIEW_ROWS", 2)
    work_off(place)
    data = dataset(place, job_id)
    for row, index in enumerate((0, 3)):
        made = manifest(data)[index]
        guide = radiographs[int(made["guide_name"][6])]
        unlabeled = radiographs[2 + int(made["pool_image_name"][0])].image
        synthetic = pixels.image_from_png(members(data)[made["image"]])
        pictures = outlined(guide.image, guide.mask), coloured(unlabeled), outlined(synthetic, guide.mask)
        for shown, picture in zip(preview_row(data, row), pictures, strict=True):
            assert (shown == in_preview(picture)).all()


def test_an_outline_leaves_the_canal_to_be_seen() -> None:
    image, mask = np.full((256, 512), 99, np.uint8), np.zeros((256, 512), bool)
    mask[100:104, 50:200] = True
    sheet = outlined(image, mask)
    assert (sheet[mask] == 99).all()
    assert (sheet[99, 50:200] == OUTLINE).all()
    assert (sheet[104, 50:200] == OUTLINE).all()
    mask[:] = True
    assert (outlined(image, mask) == 99).all()


def test_the_lease_is_asked_for_with_every_file_and_page_of_samples_and_while_the_zip_is_read_and_sent(
    place: Workplace, job_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    story = ""

    def noted(sign: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **more: Any) -> Any:
            nonlocal story
            story += sign
            return function(*given, **more)

        return call

    monkeypatch.setattr(Lease, "check", noted("?", Lease.check))
    monkeypatch.setattr(made_samples, "PAGE", 2)
    monkeypatch.setattr(MadeSamples, "_page", noted("p", MadeSamples._page))
    monkeypatch.setattr(zipfile.ZipFile, "open", noted("w", zipfile.ZipFile.open))
    monkeypatch.setattr(Blobs, "put_file", noted("s", Blobs.put_file))
    assert work(place)
    writing, sending = story.split("s")
    assert writing.count("w") == len(members(dataset(place, job_id)))
    assert "pp" not in writing, "a worker that lists a million samples would be taken to hang"
    assert "?" in writing.rpartition("w")[2], "so would one that goes through a zip of 30 GB for its sha256"
    assert "ww" not in writing and "?" in sending, "else a job that was cancelled would be packed to its end"


def test_a_mask_that_many_samples_share_is_read_once_for_them(
    place: Workplace, job_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packaging, "PREVIEW_ROWS", 0)
    read: list[str] = []
    get = Blobs.get
    monkeypatch.setattr(Blobs, "get", lambda self, key, sha256=None: (read.append(key), get(self, key, sha256))[1])
    assert work(place)
    masks = [row["mask_sha256"] for row in manifest(dataset(place, job_id))]
    assert (len(masks), len(set(masks))) == (6, 2)
    assert sorted(key for key in read if "/guides/" in key) == sorted(keys.guide(job_id, mask) for mask in set(masks))

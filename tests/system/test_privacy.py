"""A service that others can reach: who gets in, and what of a person is left of files full of names."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import pytest

from cli.children import pansynth
from cli.client import connect, wait
from cli.failure import Failure
from tests import identified
from tests.bad_files import disc, gradient
from tests.identified import FILE_NAME
from tests.system.running import PATIENT, Radiographs, embedded, import_pool, make_dataset, quiet

pytestmark = PATIENT


@dataclass(frozen=True)
class Run:
    """What was said to who came without a key, the main job's dataset, and of the job of files full of names the
    answers and all files there were, while the service ran and after it.
    """

    status_without_key: int
    words_without_key: str
    dataset: bytes
    answers: list[bytes]
    during: dict[str, bytes]
    after: dict[str, bytes]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, weights_dir: Path, radiographs: Radiographs) -> Run:
    """`pansynth up --host 0.0.0.0`, whose key a clinic has."""
    folder, out = tmp_path_factory.mktemp("reachable"), tmp_path_factory.mktemp("clinic") / "dataset.zip"
    data = folder / "data"
    create = pansynth("keys", "create", "clinic", "--tenant", "clinic", "--data-dir", str(data))
    key = subprocess.run(create, capture_output=True, text=True, check=True, timeout=60).stdout.strip()
    with embedded(data, weights_dir, options=("--host", "0.0.0.0")) as service, pytest.MonkeyPatch.context() as patch:
        status = httpx.get(f"{service.url}/jobs").status_code
        with pytest.raises(Failure) as refused, connect(service.url) as client:
            import_pool(client, radiographs)
        patch.setenv("PANSYNTH_API_KEY", key)
        with connect(service.url) as client:
            dataset = make_dataset(client, radiographs, out)
            answers = send_names(client)
        during = everything(folder)
    return Run(status, str(refused.value), dataset, answers, during, everything(folder))


def send_names(client: httpx.Client) -> list[bytes]:
    """An import and a synthesis of files full of names, and one that is refused; -> all answers."""
    answers: list[bytes] = []

    def keep(response: httpx.Response) -> None:
        answers.append(response.read())

    client.event_hooks = {"response": [keep]}
    imported = wait(client, client.post("/pools/default/images", files=pool_files()).json(), quiet)
    assert (imported["stored"], len(imported["rejected"])) == (4, 1)
    fields = {"top_k": "3", "steps": "5", "start_timestep": "5"}
    job = wait(client, client.post("/synthesize", files=guide_files(), data=fields).json(), quiet)
    assert job["status"] == "succeeded"
    cut = [(field, (name, data[:700])) for field, (name, data) in guide_files()]
    assert client.post("/synthesize", files=cut, data=fields).status_code == 422
    for address in ("dataset", "samples", "events"):
        assert client.get(job["links"][address]).status_code == 200
    return answers


def pool_files() -> list[tuple[str, tuple[str, bytes]]]:
    """One of each format, and one that is refused."""
    pictures = [(255 - gradient(100 + n, 170)).astype(np.uint8) for n in range(4)]
    makers = (identified.dicom, identified.png, identified.jpeg, identified.tiff)
    files = [make(picture) for make, picture in zip(makers, pictures, strict=True)]
    refused = identified.OTHERS["a refused file"].encode() + identified.dicom(pictures[0])[:900]
    return [("images", (f"{FILE_NAME}-{n}", data)) for n, data in enumerate([*files, refused])]


def guide_files() -> list[tuple[str, tuple[str, bytes]]]:
    picture = (gradient(96, 160) // 2).astype(np.uint8)
    mask = identified.png(disc().astype(np.uint8) * np.uint8(255), identified.OTHERS["mask"])
    return [
        ("image", (f"{FILE_NAME}.dcm", identified.dicom(picture))),
        ("mask", (f"{FILE_NAME}.png", mask)),
        ("image", (f"{FILE_NAME}.jpg", identified.jpeg(picture))),
        ("mask", (f"{FILE_NAME}.png", mask)),
    ]


def test_the_files_hold_what_is_searched_for() -> None:
    sent = b"".join(data for _, (_, data) in pool_files() + guide_files())
    assert identified.found_in(sent) == {*identified.ELEMENTS, *identified.OTHERS} - {"PNG zTXt"}


def test_a_host_that_others_can_reach_asks_for_the_key(run: Run, reference: bytes) -> None:
    assert run.status_without_key == 401
    assert "PANSYNTH_API_KEY" in run.words_without_key
    assert run.dataset == reference


def test_nothing_that_names_a_person_is_left_anywhere(run: Run) -> None:
    for place, data in {**run.during, **run.after, "answers": b"".join(run.answers)}.items():
        for part in identified.unpacked(data):
            assert identified.found_in(part) == set(), place
    assert FILE_NAME.encode() in during_manifest(run.answers), "the manifest names the guide, as its clients want"
    logs = {place: data for place, data in run.after.items() if place.endswith((".log", ".txt"))}
    assert logs
    for place, data in logs.items():
        assert FILE_NAME.encode() not in data, place
    blobs = [place for place in run.after if "/blobs/" in place]
    assert blobs and not [place for place in blobs if FILE_NAME in place]


def everything(folder: Path) -> dict[str, bytes]:
    """Every file below: the database with its journal, blobs, the cache, logs."""
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def during_manifest(answers: list[bytes]) -> bytes:
    (dataset,) = [data for data in answers if data.startswith(b"PK")]
    return b"".join(part for part in identified.unpacked(dataset) if part.startswith(b"index,image"))

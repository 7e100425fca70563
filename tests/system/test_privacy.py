"""Files full of what names a person go through the whole service; nothing of that is left anywhere."""

from pathlib import Path

import httpx
import numpy as np

from cli.client import wait
from tests import identified
from tests.bad_files import disc, gradient
from tests.identified import FILE_NAME
from tests.system.running import PATIENT, embedded, quiet

pytestmark = PATIENT


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


def test_nothing_that_names_a_person_is_left_anywhere(tmp_path: Path, weights_dir: Path) -> None:
    answers: list[bytes] = []

    def keep(response: httpx.Response) -> None:
        answers.append(response.read())

    with embedded(tmp_path / "data", weights_dir) as service, service.client() as client:
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
        during = everything(tmp_path)
    after = everything(tmp_path)

    for place, data in {**during, **after, "answers": b"".join(answers)}.items():
        for part in identified.unpacked(data):
            assert identified.found_in(part) == set(), place
    assert FILE_NAME.encode() in during_manifest(answers), "the manifest names the guide, as its clients want"
    logs = {place: data for place, data in after.items() if place.endswith((".log", ".txt"))}
    assert logs
    for place, data in logs.items():
        assert FILE_NAME.encode() not in data, place
    blobs = [place for place in after if "/blobs/" in place]
    assert blobs and not [place for place in blobs if FILE_NAME in place]


def everything(folder: Path) -> dict[str, bytes]:
    """Every file below: the database with its journal, blobs, the cache, logs."""
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def during_manifest(answers: list[bytes]) -> bytes:
    (dataset,) = [data for data in answers if data.startswith(b"PK")]
    return b"".join(part for part in identified.unpacked(dataset) if part.startswith(b"index,image"))

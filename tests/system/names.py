"""Jobs of files full of names, and what of them is left."""

from pathlib import Path

import httpx
import numpy as np

from cli.client import wait
from tests import identified
from tests.bad_files import disc, gradient
from tests.identified import FILE_NAME
from tests.system.running import quiet


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


def everything(folder: Path) -> dict[str, bytes]:
    """Every file below: the database with its journal, blobs, the cache, logs."""
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

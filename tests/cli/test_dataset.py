import csv
import hashlib
import io
import zipfile
from pathlib import Path

import pytest

from cli.dataset import extract_preview, verify
from cli.failure import Failure

FILES = {"images/000000.png": b"image", "masks/000000.png": b"mask"}


def write(path: Path, **changed: bytes | None) -> Path:
    """A dataset of one sample; `changed` replaces a file's bytes after the manifest was made, None leaves it out."""
    rows = io.StringIO()
    writer = csv.writer(rows)
    writer.writerow(["image", "mask", "image_sha256", "mask_sha256"])
    writer.writerow([*FILES, *(hashlib.sha256(data).hexdigest() for data in FILES.values())])
    others = {"manifest.csv": rows.getvalue().encode(), "job.json": b"{}", "preview.png": b"p", "README.md": b"r"}
    with zipfile.ZipFile(path, "w") as dataset:
        for name, data in {**FILES, **others, **changed}.items():
            if data is not None:
                dataset.writestr(name, data)
    return path


def test_a_whole_dataset_passes(tmp_path: Path) -> None:
    assert verify(write(tmp_path / "d.zip")) == 1


def test_a_changed_image_is_found(tmp_path: Path) -> None:
    path = write(tmp_path / "d.zip", **{"images/000000.png": b"another"})
    with pytest.raises(Failure, match=r"images/000000\.png has sha256"):
        verify(path)


@pytest.mark.parametrize("name", ["masks/000000.png", "preview.png", "job.json"])
def test_a_missing_file_is_found(tmp_path: Path, name: str) -> None:
    with pytest.raises(Failure, match=name):
        verify(write(tmp_path / "d.zip", **{name: None}))


def test_a_file_that_the_manifest_does_not_name_is_found(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="stray"):
        verify(write(tmp_path / "d.zip", stray=b"?"))


def test_half_a_zip_is_no_dataset(tmp_path: Path) -> None:
    path = write(tmp_path / "d.zip")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(Failure, match="is not a whole dataset"):
        verify(path)


def test_the_preview_is_taken_out(tmp_path: Path) -> None:
    extract_preview(write(tmp_path / "d.zip"), tmp_path / "p.png")
    assert (tmp_path / "p.png").read_bytes() == b"p"

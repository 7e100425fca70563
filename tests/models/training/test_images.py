"""models/training/images.py: a folder is read once, whatever happens meanwhile."""

import errno
import os
import shutil
import signal
import subprocess
import sys
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models.pixels import read_image, resize_image
from models.training import images as module
from models.training.images import TrainingImages, image_paths, open_images
from tests.bad_files import dicom_dataset, dicom_file, gradient
from tests.full_disk import no_file_above

RANDOM = np.random.default_rng(0)


def silent(*_: object) -> None:
    pass


def write(folder: Path, count: int) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        Image.fromarray(RANDOM.integers(0, 256, (32, 64), np.uint8)).save(folder / f"{number:03d}.png")
    return folder


def opened(folder: Path, cache: Path) -> TrainingImages:
    return open_images(folder, cache, silent, silent)


def forbid_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(data: bytes) -> None:
        raise AssertionError(f"a file of {len(data)} bytes was read again")

    monkeypatch.setattr(module, "read_image", read)


def test_rows_are_the_files_by_name(tmp_path: Path) -> None:
    folder = write(tmp_path / "data", 9)
    found = opened(folder, tmp_path / "cache")
    assert isinstance(found.pixels, np.memmap) and found.pixels.shape == (9, 256, 512)
    assert [known.name for known in found.known] == [f"{n:03d}.png" for n in range(9)]
    for row in (0, 8):
        assert np.array_equal(found.pixels[row], resize_image(read_image((folder / f"{row:03d}.png").read_bytes())))


def test_a_name_that_is_no_text_is_a_name(tmp_path: Path) -> None:
    """As old zip files leave them: bytes that are not UTF-8."""
    write(tmp_path / "data" / os.fsdecode(b"M\xfcller"), 8)
    found = opened(tmp_path / "data", tmp_path / "cache")
    assert os.fsencode(found.known[0].name) == b"M\xfcller/000.png"


def test_every_format_is_read(tmp_path: Path) -> None:
    folder = write(tmp_path / "data", 8)
    picture = Image.open(folder / "000.png")
    for ending in ("jpg", "jpeg", "tif", "tiff", "bmp"):
        picture.save(folder / f"more.{ending}")
    (folder / "more.dcm").write_bytes(dicom_file(dicom_dataset(gradient())))
    assert len(opened(folder, tmp_path / "cache").pixels) == 14


def test_dicom_without_an_ending_is_found_and_what_systems_hide_is_passed_over(tmp_path: Path) -> None:
    scan = dicom_file(dicom_dataset(gradient()))
    for name in ("IM00001", "1.2.840.113619.2.55", "a.dcm", "._a.dcm", ".IM00001"):
        (tmp_path / name).write_bytes(scan)
    for name in ("Thumbs.db", "notes.txt", "empty"):
        (tmp_path / name).write_bytes(b"no image"[: len(name) - 5])
    assert {path.name for path in image_paths(tmp_path)} == {"IM00001", "1.2.840.113619.2.55", "a.dcm"}


def test_a_picture_of_a_format_that_is_not_read_is_named_and_not_passed_over(tmp_path: Path) -> None:
    folder = write(tmp_path / "data", 8)
    picture = Image.open(folder / "000.png")
    for ending in ("gif", "webp", "JP2"):
        picture.save(folder / f"more.{ending}")
    said: list[str] = []
    assert len(open_images(folder, tmp_path / "cache", silent, said.append).pixels) == 8
    assert [line.partition(";")[0] for line in said] == [
        "more.JP2 is left out: the file is a JPEG 2000 file",
        "more.gif is left out: the file is a GIF file",
        "more.webp is left out: the file is a WebP file",
    ]


def test_masks_beside_images_are_no_radiographs(tmp_path: Path) -> None:
    for part in ("images", "masks"):
        write(tmp_path / part, 8)
        write(tmp_path / "split" / "guides" / part, 8)
    assert {path.parent.name for path in image_paths(tmp_path)} == {"images"}
    assert {path.parent.name for path in image_paths(tmp_path / "split")} == {"images"}


def test_links_to_folders_are_followed_once(tmp_path: Path) -> None:
    elsewhere = tmp_path / "disk" / "clinic"
    (elsewhere / "2023").mkdir(parents=True)
    for path in (elsewhere / "1.png", elsewhere / "2023" / "2.png"):
        path.touch()
    data = tmp_path / "data"
    data.mkdir()
    for name in ("a", "b"):
        (data / name).symlink_to(elsewhere)
    (elsewhere / "back").symlink_to(data)
    assert image_paths(data) == [data / "a" / "1.png", data / "a" / "2023" / "2.png"]


def test_a_link_that_leads_nowhere_is_named_and_not_passed_over(tmp_path: Path) -> None:
    """As git-annex leaves the files that were not fetched yet."""
    folder = write(tmp_path / "data", 8)
    (folder / "lost.png").symlink_to(tmp_path / "elsewhere.png")
    with pytest.raises(FileNotFoundError, match=r"lost\.png"):
        opened(folder, tmp_path / "cache")


def test_hidden_folders_are_passed_over(tmp_path: Path) -> None:
    """Jupyter, for one, keeps copies of the images that were opened in it."""
    write(tmp_path / "a" / ".ipynb_checkpoints", 1)
    (seen,) = write(tmp_path / "a" / "b", 1).iterdir()
    assert image_paths(tmp_path) == [seen]


def test_what_a_check_of_the_disk_has_found_is_passed_over(tmp_path: Path) -> None:
    write(tmp_path / "lost+found", 1)
    (seen,) = write(tmp_path / "clinic", 1).iterdir()
    assert image_paths(tmp_path) == [seen]


def test_a_folder_that_cannot_be_looked_into_is_named_and_not_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "a", 1)
    write(closed := tmp_path / "b", 1)
    look = os.scandir

    def scandir(path: str) -> object:  # for root no folder is closed
        if Path(path) == closed:
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return look(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(PermissionError, match=str(closed)):
        image_paths(tmp_path)


def test_the_second_start_reads_nothing_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(tmp_path / "data", 9)
    first = opened(folder, tmp_path / "cache")
    forbid_reading(monkeypatch)
    assert np.array_equal(opened(folder, tmp_path / "cache").pixels, first.pixels)
    for path in folder.iterdir():
        os.utime(path, (0, 0))  # other times, the same content
    assert opened(folder, tmp_path / "cache").known == first.known


def test_another_folder_in_the_same_cache_makes_nothing_be_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, other = write(tmp_path / "data", 9), write(tmp_path / "other", 8)
    opened(folder, tmp_path / "cache")
    opened(other, tmp_path / "cache")

    def read(path: Path) -> str:
        raise AssertionError(f"{path} was read again")

    monkeypatch.setattr(module, "file_sha256", read)
    assert len(opened(folder, tmp_path / "cache").pixels) == 9


def test_a_file_of_the_same_size_with_other_content_is_seen(tmp_path: Path) -> None:
    folder = write(tmp_path / "data", 8)
    picture = BytesIO()
    Image.fromarray(np.arange(32 * 64, dtype=np.uint8).reshape(32, 64)).save(picture, "BMP")
    (folder / "last.bmp").write_bytes(picture.getvalue())
    before = opened(folder, tmp_path / "cache").known[-1]
    (folder / "last.bmp").write_bytes(picture.getvalue()[:-1] + b"\xff")
    assert opened(folder, tmp_path / "cache").known[-1] != before


def test_a_torn_index_is_read_up_to_its_last_whole_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, cache = write(tmp_path / "data", 12), tmp_path / "cache"
    monkeypatch.setattr(module, "CHUNK", 3)
    whole = np.array(opened(folder, cache).pixels)
    index = next(cache.glob("*.jsonl"))
    lines = index.read_text().splitlines(keepends=True)
    index.write_text("".join(lines[:6]) + lines[6][:20])
    assert np.array_equal(opened(folder, cache).pixels, whole)
    assert index.read_text() == "".join(lines)


SLOWLY = """
import sys, time
from pathlib import Path
from models.training import images
images.CHUNK = 2
def show(done, total, label):
    if label == "reading":
        print(flush=True)
        time.sleep(0.2)
images.open_images(Path(sys.argv[1]), Path(sys.argv[2]), show, print)
"""


def test_killed_with_signal_9_while_it_reads_it_goes_on_where_it_was(tmp_path: Path) -> None:
    folder, cache = write(tmp_path / "data", 20), tmp_path / "cache"
    command = [sys.executable, "-c", SLOWLY, str(folder), str(cache)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        for _ in range(3):
            process.stdout.readline()
        process.send_signal(signal.SIGKILL)
    done = len(next(cache.glob("*.jsonl")).read_text().splitlines())
    assert 6 <= done < 20
    seen: list[int] = []
    found = open_images(folder, cache, lambda count, *_: seen.append(count), silent)
    assert seen and np.array_equal(found.pixels, opened(folder, tmp_path / "fresh").pixels)


def test_two_at_once_share_one_reading(tmp_path: Path) -> None:
    folder, cache = write(tmp_path / "data", 10), tmp_path / "cache"
    command = [sys.executable, "-c", SLOWLY, str(folder), str(cache)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(2)]
    spoken = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sorted(len(text) for text in spoken) == [0, 5]  # five chunks, read by one of them
    assert np.array_equal(opened(folder, cache).pixels, opened(folder, tmp_path / "fresh").pixels)


def test_a_disk_that_is_full_is_named_and_with_room_the_reading_goes_on(tmp_path: Path) -> None:
    folder, cache = write(tmp_path / "data", 9), tmp_path / "cache"
    with pytest.raises(OSError, match="large") as raised, no_file_above(300_000):
        opened(folder, cache)
    assert raised.value.filename == str(next(cache.glob("*.u8")))
    assert np.array_equal(opened(folder, cache).pixels, opened(folder, tmp_path / "fresh").pixels)


def test_a_lost_pixel_file_is_made_again(tmp_path: Path) -> None:
    folder, cache = write(tmp_path / "data", 9), tmp_path / "cache"
    whole = np.array(opened(folder, cache).pixels)
    next(cache.glob("*.u8")).unlink()
    assert np.array_equal(opened(folder, cache).pixels, whole)


def test_the_same_folder_elsewhere_has_the_same_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(tmp_path / "data", 9)
    opened(folder, tmp_path / "cache")
    shutil.copytree(folder, tmp_path / "moved")
    forbid_reading(monkeypatch)
    assert len(opened(tmp_path / "moved", tmp_path / "cache").pixels) == 9

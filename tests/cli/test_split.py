"""`pansynth split`: real folders become the paper's four sets."""

import errno
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from cli.failure import Failure
from cli.main import app
from models.pixels import read_image, resize_image, sha256

RANDOM = np.random.default_rng(0)


def run(*arguments: str | Path) -> str:
    done = CliRunner().invoke(app, ["split", *map(str, arguments)])
    if done.exception is not None:
        raise done.exception
    return done.stdout


def smooth(seed: int) -> Image.Image:
    """Something that survives JPEG, unlike noise."""
    rough = np.random.default_rng(seed).integers(0, 256, (8, 16), np.uint8)
    return Image.fromarray(rough).resize((256, 128), Image.Resampling.BICUBIC)


@pytest.fixture
def free(tmp_path: Path) -> Path:
    """Ten radiographs, one again as a JPEG, and a text file that calls itself a PNG."""
    folder = tmp_path / "free" / "clinic"
    folder.mkdir(parents=True)
    for number in range(10):
        smooth(number).save(folder / f"{number}.png")
    smooth(3).save(folder / "copy-of-3.jpg", quality=60)
    (folder / "notes.png").write_text("no image")
    return folder.parent


@pytest.fixture
def labeled(tmp_path: Path) -> Path:
    for part in ("images", "masks"):
        (tmp_path / "labeled" / part).mkdir(parents=True)
    for number in range(6):
        smooth(100 + number).save(tmp_path / "labeled" / "images" / f"{number}.png")
        mask = np.zeros((128, 256), np.uint8)
        mask[60:64, 20:200] = 255
        Image.fromarray(mask).save(tmp_path / "labeled" / "masks" / f"{number}.png")
    return tmp_path / "labeled"


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_every_readable_file_lies_in_one_set_and_split_json_tells_which(
    free: Path, labeled: Path, tmp_path: Path
) -> None:
    out = tmp_path / "my sets"
    said = run("--images", free, "--labeled", labeled, "--out", out, "--pool", "4", "--guides", "2")
    assert "7 train, 4 pool, 2 guides, 4 test" in said
    assert "clinic/notes.png is left out" in said
    vae = f"--data '{out}/train' --out weights/mine --labeled '{out}/guides' --minutes 600"
    assert f"next: pansynth train vae {vae}\n" in said
    sets = json.loads((out / "split.json").read_text())["sets"]
    assert [len(sets[name]) for name in ("train", "pool", "guides", "test")] == [7, 4, 2, 4]
    listed = [
        f"{name}/{'images/' if name in ('guides', 'test') else ''}{entry['name']}"
        for name in sets
        for entry in sets[name]
    ]
    masks = [path for path in files(out) if "/masks/" in path]
    assert sorted([*listed, *masks, "split.json"]) == files(out)
    assert [path.replace("/masks/", "/images/") for path in masks] == [
        path for path in files(out) if "/images/" in path
    ]
    entry = sets["train"][0]
    data = (out / "train" / entry["name"]).read_bytes()
    assert entry["sha256"] == hashlib.sha256(data).hexdigest()
    assert entry["pixels_sha256"] == sha256(resize_image(read_image(data)).tobytes())


@pytest.mark.parametrize("seed", range(4))
def test_a_copy_goes_where_its_original_goes(free: Path, tmp_path: Path, seed: int) -> None:
    run("--images", free, "--out", tmp_path / "out", "--seed", str(seed))
    found = files(tmp_path / "out")
    sides = [path.split("/")[0] for path in found if path.endswith(("/3.png", "/copy-of-3.jpg"))]
    assert len(sides) == 2 and len(set(sides)) == 1


def test_an_unlabeled_copy_of_a_labeled_image_is_left_out(free: Path, labeled: Path, tmp_path: Path) -> None:
    smooth(102).point(lambda level: level * 0.8).save(free / "darker.png")
    said = run("--images", free, "--labeled", labeled, "--out", tmp_path / "out", "--guides", "2")
    assert "darker.png is left out: it is the labeled 2.png" in said
    assert not [path for path in files(tmp_path / "out") if path.endswith("darker.png")]


def test_two_files_of_one_radiograph_may_share_its_mask(free: Path, labeled: Path, tmp_path: Path) -> None:
    smooth(102).save(labeled / "images" / "2.jpg")
    run("--images", free, "--labeled", labeled, "--out", tmp_path / "out", "--guides", "2")
    found = files(tmp_path / "out")
    [image] = [path for path in found if path.endswith("images/2.jpg")]
    assert image.replace("/images/2.jpg", "/masks/2.png") in found


def test_a_labeled_image_whose_mask_does_not_fit_is_left_out(free: Path, labeled: Path, tmp_path: Path) -> None:
    Image.fromarray(np.eye(90, dtype=np.uint8)).save(labeled / "masks" / "0.png")
    said = run("--images", free, "--labeled", labeled, "--out", tmp_path / "out", "--guides", "2")
    assert "0.png is left out: it or its mask: the mask is 90 x 90 pixels" in said


def test_a_folder_of_which_nothing_is_left_makes_no_sets(free: Path, labeled: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(Failure, match="0 radiographs without a mask cannot be split in two"):
        run("--images", tmp_path / "empty", "--out", tmp_path / "out")
    for mask in (labeled / "masks").iterdir():
        Image.fromarray(np.eye(90, dtype=np.uint8)).save(mask)
    with pytest.raises(Failure, match=r"--labeled .*: no image is left; give readable images with masks of their size"):
        run("--images", free, "--labeled", labeled, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_sets_take_no_room_and_survive_the_folder_they_come_from(free: Path, tmp_path: Path) -> None:
    run("--images", free, "--out", tmp_path / "out")
    linked = next(path for path in (tmp_path / "out").rglob("0.png"))
    assert linked.stat().st_ino == (free / "clinic" / "0.png").stat().st_ino
    assert not linked.is_symlink()


def test_on_another_disk_the_sets_are_copies(free: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr("os.link", refuse)
    run("--images", free, "--out", tmp_path / "out")
    copied = next(path for path in (tmp_path / "out").rglob("0.png"))
    assert copied.read_bytes() == (free / "clinic" / "0.png").read_bytes()


def test_a_folder_beside_it_is_nobodys_to_remove(free: Path, tmp_path: Path) -> None:
    (tmp_path / "sets.new").mkdir()
    (tmp_path / "sets.new" / "thesis.tex").write_text("years of work")
    with pytest.raises(Failure, match=r"sets\.new is there already"):
        run("--images", free, "--out", tmp_path / "sets")
    assert (tmp_path / "sets.new" / "thesis.tex").exists()


def test_an_existing_folder_is_refused_and_a_failure_leaves_none(free: Path, tmp_path: Path) -> None:
    with pytest.raises(Failure, match="is there already"):
        run("--images", free, "--out", tmp_path)
    with pytest.raises(Failure, match="--pool 50 of 11 images leaves a set empty; give 1 to 10"):
        run("--images", free, "--out", tmp_path / "out", "--pool", "50")
    assert not (tmp_path / "out").exists()
    done = CliRunner().invoke(app, ["split", "--images", str(tmp_path / "nowhere"), "--out", str(tmp_path / "out")])
    assert done.exit_code == 2 and "nowhere" in done.stderr


def test_what_is_wrong_with_the_few_labeled_is_told_before_the_many_are_read(free: Path, tmp_path: Path) -> None:
    command = ["split", "--images", str(free), "--labeled", str(free), "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, command)
    assert isinstance(done.exception, Failure) and "it needs the folders images/ and masks/" in str(done.exception)
    assert "reading" not in done.stderr

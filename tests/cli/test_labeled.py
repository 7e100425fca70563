"""Labeled sets in folders: every image has its mask, and a split is the same again."""

import os
from pathlib import Path

import pytest

from cli.failure import Failure
from cli.labeled import labeled_pairs, split
from tests.bad_files import dicom_dataset, dicom_file, gradient


def pairs(count: int) -> list[tuple[Path, Path]]:
    return [(Path(f"images/{n}.png"), Path(f"masks/{n}.png")) for n in range(count)]


def test_a_split_loses_and_doubles_nothing_and_is_the_same_again() -> None:
    real, test = split(pairs(9), None, seed=3)
    assert (len(real), len(test)) == (4, 5)
    assert sorted(real + test) == pairs(9)
    assert split(pairs(9)[::-1], None, seed=3) == (real, test)
    assert split(pairs(9), None, seed=4) != (real, test)


@pytest.mark.parametrize(
    ("count", "guides", "words"),
    [
        (1, None, "labeled images: 1; label two"),
        (0, None, "labeled images: 0; label two"),
        (4, 4, "--guides 4 of 4 labeled images; give 1 to 3"),
    ],
)
def test_what_cannot_be_split_is_refused(count: int, guides: int | None, words: str) -> None:
    with pytest.raises(Failure, match=f"^{words}"):
        split(pairs(count), guides, seed=0)


def test_a_file_name_that_is_no_text_is_split_like_any_other() -> None:
    pairs = [(Path(f"images/{os.fsdecode(name)}"), Path("masks/m.png")) for name in (b"caf\xe9.png", b"b.png")]
    assert len(split(pairs, None, seed=0)[0]) == 1


def test_a_folder_without_labeled_images_is_refused_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(Failure, match=rf"^{tmp_path}: it needs the folders images/ and masks/"):
        labeled_pairs(tmp_path)
    for part in ("images", "masks"):
        (tmp_path / part).mkdir()
    with pytest.raises(Failure, match=rf"^{tmp_path}/images: there is no image in it"):
        labeled_pairs(tmp_path)


def test_every_image_needs_its_mask(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="needs the folders"):
        labeled_pairs(tmp_path)
    for name in ("images/a.jpg", "images/b.png", "masks/a.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(Failure, match=r"b\.png has no mask"):
        labeled_pairs(tmp_path)
    (tmp_path / "masks" / "b.png").touch()
    assert labeled_pairs(tmp_path) == [
        (tmp_path / "images" / "a.jpg", tmp_path / "masks" / "a.png"),
        (tmp_path / "images" / "b.png", tmp_path / "masks" / "b.png"),
    ]


def make_labeled(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    return folder


def test_the_mask_of_the_very_name_goes_before_one_of_another_ending(tmp_path: Path) -> None:
    names = ("x.jpg", "x.png")
    folder = make_labeled(tmp_path, *(f"{part}/{name}" for part in ("images", "masks") for name in names))
    assert [(image.name, mask.name) for image, mask in labeled_pairs(folder)] == [(name, name) for name in names]


def test_a_dicom_image_named_by_its_uid_has_the_mask_of_the_whole_name(tmp_path: Path) -> None:
    folder = make_labeled(tmp_path, "masks/1.2.55.png", "masks/1.2.png", "images/1.2.55")
    (folder / "images" / "1.2.55").write_bytes(dicom_file(dicom_dataset(gradient())))
    assert [(image.name, mask.name) for image, mask in labeled_pairs(folder)] == [("1.2.55", "1.2.55.png")]


def test_an_image_that_could_have_either_of_two_masks_is_refused(tmp_path: Path) -> None:
    folder = make_labeled(tmp_path, "images/x.dcm", "masks/x.jpg", "masks/x.png")
    with pytest.raises(Failure, match=r"the mask of x\.dcm may be x\.jpg or x\.png"):
        labeled_pairs(folder)


def test_a_mask_of_a_format_that_is_not_read_is_not_missing(tmp_path: Path) -> None:
    """The service says what is wrong with it."""
    folder = make_labeled(tmp_path, "images/x.tif", "masks/x.gif")
    assert [(image.name, mask.name) for image, mask in labeled_pairs(folder)] == [("x.tif", "x.gif")]


def test_what_file_managers_leave_in_a_folder_is_passed_over(tmp_path: Path) -> None:
    clutter = [f"{part}/{name}" for part in ("images", "masks") for name in (".DS_Store", "Thumbs.db", "x.txt")]
    folder = make_labeled(tmp_path, "images/x.jpg", "masks/x.png", *clutter)
    assert [(image.name, mask.name) for image, mask in labeled_pairs(folder)] == [("x.jpg", "x.png")]


def test_an_umlaut_is_the_same_however_a_system_spells_it(tmp_path: Path) -> None:
    folder = make_labeled(tmp_path, "images/M\u00fcller.png", "masks/Mu\u0308ller.png")
    assert len(labeled_pairs(folder)) == 1


def test_labeled_images_in_subfolders_are_refused_and_not_passed_over(tmp_path: Path) -> None:
    folder = make_labeled(tmp_path, "images/a.png", "masks/a.png", "images/b/b.png", "images/.hidden/a.png")
    with pytest.raises(Failure, match=r"b/b\.png lies in a subfolder \(1 such\); put all .* into .*/images itself"):
        labeled_pairs(folder)

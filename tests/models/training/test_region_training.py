"""models/training/region.py: pairs of files become a region finder, also after a kill."""

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from models.phantoms import phantoms
from models.pixels import image_png, mask_png
from models.region import find_region, load_region, save_region
from models.segmenter import Labeled
from models.training import region
from models.training.checkpoint import Checkpoint
from models.training.segmenter import SegmenterPlan, SegmenterTraining

CPU = torch.device("cpu")


def pairs(folder: Path) -> list[tuple[Path, Path]]:
    return [(folder / "images" / f"{number}.png", folder / "regions" / f"{number}.png") for number in range(5)]


def silent(*_: object) -> None:
    pass


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phantoms")
    for kind in ("images", "regions"):
        (folder / kind).mkdir()
    for number, phantom in enumerate(phantoms(71, 5)):
        (folder / "images" / f"{number}.png").write_bytes(image_png(phantom.image))
        (folder / "regions" / f"{number}.png").write_bytes(mask_png(phantom.region))
    return folder


def test_pairs_of_files_become_a_finder_that_loads(folder: Path, tmp_path: Path) -> None:
    labeled = region.read_regions(pairs(folder), silent)
    assert labeled.images.shape == labeled.masks.shape == (5, 64, 128)
    assert 0.2 < labeled.masks.mean() < 0.7
    plan = SegmenterPlan("tiny", steps=4, batch=2, learning_rate=1e-3, validations=2)
    trained, facts = region.train_region(labeled, plan, Checkpoint(tmp_path / "run"), CPU, silent)
    assert (facts["images"], facts["steps"]) == (5, 4)
    save_region(tmp_path / "region", trained, facts)
    find_region(load_region(tmp_path / "region"), labeled.images[0].astype("float32") / 255)


def test_a_run_that_was_killed_goes_on_to_the_same_weights(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labeled = region.read_regions(pairs(folder), silent)
    plan = SegmenterPlan("tiny", steps=6, batch=2, learning_rate=1e-3)
    whole, _ = region.train_region(labeled, plan, Checkpoint(tmp_path / "whole"), CPU, silent)
    monkeypatch.setattr("models.training.checkpoint.SECONDS", 0.0)

    def killed(step: int, *_: object) -> None:
        if step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        region.train_region(labeled, plan, Checkpoint(tmp_path / "cut"), CPU, killed)
    steps: list[int] = []
    resumed, _ = region.train_region(
        labeled, plan, Checkpoint(tmp_path / "cut"), CPU, lambda step, *_: steps.append(step)
    )
    assert steps == [6]
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name])


def test_a_finder_is_trained_on_pictures_of_nothing_too(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Labeled] = []

    def training(sources: list[Labeled], *rest: Any) -> SegmenterTraining:
        given.extend(sources)
        return SegmenterTraining(sources, *rest)

    monkeypatch.setattr(region, "SegmenterTraining", training)
    five = region.read_regions(pairs(folder), silent)
    twenty = five.rows([*range(5)] * 4)
    plan = SegmenterPlan("tiny", steps=1, batch=2)
    for labeled in (five, twenty, twenty):
        region.train_region(labeled, plan, Checkpoint(tmp_path / "run"), CPU, silent)
    assert [len(source) for source in given] == [5 + 1, 20 + 2, 20 + 2], "one for every 8, or one"
    of_twenty, again = given[1:]
    assert (of_twenty.images[:20] == twenty.images).all() and (of_twenty.masks[:20] == twenty.masks).all()
    assert not of_twenty.masks[20:].any() and not set(of_twenty.groups[20:]) & set(twenty.groups)
    assert (of_twenty.images == again.images).all()


def test_a_single_region_and_files_that_are_wrong_are_refused_all_at_once(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least 2"):
        region.read_regions(pairs(folder)[:1], silent)
    region_mask = Image.new("1", (64, 64))
    region_mask.putpixel((32, 32), 1)
    region_mask.save(small := tmp_path / "small.png")
    (empty := tmp_path / "empty.png").write_bytes(b"")
    (first, _), (second, _), whole = pairs(folder)[:3]
    with pytest.raises(ValueError, match=rf"^{first} or its mask: .*64.*\n  {second} or its mask: the file is empty"):
        region.read_regions([(first, small), (second, empty), whole], silent)

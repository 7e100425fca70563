"""models/reproduce.py and models/ways.py: what an arm is trained on."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from app.presets import PRESETS
from models import pixels
from models.labeled_sets import Sets, phantom_sets
from models.matching import random_selection
from models.phantoms import PLAIN
from models.quality import dilated_mask
from models.reproduce import Arm, Protocol, _sources, reproduce
from models.segmenter import build_segmenter
from models.synthesis import Recipe, sample_seed
from models.training.segmenter import SegmenterPlan
from models.ways import Way, make_samples, read_samples, samples_file, synthesized
from models.weights import load_networks
from tests.tiny import make_tiny_weights

PASTE = Way("paste", Recipe(method="paste", **PRESETS["paper"].recipe()), "random")
MADE = 3  # of each guide


@pytest.fixture(scope="module")
def sets() -> Sets:
    return phantom_sets(910, (2, 4, 1), [PLAIN], [PLAIN], lambda *_: None)


@pytest.fixture(scope="module")
def folder(sets: Sets, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the samples of a way that copies pixels, so that one can see where they are from."""
    folder = tmp_path_factory.mktemp("run")
    networks = load_networks(make_tiny_weights(folder / "weights"), "cpu")
    make_samples(folder / "synthetic", networks, sets.guides, sets.pool, {PASTE: MADE}, lambda *_: None, 1)
    return folder


@pytest.mark.parametrize("k", [1, MADE])
def test_an_arm_has_every_guides_first_samples_under_its_name(sets: Sets, folder: Path, k: int) -> None:
    sources = _sources(folder, Arm("paste", real=True, way=PASTE, top_k=k), sets.guides, sets.pool)
    synthetic = sources["synthetic"]
    assert list(sources) == ["real", "synthetic"] and sources["real"] is sets.guides
    assert synthetic.groups == tuple(np.repeat(sets.guides.groups, k))
    for row, (image, mask) in enumerate(zip(synthetic.images, synthetic.masks, strict=True)):
        guide = row // k
        band = dilated_mask(sets.guides.masks[guide], 1)
        assert (mask == sets.guides.masks[guide]).all()
        assert (image[band] == sets.guides.images[guide][band]).all()
        backgrounds = [number for number, other in enumerate(sets.pool.images) if (other[~band] == image[~band]).all()]
        assert len(backgrounds) == 1


def test_a_larger_arm_begins_with_the_samples_of_a_smaller_one(sets: Sets, folder: Path) -> None:
    one, more = (
        _sources(folder, Arm("paste", real=False, way=PASTE, top_k=k), sets.guides, sets.pool)["synthetic"]
        for k in (1, MADE)
    )
    assert (one.images == more.images[::MADE]).all()
    assert len({image.tobytes() for image in more.images}) == 2 * MADE


def test_a_sample_has_the_seed_that_follows_from_its_guide_and_its_pool_image(sets: Sets, folder: Path) -> None:
    networks, recipe = load_networks(folder / "weights", "cpu"), Recipe(method="diffusion", **PRESETS["paper"].recipe())
    way = Way("noised", replace(recipe, steps=1), "random")
    make_samples(folder / "noised", networks, sets.guides, sets.pool, {way: 1}, lambda *_: None, 1)
    (made,), _ = read_samples(samples_file(folder / "noised", way, 1), 1)
    guide, *pool = (pixels.sha256(image.tobytes()) for image in (sets.guides.images[1], *sets.pool.images))
    (chosen,) = random_selection(0, guide, pool, 1)
    pair = sets.guides.images[1:], sets.guides.masks[1:], sets.pool.images[[pool.index(chosen)]]
    assert (made == synthesized(networks, *pair, way.recipe, [sample_seed(0, guide, chosen)])[0]).all()


def test_an_arm_of_more_samples_than_a_folder_was_begun_with_is_refused(sets: Sets, tmp_path: Path) -> None:
    networks = load_networks(make_tiny_weights(tmp_path / "weights"), "cpu")
    protocol = Protocol(2, 4, 1, (1, 2), 2, (0,), SegmenterPlan("tiny", 4, 2))

    def begin(top_k: int) -> None:
        arm = Arm(f"top {top_k}, paste", real=True, way=PASTE, top_k=top_k)
        reproduce(tmp_path / "run", networks, protocol, [arm], sets, interrupted)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    for top_k in (2, 1):
        with pytest.raises(KeyboardInterrupt):
            begin(top_k)
    with pytest.raises(ValueError, match="begun with 2 samples of each guide, arm 'top 3, paste' takes 3"):
        begin(3)


def test_a_run_does_not_go_on_with_other_weights_in_its_backbones_folder(sets: Sets, tmp_path: Path) -> None:
    networks = load_networks(make_tiny_weights(tmp_path / "weights"), "cpu")
    backbone = tmp_path / "backbone"

    def run(seed: int) -> None:
        build_segmenter("tiny", seed).network.save_pretrained(backbone)
        protocol = Protocol(2, 4, 1, (1,), 1, (0,), SegmenterPlan(str(backbone), 1, 1))
        reproduce(tmp_path / "run", networks, protocol, [Arm("real", real=True)], sets, lambda *_: None)

    run(0)
    run(0)
    with pytest.raises(ValueError, match="other sizes, data or weights"):
        run(1)

"""models/splits.py: the paper's four sets, copies never on two sides."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from models.duplicates import Known
from models.splits import SETS, manifest_entries, split_images, used_elsewhere


def some(count: int, seed: int, copies: int = 1) -> list[Known]:
    """Images that are nothing alike, each `copies` times with a few bits turned."""
    rng = np.random.default_rng(seed)
    made = []
    for number in range(count):
        bits = rng.integers(0, 2, 512).astype(bool)
        for copy in range(copies):
            bits[copy * 7] ^= True
            made.append(Known(f"{number}-{copy}", f"{seed}.{number}.{copy}", np.packbits(bits).tobytes().hex()))
    return made


def test_counts_and_shares_are_kept_and_every_image_is_in_one_set() -> None:
    found = split_images(some(100, 1), some(50, 2), pool=0.3, guides=1, seed=0)
    assert [len(rows) for rows in (found.train, found.pool, found.guides, found.test)] == [70, 30, 1, 49]
    assert sorted(found.train + found.pool) == list(range(100))
    assert sorted(found.guides + found.test) == list(range(50))


def test_the_same_seed_gives_the_same_split_and_another_does_not() -> None:
    first, again, other = (split_images(some(40, 1), [], 0.5, 1, seed) for seed in (3, 3, 4))
    assert first == again != other


def test_the_split_depends_neither_on_order_nor_on_names() -> None:
    images = some(40, 1, copies=2)
    turned = [Known(f"renamed-{row}", one.pixels_sha256, one.signature) for row, one in enumerate(images[::-1])]
    pools = [split_images(given, [], 0.5, 1, 0).pool for given in (images, turned)]
    assert {images[row].pixels_sha256 for row in pools[0]} == {turned[row].pixels_sha256 for row in pools[1]}


def test_copies_stay_together() -> None:
    images, labeled = some(20, 3, copies=3), some(10, 4, copies=2)
    found = split_images(images, labeled, pool=0.5, guides=0.3, seed=1)
    for rows, given, copies in ((found.pool, images, 3), (found.guides, labeled, 2)):
        names = [given[row].name.split("-")[0] for row in rows]
        assert all(names.count(name) == copies for name in names)


def test_unlabeled_copies_of_a_labeled_image_are_dropped() -> None:
    labeled = some(6, 5)
    found = split_images([*some(10, 6), labeled[2], labeled[2]], labeled, 0.5, 0.5, 0)
    assert found.dropped == [(10, 2), (11, 2)]
    assert sorted(found.train + found.pool) == list(range(10))


@pytest.mark.parametrize("wanted", [0, 10, 11, 0.01, math.inf])
def test_an_empty_set_is_refused(wanted: float) -> None:
    with pytest.raises(ValueError, match=r"--pool .* of 10 images leaves a set empty; give 1 to 9"):
        split_images(some(10, 1), [], wanted, 1, 0)


@pytest.mark.parametrize("count", [0, 1])
def test_what_cannot_be_two_sets_is_told_in_words(count: int) -> None:
    with pytest.raises(ValueError, match=f"--pool: {count} radiographs without a mask cannot be split in two"):
        split_images(some(count, 1), [], 0.3, 0.1, 0)
    with pytest.raises(ValueError, match="--guides: 1 radiographs with masks cannot be split in two"):
        split_images(some(9, 1), some(1, 2), 0.3, 0.1, 0)


def test_a_group_that_is_too_large_for_what_is_left_is_passed_over() -> None:
    images = [*some(8, 1, copies=3), *some(2, 2)]
    assert split_images(images, [], pool=2, guides=1, seed=0).pool == [24, 25]


def test_copies_of_one_image_cannot_be_split() -> None:
    with pytest.raises(ValueError, match="less than the smallest group of near-duplicates"):
        split_images(some(1, 1, copies=4), [], 2, 1, 0)


def test_what_a_manifest_keeps_from_training_is_all_but_train(tmp_path: Path) -> None:
    images = some(4, 1)
    sets = {name: manifest_entries(images, [row], ["f"] * 4) for row, name in enumerate(SETS)}
    path = tmp_path / "split.json"
    path.write_text(json.dumps({"sets": sets}))
    assert [known.name for known in used_elsewhere(path)] == ["pool/1-0", "guides/2-0", "test/3-0"]


def test_another_file_is_no_manifest(tmp_path: Path) -> None:
    path = tmp_path / "split.json"
    path.write_text("[]")
    with pytest.raises(ValueError, match="is not a manifest of `pansynth split`"):
        used_elsewhere(path)

import hashlib
import subprocess
import sys
from dataclasses import FrozenInstanceError
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import binary_dilation, gaussian_filter, label

from models.phantoms import LOOKS, PLAIN, Phantom, phantom, phantoms

REPOSITORY = Path(__file__).parents[2]
EIGHT_NEIGHBOURS = np.ones((3, 3))


@pytest.fixture(scope="module")
def plain_set() -> list[Phantom]:
    return list(phantoms(seed=11, count=6, looks=[PLAIN]))


@pytest.fixture(scope="module")
def mixed_set() -> list[Phantom]:
    return list(phantoms(seed=2, count=7))


@pytest.fixture(scope="module")
def by_look() -> dict[str, Phantom]:
    """One anatomy in every look."""
    return {look: phantom(9, look) for look in LOOKS}


def ring_contrast(item: Phantom) -> float:
    """Gray levels by which the canal is darker than its surroundings, as METHOD.md defines it."""
    ring = binary_dilation(item.mask, iterations=6) & ~binary_dilation(item.mask, iterations=2)
    return float(item.image[ring].mean() - item.image[item.mask].mean())


def fingerprint(item: Phantom) -> str:
    arrays = (item.image, item.mask, item.region)
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()


def same_anatomy(one: Phantom, other: Phantom) -> bool:
    return np.array_equal(one.mask, other.mask) and np.array_equal(one.region, other.region)


def test_a_phantom_is_an_8_bit_picture_with_two_boolean_masks_of_its_size() -> None:
    item = phantom(3)
    assert (item.image.shape, item.image.dtype) == ((256, 512), np.dtype(np.uint8))
    assert (item.mask.shape, item.mask.dtype) == ((256, 512), np.dtype(bool))
    assert (item.region.shape, item.region.dtype) == ((256, 512), np.dtype(bool))
    assert item.seed == 3
    assert item.look in LOOKS


def test_a_phantom_cannot_be_rewritten() -> None:
    with pytest.raises(FrozenInstanceError):
        phantom(3).look = PLAIN  # type: ignore[misc]


def test_the_same_seed_and_look_give_the_same_phantom_in_another_process() -> None:
    program = """
import sys
from models.phantoms import phantom
item = phantom(7, "equalised")
sys.stdout.buffer.write(item.image.tobytes() + item.mask.tobytes() + item.region.tobytes())
"""
    elsewhere = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, check=True)
    assert hashlib.sha256(elsewhere.stdout).hexdigest() == fingerprint(phantom(7, "equalised"))


def test_the_anatomy_does_not_depend_on_the_look(by_look: dict[str, Phantom]) -> None:
    for look, item in by_look.items():
        assert item.look == look
        assert same_anatomy(item, by_look[PLAIN])


def test_the_picture_depends_on_the_look(by_look: dict[str, Phantom]) -> None:
    pictures = {item.image.tobytes() for item in by_look.values()}
    assert len(pictures) == len(LOOKS) >= 6


def test_without_a_look_the_seed_draws_one() -> None:
    drawn = phantom(4)
    assert fingerprint(drawn) == fingerprint(phantom(4, drawn.look))


def test_a_set_without_a_choice_mixes_looks(mixed_set: list[Phantom]) -> None:
    assert len({item.look for item in mixed_set}) >= 4


def test_one_look_varies_within_itself(plain_set: list[Phantom]) -> None:
    means = [item.image.mean() for item in plain_set]
    assert np.std(means) > 3


def test_each_mask_holds_two_canals_left_and_right(plain_set: list[Phantom]) -> None:
    for item in plain_set:
        parts, count = label(item.mask, EIGHT_NEIGHBOURS)
        assert count == 2
        left, right = sorted(np.nonzero(parts == part)[1].mean() for part in (1, 2))
        assert left < 200
        assert right > 312


def test_a_canal_is_a_thin_long_tube(plain_set: list[Phantom]) -> None:
    for item in plain_set:
        # A tube's length is about half its outline; area over length is then its width.
        outline = item.mask & binary_dilation(~item.mask)
        mean_width = item.mask.sum() / (outline.sum() / 2)
        assert 2 < mean_width < 8
        assert 100 < outline.sum() / 4 < 260


def test_canals_lie_in_the_region_and_off_the_picture_s_edge(plain_set: list[Phantom]) -> None:
    for item in plain_set:
        assert not (item.mask & ~item.region).any()
        assert not item.mask[-1].any()
        assert not item.mask[:, [0, -1]].any()


def test_canals_run_down_from_the_ramus_and_below_the_crowns(plain_set: list[Phantom]) -> None:
    for item in plain_set:
        rows, columns = np.nonzero(item.mask)
        lateral = np.abs(columns - 256)
        in_ramus, in_body = lateral > np.percentile(lateral, 90), lateral < np.percentile(lateral, 40)
        assert rows[in_ramus].mean() + 40 < rows[in_body].mean()
        assert rows[in_body].min() > 140


def test_the_region_keeps_jaw_and_teeth_and_drops_the_corners(plain_set: list[Phantom]) -> None:
    for item in plain_set:
        assert 0.3 < item.region.mean() < 0.75
        assert item.region[130, 256]
        assert not item.region[[0, 0, -1, -1], [0, -1, 0, -1]].any()
        assert label(item.region, EIGHT_NEIGHBOURS)[1] == 1


def test_canals_are_darker_than_the_bone_around_them(plain_set: list[Phantom]) -> None:
    contrasts = [ring_contrast(item) for item in plain_set]
    assert min(contrasts) > 2
    assert 9 < np.median(contrasts) < 20


def test_canals_stay_darker_in_every_look(by_look: dict[str, Phantom]) -> None:
    for item in by_look.values():
        assert ring_contrast(item) > 2


def test_looks_differ_in_brightness_spread_and_sharpness(by_look: dict[str, Phantom]) -> None:
    statistics = {}
    for look, item in by_look.items():
        image = item.image.astype(np.float32)
        statistics[look] = (image.mean(), image.std(), (image - gaussian_filter(image, 1)).std())
    mean, spread, detail = ({look: values[i] for look, values in statistics.items()} for i in range(3))
    assert mean["high_key"] > mean[PLAIN] + 20
    assert mean["low_key"] < mean[PLAIN] - 20
    assert spread["low_contrast"] < 0.75 * spread[PLAIN]
    assert spread["equalised"] > spread["low_contrast"] + 10
    assert detail["sharpened"] > 1.4 * detail[PLAIN]


def test_a_set_has_a_new_anatomy_for_every_element(mixed_set: list[Phantom]) -> None:
    assert len({item.mask.tobytes() for item in mixed_set}) == len(mixed_set)


def test_sets_of_different_seeds_share_no_anatomy(plain_set: list[Phantom], mixed_set: list[Phantom]) -> None:
    masks = {item.mask.tobytes() for item in plain_set + mixed_set}
    assert len(masks) == len(plain_set) + len(mixed_set)
    assert not {item.seed for item in plain_set} & {item.seed for item in mixed_set}


def test_an_element_does_not_depend_on_the_count(mixed_set: list[Phantom]) -> None:
    endless = phantoms(seed=2, count=1_000_000)
    assert [fingerprint(item) for item in islice(endless, 2)] == [fingerprint(item) for item in mixed_set[:2]]


def test_an_element_can_be_drawn_again_from_its_own_seed_and_look(mixed_set: list[Phantom]) -> None:
    last = mixed_set[-1]
    assert fingerprint(phantom(last.seed, last.look)) == fingerprint(last)


def test_a_set_keeps_to_the_looks_it_is_given() -> None:
    assert {item.look for item in phantoms(seed=3, count=4, looks=["film", "low_key"])} == {"film", "low_key"}


def test_an_unknown_look_is_refused_with_its_name_and_the_choices() -> None:
    with pytest.raises(ValueError, match=r"'sepia'.*plain.*film"):
        phantom(1, "sepia")
    with pytest.raises(ValueError, match=r"'sepia'.*plain.*film"):
        phantoms(seed=1, count=1, looks=[PLAIN, "sepia"])


def test_an_empty_choice_of_looks_is_refused() -> None:
    with pytest.raises(ValueError, match="looks is empty"):
        phantoms(seed=1, count=1, looks=[])

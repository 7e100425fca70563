"""models/memorisation.py: a copy of a training image is near it, another patient is not."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from models.memorisation import TrainingLatents, describe_training, load_training_latents, save_training_latents, sketch
from models.training.latents import describe_latents


def latents(count: int, seed: int) -> Tensor:
    return torch.randn(count, 4, 32, 64, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def training() -> TrainingLatents:
    found = describe_training([latents(20, 1), latents(20, 2)])
    assert found is not None
    return found


def test_a_training_image_is_at_a_distance_of_zero_also_when_mirrored(training: TrainingLatents) -> None:
    seen = latents(20, 2)[5:7]
    strange = latents(2, 9)
    assert training.distances(seen, strange) == pytest.approx([0, 0], abs=1e-3)
    assert training.distances(strange, seen) == pytest.approx([0, 0], abs=1e-3)


def test_distances_are_those_of_each_sketch_to_the_nearest_way_round(training: TrainingLatents) -> None:
    pictures, mirrored = latents(6, 3), latents(6, 4)
    expected = [
        min(np.linalg.norm(training.sketches - row, axis=1).min() for row in rows) / training.scale
        for rows in zip(sketch(pictures), sketch(mirrored), strict=True)
    ]
    assert training.distances(pictures, mirrored) == pytest.approx(expected, abs=1e-9)
    assert training.distances(pictures[2:3], mirrored[2:3]) == pytest.approx(expected[2:3], abs=1e-9)


def test_another_patient_is_as_far_as_training_images_are_from_one_another(training: TrainingLatents) -> None:
    for distance in training.distances(latents(10, 3), latents(10, 4)):
        assert 0.9 < distance < 1.1


def test_a_copy_in_another_light_is_still_a_copy(training: TrainingLatents) -> None:
    paler = 0.4 * latents(20, 1)[:1] - 0.7
    assert training.distances(paler, latents(1, 7)) == pytest.approx([0], abs=1e-3)


def test_a_faded_copy_lies_in_between(training: TrainingLatents) -> None:
    seen, strange = latents(20, 1)[:1], latents(1, 7)
    mixed = [training.distances(seen * (1 - share) + strange * share, strange)[0] for share in (0.1, 0.3, 0.6)]
    assert mixed == sorted(mixed)
    assert 0.05 < mixed[0] < 0.2


def test_distances_of_sketches_are_those_of_the_latents() -> None:
    rows = standardised(latents(30, 5))
    true = torch.cdist(rows.flatten(1).double(), rows.flatten(1).double()).numpy() / np.sqrt(rows[0].numel())
    drawn = sketch(rows)
    found = np.sqrt(((drawn[:, None] - drawn[None]) ** 2).sum(axis=-1))
    apart = ~np.eye(30, dtype=bool)
    assert found[apart] == pytest.approx(true[apart], rel=0.15)


def standardised(rows: Tensor) -> Tensor:
    """Each row with mean 0 and sd 1."""
    flat = rows.double().flatten(1)
    return ((flat - flat.mean(1, keepdim=True)) / flat.std(1, correction=0, keepdim=True)).reshape(rows.shape)


def splitmix64(number: int) -> int:
    """The output of Steele, Lea and Flood's generator for its `number`-th state from 0, in Python's whole numbers."""
    word = (1 << 64) - 1
    bits = number * 0x9E3779B97F4A7C15 & word
    bits = (bits ^ bits >> 30) * 0xBF58476D1CE4E5B9 & word
    bits = (bits ^ bits >> 27) * 0x94D049BB133111EB & word
    return bits ^ bits >> 31


def test_a_sketch_is_the_same_in_any_company_and_on_any_machine() -> None:
    rows = latents(3, 6)
    assert (sketch(rows)[1] == sketch(rows[1:2])[0]).all()
    expected = np.zeros(512)
    for place, value in enumerate(standardised(rows)[1].flatten().tolist()):
        bits = splitmix64(place + 1)
        expected[bits % 512] += value if bits >> 63 else -value
    assert sketch(rows)[1] == pytest.approx(expected / np.sqrt(rows[1].numel()), abs=1e-6)


def test_what_is_written_comes_back(training: TrainingLatents, tmp_path: Path) -> None:
    save_training_latents(tmp_path, training)
    read = load_training_latents(tmp_path)
    assert read.scale == training.scale
    assert (read.sketches == training.sketches).all()


@pytest.mark.parametrize("copies", [1, 3])
def test_copies_in_the_training_set_leave_what_far_means_as_it_is(training: TrainingLatents, copies: int) -> None:
    """A folder may hold every radiograph twice, as PNG and as JPEG: else all that is made would seem far from it."""
    own = torch.cat([latents(20, 1), latents(20, 2)])
    resaved = [own + 0.05 * latents(40, 100 + copy) for copy in range(copies)]
    found = describe_training([own, *resaved])
    assert found is not None and found.scale == pytest.approx(training.scale, rel=0.03)


def test_one_image_alone_gives_no_scale() -> None:
    assert describe_training([latents(1, 1)]) is None


def test_images_that_are_all_alike_give_no_scale() -> None:
    same = latents(1, 1).expand(6, -1, -1, -1)
    assert describe_training([same]) is None
    assert describe_latents(same.half()) is None


def test_the_mirrored_half_of_a_training_set_is_left_out() -> None:
    both = latents(12, 1).half()
    found = describe_latents(both)
    assert found is not None
    assert found.distances(both[::2].float(), both[::2].float()) == pytest.approx([0] * 6, abs=1e-3)
    assert len(found.sketches) == 6


def test_of_too_many_training_images_an_even_choice_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.training.latents.MAX_IMAGES", 4)
    pictures = latents(12, 1)
    found = describe_latents(pictures.repeat_interleave(2, dim=0).half())
    assert found is not None
    kept = [row for row, distance in enumerate(found.distances(pictures, pictures)) if distance < 0.1]
    assert kept == [0, 3, 6, 9]

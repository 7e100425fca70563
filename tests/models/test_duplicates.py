"""models/duplicates.py: a copy is found again, another patient is not."""

from collections.abc import Callable
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from models.duplicates import NEAR_BITS, Known, groups, leaks, near_pairs, signature, stacked
from models.phantoms import LOOKS, phantom, phantoms
from models.pixels import read_image, resize_image, sha256

Pixels = np.ndarray
RANDOM = np.random.default_rng(0)


def resaved(image: Pixels, quality: int) -> Pixels:
    out = BytesIO()
    Image.fromarray(image).save(out, "JPEG", quality=quality)
    return resize_image(read_image(out.getvalue()))


def resized(image: Pixels, width: int, height: int) -> Pixels:
    small = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
    return resize_image(small.astype(np.float32) / 255)


def stamped(image: Pixels) -> Pixels:
    marked = image.copy()
    marked[5:35, 5:70] = 255
    return marked


COPIES: dict[str, Callable[[Pixels], Pixels]] = {
    "JPEG of quality 90": lambda image: resaved(image, 90),
    "JPEG of quality 30": lambda image: resaved(image, 30),
    "half the size": lambda image: resized(image, 256, 128),
    "twice the size": lambda image: resized(image, 1024, 512),
    "squashed": lambda image: resized(image, 512, 512),
    "brighter": lambda image: np.clip(image.astype(int) + 30, 0, 255).astype(np.uint8),
    "darker": lambda image: (image * 0.6).astype(np.uint8),
    "another gamma": lambda image: (255 * (image / 255) ** 0.6).astype(np.uint8),
    "noise": lambda image: np.clip(image + RANDOM.normal(0, 5, image.shape), 0, 255).astype(np.uint8),
    "a stamp in the corner": stamped,
    "mirrored": lambda image: np.ascontiguousarray(image[:, ::-1]),
    "mirrored, JPEG of quality 30": lambda image: resaved(np.ascontiguousarray(image[:, ::-1]), 30),
}


@pytest.fixture(scope="module")
def images() -> list[Pixels]:
    return [made.image for made in phantoms(88, 24)]


@pytest.fixture(scope="module")
def signatures(images: list[Pixels]) -> np.ndarray:
    return np.stack([signature(image) for image in images])


def test_no_two_patients_are_taken_for_one(signatures: np.ndarray) -> None:
    assert list(near_pairs(signatures, signatures)) == [(row, row) for row in range(len(signatures))]
    assert groups(signatures) == [[row] for row in range(len(signatures))]


@pytest.mark.parametrize("change", COPIES)
def test_a_copy_is_found_again(change: str, images: list[Pixels], signatures: np.ndarray) -> None:
    copies = np.stack([signature(COPIES[change](image)) for image in images[:12]])
    assert list(near_pairs(copies, signatures)) == [(row, row) for row in range(12)]


@pytest.mark.parametrize("look", LOOKS)
def test_one_anatomy_is_recognised_in_every_look(look: str) -> None:
    pair = np.stack([signature(phantom(7, chosen).image) for chosen in (LOOKS[0], look)])
    assert groups(pair) == [[0, 1]]


def test_near_means_at_most_that_many_bits() -> None:
    bits = np.zeros((3, 512), bool)
    bits[1, :NEAR_BITS] = bits[2, : NEAR_BITS + 1] = True
    signatures = np.packbits(bits, axis=1)
    assert list(near_pairs(signatures[:1], signatures[1:])) == [(0, 0)]


@pytest.mark.parametrize("turned", [(0, 50, 100), (50, 0, 100), (0, 100, 50)])
def test_near_of_near_are_one_group_in_whatever_order_they_come(turned: tuple[int, ...]) -> None:
    bits = np.zeros((4, 512), bool)
    for row, count in enumerate(turned):
        bits[row, :count] = True
    bits[3, ::2] = True
    assert groups(np.packbits(bits, axis=1)) == [[0, 1, 2], [3]]


def test_many_signatures_are_compared_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    signatures = np.random.default_rng(1).integers(0, 256, (30, 64), np.uint8)
    monkeypatch.setattr("models.duplicates._BLOCK", 64)
    assert list(near_pairs(signatures, signatures)) == [(row, row) for row in range(30)]


def known(name: str, image: Pixels) -> Known:
    return Known(name, sha256(image.tobytes()), signature(image).tobytes().hex())


def test_a_leak_says_which_image_it_is_and_how_alike(images: list[Pixels]) -> None:
    training = [known("a", images[0]), known("b", images[1]), known("c", images[2])]
    others = [known("test/x", images[1]), known("test/y", resaved(images[2], 80))]
    assert [str(leak) for leak in leaks(training, others)] == [
        "b (the same pixels as test/x)",
        "c (nearly the same image as test/y)",
    ]
    assert leaks(training, []) == leaks([], others) == []


def test_signatures_survive_the_way_through_a_file(images: list[Pixels]) -> None:
    assert np.array_equal(stacked([known("a", images[0])])[0], signature(images[0]))

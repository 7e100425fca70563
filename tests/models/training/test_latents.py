"""models/training/latents.py: the denoiser learns from the latents that a synthesis will give it."""

from pathlib import Path

import numpy as np
import pytest
import torch

from models.duplicates import known
from models.phantoms import phantoms
from models.tensors import to_images
from models.training.images import TrainingImages
from models.training.latents import encode, open_latents
from models.weights import load_vae
from tests.full_disk import no_file_above
from tests.tiny import make_tiny_weights

CPU = torch.device("cpu")


def test_latents_are_a_synthesis_own_also_where_networks_train_in_bfloat16(tmp_path: Path) -> None:
    vae, _ = load_vae(make_tiny_weights(tmp_path / "tiny"))
    images = np.stack([phantom.image for phantom in phantoms(41, 2)])
    with torch.inference_mode():
        assert torch.equal(encode(vae, images, CPU), vae.encode(to_images(images, CPU)))


def test_every_image_lies_before_its_mirror_image(tmp_path: Path) -> None:
    vae, _ = load_vae(make_tiny_weights(tmp_path / "tiny"))
    images = np.stack([phantom.image for phantom in phantoms(42, 3)])
    training = TrainingImages(images, tuple(known(str(row), image) for row, image in enumerate(images)))
    latents = open_latents(vae, training, tmp_path, CPU, lambda *_: None)
    assert latents.dtype == torch.float16
    torch.testing.assert_close(latents[::2].float(), encode(vae, images, CPU), atol=2e-3, rtol=0)
    mirrored = np.ascontiguousarray(images[:, :, ::-1])
    torch.testing.assert_close(latents[1::2].float(), encode(vae, mirrored, CPU), atol=2e-3, rtol=0)


def test_where_there_is_no_room_for_latents_it_is_told_before_any_is_made(tmp_path: Path) -> None:
    vae, _ = load_vae(make_tiny_weights(tmp_path / "tiny"))
    image = np.zeros((1, 256, 512), np.uint8)
    training = TrainingImages(image, (known("black", image[0]),))
    made: list[int] = []
    with no_file_above(10_000), pytest.raises(OSError, match="latents-") as raised:
        open_latents(vae, training, tmp_path, CPU, lambda done, _: made.append(done))
    assert made == []
    assert raised.value.strerror
    assert not list(tmp_path.glob("latents-*"))

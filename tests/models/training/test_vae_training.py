"""models/training/vae.py: the loss and the figures, against plain references."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from skimage.metrics import peak_signal_noise_ratio
from torch import Tensor

from models.segmenter import Labeled
from models.tensors import to_images
from models.training.plan import Budget, Plan
from models.training.vae import (
    canal_retention,
    draw_crop,
    latent_statistics,
    psnr,
    reconstruction_loss,
    split,
    train_vae,
)
from models.vae import Vae
from tests.models.training.line import silent
from tests.tiny import CHANNELS, tiny_autoencoder

CPU = torch.device("cpu")


class Formula:
    """An autoencoder without weights; its latents are so large that their KL term counts."""

    def encode(self, patches: Tensor) -> SimpleNamespace:
        return SimpleNamespace(latent_dist=DiagonalGaussianDistribution(torch.cat([300 * patches[:, :4]] * 2, dim=1)))

    def decode(self, latent: Tensor) -> SimpleNamespace:
        return SimpleNamespace(sample=latent.repeat(1, 16, 1, 1) / 400)


def test_the_loss_is_the_error_of_pixels_and_of_their_4x4_means_and_a_little_of_the_divergence() -> None:
    random = np.random.default_rng(0)
    image, noise = random.uniform(-0.03, 0.03, (2, 16, 32)), random.normal(size=(2, 4, 2, 4))
    found = reconstruction_loss(Formula(), torch.from_numpy(image)[:, None], torch.from_numpy(noise))

    patches = image.reshape(2, 2, 8, 4, 8).transpose(0, 2, 4, 1, 3).reshape(2, 64, 2, 4)
    mean, log_variance = 300 * patches[:, :4], 300 * patches[:, :4]
    latent = mean + np.exp(log_variance / 2) * noise
    drawn = np.tile(latent, (1, 16, 1, 1)) / 400
    error = drawn.reshape(2, 8, 8, 2, 4).transpose(0, 3, 1, 4, 2).reshape(2, 16, 32) - image
    of_pixels, of_means = np.abs(error).mean(), np.abs(error.reshape(2, 4, 4, 8, 4).mean((2, 4))).mean()
    divergence = (mean**2 + np.exp(log_variance) - 1 - log_variance).sum() / 2 / image.size
    assert float(found) == pytest.approx(of_pixels + of_means + 1e-6 * divergence, rel=1e-6, abs=0)


def test_the_peak_signal_to_noise_ratio_is_that_of_scikit_image() -> None:
    first, second = np.random.default_rng(0).integers(0, 256, (2, 30, 40), np.uint8)
    assert psnr(first, second) == pytest.approx(peak_signal_noise_ratio(second, first), abs=1e-9)


def test_latents_are_standardised_by_their_mean_and_sd_over_all_images() -> None:
    autoencoder = tiny_autoencoder()
    images = np.random.default_rng(0).integers(0, 256, (9, 256, 512), np.uint8)
    images[4:] //= 3
    raw = Vae(autoencoder, 8, torch.zeros(CHANNELS), torch.ones(CHANNELS))
    with torch.inference_mode():
        latents = raw.encode(to_images(images, CPU)).double().numpy()
    mean, scale = latent_statistics(autoencoder, images, CPU)
    assert mean.tolist() == pytest.approx(latents.mean((0, 2, 3)).tolist(), abs=1e-5)
    assert scale.tolist() == pytest.approx(latents.std((0, 2, 3), ddof=1).tolist(), rel=1e-5)


def test_what_is_left_of_canals_is_the_median_over_those_that_can_be_told() -> None:
    masks = np.zeros((4, 256, 512), bool)
    masks[:, 100:106, 100:300] = True
    depths = np.array([50, 50, 50, 0])[:, None, None]  # the last image has no canal to lose
    labeled = Labeled((120 - depths * masks).astype(np.uint8), masks, tuple("abcd"))
    faded = np.array([10, 40, 50, 30])[:, None, None]
    restored = (120 - faded * masks).astype(np.uint8)
    assert canal_retention(restored, labeled) == pytest.approx(0.8)
    assert np.isnan(canal_retention(restored[3:], labeled.rows([3])))


def test_no_crop_is_drawn_of_an_image_that_is_kept_for_validation(tmp_path: Path) -> None:
    drawn: list[int] = []

    class Watched(np.ndarray[Any, Any]):
        def __getitem__(self, index: Any) -> Any:
            if isinstance(index, np.integer):
                drawn.append(int(index))
            return super().__getitem__(index)

    images = np.random.default_rng(0).integers(0, 256, (16, 256, 512), np.uint8).view(Watched)
    train_vae(images, Plan(Budget(steps=1), batch=48, learning_rate=1e-4), tmp_path, CPU, silent)
    assert len(drawn) == 48
    assert not set(drawn) & set(split(16)[0].tolist())


def test_half_of_all_crops_are_mirrored() -> None:
    brighter_to_the_right = np.tile(np.arange(512) // 2, (256, 1)).astype(np.uint8)
    random = np.random.default_rng(0)
    crops = [draw_crop(brighter_to_the_right, random) for _ in range(200)]
    mirrored = sum(crop[:, :64].mean() > crop[:, 64:].mean() for crop in crops)
    assert 70 < mirrored < 130

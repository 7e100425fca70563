"""The latents of a training set, made once."""

import hashlib
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.memorisation import MAX_IMAGES, TrainingLatents, describe_training
from models.pixels import sha256
from models.sharing import alone, reserve, whole
from models.tensors import to_images
from models.training.images import TrainingImages
from models.vae import LATENT_SIZE, Vae

BATCH = 8


def open_latents(
    vae: Vae, images: TrainingImages, cache: Path, device: torch.device, show: Callable[[int, int], None]
) -> Tensor:
    """-> latents (2N, C, 32, 64) float16 of N images, memory-mapped: each image, then its mirror image.

    Standardised posterior means. Kept in `cache` under a name that follows from the VAE's weights and the images'
    pixels; of several processes one makes them and the others wait. Raises NotLockable.
    """
    named = "".join(known.pixels_sha256 for known in images.known) + vae_sha256(vae)
    stored = cache / f"latents-{sha256(named.encode())[:16]}.npy"
    with alone(cache):
        if not stored.exists():
            _write(vae.to(device), images.pixels, stored, device, show)
    # Nothing is written to it, but a private mapping, "c", counts as memory and would have to fit; torch warns of "r".
    return torch.from_numpy(np.load(stored, mmap_mode="r+"))


def vae_sha256(vae: Vae) -> str:
    """Of all its weights."""
    digest = hashlib.sha256()
    for tensor in vae.state_dict().values():
        digest.update(tensor.cpu().numpy().tobytes())
    return digest.hexdigest()


def _write(
    vae: Vae, images: NDArray[np.uint8], stored: Path, device: torch.device, show: Callable[[int, int], None]
) -> None:
    """One after the other: on a full disk that is an error, where a file mapped into memory would end the process."""
    shape = (2 * len(images), vae.mean.shape[1], *LATENT_SIZE)
    with whole(stored) as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f2", "fortran_order": False, "shape": shape})
        reserve(file, file.tell() + 2 * math.prod(shape))
        for start in range(0, len(images), BATCH):
            batch = images[start : start + BATCH]
            both = np.stack([batch, batch[:, :, ::-1]], axis=1).reshape(-1, *batch.shape[1:])
            file.write(encode(vae, both, device).numpy().astype("<f2").tobytes())
            show(start + len(batch), len(images))


def describe_latents(latents: Tensor) -> TrainingLatents | None:
    """What the weights keep of `open_latents`' latents, to recognise copies; of more than 20,000 images an even choice.

    None where all images are the same.
    """
    images = np.arange(0, len(latents), 2)  # without the mirrored ones
    chosen = images[:: -(-len(images) // MAX_IMAGES)]
    return describe_training(latents[rows].float() for rows in np.array_split(chosen, -(-len(chosen) // BATCH)))


@torch.inference_mode()
def encode(vae: Vae, images: NDArray[np.uint8], device: torch.device) -> Tensor:
    """Images (B, 256, 512) uint8 -> standardised latents (B, C, 32, 64) float32 on the CPU.

    Not in bfloat16, which is off by 0.007: the noise at level 1, which the denoiser must see, is 0.01.
    """
    return vae.encode(to_images(images, device)).cpu()

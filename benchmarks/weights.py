"""What a set of weights reaches: does the canal survive the VAE, and the synthesis?

    python -m benchmarks.weights --weights models/weights/default
    python -m benchmarks.weights --weights models/weights/default --images FOLDER    # any radiographs, PSNR only

Phantoms of seed 900,001, which no weights were trained on. Canal contrast retention is that of `models.quality`; the
bars are printed beside the figures.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from app.presets import PRESETS
from models.matching import top_k
from models.moved_guides import move_guides
from models.phantoms import Phantom, phantoms
from models.pixels import from_unit
from models.quality import contrast, quality, retention
from models.synthesis import Recipe
from models.tensors import to_images
from models.training.images import TrainingDataError, open_images
from models.training.vae import psnr
from models.ways import synthesized
from models.weights import Networks, load_networks

SEED = 900_001


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, default=Path("models/weights/default"))
    parser.add_argument("--images", type=Path, help="folder of radiographs for the round trip instead of phantoms")
    parser.add_argument("--count", type=int, default=200, help="phantoms for the round trip, and in the pool")
    parser.add_argument("--guides", type=int, default=8, help="guides for the synthesis, 5 samples each")
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    networks = load_networks(arguments.weights, arguments.device)
    if arguments.images:
        with tempfile.TemporaryDirectory() as cache:
            try:
                images = open_images(arguments.images, Path(cache), lambda *_: None, print, least=1).pixels
            except TrainingDataError as error:
                parser.error(str(error))
            report("PSNR, dB", [psnr(decoded(networks, image.copy()), image) for image in images], bar=30)
        return
    found = list(phantoms(SEED, arguments.count))
    round_trip(networks, found)
    for preset in PRESETS:
        synthesis(networks, preset, found, arguments.guides)


def round_trip(networks: Networks, found: list[Phantom]) -> None:
    print(f"VAE round trip, {len(found)} phantoms")
    report("PSNR, dB", [psnr(decoded(networks, phantom.image), phantom.image) for phantom in found], bar=34)
    kept = [
        retention(contrast(decoded(networks, phantom.image), phantom.mask), contrast(phantom.image, phantom.mask))
        for phantom in found
    ]
    report("canal contrast retention", [value for value in kept if value is not None], bar=0.85)


def synthesis(networks: Networks, preset: str, found: list[Phantom], guide_count: int) -> None:
    """Guides of one look, a pool of all looks, top 5, as the service does it."""
    guides = list(phantoms(SEED + 1, guide_count, ["plain"]))
    latents = torch.cat([encoded(networks, phantom.image) for phantom in found])
    recipe = Recipe(method="diffusion", **PRESETS[preset].recipe())
    figures = []
    started = time.perf_counter()
    for guide in guides:
        numbers, data_range = [str(index) for index in range(len(found))], float(latents.max() - latents.min())
        for match in top_k(encoded(networks, guide.image), latents, numbers, 5, data_range)[0]:
            recipient = found[int(match.sha256)]
            image, mask, fit = guide.image, guide.mask, None
            if PRESETS[preset].align:
                (image,), (mask,), (fit,) = move_guides(image[None], mask[None], recipient.image[None], networks.device)
            (made,) = synthesized(networks, image[None], mask[None], recipient.image[None], recipe, [0])
            figures.append(quality(made, image, mask, recipient.image) | {"alignment": fit})
    seconds = (time.perf_counter() - started) / len(figures)
    print(f"preset {preset}, {len(figures)} samples, {seconds:.2f} s each")
    for name in ("canal_retention", "canal_correlation", "background_ssim", "seam", "alignment"):
        bar = 0.75 if name == "canal_retention" and preset == "paper" else None
        if values := [row[name] for row in figures if row[name] is not None]:
            report(name, values, bar)


@torch.inference_mode()
def encoded(networks: Networks, image: np.ndarray) -> torch.Tensor:
    return networks.vae.encode(to_images(image[None], networks.device)).cpu()


@torch.inference_mode()
def decoded(networks: Networks, image: np.ndarray) -> np.ndarray:
    restored = networks.vae.decode(networks.vae.encode(to_images(image[None], networks.device)))
    return from_unit(restored[0, 0].cpu().numpy())


def report(name: str, values: list[float], bar: float | None = None) -> None:
    median, low = np.median(values), np.percentile(values, 10)
    verdict = "" if bar is None else f"   bar {bar:g}: {'reached' if median >= bar else 'MISSED'}"
    print(f"  {name:26} median {median:7.3f}   10th percentile {low:7.3f}{verdict}")


if __name__ == "__main__":
    main()

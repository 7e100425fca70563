"""Milliseconds per pair of latents: our SSIM beside scikit-image's, and how far apart the two are.

python -m benchmarks.matching --guides 4 --pool 200 --threads 2
"""

import argparse
import time

import numpy as np
import torch
from skimage.metrics import structural_similarity

from benchmarks.synthesis import timed
from models.matching import latent_ssim


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--guides", type=int, default=4)
    parser.add_argument("--pool", type=int, default=200)
    parser.add_argument("--channels", type=int, default=16)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()

    torch.set_num_threads(arguments.threads)
    generator = torch.Generator().manual_seed(0)
    shape = (arguments.channels, 32, 64)
    guides = torch.randn(arguments.guides, *shape, generator=generator)
    pool = torch.randn(arguments.pool, *shape, generator=generator)
    data_range = float(pool.max() - pool.min())

    on_device = (guides.to(arguments.device), pool.to(arguments.device))
    ours = latent_ssim(*on_device, data_range)
    device = torch.device(arguments.device)
    seconds = min(timed(lambda: latent_ssim(*on_device, data_range), device) for _ in range(5))
    per_pair = 1000 * seconds / (arguments.guides * arguments.pool)
    pairs = f"{arguments.guides} x {arguments.pool} pairs of {shape}"
    print(f"pansynth      {per_pair:.4f} ms a pair, {pairs}, {arguments.device}, {arguments.threads} threads")

    few = pool[:20].numpy()
    started = time.perf_counter()
    theirs = [structural_similarity(guides[0].numpy(), b, channel_axis=0, data_range=data_range) for b in few]
    seconds = time.perf_counter() - started
    difference = np.abs(ours[0, : len(few)].cpu().numpy() - theirs).max()
    print(f"scikit-image  {1000 * seconds / len(few):.4f} ms a pair; largest difference {difference:.1e}")


if __name__ == "__main__":
    main()

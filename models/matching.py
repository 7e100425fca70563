"""Which pool images resemble a guide: exact SSIM between latents, and the k best of a pool read piece by piece."""

import hashlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.batches import FixedBatches

WINDOW = 7
# What resembles a radiograph more is a copy of it. Measured in the shipped weights' latents: copies saved with loss or
# in another size at 0.99 and more, with noise at 0.96; other patients' jaws at 0.64 and less, retinas at 0.80.
COPY_SSIM = 0.95
_K1, _K2 = 0.01, 0.03
_SAMPLE_COVARIANCE = WINDOW**2 / (WINDOW**2 - 1)
_CHUNK_CPU = 4  # pool latents compared at once: the intermediate results stay in a core's cache
_CHUNK_CUDA = 256


class Match(NamedTuple):
    """A pool image chosen for a guide, and how similar their latents are."""

    sha256: str
    ssim: float


class _Windows(NamedTuple):
    """Images (N, C, H, W), and what SSIM needs of their windows alone: each (N, C, H-6, W-6)."""

    images: Tensor
    mean: Tensor
    mean_square: Tensor  # the mean's square
    variance: Tensor


def ssim_map(first: Tensor, second: Tensor, data_range: float) -> Tensor:
    """SSIM of every 7 x 7 window inside two batches (N, C, H, W) of float32 -> (N, C, H-6, W-6).

    Wang et al. 2004 as scikit-image's `structural_similarity` computes it by default: uniform windows, sample
    covariance, K1 0.01, K2 0.03. A batch of one is compared with all of the other.
    """
    return _ssim(_windows(first), _windows(second), data_range)


def latent_ssim(guides: Tensor, pool: Tensor, data_range: float) -> Tensor:
    """Mean SSIM of every guide with every pool latent: (G, C, H, W), (N, C, H, W) float32 -> (G, N) float32.

    The mean over windows and channels of `ssim_map`, which is `structural_similarity(..., channel_axis=0)`;
    `data_range` is the largest minus the smallest value of the whole pool's latents. The result lies on the
    guides' device, and one pair's bits do not depend on the other pairs. Raises ValueError for a data range
    of 0 and for latents of different shapes.
    """
    if data_range <= 0:
        raise ValueError(f"data_range is {data_range}; give the largest minus the smallest latent value, above 0")
    if guides.shape[1:] != pool.shape[1:]:
        shapes = tuple(guides.shape[1:]), tuple(pool.shape[1:])
        raise ValueError(f"guides are {shapes[0]}, the pool's latents {shapes[1]}; encode both with one model")
    if len(pool) == 0:
        return guides.new_empty(len(guides), 0)
    guide_windows = [_windows(guide[None]) for guide in guides]

    def compare(some: Tensor) -> Tensor:
        windows = _windows(some)
        # Summed in float64, the order of summation leaves no trace in float32.
        columns = [_ssim(windows, own, data_range).mean(dim=(1, 2, 3), dtype=torch.float64) for own in guide_windows]
        return torch.stack(columns, dim=1).float()

    with FixedBatches(_CHUNK_CUDA if guides.is_cuda else _CHUNK_CPU) as batches:
        return batches.run(compare, pool.to(guides.device)).T.contiguous()


def top_k(
    guides: Tensor,
    pool: Tensor,
    sha256s: Sequence[str],
    k: int,
    data_range: float,
    best: Sequence[Sequence[Match]] = (),
) -> list[list[Match]]:
    """For each guide (G, C, H, W) its k most similar pool images, best first; ties by ascending sha256.

    pool, sha256s: latents (N, C, H, W) and their images'. A large pool may come piece by piece: `best` is then what
    those before gave. A pool smaller than k gives all it has. Raises ValueError for a k below 1, and as `latent_ssim`.
    """
    if k < 1:
        raise ValueError(f"k is {k}; give 1 or more")
    ssim = latent_ssim(guides, pool, data_range).cpu().numpy()
    before = best or [[] for _ in guides]
    found = ([*before[row], *_candidates(ssim[row], sha256s, k)] for row in range(len(guides)))
    return [sorted(matches, key=lambda match: (-match.ssim, match.sha256))[:k] for matches in found]


def random_selection(seed: int, guide_sha256: str, pool_sha256s: Iterable[str], k: int) -> list[str]:
    """k pool images drawn without regard to their looks: the control of `top_k`.

    Repeatable: the draw depends on the seed, the guide and which images the pool holds, not on their order.
    """

    def lot(sha256: str) -> bytes:
        return hashlib.sha256(f"{seed}:{guide_sha256}:{sha256}".encode()).digest()

    return sorted(pool_sha256s, key=lot)[:k]


def _candidates(ssim: NDArray[np.float32], sha256s: Sequence[str], k: int) -> list[Match]:
    """Those of a piece that may be among the k best, in no order: none is below the piece's k-th value."""
    floor = np.partition(ssim, -k)[-k] if len(ssim) > k else -np.inf
    return [Match(sha256s[column], float(ssim[column])) for column in np.flatnonzero(ssim >= floor).tolist()]


def _ssim(a: _Windows, b: _Windows, data_range: float) -> Tensor:
    """Wang et al. 2004, equation 13; mostly in place, since its cost is memory traffic."""
    c1, c2 = (_K1 * data_range) ** 2, (_K2 * data_range) ** 2
    means = a.mean * b.mean
    structure = _window_means(a.images * b.images).sub_(means).mul_(2 * _SAMPLE_COVARIANCE).add_(c2)
    structure.div_((a.variance + b.variance).add_(c2))
    luminance = means.mul_(2).add_(c1)
    luminance.div_((a.mean_square + b.mean_square).add_(c1))
    return luminance.mul_(structure)


def _windows(images: Tensor) -> _Windows:
    mean = _window_means(images)
    mean_square = mean * mean
    variance = _window_means(images * images).sub_(mean_square).mul_(_SAMPLE_COVARIANCE)
    return _Windows(images, mean, mean_square, variance)


def _window_means(images: Tensor) -> Tensor:
    """Means of the 7 x 7 windows inside (N, C, H, W) -> (N, C, H-6, W-6).

    Additions alone: many times as fast on a CPU as `avg_pool2d`, and with the same bits for any N.
    """
    return _sums_of_7(_sums_of_7(images, dim=-2), dim=-1).div_(WINDOW**2)


def _sums_of_7(values: Tensor, dim: int) -> Tensor:
    """Sums of 7 neighbours, as 4 + 2 + 1 of them: n values -> n - 6."""
    count = values.shape[dim] - (WINDOW - 1)
    twos = values.narrow(dim, 0, count + 5) + values.narrow(dim, 1, count + 5)
    fours = twos.narrow(dim, 0, count) + twos.narrow(dim, 2, count)
    return fours.add_(twos.narrow(dim, 4, count)).add_(values.narrow(dim, 6, count))

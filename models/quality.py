"""What a sample is worth: is the canal still the guide's, the background the pool image's, the seam invisible?"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, gaussian_filter, maximum_filter

from models.blending import dilate, downsample_mask, image_band
from models.matching import WINDOW, ssim_map

NOISE_FLOOR = 2.0  # gray levels: anatomy that differs by less from what surrounds it has no contrast to keep
_RING = (2, 6)  # pixels from the anatomy at which the bone around it begins and ends
_HIGH_PASS_SIGMA = 4.0
_DECIMALS = 4

Pixels = NDArray[np.uint8]
Mask = NDArray[np.bool_]


def quality(
    sample: Pixels, guide: Pixels, mask: Mask, unlabeled: Pixels, dilation_latent_pixels: int = 1
) -> dict[str, float | None]:
    """Figures of one sample, rounded, None where one is undefined: ready for JSON.

    Images (256, 512) uint8; mask (256, 512) bool, the guide's.

    canal_contrast: `contrast` of the sample on the mask, gray levels; guide_canal_contrast: of its guide.
    canal_retention: the first over the second, for bright anatomy, too; None where the guide's is within the noise
        floor.
    canal_correlation: of sample and guide, high-passed, inside the dilated mask; 1: it is the guide's own texture.
    background_ssim: of sample and unlabeled image, outside the dilated mask; 1: they are equal there.
    seam: `seam` of the dilated mask's border; 1: as smooth as the unlabeled image is there.

    The dilated mask is that of the synthesis: any-pixel downsampled, grown by `dilation_latent_pixels`.
    """
    band = dilated_mask(mask, dilation_latent_pixels)
    own, guides = contrast(sample, mask), contrast(guide, mask)
    figures = {
        "canal_contrast": own,
        "guide_canal_contrast": guides,
        "canal_retention": retention(own, guides),
        "canal_correlation": high_pass_correlation(sample, guide, band),
        "background_ssim": background_ssim(sample, unlabeled, band),
        "seam": seam(sample, unlabeled, band),
    }
    return {name: None if value is None else round(value, _DECIMALS) for name, value in figures.items()}


def dilated_mask(mask: Mask, dilation_latent_pixels: int) -> Mask:
    """The anatomy mask as the synthesis uses it, at image size: (256, 512) bool -> (256, 512) bool."""
    latent_mask = dilate(downsample_mask(torch.from_numpy(mask)[None, None]), dilation_latent_pixels)
    band: Mask = image_band(latent_mask)[0, 0].numpy() > 0
    return band


def contrast(image: NDArray[Any], mask: Mask) -> float | None:
    """How much darker the anatomy is than the ring around it: mean of the ring - mean of the mask.

    The ring is what lies more than 2 and at most 6 pixels away from the mask (Euclidean: discs, not squares).
    Image (H, W), 0..255. Below 0 for what is brighter, as teeth. None without mask or ring.
    """
    distance = distance_transform_edt(~mask)
    ring = (distance > _RING[0]) & (distance <= _RING[1])
    if not mask.any() or not ring.any():
        return None
    return float(image[ring].mean(dtype=np.float64) - image[mask].mean(dtype=np.float64))


def retention(contrast_now: float | None, contrast_before: float | None) -> float | None:
    """The share of the anatomy's contrast that is left; None where there was none to begin with.

    Below 0 where what was dark has become bright, or the other way round.
    """
    if contrast_now is None or contrast_before is None or abs(contrast_before) < NOISE_FLOOR:
        return None
    return contrast_now / contrast_before


def high_pass_correlation(first: NDArray[Any], second: NDArray[Any], where: Mask) -> float | None:
    """Pearson's correlation of two images' fine detail in an area; None if one of them is flat.

    Fine detail is what a Gaussian of sigma 4 over the area's own pixels takes away: what lies outside, and
    the area's border with it, does not count.
    """
    share = _smooth(where)[where]  # of the Gaussian's weight that lies in the area
    details = [image[where] - _smooth(image * where)[where] / share for image in (first, second)]
    if any(detail.size < 2 or detail.std() < 1e-6 for detail in details):
        return None
    return float(np.corrcoef(details[0], details[1])[0, 1])


def background_ssim(sample: Pixels, unlabeled: Pixels, band: Mask) -> float | None:
    """Mean SSIM (scikit-image's defaults) of the 7 x 7 windows without a pixel of the band; None without any."""
    first, second = (torch.from_numpy(image.astype(np.float32))[None, None] for image in (sample, unlabeled))
    local = ssim_map(first, second, data_range=255.0)[0, 0].numpy()
    reach = WINDOW // 2
    outside = ~maximum_filter(band, WINDOW)[reach:-reach, reach:-reach]
    return float(local[outside].mean(dtype=np.float64)) if outside.any() else None


def seam(sample: Pixels, unlabeled: Pixels, band: Mask) -> float | None:
    """The mean step in gray level across the band's border, in the sample relative to the unlabeled image.

    Above 1 the border shows. One gray level is added to both, so that a flat image gives no infinity. None
    without border.
    """
    steps = [_steps_across(image, band) for image in (sample, unlabeled)]
    if steps[0].size == 0:
        return None
    return float((steps[0].mean() + 1) / (steps[1].mean() + 1))


def _steps_across(image: Pixels, band: Mask) -> NDArray[np.float64]:
    """|difference| of every two neighbouring pixels of which one is in the band and the other is not."""
    gray = image.astype(np.float64)
    down = np.abs(np.diff(gray, axis=0))[band[1:] != band[:-1]]
    across = np.abs(np.diff(gray, axis=1))[band[:, 1:] != band[:, :-1]]
    return np.concatenate([down, across])


def _smooth(image: NDArray[Any]) -> NDArray[np.float64]:
    smooth: NDArray[np.float64] = gaussian_filter(image.astype(np.float64), _HIGH_PASS_SIGMA)
    return smooth

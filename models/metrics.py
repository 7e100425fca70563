"""How well a predicted mask agrees with the true one, per image; a canal is a thin tube, so more than overlap counts.

The rule for empty masks: where both are empty every share is 1 and the distance 0; where one of them is empty every
share is 0 and the distance the image's diagonal. So nothing found where there was something is never "precise".
"""

from math import hypot

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion, distance_transform_edt

METRICS = ("precision", "recall", "dice", "cldice", "hd95")

Mask = NDArray[np.bool_]


def scores(predicted: Mask, truth: Mask) -> dict[str, float]:
    """Every metric of two masks (H, W) bool, by its name in METRICS; `hd95` in pixels, the others 0 ... 1.

    Raises ValueError for masks of different sizes.
    """
    if predicted.shape != truth.shape:
        raise ValueError(f"the prediction is {predicted.shape}, the truth {truth.shape}; give both at one size")
    if not predicted.any() or not truth.any():
        share = float(predicted.any() == truth.any())
        distance = 0.0 if share else hypot(*truth.shape)
        return dict.fromkeys(METRICS[:-1], share) | {"hd95": distance}
    predicted, truth = _cropped(predicted, truth)
    both = float(np.count_nonzero(predicted & truth))
    precision, recall = both / np.count_nonzero(predicted), both / np.count_nonzero(truth)
    return {
        "precision": precision,
        "recall": recall,
        "dice": harmonic_mean(precision, recall),
        "cldice": centre_line_dice(predicted, truth),
        "hd95": hausdorff_95(predicted, truth),
    }


def _cropped(first: Mask, second: Mask) -> tuple[Mask, Mask]:
    """Both to the box of what is in either: the metrics are the same, in a third of the time."""
    either = first | second
    rows, columns = (np.flatnonzero(either.any(axis=axis)) for axis in (1, 0))
    box = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    return first[box], second[box]


def dice(predicted: Mask, truth: Mask) -> float:
    """The `dice` of `scores` alone, which takes a fraction of the time."""
    total = np.count_nonzero(predicted) + np.count_nonzero(truth)
    return 2 * float(np.count_nonzero(predicted & truth)) / total if total else 1.0


def centre_line_dice(predicted: Mask, truth: Mask) -> float:
    """clDice (Shit et al., CVPR 2021, equations 1-2) of two masks that are not empty.

    The harmonic mean of two shares: of the prediction's skeleton that lies in the truth, and of the truth's skeleton
    that lies in the prediction. Skeletons are scikit-image's `skeletonize` (Zhang and Suen).
    """
    from skimage.morphology import skeletonize

    own, true = skeletonize(predicted), skeletonize(truth)
    return harmonic_mean(float(truth[own].mean()), float(predicted[true].mean()))


def hausdorff_95(first: Mask, second: Mask) -> float:
    """The larger of the two directed 95th percentiles of distances between borders, in pixels; neither is empty.

    A border is the pixels of a mask with a neighbour (of four) outside it or outside the image.
    """
    borders = [mask & ~binary_erosion(mask) for mask in (first, second)]
    distances = [distance_transform_edt(~border) for border in borders]
    there, back = distances[1][borders[0]], distances[0][borders[1]]
    return float(max(np.percentile(there, 95), np.percentile(back, 95)))


def harmonic_mean(first: float, second: float) -> float:
    return 2 * first * second / (first + second) if first + second > 0 else 0.0

"""How well the region finder finds the region: `python -m benchmarks.region [--weights FOLDER] [--count 200]`.

Phantoms of seed 900,002, which nothing was trained on, at their own 512x256.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from models.metrics import dice
from models.phantoms import nth_phantom
from models.region import Box, crop_box, find_region, load_region, reduce_region

SEED = 900_002
SHIPPED = Path(__file__).parents[1] / "models" / "weights" / "region"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, default=SHIPPED)
    parser.add_argument("--count", type=int, default=200)
    given = parser.parse_args()
    segmenter = load_region(given.weights)
    dices, overlaps, canals, missing = [], [], [], 0
    for number in range(given.count):
        phantom = nth_phantom(SEED, number)
        found = find_region(segmenter, phantom.image.astype(np.float32) / 255)
        if found is None:
            missing += 1
            continue
        true = reduce_region(phantom.region)
        dices.append(dice(found, true))
        boxes = [crop_box(region, phantom.image.shape) for region in (found, true)]
        overlaps.append(overlap(*boxes))
        canals.append(bool(np.count_nonzero(boxes[0].cut(phantom.mask)) == np.count_nonzero(phantom.mask)))
    print(
        json.dumps(
            {
                "phantoms": given.count,
                "no region found": missing,
                "Dice of the region": spread(dices),
                "IoU of the region": spread([d / (2 - d) for d in dices]),
                "IoU of the crop": spread(overlaps),
                "crops that hold the whole canal": float(np.mean(canals)) if canals else None,
            },
            indent=2,
        )
    )


def overlap(first: Box, second: Box) -> float:
    """Intersection over union of two boxes."""
    areas = np.zeros((2, first.frame_height, first.frame_width), bool)
    for area, box in zip(areas, (first, second), strict=True):
        box.cut(area)[:] = True
    return float((areas[0] & areas[1]).sum() / (areas[0] | areas[1]).sum())


def spread(values: list[float]) -> dict[str, float]:
    if not values:  # no region was found
        return {}
    return {f"p{q}": round(float(np.percentile(values, q)), 4) for q in (0, 10, 50)} | {
        "mean": round(float(np.mean(values)), 4)
    }


if __name__ == "__main__":
    main()

"""Training of the region finder: a SegFormer on small radiographs, and regions that are known."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from models.labeled_sets import Pair, Show, read_pairs
from models.region import reduce_image, reduce_region
from models.segmenter import Labeled, Segmenter
from models.training.augmentation import WIDE
from models.training.checkpoint import Checkpoint
from models.training.nothing import with_nothing
from models.training.segmenter import SegmenterPlan, SegmenterTraining


def read_regions(pairs: Sequence[Pair], show: Show) -> Labeled:
    """Radiographs with the files of their regions, small: images and regions (N, 64, 128).

    Raises ValueError for fewer than two, or naming the wrong files.
    """
    if len(pairs) < 2:
        raise ValueError(f"there is {len(pairs)} radiograph with its region; training needs at least 2")
    images, regions = zip(*read_pairs(pairs, reduce_image, reduce_region, "regions", show), strict=True)
    return Labeled(np.stack(images), np.stack(regions), tuple(path.name for path, _ in pairs))


def region_plan(steps: int, batch: int, learning_rate: float, seed: int) -> SegmenterPlan:
    """SegFormer-B0, with images moved and scaled further than for a canal: radiographs are framed in many ways."""
    return SegmenterPlan("b0", steps, batch, learning_rate, seed, reach=WIDE)


def train_region(
    labeled: Labeled,
    plan: SegmenterPlan,
    checkpoint: Checkpoint,
    device: torch.device,
    show: Callable[[int, int, str], None],
) -> tuple[Segmenter, dict[str, Any]]:
    """Train on `labeled` and pictures of nothing; -> the best state, the facts.

    A fifth of all these (of nine or fewer none) is held out, and chooses that state. A run that was killed continues
    from `checkpoint`, at most a minute old; remove it once the result is kept.
    """
    training = SegmenterTraining([with_nothing(labeled, plan.seed)], plan, device)
    checkpoint.finish(training, "region", show)
    facts = {"images": len(labeled), "steps": training.step, "batch": plan.batch, "learning_rate": plan.learning_rate}
    reached = {} if training.best_dice is None else {"held_out_dice": round(training.best_dice, 4)}
    return training.best(), {**facts, "seed": plan.seed, **reached}

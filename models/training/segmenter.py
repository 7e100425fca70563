"""Training a segmenter for a fixed number of steps: CE + Dice, AdamW, the best state by held-out training anatomy."""

import hashlib
import io
import math
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from models.metrics import dice
from models.precision import autocast
from models.segmenter import Labeled, Segmenter, build_segmenter, check_backbone, learning_rate, predict
from models.tensors import to_images
from models.training.augmentation import STANDARD, Reach, augment
from models.training.plan import annealed

FOLDS = 5  # one of so many is held out, as in a cross-validation
MAX_VALIDATION_IMAGES = 64


@dataclass(frozen=True)
class SegmenterPlan:
    """The numbers of a run; every arm of a comparison takes the same.

    equal_weights: an item of a batch is drawn from every source with the same probability, whatever their sizes;
    otherwise every image of all has the same probability. learning_rate: the peak; None: the backbone's own.
    validations: evenly spread, at least so many (or one a step) and fewer than twice as many, and one at the end.
    Raises ValueError for numbers that make no run.
    """

    backbone: str = "b0"
    steps: int = 2000
    batch: int = 8
    learning_rate: float | None = None
    seed: int = 0
    equal_weights: bool = True
    warmup_share: float = 0.05
    weight_decay: float = 0.01
    validations: int = 10
    reach: Reach = STANDARD

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "validations"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; give 1 or more")
        if self.learning_rate is not None and not 0 < self.learning_rate < math.inf:
            raise ValueError(f"the learning rate is {self.learning_rate}; give one above 0, or none for the backbone's")
        check_backbone(self.backbone)


class SegmenterTraining:
    """A run that can be stopped after any step, saved, and continued elsewhere with the same result on a CPU."""

    def __init__(self, sources: Sequence[Labeled], plan: SegmenterPlan, device: torch.device | str = "cpu") -> None:
        """`sources`: one or more sets (real, synthetic), none empty. Raises ValueError.

        A fifth of the *first* source's groups is held out, of every source; the first source's images among them
        choose the best state. Of nine groups or fewer none is held out: the last state is taken. A source that is held
        out altogether is trained on all the same: an arm without it would be another arm.
        """
        if not sources or not all(len(source) for source in sources):
            raise ValueError("a source has no labeled images; give at least one of each")
        self.plan = plan
        self.device = torch.device(device)
        held_out = hold_out(sources[0], plan.seed)
        self.validation = _among(sources[0], held_out)
        self._sources = [(source, _trained_on(source, held_out)) for source in sources]  # with the rows that are drawn
        self._segmenter = build_segmenter(plan.backbone, plan.seed).to(self.device)
        self._peak_rate = learning_rate(plan.backbone) if plan.learning_rate is None else plan.learning_rate
        self._optimizer = torch.optim.AdamW(
            self._segmenter.parameters(),
            lr=self._peak_rate,
            weight_decay=plan.weight_decay,
            fused=self.device.type == "cuda",  # else a sixth of a GPU's time goes into the optimiser
        )
        self._best: dict[str, Tensor] = {}
        self.best_dice: float | None = None  # of the held-out images, if there are any
        self.best_step = 0
        self.step = 0

    @property
    def done(self) -> bool:
        return self.step >= self.plan.steps

    def advance(self) -> float:
        """One optimiser step, and a validation where one is due; the loss. Raises FloatingPointError."""
        generator = torch.Generator().manual_seed(_mixed(self.plan.seed, self.step))
        images, masks = self._batch(generator)
        for group in self._optimizer.param_groups:
            group["lr"] = self._peak_rate * rate_share(self.step, self.plan)
        self._segmenter.train()
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(_mixed(self.plan.seed, self.step, "dropout"))
            with autocast(self.device):
                logits = self._segmenter(images)
            loss = segmentation_loss(logits, masks)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        gradient = float(torch.nn.utils.clip_grad_norm_(self._segmenter.parameters(), 1.0))
        value = float(loss.detach())
        if not math.isfinite(value + gradient):  # before it spoils the weights, and these a checkpoint
            raise FloatingPointError(
                f"the loss is {value}, its gradient {gradient} at step {self.step + 1}; "
                "lower the learning rate, or take another backbone or batch"  # an evaluation has no learning rate
            )
        self._optimizer.step()
        self.step += 1
        if self.step % max(1, self.plan.steps // self.plan.validations) == 0 or self.done:
            self._validate()
        return value

    def finish(self, saved: bytes | None, after_step: Callable[[float], None]) -> None:
        """Every step that is left, from a saved state on if there is one; `after_step(loss)` may end it by raising."""
        if saved is not None:
            self.restore(saved)
        while not self.done:
            after_step(self.advance())
        if self.best_dice is None and self.best_step < self.step:  # stopped, and then given fewer steps
            self._validate()

    def best(self) -> Segmenter:
        """The segmenter in its best state so far."""
        chosen = deepcopy(self._segmenter).eval()
        chosen.load_state_dict(self._best or chosen.state_dict())
        return chosen

    def save(self) -> bytes:
        """Everything that `restore` needs; no pickled code."""
        state = {
            "step": self.step,
            "best_dice": self.best_dice,
            "best_step": self.best_step,
            "best": self._best,
            "segmenter": self._segmenter.state_dict(),
            "optimizer": self._optimizer.state_dict(),
        }
        buffer = io.BytesIO()
        torch.save(state, buffer)
        return buffer.getvalue()

    def restore(self, saved: bytes) -> None:
        state: dict[str, Any] = torch.load(io.BytesIO(saved), map_location="cpu", weights_only=True)
        self.step, self.best_dice, self.best_step = state["step"], state["best_dice"], state["best_step"]
        self._best = state["best"]
        self._segmenter.load_state_dict(state["segmenter"])
        for group in state["optimizer"]["param_groups"]:
            group["fused"] = self.device.type == "cuda"  # as here, not as where it was saved
        self._optimizer.load_state_dict(state["optimizer"])

    def _batch(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Images (B, 1, H, W) in [-1, 1] and masks (B, H, W) bool on the device, augmented."""
        sizes = torch.tensor([len(rows) for _, rows in self._sources], dtype=torch.float64)
        weights = torch.ones_like(sizes) if self.plan.equal_weights else sizes
        chosen = torch.multinomial(weights, self.plan.batch, replacement=True, generator=generator).tolist()
        share = torch.rand(self.plan.batch, generator=generator, dtype=torch.float64).tolist()
        drawn = [(self._sources[source], part) for source, part in zip(chosen, share, strict=True)]
        picked = [(source, rows[int(part * len(rows))]) for (source, rows), part in drawn]
        images = np.stack([source.images[row] for source, row in picked])
        masks = torch.from_numpy(np.stack([source.masks[row] for source, row in picked])).to(self.device)
        return augment(to_images(images, self.device), masks, generator, self.plan.reach)

    def _validate(self) -> None:
        """Keep the state if it is the best so far; without held-out images the latest counts as the best."""
        reached = None
        if len(self.validation):
            found = predict(self._segmenter, self.validation.images, self.device)
            truth = self.validation.masks
            reached = float(np.mean([dice(p, t) for p, t in zip(found, truth, strict=True)]))
        if reached is None or self.best_dice is None or reached >= self.best_dice:
            self.best_dice, self.best_step = reached, self.step
            self._best = {name: value.detach().clone() for name, value in self._segmenter.state_dict().items()}


def segmentation_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """Cross-entropy plus 1 - soft Dice of the anatomy over the batch: logits (B, 2, H, W), masks (B, H, W) bool."""
    entropy = functional.cross_entropy(logits, masks.long())
    share, truth = logits.softmax(dim=1)[:, 1], masks.float()
    overlap = (2 * (share * truth).sum() + 1) / (share.sum() + truth.sum() + 1)
    return entropy + 1 - overlap


def rate_share(step: int, plan: SegmenterPlan) -> float:
    """Linear warm-up, then half a cosine down to 1 % at the last step."""
    warmup = max(1, round(plan.warmup_share * plan.steps))
    if step < warmup:
        return (step + 1) / warmup
    return annealed((step - warmup) / max(1, plan.steps - warmup))


def hold_out(source: Labeled, seed: int) -> frozenset[str]:
    """A fifth of the groups, drawn by lot; none of nine or fewer: a single image chooses badly, and is missed."""

    def lot(group: str) -> bytes:
        return hashlib.sha256(f"{seed}:{group}".encode(errors="surrogateescape")).digest()  # a file's name may be any

    groups = sorted(set(source.groups), key=lot)
    count = len(groups) // FOLDS
    return frozenset(groups[:count] if count > 1 else ())


def _among(source: Labeled, held_out: frozenset[str]) -> Labeled:
    rows = [row for row, group in enumerate(source.groups) if group in held_out]
    every = max(1, math.ceil(len(rows) / MAX_VALIDATION_IMAGES))
    return source.rows(rows[::every])


def _trained_on(source: Labeled, held_out: frozenset[str]) -> list[int]:
    """The rows of all other groups, or every row if there are none. No copy: a source may take gigabytes."""
    return [row for row, group in enumerate(source.groups) if group not in held_out] or list(range(len(source)))


def _mixed(*parts: object) -> int:
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "big") >> 1

"""The segmenter whose Dice says what synthetic data are worth: transformers' SegFormer (Xie et al., NeurIPS 2021)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn import functional
from transformers import SegformerConfig, SegformerForSemanticSegmentation
from transformers.utils import logging

from models.pixels import file_sha256, sha256
from models.precision import autocast
from models.tensors import to_images


@dataclass(frozen=True)
class Size:
    """What distinguishes the SegFormers: blocks and channels of the four stages, channels of the decoder.

    learning_rate: the peak that suits random weights; the smaller the network, the larger the steps it bears.
    """

    depths: tuple[int, int, int, int]
    channels: tuple[int, int, int, int]
    decoder: int
    learning_rate: float = 3e-4


WIDE = (64, 128, 320, 512)
BACKBONES: dict[str, Size] = {
    "tiny": Size((1, 1, 1, 1), (8, 16, 20, 32), 32, 3e-3),  # for smoke runs: it learns, but not much
    "mini": Size((1, 1, 1, 1), (16, 32, 80, 96), 64, 3e-3),  # for a CPU: a sixth of b0's time
    "b0": Size((2, 2, 2, 2), (32, 64, 160, 256), 256),
    "b1": Size((2, 2, 2, 2), WIDE, 256),
    "b2": Size((3, 4, 6, 3), WIDE, 768),
    "b3": Size((3, 4, 18, 3), WIDE, 768),
    "b4": Size((3, 8, 27, 3), WIDE, 768),
    "b5": Size((3, 6, 40, 3), WIDE, 768),
}
HEADS = (1, 2, 5, 8)
FINE_TUNING_RATE = 6e-5  # Xie et al. 2021, for pretrained encoders
BATCH = 8  # images predicted at once

Images = NDArray[np.uint8]
Masks = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Labeled:
    """Labeled radiographs: images (N, H, W) uint8, masks (N, H, W) bool; 256 x 512 but for the region finder's.

    groups: one name per row; rows of one group share an anatomy (a guide and what was synthesised from it), so they
    are never on both sides of a split.
    """

    images: Images
    masks: Masks
    groups: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.images.shape != self.masks.shape or len(self.groups) != len(self.images):
            raise ValueError(
                f"images are {self.images.shape}, masks {self.masks.shape}, groups {len(self.groups)}; "
                "give as many of each, of one size"
            )

    def __len__(self) -> int:
        return len(self.groups)

    def rows(self, chosen: Sequence[int]) -> "Labeled":
        indices = np.asarray(chosen, dtype=np.int64)
        return Labeled(self.images[indices], self.masks[indices], tuple(self.groups[row] for row in chosen))


class Segmenter(nn.Module):
    """A SegFormer over one-channel radiographs."""

    def __init__(self, network: SegformerForSemanticSegmentation) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 1, H, W) in [-1, 1] -> logits (B, 2, H, W) of background and anatomy, float32.

        The network's own logits lie at a quarter of the size; they are upsampled bilinearly.
        """
        features = [images.expand(-1, self.network.config.num_channels, -1, -1)]
        for stage in self.network.segformer.stages:
            features.append(stage(features[-1]))
        return upsample(self._decode(features[1:]).float(), images)

    def _decode(self, features: Sequence[Tensor]) -> Tensor:
        """Features of the stages, each (B, C, h, w) -> logits (B, 2, H/4, W/4): what the network's own head computes.

        The head upsamples every stage, stacks them and mixes the stack linearly. Mixing commutes with upsampling, so
        here each stage is mixed at its own size and the results are summed: half the time of a training step.
        """
        head = self.network.decode_head
        shares = head.linear_fuse.weight[:, :, 0, 0].chunk(len(features), dim=1)[::-1]  # stacked from the last stage on
        mixed: Tensor | float = 0.0
        for feature, share, layer in zip(features, shares, head.linear_projections, strict=True):
            linear: nn.Linear = layer.proj  # type: ignore[assignment]
            weight, bias = share @ linear.weight, share @ linear.bias
            # Not a convolution: on a CPU that copies its gradient into another layout first.
            own = torch.baddbmm(bias[:, None], weight.expand(len(feature), -1, -1), feature.flatten(2))
            mixed = mixed + upsample(own.view(len(own), -1, *feature.shape[2:]), features[0])
        logits: Tensor = head.classifier(head.dropout(head.activation(head.batch_norm(mixed))))
        return logits


def upsample(features: Tensor, like: Tensor) -> Tensor:
    """(B, C, h, w) -> (B, C, H, W), the size of `like`, bilinearly, in the precision of `features`.

    As a matrix product for the rows and one for the columns: torch's own upsampling, above all its gradient, takes a
    quarter of a training step on a CPU.
    """
    if features.shape[-2:] == like.shape[-2:]:
        return features
    rows, columns = (_shares(*sizes, features) for sizes in zip(features.shape[-2:], like.shape[-2:], strict=True))
    with torch.autocast(features.device.type, enabled=False):
        return rows.mT @ (features @ columns)


def _shares(count: int, size: int, like: Tensor) -> Tensor:
    """(count, size): how much each of `count` samples contributes to each of `size` that lie linearly between them."""
    each = torch.eye(count, dtype=like.dtype, device=like.device)
    return functional.interpolate(each[None], size, mode="linear", align_corners=False)[0]


def build_segmenter(backbone: str = "b0", seed: int = 0) -> Segmenter:
    """A segmenter by its name in BACKBONES with random weights of `seed`, or from a local folder of pretrained ones.

    The folder is one that `save_pretrained` wrote (an encoder or a whole SegFormer; safetensors alone are read); a head
    that it lacks, or one of other classes, begins at random. Raises ValueError for what is neither, or cannot be read.
    """
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # transformers' own, at every reading and writing
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if backbone in BACKBONES:
            return Segmenter(SegformerForSemanticSegmentation(_config(backbone)))
        check_backbone(backbone)
        try:
            found: Any = SegformerForSemanticSegmentation.from_pretrained(
                backbone,
                num_labels=2,
                reshape_last_stage=True,
                ignore_mismatched_sizes=True,
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
            )
        except (OSError, SafetensorError) as error:
            raise ValueError(f"backbone {backbone!r} cannot be read: {error}") from None
        network, told = found
        if any(name.startswith("segformer.") for name in told["missing_keys"]):  # it would begin at random
            raise ValueError(f"backbone {backbone!r} lacks weights of a SegFormer's encoder; give one that is whole")
        return Segmenter(network).float()  # from half precision, too, as `pansynth train region` writes


def pretrained_sha256(folder: Path) -> str:
    """Of the files that `build_segmenter` reads in a folder."""
    read = [folder / "config.json", *sorted(folder.glob("*.safetensors"))]
    return sha256("".join(map(file_sha256, read)).encode())


def learning_rate(backbone: str) -> float:
    """The peak learning rate that suits a backbone."""
    return BACKBONES[backbone].learning_rate if backbone in BACKBONES else FINE_TUNING_RATE


def check_backbone(backbone: str) -> None:
    """Raises ValueError for what `build_segmenter` does not know."""
    if backbone not in BACKBONES and not (Path(backbone) / "config.json").is_file():
        raise ValueError(
            f"backbone {backbone!r} is neither one of {', '.join(BACKBONES)} nor a folder with a config.json"
        )


def _config(backbone: str) -> SegformerConfig:
    size = BACKBONES[backbone]
    config = SegformerConfig(
        num_channels=1,
        depths=size.depths,
        hidden_sizes=size.channels,
        num_attention_heads=HEADS,
        decoder_hidden_size=size.decoder,
    )
    config.num_labels = 2
    return config


def predict(
    segmenter: Segmenter, images: Images, device: torch.device, before_batch: Callable[[], None] = lambda: None
) -> Masks:
    """Masks (N, H, W) bool of images (N, H, W) uint8; leaves the segmenter in evaluation mode."""
    segmenter.eval()
    found = np.empty(images.shape, np.bool_)
    for start in range(0, len(images), BATCH):
        rows = slice(start, start + BATCH)
        before_batch()
        with torch.inference_mode(), autocast(device):
            logits = segmenter(to_images(images[rows], device))
        found[rows] = (logits[:, 1] > logits[:, 0]).cpu().numpy()
    return found

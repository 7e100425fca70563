"""Where the anatomy lies in latent space, and the blend of two latents there."""

import torch
import torch.nn.functional as F
from torch import Tensor

LATENT_PIXEL = 8  # image pixels, in height and in width, under one latent pixel


def downsample_mask(masks: Tensor) -> Tensor:
    """Masks (B, 1, 256, 512) bool -> (B, 1, 32, 64) float32 in {0, 1}.

    1 where *any* of the 8 x 8 pixels is anatomy: nearest neighbour would lose a canal that is thinner than a
    latent pixel.
    """
    return F.max_pool2d(masks.float(), LATENT_PIXEL)


def dilate(masks: Tensor, dilation_latent_pixels: int) -> Tensor:
    """Masks (B, 1, H, W) in {0, 1}, grown by a square, so by as much diagonally."""
    if dilation_latent_pixels < 0:
        raise ValueError(f"dilation is {dilation_latent_pixels}; give 0 or more latent pixels")
    width = 2 * dilation_latent_pixels + 1
    return F.max_pool2d(masks, width, stride=1, padding=dilation_latent_pixels)


def blend(unlabeled_latent: Tensor, guide_latent: Tensor, anatomy_mask: Tensor) -> Tensor:
    """The guide where the mask is 1, the unlabeled image elsewhere.

    Latents (B, C, H, W) both, mask (B, 1, H, W) -> (B, C, H, W).

    Appendix A, lines 3-4, as printed multiplies the unlabeled latent by the mask and the guide's by its
    inverse. The sample's label is the guide's mask, which is true only if what lies under the mask comes from
    the guide, and the text calls the guide's latent the foreground: so the sign here is the other one.
    """
    return guide_latent * anatomy_mask + unlabeled_latent * (1 - anatomy_mask)


def image_band(anatomy_mask: Tensor) -> Tensor:
    """A latent mask (B, 1, 32, 64) -> the same squares in the image (B, 1, 256, 512), hard-edged."""
    return F.interpolate(anatomy_mask, scale_factor=LATENT_PIXEL, mode="nearest")


def soft_band(anatomy_mask: Tensor) -> Tensor:
    """A latent mask (B, 1, 32, 64) -> image weights (B, 1, 256, 512) in [0, 1], 1/2 on its border."""
    return F.interpolate(anatomy_mask, scale_factor=LATENT_PIXEL, mode="bilinear", align_corners=False)


def feathered_band(anatomy_mask: Tensor, masks: Tensor) -> Tensor:
    """Image weights (B, 1, 256, 512) in [0, 1]: 0 outside the latent mask, 1 on the anatomy.

    Both exactly. The weight rises over 7 pixels on the inner side of the border, by 1/8 a pixel, at the corners of
    the steps, too; so a mask dilated by one latent pixel or more has its whole seam between the anatomy and the
    border; without dilation the anatomy cuts into the seam.
    """
    outside = 1 - image_band(anatomy_mask)
    depth = 1 - outside  # in pixels from the border, up to 8
    for _ in range(LATENT_PIXEL - 1):
        outside = dilate(outside, 1)
        depth = depth + 1 - outside
    return torch.maximum(depth / LATENT_PIXEL, masks.float())

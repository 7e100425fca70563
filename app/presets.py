"""The presets of POST /synthesize: what the parameters are when a client names only the preset."""

from dataclasses import dataclass
from typing import Literal

Sampler = Literal["ddpm", "ddim"]


@dataclass(frozen=True)
class Preset:
    """How noise is added and removed, and which remedies are on; ARCHITECTURE.md says what each does."""

    steps: int
    start_timestep: int
    sampler: Sampler
    dilation: int  # latent pixels
    reblend: bool
    hold_anatomy: bool
    match_statistics: bool
    transfer_detail: bool
    restore_background: bool


PRESETS: dict[str, Preset] = {
    # The paper: blend once, then the last 25 of 1,000 ancestral steps.
    "paper": Preset(
        steps=25,
        start_timestep=25,
        sampler="ddpm",
        dilation=1,
        reblend=False,
        hold_anatomy=False,
        match_statistics=False,
        transfer_detail=False,
        restore_background=False,
    ),
    # The guide's canal takes on the look of the pool image, and the decoder's lost grain comes back.
    "harmonize": Preset(
        steps=25,
        start_timestep=250,
        sampler="ddpm",
        dilation=1,
        reblend=True,
        hold_anatomy=True,
        match_statistics=True,
        transfer_detail=True,
        restore_background=False,
    ),
}

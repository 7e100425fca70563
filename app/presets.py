"""The presets of POST /synthesize: what the parameters are when a client names only the preset."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

Sampler = Literal["ddpm", "ddim"]


@dataclass(frozen=True)
class Preset:
    """How noise is added and removed, and which remedies are on; README.md says what each does."""

    steps: int
    start_timestep: int
    sampler: Sampler
    dilation: int  # latent pixels
    reblend: bool
    hold_anatomy: bool
    match_statistics: bool
    transfer_detail: bool
    restore_background: bool
    align: bool  # before the recipe, which knows nothing of it

    def recipe(self) -> dict[str, Any]:
        """What a `models.synthesis.Recipe` takes, all but its method."""
        return {name: value for name, value in asdict(self).items() if name != "align"}


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
        align=False,
    ),
    # The guide is moved onto the pool image's anatomy, its canal takes on that image's look, and the decoder's lost
    # grain comes back.
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
        align=True,
    ),
}

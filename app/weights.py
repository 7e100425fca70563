"""Which weights there are, read from their manifests alone: this process never opens a network."""

import json
import logging
from dataclasses import dataclass
from pathlib import Path

from app.settings import Settings
from models import pixels

TRAINING_LATENTS = "training_latents.safetensors"  # written by `models.memorisation`

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Weights:
    """One folder of weights. `sha256` is of its manifest, which in turn names the sha256 of every file."""

    name: str
    folder: Path
    sha256: str
    created: str | None
    latent_channels: int | None
    total_bytes: int
    card: str
    has_denoiser: bool  # it is trained after the VAE
    knows_training_images: bool  # so that a sample's distance to them can be told


def shipped_folder() -> Path:
    return Path(pixels.__file__).parent / "weights"


def region_folder(settings: Settings) -> Path:
    """The region finder's weights: `region` in the user's folder, else the shipped ones."""
    own = settings.weights_dir / "region" if settings.weights_dir is not None else None
    return own if own is not None and (own / "manifest.json").is_file() else shipped_folder() / "region"


def list_weights(settings: Settings) -> dict[str, Weights]:
    """Weights by name; a folder of the user's comes before a shipped one of the same name."""
    found: dict[str, Weights] = {}
    for root in (shipped_folder(), settings.weights_dir):
        if root is None or not root.is_dir():
            continue
        for manifest in sorted(root.glob("*/manifest.json")):
            try:
                if (weights := read_weights(manifest)) is not None:
                    found[weights.name] = weights
            except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
                log.warning("weights in %s are left out, their manifest cannot be read: %r", manifest.parent, error)
    return found


def read_weights(manifest: Path) -> Weights | None:
    """None where it is a region finder's (`models.region`): that lies beside the weights, and no job can name it."""
    raw = manifest.read_bytes()
    content = json.loads(raw)
    if content.get("kind") == "region":
        return None
    card = manifest.with_name("card.md")
    return Weights(
        name=manifest.parent.name,
        folder=manifest.parent,
        sha256=pixels.sha256(raw),
        created=content.get("created"),
        latent_channels=content["latent"]["channels"],
        total_bytes=sum(file["bytes"] for file in content["files"].values()),
        card=card.read_text(encoding="utf-8") if card.is_file() else "",
        has_denoiser=any(name.startswith("denoiser/") for name in content["files"]),
        knows_training_images=TRAINING_LATENTS in content["files"],
    )

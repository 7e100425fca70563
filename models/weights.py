"""Weights on disk: diffusers' own folders beside a manifest that names every file by its sha256.

NAME/manifest.json  latent mean and scale, noise schedule, training facts, the files with their sha256
NAME/card.md        what the weights are, were trained on, and reach
NAME/vae/ NAME/denoiser/   config.json and diffusion_pytorch_model.safetensors, as `save_pretrained` writes them
NAME/training_latents.safetensors   sketches of the training images, see `models.memorisation`; may be missing
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from shlex import quote
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DModel

from models.denoiser import Denoiser
from models.memorisation import FILE as TRAINING_LATENTS
from models.memorisation import TrainingLatents, load_training_latents, save_training_latents
from models.pixels import file_sha256, sha256
from models.precision import settle
from models.schedule import Schedule
from models.sharing import whole
from models.vae import LATENT_SIZE, Vae

SAFE_SUFFIXES = {".json", ".safetensors", ".md"}  # pickles run code when they are read
REQUIRED = [
    f"{net}/{file}" for net in ("vae", "denoiser") for file in ("config.json", "diffusion_pytorch_model.safetensors")
]

FACTS = {  # what a manifest must say
    "name": (),
    "latent": ("channels", "patch_size", "mean", "scale"),
    "schedule": ("kind", "timesteps", "beta_start", "beta_end"),
    "training": (),
    "files": (),
}


class WeightsError(ValueError):
    """A folder of weights that is missing, incomplete, changed since it was written, or unsafe to read."""


@dataclass(frozen=True, eq=False)
class Networks:
    """The trained networks, in memory on `device` and ready for inference; `sha256` is that of their manifest.

    The denoiser is to be called by `models.synthesis.predict_noise`, and not to be saved again: its weights have the
    precision of `autocast` and the layout of the device.
    """

    name: str
    sha256: str
    vae: Vae
    denoiser: Denoiser
    schedule: Schedule
    device: torch.device
    training_latents: TrainingLatents | None = None


def load_networks(folder: Path, device: torch.device | str) -> Networks:
    """Read the weights in `folder` onto `device`. Raises WeightsError; nothing is ever unpickled."""
    manifest, raw = _read_manifest(folder)
    for name in REQUIRED:
        if name not in manifest["files"]:
            net = name.split("/")[0]
            train = f"pansynth train {net} --data FOLDER --out {quote(str(folder))}"
            raise WeightsError(f"weights {folder.name!r} lack {name}; train it: {train}")
    verify_files(folder, manifest["files"])
    unet = UNet2DModel.from_pretrained(
        folder / "denoiser", use_safetensors=True, low_cpu_mem_usage=False, local_files_only=True
    )
    channels = manifest["latent"]["channels"]
    if unet.config.in_channels != channels:
        raise WeightsError(
            f"the denoiser of {folder} takes {unet.config.in_channels} latent channels, its VAE has {channels!r}"
        )
    device = torch.device(device)
    denoiser = Denoiser(unet).to(device).eval().requires_grad_(False)
    latent = torch.zeros(1, unet.config.in_channels, *LATENT_SIZE, device=device)
    settle(denoiser, latent, torch.ones(1, dtype=torch.int64, device=device))
    return Networks(
        name=manifest["name"],
        sha256=sha256(raw),
        vae=_read_vae(folder, manifest).to(device).eval().requires_grad_(False),
        denoiser=denoiser,
        schedule=read_schedule(manifest),
        device=device,
        training_latents=load_training_latents(folder) if TRAINING_LATENTS in manifest["files"] else None,
    )


def load_vae(folder: Path) -> tuple[Vae, Schedule]:
    """The VAE alone, on the CPU, of a folder that may have no denoiser yet; the noise schedule. Raises WeightsError."""
    manifest, _ = _read_manifest(folder)
    verify_files(folder, {name: facts for name, facts in manifest["files"].items() if name.startswith("vae/")})
    return _read_vae(folder, manifest).eval(), read_schedule(manifest)


def save_vae(folder: Path, vae: Vae, facts: dict[str, Any]) -> None:
    """Write the VAE and a new manifest; a denoiser that was trained on another VAE's latents is removed.

    If the folder holds this very VAE already, nothing changes: neither the VAE nor what was trained on its latents.
    """
    latent = {
        "channels": vae.mean.shape[1],
        "patch_size": vae.patch_size,
        "mean": [round(value, 6) for value in vae.mean.flatten().tolist()],
        "scale": [round(value, 6) for value in vae.scale.flatten().tolist()],
    }
    if _holds(folder, vae, latent):
        return
    vae.autoencoder.save_pretrained(folder / "vae", safe_serialization=True)
    for stale in [*(folder / "denoiser").glob("*"), folder / TRAINING_LATENTS]:
        stale.unlink(missing_ok=True)
    schedule = {"kind": "linear", "beta_start": 1e-4, "beta_end": 0.02, "timesteps": 1000}
    write_manifest(folder, {"latent": latent, "schedule": schedule, "training": {"vae": facts}}, _files(folder))


def _holds(folder: Path, vae: Vae, latent: dict[str, Any]) -> bool:
    """Whether the folder's VAE has the same weights, and a manifest that says the same of its latents."""
    try:
        manifest, there = _read_manifest(folder)[0], load_vae(folder)[0].autoencoder.state_dict()
    except WeightsError:
        return False
    own = vae.autoencoder.state_dict()
    same = there.keys() == own.keys() and all(torch.equal(there[name], own[name].cpu()) for name in own)
    return same and bool(manifest["latent"] == latent)


def save_denoiser(
    folder: Path, denoiser: Denoiser, facts: dict[str, Any], training_latents: TrainingLatents | None = None
) -> None:
    """Write the denoiser, and what is kept of its training images, beside the VAE whose latents it was trained on."""
    denoiser.unet.save_pretrained(folder / "denoiser", safe_serialization=True)
    manifest, _ = _read_manifest(folder)
    manifest["training"]["denoiser"] = facts
    if training_latents is None:
        (folder / TRAINING_LATENTS).unlink(missing_ok=True)
    else:
        save_training_latents(folder, training_latents)
    write_manifest(folder, manifest, _files(folder))


def check_place(folder: Path, kind: str = "VAE") -> None:
    """Raises WeightsError where `folder` holds weights of another kind, whose manifest would be overwritten."""
    if not (folder / "manifest.json").exists():
        return
    manifest, _ = read_json(folder)
    found = manifest.get("kind") or ("VAE" if "latent" in manifest else "segmenter")  # these two do not say so
    if found != kind:
        held = "a region finder" if found == "region" else f"a {found}"
        raise WeightsError(f"{folder} holds {held}, whose manifest would be lost; take another --out")


def read_schedule(manifest: dict[str, Any]) -> Schedule:
    """The noise schedule that a manifest names; only `linear` is known, as in the paper."""
    schedule = manifest["schedule"]
    if schedule["kind"] != "linear":
        raise WeightsError(f"noise schedule {schedule['kind']!r} is not known; only 'linear' is")
    with _as_manifest_says(schedule):
        return Schedule.linear(schedule["timesteps"], schedule["beta_start"], schedule["beta_end"])


def _read_vae(folder: Path, manifest: dict[str, Any]) -> Vae:
    latent = manifest["latent"]
    autoencoder = AutoencoderKL.from_pretrained(
        folder / "vae", use_safetensors=True, low_cpu_mem_usage=False, local_files_only=True
    )
    with _as_manifest_says(latent):
        return Vae(autoencoder, latent["patch_size"], torch.tensor(latent["mean"]), torch.tensor(latent["scale"]))


@contextmanager
def _as_manifest_says(entry: dict[str, Any]) -> Iterator[None]:
    """WeightsError for what can be made of no such entry: somebody has edited it."""
    try:
        yield
    except (TypeError, ValueError, RuntimeError) as error:
        raise WeightsError(f"the manifest's entry {entry} cannot be used: {error}") from error


def _read_manifest(folder: Path) -> tuple[dict[str, Any], bytes]:
    manifest, raw = read_json(folder)
    if missing := sorted(_missing(manifest, FACTS)):
        raise WeightsError(f"{folder / 'manifest.json'} lacks {', '.join(missing)}")
    return manifest, raw


def _missing(entries: dict[str, Any], needed: Mapping[str, Iterable[str]]) -> set[str]:
    """Which entries, as `latent` or `latent.mean`, a manifest lacks of those that are needed."""
    missing = needed.keys() - entries.keys()
    for name in needed.keys() & entries.keys():
        inner = entries[name] if isinstance(entries[name], dict) else {}
        missing |= {f"{name}.{key}" for key in needed[name] if key not in inner}
    return missing


def read_json(folder: Path) -> tuple[dict[str, Any], bytes]:
    """The manifest in `folder`, whatever kind of weights it is of, and its bytes. Raises WeightsError."""
    path = folder / "manifest.json"
    try:
        raw = path.read_bytes()
        manifest = json.loads(raw)
    except FileNotFoundError:
        raise WeightsError(f"{folder} holds no weights: there is no manifest.json in it") from None
    except ValueError as error:
        raise WeightsError(f"{path} is not JSON: {error}") from None
    manifest = manifest if isinstance(manifest, dict) else {}
    files = manifest.get("files", {})
    if not isinstance(files, dict) or not all(isinstance(facts, dict) for facts in files.values()):
        raise WeightsError(f"{path}: `files` is to hold an object for every file, with its sha256")
    return manifest, raw


def verify_files(folder: Path, files: dict[str, dict[str, Any]]) -> None:
    """Raises WeightsError unless every file of a manifest's `files` is there, unchanged and safe to read."""
    for name, facts in files.items():
        path = folder / name
        if path.suffix not in SAFE_SUFFIXES or ".." in Path(name).parts or Path(name).is_absolute():
            raise WeightsError(
                f"weights {folder.name!r} name {name!r}; only .safetensors and .json inside the folder are read"
            )
        if not path.is_file():
            raise WeightsError(f"weights {folder.name!r} lack the file {name} of their manifest")
        if (found := file_sha256(path)) != (said := facts.get("sha256")):
            raise WeightsError(f"{path} has sha256 {found}, its manifest says {said}; restore or retrain it")


def _files(folder: Path) -> list[Path]:
    found = (path for pattern in ("vae/*", "denoiser/*", TRAINING_LATENTS) for path in folder.glob(pattern))
    return [path for path in found if path.suffix in SAFE_SUFFIXES]


def write_manifest(folder: Path, facts: dict[str, Any], files: Iterable[Path]) -> None:
    """Write the manifest of `files`, which lie in `folder`; `facts` are its further entries."""
    described = {
        path.relative_to(folder).as_posix(): {"sha256": file_sha256(path), "bytes": path.stat().st_size}
        for path in sorted(files)
    }
    own = {"name": folder.name, "created": datetime.now(UTC).isoformat(timespec="seconds")}
    # `own` comes first in the file, and also wins over an older manifest's entries, which `facts` may be.
    manifest = own | facts | own | {"files": described}
    path = folder / "manifest.json"
    with whole(path) as file:
        file.write((json.dumps(manifest, indent=2) + "\n").encode())
    for name in described:  # safetensors' files are readable by their owner alone; the service may be another user
        (folder / name).chmod(path.stat().st_mode)

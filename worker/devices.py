"""The device that a worker computes on."""

import torch


def choose_device(device: str) -> torch.device:
    """`auto` is the first CUDA device, else the CPU."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(device)


def use_device(device: torch.device) -> None:
    """Make a GPU torch's current one, or `torch.cuda.empty_cache` would take some of the first one's memory.

    Convolutions in float32 are then computed as such: the VAE's latents rank the pool, and its pixels are what is seen.
    Raises RuntimeError for a GPU that is not there, or whose driver is too old, which counting does not tell. That must
    be at the worker's start, or every step it claims would fail.
    """
    if device.type != "cuda":
        return
    if (device.index or 0) >= (count := torch.cuda.device_count()):
        raise RuntimeError(f"PANSYNTH_DEVICE says {device}, and torch finds {count} CUDA GPUs here")
    torch.cuda.set_device(device.index or 0)
    torch.backends.cudnn.allow_tf32 = False  # it would keep 10 of float32's 23 bits

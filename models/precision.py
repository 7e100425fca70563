"""In which precision and layout networks compute."""

import torch
from torch import nn


def autocast(device: torch.device) -> torch.autocast:
    """bfloat16 where the device multiplies it natively, else float32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=has_bfloat16(device))


def has_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        native: bool = torch.cuda.is_bf16_supported(including_emulation=False)
        return native
    return torch.cpu._is_avx512_bf16_supported()


def memory_format(device: torch.device) -> torch.memory_format:
    """The layout for convolutions: channels last for a GPU's matrix units; on a CPU it costs a tenth."""
    return torch.channels_last if device.type == "cuda" else torch.contiguous_format


def settle(network: nn.Module, device: torch.device) -> None:
    """Make ready a network that is only called under `autocast`, in place: its weights are rounded once.

    `autocast` would round them at every call, to the same bits, in a tenth of a CPU's time.
    """
    if has_bfloat16(device):
        for module in network.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                module.bfloat16()

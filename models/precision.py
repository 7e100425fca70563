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
    """The layout for convolutions: channels last for the matrix units of GPUs and of CPUs that have them (AMX).

    On other CPUs it costs a tenth.
    """
    has_matrix_units = device.type == "cuda" or torch.cpu._is_amx_tile_supported()
    return torch.channels_last if has_matrix_units else torch.contiguous_format


def settle(network: nn.Module, device: torch.device) -> None:
    """Make ready a network that is only called under `autocast`, in place: its weights are rounded once.

    `autocast` would round them at every call, to the same bits, in a tenth of a CPU's time. The layout is a CPU's own;
    on a GPU another one has not been measured.
    """
    if has_bfloat16(device):
        for module in network.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                module.bfloat16()
    if device.type == "cpu":
        network.to(memory_format=memory_format(device))  # type: ignore[call-overload]

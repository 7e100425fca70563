"""In which precision and layout networks compute."""

import torch


def autocast(device: torch.device) -> torch.autocast:
    """bfloat16 where the device multiplies it natively, else float32."""
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.autocast("cuda", torch.bfloat16, enabled=native)
    return torch.autocast("cpu", torch.bfloat16, enabled=torch.cpu._is_avx512_bf16_supported())


def memory_format(device: torch.device) -> torch.memory_format:
    """The layout for convolutions: channels last for a GPU's matrix units; on a CPU it costs a tenth."""
    return torch.channels_last if device.type == "cuda" else torch.contiguous_format

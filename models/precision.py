"""In which precision and layout networks compute."""

import torch
from torch import Tensor, nn

from models.batches import threads_of_one_core


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

    On other CPUs channels last costs a tenth of the time.
    """
    has_matrix_units = device.type == "cuda" or torch.cpu._is_amx_tile_supported()
    return torch.channels_last if has_matrix_units else torch.contiguous_format


def settle(network: nn.Module, *rows: Tensor) -> None:
    """Make ready a network that is only called under `autocast`, in place, for inputs of the shapes of `rows`.

    Its weights are rounded once: `autocast` would round them at every call, to the same bits, in a tenth of a CPU's
    time. On a CPU of the x86 family they are laid out once, too, as each kernel wants them; on another they get the
    `memory_format`; on a GPU they keep theirs, as no other has been measured.
    """
    device = rows[0].device
    if has_bfloat16(device):
        for module in network.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                module.bfloat16()
    if device.type != "cpu":
        return
    if torch.backends.mkldnn.is_available() and torch.backends.cpu.get_cpu_capability().startswith("AVX"):
        # On one core, as it will be called: the layout may depend on the number of threads, and the bits on it.
        with threads_of_one_core("packing", 1) as thread:
            thread.submit(_pack, network, *rows).result()
    else:
        network.to(memory_format=memory_format(device))  # type: ignore[call-overload]


def _pack(network: nn.Module, *rows: Tensor) -> None:
    """Put a `PackedConvolution` in the place of every convolution that `network(*rows)` calls."""
    shapes: dict[nn.Module, torch.Size] = {}

    def note(module: nn.Module, inputs: tuple[Tensor], _: Tensor) -> None:
        shapes[module] = inputs[0].shape

    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    hooks = [convolution.register_forward_hook(note) for convolution in convolutions]
    with torch.inference_mode(), autocast(rows[0].device):
        network(*rows)
    for hook in hooks:
        hook.remove()
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.Conv2d) and child in shapes:
                setattr(parent, name, PackedConvolution(child, shapes[child]))


class PackedConvolution(nn.Module):
    """A convolution on a CPU whose weights lie as its kernel reads them, for inputs of one shape.

    torch lays them out anew at every call, which takes a fifth of the denoiser's time. Its compiler does it once, by
    the two operations used here. For inputs of other shapes the result is the same, but may take longer.
    """

    def __init__(self, convolution: nn.Conv2d, shape: torch.Size) -> None:
        super().__init__()
        self._how = [convolution.padding, convolution.stride, convolution.dilation, convolution.groups]
        self._weight = torch.ops.mkldnn._reorder_convolution_weight(convolution.weight, *self._how, shape)
        self._bias = convolution.bias

    def forward(self, rows: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H', W'), in the weights' precision."""
        convolve, rows = torch.ops.mkldnn._convolution_pointwise, rows.to(self._weight.dtype)
        result: Tensor = convolve(rows, self._weight, self._bias, *self._how, "none", [], "")  # nothing comes after it
        return result

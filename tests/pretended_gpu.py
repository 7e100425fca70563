"""A GPU that is not there: what is moved to it stays in this machine's memory, but must not meet what was not.

Of a real one it has the rule that all tensors of an operation lie on one device, numbers, copies and indices apart, and
that numpy cannot read them; nothing of its speed, memory and rounding.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

GPU = torch.device("cuda:0")
# The first tensor says where the result lies.
MAY_MIX = ("aten.copy_", "aten._to_copy", "aten.index.", "aten.index_put")
DEVICE, IS_CUDA = torch.Tensor.device.__get__, torch.Tensor.is_cuda.__get__  # type: ignore[attr-defined]


@contextmanager
def pretended_gpu() -> Iterator[torch.device]:
    """Within it `cuda` is a device, to which tensors and modules are moved as to any."""
    there = _There()
    with _Operations(there), _Calls(there):
        yield GPU


class _There:
    """The storages that lie on the GPU; all are kept, or another would get the address of one that is gone."""

    def __init__(self) -> None:
        self._storages: dict[int, torch.UntypedStorage] = {}

    def __contains__(self, tensor: object) -> bool:
        return isinstance(tensor, Tensor) and tensor.untyped_storage()._cdata in self._storages

    def put(self, made: Any) -> Any:
        for tensor in _tensors(made):
            self._storages[tensor.untyped_storage()._cdata] = tensor.untyped_storage()
        return made

    def take(self, tensor: Tensor) -> Tensor:
        del self._storages[tensor.untyped_storage()._cdata]
        return tensor


class _Operations(TorchDispatchMode):
    """Every operation, also of the backward pass."""

    def __init__(self, there: _There) -> None:
        super().__init__()
        self._there = there

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = _tensors((args, kwargs))
        on_gpu = [tensor in self._there for tensor in given]
        may_mix = str(func).startswith(MAY_MIX)
        if any(on_gpu) and not may_mix:
            others = [tensor for tensor, there in zip(given, on_gpu, strict=True) if not there and tensor.dim() > 0]
            if others:
                raise RuntimeError(f"{func}: expected all tensors to be on the same device, cuda:0; some are on cpu")
        made = func(*args, **(kwargs or {}))
        return self._there.put(made) if (on_gpu[:1] == [True] if may_mix else any(on_gpu)) else made


class _Calls(TorchFunctionMode):
    """What names a device: moves, new tensors, and questions where a tensor is."""

    def __init__(self, there: _There) -> None:
        super().__init__()
        self._there = there

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in (DEVICE, IS_CUDA) and args[0] in self._there:
            return GPU if func == DEVICE else True
        if func is Tensor.numpy and args[0] in self._there:
            raise TypeError("can't convert cuda:0 device type tensor to numpy")
        if func in (Tensor.to, Tensor.cpu):
            return self._moved(args[0], [torch.device("cpu")] if func is Tensor.cpu else args[1:], kwargs)
        if _is_gpu(kwargs.get("device")):
            return self._there.put(func(*args, **{**kwargs, "device": "cpu"}))
        return func(*args, **kwargs)

    def _moved(self, tensor: Tensor, wanted: Sequence[Any], options: Mapping[str, Any]) -> Tensor:
        """`Tensor.to` in all its forms: a device, a type, or another tensor's both."""
        before = after = tensor in self._there
        rest = {name: value for name, value in options.items() if name not in ("device", "non_blocking")}
        for one in [*wanted, options.get("device")]:
            if isinstance(one, Tensor):
                after, rest["dtype"] = one in self._there, one.dtype
            elif isinstance(one, (torch.device, str)):
                after = _is_gpu(one)
            elif isinstance(one, torch.dtype):
                rest["dtype"] = one
        if rest:
            tensor = tensor.to(**{"dtype": tensor.dtype, **rest})
        if after == before:
            return tensor
        return self._there.put(tensor.clone()) if after else self._there.take(tensor.clone())


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def _is_gpu(device: Any) -> bool:
    return isinstance(device, (torch.device, str)) and torch.device(device).type == "cuda"

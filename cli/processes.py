"""The processes of a training: one, or as many as `torchrun` started."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from cli.failure import Failure, Interrupted

if TYPE_CHECKING:
    import torch

OneDevice = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N. Under torchrun every process takes its own GPU.")]
Seed = Annotated[int, typer.Option(min=0, max=2**63 - 1)]  # as of a synthesis; from 2**64 on torch takes none

DAY = timedelta(days=1)  # process 0 may read images for hours while the others wait


@contextmanager
def joined(name: str) -> "Iterator[torch.device]":
    """Join the processes that `torchrun` started, if it did; yields this one's device. Raises Failure.

    They part where all went well alone. NCCL's parting waits for every process: after a failure of this one the others
    would wait in the middle of a step, and this one for them. So it just ends, and torchrun ends the others.
    """
    import torch
    import torch.distributed as dist

    device = choose_device(name)
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")  # TF32, where autocast leaves float32
    if not _under_torchrun():
        yield device
        return
    if device.type == "cuda":
        device = choose_device(f"cuda:{os.environ['LOCAL_RANK']}")
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=DAY)
    yield device
    dist.destroy_process_group()


@contextmanager
def in_words(for_memory: str = "give a smaller --batch") -> Iterator[None]:
    """A line instead of a traceback for data or numbers that cannot be trained on, or are too many at once or for the
    disk; and for Ctrl-C.

    for_memory: what helps where memory runs out.
    """
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted("interrupted; the same command goes on from its last checkpoint, if there is one") from None
    except (ValueError, FloatingPointError) as error:
        raise Failure(str(error)) from None
    except Exception as error:
        from safetensors import SafetensorError

        from models.memory import is_out_of_memory

        if isinstance(error, SafetensorError):  # also what its library says of a full disk
            raise Failure(f"a file of weights cannot be read or written: {error}") from None
        if not is_out_of_memory(error):
            raise
        raise Failure(f"out of memory; {for_memory}") from None


def only_device(name: str) -> "torch.device":
    """`choose_device` for what works in one process: several would all write the same files. Raises Failure."""
    if _under_torchrun():
        raise Failure("this command works in one process; start it without torchrun")
    return choose_device(name)


def choose_device(name: str) -> "torch.device":
    """auto: the GPU if there is one; a GPU that is named becomes torch's current one.

    Raises Failure for a name that is none, or of a GPU that is not there.
    """
    import torch

    from app.settings import DEVICES
    from worker import devices

    if not re.fullmatch(DEVICES, name):
        raise Failure(f"--device {name!r}: give auto, cpu, cuda or cuda:N")
    device = devices.choose_device(name)
    if device.type == "cuda" and (device.index or 0) >= (count := torch.cuda.device_count()):
        raise Failure(
            f"--device {name}: torch finds {count} CUDA GPUs here; give another, cpu, or torchrun fewer processes"
        )
    if device.index is not None:
        torch.cuda.set_device(device)
    return device


def _under_torchrun() -> bool:
    return "TORCHELASTIC_RUN_ID" in os.environ

"""Networks stay in memory from one step to the next; a few at a time, by name."""

import logging
from collections import OrderedDict
from math import ceil
from threading import Lock

import torch

from app.errors import LastingError
from app.settings import Settings
from app.weights import Weights, list_weights, region_folder
from models import pixels
from models.region import load_region
from models.segmenter import Segmenter
from models.weights import Networks, load_networks
from worker.devices import choose_device

log = logging.getLogger(__name__)

KEPT = 2  # networks in memory at once


class WarmNetworks:
    """Loads networks by the name of their weights, and keeps those used last."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._loaded: OrderedDict[str, Networks] = OrderedDict()  # by manifest sha256, the last used at the end
        self._region_finder: tuple[str, Segmenter] | None = None  # manifest sha256, the finder
        self._finding = Lock()  # an import's threads would each load it
        self.device = choose_device(settings.device)

    def names(self) -> list[str]:
        """The networks in memory."""
        return sorted({networks.name for networks in list(self._loaded.values())})

    def gpu_memory(self) -> dict[str, int] | None:
        """Bytes `used`, by any process, and `total` of the GPU; None on a CPU.

        Also None until this process has memory there, since asking alone would take some; and where the GPU does not
        answer, which must not look like a dead worker.
        """
        if self.device.type != "cuda" or not torch.cuda.memory_reserved(self.device):
            return None
        try:
            free, total = torch.cuda.mem_get_info(self.device)
        except RuntimeError:
            return None
        return {"used": total - free, "total": total}

    def available(self, name: str) -> bool:
        return name in list_weights(self._settings)

    def weights(self, name: str) -> Weights:
        """What the manifest says of these weights, as they lie on the disk now. Raises LastingError."""
        found = list_weights(self._settings).get(name)
        if found is None:
            raise LastingError(
                f"this worker has no weights {name!r}; put them into PANSYNTH_WEIGHTS_DIR on every worker"
            )
        return found

    def region_finder(self) -> Segmenter:
        """The finder of the region of interest: the user's `region` beside the weights, else the shipped one.

        The one that lies there now: it may come, or be trained anew, while this process lives. Always on the CPU, so
        that a crop does not depend on the worker's device.
        """
        folder = region_folder(self._settings)
        sha256 = pixels.sha256((folder / "manifest.json").read_bytes())
        with self._finding:
            if self._region_finder is None or self._region_finder[0] != sha256:
                self._region_finder = sha256, load_region(folder)
            return self._region_finder[1]

    def get(self, name: str, sha256: str | None = None) -> Networks:
        """The networks of these weights, loaded if need be. Raises LastingError, also if they changed."""
        weights = self.weights(name)
        check_same_weights(weights, sha256)
        if weights.sha256 not in self._loaded:
            while len(self._loaded) >= KEPT:
                self._loaded.popitem(last=False)
            log.info("loading weights %s onto %s", name, self.device)
            self._loaded[weights.sha256] = load_networks(weights.folder, self.device)
        self._loaded.move_to_end(weights.sha256)
        return self._loaded[weights.sha256]


def check_same_weights(weights: Weights, sha256: str | None) -> None:
    """One dataset comes from one network. Raises LastingError."""
    if sha256 is not None and weights.sha256 != sha256:
        raise LastingError(
            f"weights {weights.name!r} changed while the job ran (manifest {sha256[:12]} before, "
            f"{weights.sha256[:12]} now); submit the job again"
        )


def batch_size(device: torch.device) -> int:
    """Images to a call of the networks: always the same, see `models.batches`. With 64 an H100 waits for its CPU."""
    return 1 if device.type == "cpu" else 128


def for_all_cores(least: int, rounds: int = 1) -> int:
    """`least` samples or more, so that every core of a CPU gets as many, and `rounds` or more: one core makes one."""
    cores = torch.get_num_threads()
    return cores * max(rounds, ceil(least / cores))

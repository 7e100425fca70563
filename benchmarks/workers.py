"""How much more two workers make than one: whole services in turns, each worker on a core of its own.

A turn is a service as `pansynth up` starts it (API, bundled broker, SQLite), warm: a small job before has loaded the
networks of every worker. Its pace is the samples of one job over the time from the job's stage `sampling`, when the
first step of samples can be claimed, to the commit of its last sample, as a client sees them that asks four times a
second. The end, when one worker has nothing left to do, is part of it. API, broker and client run on the same cores.
"""

import os
import re
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import psutil

from cli.client import wait
from tests.system.running import Radiographs, embedded, import_pool, quiet, submit_job, write_radiographs
from tests.tiny import make_tiny_weights
from worker.heartbeat import BEAT_SECONDS

GUIDES = 8
EVEN = 16  # samples: a step of 8 for each of two workers, so that neither has one more to do
POLL_SECONDS = 0.25
GOAL = 1.8


def measure_workers(samples: int, rounds: int, tiny: bool, cores: Sequence[int]) -> None:
    """One worker on the first of two cores, then two on both, `rounds` times; `samples` is rounded up to 16s."""
    top_k = -(-samples // EVEN) * EVEN // GUIDES
    busy = f"load before {os.getloadavg()[0]:.1f}"
    print(f"workers  {GUIDES * top_k} samples a job, cores {cores[0]} and {cores[1]}, {busy}", flush=True)
    paces: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory(prefix="pansynth-workers-") as name:
        folder = Path(name)
        (folder / "weights").mkdir()
        if tiny:
            make_tiny_weights(folder / "weights" / "default")
        radiographs = write_radiographs(folder, seed=700_002, guides=GUIDES, pool=max(top_k, 2))
        for turn in range(1, rounds + 1):
            one, two = (pace(folder / f"{turn}-{n}", radiographs, top_k, cores[:n]) for n in (1, 2))
            paces.append((one, two))
            words = f"one worker {one:.3f} samples/s, two {two:.3f}, ratio {two / one:.3f}"
            print(f"workers  round {turn}: {words}", flush=True)
    print(f"workers  {verdict(paces)}", flush=True)


def verdict(paces: Sequence[tuple[float, float]]) -> str:
    """The ratio of (one worker's, two workers') paces, its spread over the rounds, and whether it is the goal's."""
    ratios = sorted(two / one for one, two in paces)
    middle = statistics.median(ratios)
    reached = "reached" if middle >= GOAL else "missed"
    spread = f"median {middle:.3f}, {ratios[0]:.3f} to {ratios[-1]:.3f} over {len(ratios)} rounds"
    return f"two workers to one: {spread}; the goal {GOAL} is {reached}"


def pace(data_dir: Path, radiographs: Radiographs, top_k: int, cores: Sequence[int]) -> float:
    """Samples a second of a fresh service with a worker on each of the cores."""
    weights_dir = data_dir.parent / "weights"
    # Of its core a worker gets one thread, also if it counted the cores before it was put on one.
    one_thread = {"OMP_NUM_THREADS": "1"}
    with embedded(data_dir, weights_dir, len(cores), environment=one_thread) as service, service.client() as client:
        for worker, core in zip(service.workers(), cores, strict=True):
            pin(worker, core)
        import_pool(client, radiographs)
        warm_up(client, radiographs, len(cores))
        job = submit_job(client, radiographs, {"pool": "held", "top_k": top_k, "seed": 7})
        seconds = sampling_seconds(client, job)
        wait(client, job, quiet)
    return GUIDES * top_k / seconds


def pin(worker: psutil.Process, core: int) -> None:
    """Put a worker and what it forked, every thread of them, on one core; what these start stays there."""
    for process in (worker, *worker.children(recursive=True)):
        for thread in process.threads():
            os.sched_setaffinity(thread.id, {core})


def warm_up(client: httpx.Client, radiographs: Radiographs, workers: int) -> None:
    """Small jobs until every worker has made a sample, and so has its networks in memory."""
    seed = 0
    while working(client) < workers:
        seed += 1
        wait(client, submit_job(client, radiographs, {"pool": "held", "top_k": workers, "seed": 100 + seed}), quiet)
        time.sleep(BEAT_SECONDS + 1)


def working(client: httpx.Client) -> int:
    """Workers that have made samples, as of their last sign of life."""
    counts = re.findall(r"^pansynth_samples_total\{.*\} (\S+)$", client.get("/metrics").text, re.MULTILINE)
    return sum(float(count) > 0 for count in counts)


def sampling_seconds(client: httpx.Client, job: dict[str, Any]) -> float:
    """From the first sample step to the last sample."""
    begun = None
    while True:
        job = client.get(job["links"]["self"]).raise_for_status().json()
        now = time.monotonic()
        if job["status"] in ("failed", "cancelled") or job["failed_samples"]:
            raise SystemExit(f"the job {job['status']}: {job['error'] or job['failed_samples']}")
        if begun is None and job["stage"] == "sampling":
            begun = now
        if job["progress"]["done"] == job["progress"]["total"]:
            if begun is None or now - begun < 4 * POLL_SECONDS:
                raise SystemExit("the samples were made too soon to be timed; give more of them")
            return now - begun
        time.sleep(POLL_SECONDS)

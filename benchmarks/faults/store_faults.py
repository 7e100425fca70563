"""Faults of what the service stands on: its stores, its clocks, its other version. See `faults`."""

import os
import random
import subprocess
from contextlib import suppress
from functools import partial

from benchmarks.faults.clocks import HOUR, set_clock
from benchmarks.faults.faults import Fault, NotInjected, tend_for
from benchmarks.faults.proxy import Mood
from benchmarks.faults.stack import PATIENCE_SECONDS, Stack
from benchmarks.faults.stores import restart
from benchmarks.faults.work import Broken, Client

AWAY_SECONDS = 4.0
HANGING, VERSIONS = "a step that hangs", "worker of the next version beside this one's"
HUNG = "nothing moved for"  # in the log of a worker whose step hangs


def disk_full(stack: Stack, client: Client, chance: random.Random) -> str | None:
    """Not a byte is free under the blobs, from a random moment on, for some seconds."""
    if stack.stores.disk is None:
        raise NotInjected
    job_id = client.submit()
    tend_for(stack, chance.uniform(0, client.job_seconds))
    filler = stack.stores.disk / "filler"
    with suppress(OSError), filler.open("wb") as out:
        while True:
            out.write(bytes(1 << 16))
            out.flush()
    tend_for(stack, chance.uniform(1, 2 * AWAY_SECONDS))
    filler.unlink()
    return client.result(job_id)


def disk_read_only(stack: Stack, client: Client, chance: random.Random) -> str | None:
    """The blobs' file system is mounted read-only for some seconds."""
    if stack.stores.disk is None:
        raise NotInjected
    job_id = client.submit()
    tend_for(stack, chance.uniform(0, client.job_seconds))

    def remount(mode: str) -> bool:
        command = ["mount", "-o", f"remount,{mode}", str(stack.stores.disk)]
        return subprocess.run(command, capture_output=True).returncode == 0

    if not stack.until(lambda: remount("ro"), 5.0):  # busy while a file is open for writing
        raise NotInjected
    tend_for(stack, chance.uniform(1, 2 * AWAY_SECONDS))
    remount("rw")
    return client.result(job_id)


def postgres_restarted(crash: bool, stack: Stack, client: Client, chance: random.Random) -> str | None:
    """PostgreSQL is stopped, or all of it killed, and comes back after a while."""
    if stack.stores.postgres is None:
        raise NotInjected
    job_id = client.submit()
    tend_for(stack, chance.uniform(0, client.job_seconds))
    restart(stack.stores.postgres, crash, chance.uniform(0, AWAY_SECONDS))
    return client.result(job_id)


def bucket_in_a_mood(mood: Mood, stack: Stack, client: Client, chance: random.Random) -> str | None:
    """Of the requests to the object store three in ten go wrong, for some seconds of a job or all of it."""
    bucket = stack.stores.bucket
    if bucket is None:
        raise NotInjected
    before = bucket.injected
    job_id = client.submit()
    bucket.mood = mood
    try:
        tend_for(stack, chance.uniform(AWAY_SECONDS, 3 * AWAY_SECONDS))
    finally:
        bucket.mood = "well"
    if bucket.injected == before:
        raise NotInjected
    return client.result(job_id)


def step_hangs(stack: Stack, client: Client, _chance: random.Random) -> str | None:
    """Reading a pool's image never ends: its blob is a pipe that nobody writes to, until a worker is ended for it."""
    if stack.stores.blob_url:
        raise NotInjected
    images = list((stack.data_dir / "blobs" / "pools").glob("*/images/*.png"))
    before = _said(stack, HUNG)
    for file in images:
        file.rename(file.with_suffix(".aside"))
        os.mkfifo(file)
    try:
        job_id = client.submit()
        hung = stack.until(lambda: _said(stack, HUNG) > before, PATIENCE_SECONDS)
    finally:
        for file in images:
            file.with_suffix(".aside").replace(file)
    if not hung:
        raise Broken("nobody noticed that the step hangs")
    return client.result(job_id)


def clock_set(hours: float, stack: Stack, client: Client, chance: random.Random) -> str | None:
    """The clock of one process is set, of the API or a worker, in the middle of a job, and right again later."""
    job_id = client.submit()
    name = chance.choice(["api", *stack.worker_names()])
    tend_for(stack, chance.uniform(0, client.job_seconds / 2))
    set_clock(stack.data_dir, name, hours * HOUR)
    try:
        tend_for(stack, chance.uniform(1, client.job_seconds))
        return client.result(job_id)
    finally:
        set_clock(stack.data_dir, name, 0)


def versions_side_by_side(stack: Stack, client: Client, chance: random.Random) -> str | None:
    """One worker is replaced by one of the next version during a job, and at its end by one of this again."""
    job_id = client.submit()
    name = chance.choice(stack.worker_names())
    tend_for(stack, chance.uniform(0, client.job_seconds))
    stack.newer.add(name)
    stack.kill(name)
    second = client.submit()
    try:
        made = client.result(second)
        if client.result(job_id) != made:
            raise Broken("jobs begun by different versions have other bytes")
        return made
    finally:
        stack.newer.discard(name)
        stack.kill(name)


def _said(stack: Stack, words: str) -> int:
    return sum((stack.data_dir / f"{name}.log").read_text().count(words) for name in stack.worker_names())


STORE_FAULTS: dict[str, Fault] = {
    "disk of the blobs full for 1 to 8 s": disk_full,
    "disk of the blobs read-only for 1 to 8 s": disk_read_only,
    "PostgreSQL stopped and started": partial(postgres_restarted, False),
    "kill -9 of PostgreSQL": partial(postgres_restarted, True),
    "object store answers 500, three requests in ten": partial(bucket_in_a_mood, "500"),
    "object store answers 2 s late, three requests in ten": partial(bucket_in_a_mood, "slow"),
    "object store's answers cut short, three in ten": partial(bucket_in_a_mood, "truncated"),
    HANGING: step_hangs,
    "clock of a process an hour ahead": partial(clock_set, 1),
    "clock of a process an hour back": partial(clock_set, -1),
    VERSIONS: versions_side_by_side,
}

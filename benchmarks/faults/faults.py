"""The faults. Each takes a job through its trouble and returns the sha256 of what came of it, or None where there is
to be nothing."""

import random
import signal
import socket
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterable
from contextlib import closing, suppress
from functools import partial
from uuid import uuid4

import psutil
import redis

from app import broker
from app.blobs import Blobs
from app.settings import broker_socket
from benchmarks.faults import points
from benchmarks.faults.stack import LEASE_SECONDS, Stack
from benchmarks.faults.work import Broken, Client

Fault = Callable[[Stack, Client, random.Random], str | None]

CANCEL_SECONDS = 2.0
GRACE_SECONDS = 15.0  # what docker-compose.yml gives


class NotInjected(Exception):
    """The moment passed by: no trial."""


def worker_killed(stack: Stack, client: Client, chance: random.Random) -> str | None:
    """kill -9 of the process that does the steps, at a random moment."""
    job_id = client.submit()
    tend_for(stack, chance.uniform(0, client.job_seconds))
    if (victim := stack.working(chance.choice(stack.worker_names()))) is None:
        raise NotInjected
    victim.kill()
    return client.result(job_id)


def worker_and_parent_killed(stack: Stack, client: Client, chance: random.Random) -> str | None:
    """kill -9 of a whole worker, its Celery parent too, at a random moment."""
    job_id = client.submit()
    tend_for(stack, chance.uniform(0, client.job_seconds))
    stack.kill(chance.choice(stack.worker_names()))
    return client.result(job_id)


def worker_told_to_end(stack: Stack, client: Client, chance: random.Random) -> str | None:
    """SIGTERM of a worker at a random moment, as with every deployment: it hands its step back and ends in order."""
    job_id = client.submit()
    tend_for(stack, chance.uniform(0, client.job_seconds))
    process = stack.processes[chance.choice(stack.worker_names())]
    process.terminate()
    try:
        status = process.wait(GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        raise Broken(f"a worker still ran {GRACE_SECONDS:g} s after it was told to end") from None
    if status == -signal.SIGTERM:
        raise NotInjected  # it had not begun
    if status:
        raise Broken(f"a worker that was told to end did so with status {status}")
    return client.result(job_id)


def worker_dies_at(point: str, stack: Stack, client: Client, _chance: random.Random) -> str | None:
    """kill -9 of a worker by itself at a named point."""
    points.arm(stack.data_dir, point)
    job_id = client.submit()
    made = client.result(job_id)
    if points.disarm(stack.data_dir):
        raise NotInjected
    return made


def api_dies_at(point: str, stack: Stack, client: Client, _chance: random.Random) -> str | None:
    """kill -9 of the API by itself at a named point; the client sends again with the same key."""
    points.arm(stack.data_dir, point)
    job_id = client.submit()
    if points.disarm(stack.data_dir):
        raise NotInjected
    return client.result(job_id)


def api_killed_in_an_upload(stack: Stack, client: Client, chance: random.Random) -> str | None:
    """kill -9 of the API when a random part of a form has come; the client sends again with the same key."""
    key = uuid4().hex
    request = client.submission(key)
    body = request.read()
    lines = [f"POST {request.url.path} HTTP/1.1", *(f"{name}: {value}" for name, value in request.headers.items())]
    with socket.create_connection(("127.0.0.1", stack.port), timeout=10) as wire:
        wire.sendall("\r\n".join([*lines, "", ""]).encode() + body[: chance.randrange(len(body))])
        time.sleep(0.05)
        stack.kill("api")
    return client.result(client.submit(key))


def everything_killed(stack: Stack, client: Client, chance: random.Random) -> str | None:
    """kill -9 of every process at a random moment, then a start."""
    job_id = client.submit()
    tend_for(stack, chance.uniform(0, client.job_seconds))
    names = stack.names()
    chance.shuffle(names)
    for name in names:
        stack.kill(name)
    return client.result(job_id)


def broker_killed(stack: Stack, client: Client, chance: random.Random) -> str | None:
    """kill -9 of the broker, which keeps nothing; it is back at once."""
    job_id = client.submit()
    tend_for(stack, chance.uniform(0, client.job_seconds))
    stack.kill("broker")
    return client.result(job_id)


def broker_wiped(stack: Stack, client: Client, chance: random.Random) -> str | None:
    """FLUSHALL, several times."""
    job_id = client.submit()
    with redis.Redis(unix_socket_path=str(broker_socket(stack.data_dir))) as server:
        for _ in range(3):
            server.flushall()
            tend_for(stack, chance.uniform(0, client.job_seconds / 3))
    return client.result(job_id)


def broker_away(seconds: float, stack: Stack, client: Client, chance: random.Random) -> str | None:
    """No broker for a while; the job is submitted in that time or just before."""
    early = client.submit() if chance.random() < 0.5 else None
    stack.paused.add("broker")
    stack.kill("broker")
    job_id = early or client.submit()
    tend_for(stack, seconds)
    stack.paused.discard("broker")
    return client.result(job_id)


def messages_multiplied(stack: Stack, client: Client, chance: random.Random) -> str | None:
    """Every message five times and out of order, again and again while the job lasts."""
    job_id = client.submit()
    with redis.Redis(unix_socket_path=str(broker_socket(stack.data_dir))) as server:
        for _ in range(6):
            broker.wake(stack.celery, job_id)
            broker.wake(stack.celery, uuid4().hex)  # of no job
            waiting = server.lrange(broker.QUEUE, 0, -1)
            many = [message for message in waiting for _ in range(4)]
            chance.shuffle(many)
            if many:
                server.rpush(broker.QUEUE, *many)
            tend_for(stack, chance.uniform(0, 0.5))
    return client.result(job_id)


def worker_stopped(stack: Stack, client: Client, chance: random.Random) -> str | None:
    """SIGSTOP of a worker's process for longer than its lease, then SIGCONT."""
    job_id = client.submit()
    tend_for(stack, chance.uniform(0, client.job_seconds))
    victim = stack.working(chance.choice(stack.worker_names()))
    if victim is None:
        raise NotInjected
    with suppress(psutil.NoSuchProcess):
        victim.send_signal(signal.SIGSTOP)
        tend_for(stack, LEASE_SECONDS + chance.uniform(1, 3))
        victim.send_signal(signal.SIGCONT)
    return client.result(job_id)


def database_locked(stack: Stack, client: Client, chance: random.Random) -> str | None:
    """Another writer holds SQLite's lock for some seconds."""
    if stack.stores.database_url:
        raise NotInjected
    job_id = client.submit()
    tend_for(stack, chance.uniform(0, client.job_seconds))
    with closing(sqlite3.connect(stack.data_dir / "pansynth.sqlite", isolation_level=None, timeout=30)) as other:
        other.execute("BEGIN IMMEDIATE")
        time.sleep(chance.uniform(1, 2 * LEASE_SECONDS))
        other.execute("ROLLBACK")
    return client.result(job_id)


def cancelled(stack: Stack, client: Client, chance: random.Random) -> str | None:
    """A cancellation at a random step: it ends within two seconds, and nothing is written after."""
    job_id = client.submit()
    tend_for(stack, chance.uniform(0, client.job_seconds))
    asked = time.monotonic()
    if client.ask("POST", f"/jobs/{job_id}/cancel").status_code == 409:
        raise NotInjected  # it had ended
    status = client.wait(job_id)["status"]
    took = time.monotonic() - asked
    blobs = Blobs(stack.settings.blobs())
    before = set(blobs.list(f"jobs/{job_id}/"))
    tend_for(stack, 1.0)
    written = set(blobs.list(f"jobs/{job_id}/")) - before
    if status != "cancelled" or written:
        raise Broken(f"the job is {status}; written after the end: {written}")
    if took > CANCEL_SECONDS:
        raise Broken(f"the cancellation took {took:.1f} s, {CANCEL_SECONDS} s are allowed")
    return None


def tend_for(stack: Stack, seconds: float) -> None:
    stack.until(lambda: False, seconds)


def at_points(names: Iterable[str]) -> dict[str, Fault]:
    return {f"kill -9 of a worker {point}": partial(worker_dies_at, point) for point in names}


FAULTS: dict[str, Fault] = {
    "kill -9 of a worker's process, any moment": worker_killed,
    "kill -9 of a worker and its parent, any moment": worker_and_parent_killed,
    "SIGTERM of a worker, any moment": worker_told_to_end,
    **at_points(points.WORKER_POINTS + points.SYNTHESIS_POINTS + points.EVALUATION_POINTS + points.IMPORT_POINTS),
    "kill -9 of the API in the middle of an upload": api_killed_in_an_upload,
    **{f"kill -9 of the API {point}": partial(api_dies_at, point) for point in points.API_POINTS},
    "kill -9 of everything, then a start": everything_killed,
    "kill -9 of the broker": broker_killed,
    "broker wiped (FLUSHALL)": broker_wiped,
    "broker away for 30 s": partial(broker_away, 30.0),
    "every message five times, out of order": messages_multiplied,
    "SIGSTOP of a worker past its lease, then SIGCONT": worker_stopped,
    "SQLite locked by another writer for 1 to 8 s": database_locked,
    "cancelled at any moment": cancelled,
}
